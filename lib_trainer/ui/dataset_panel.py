"""Step 1: the folder, what is in it, and the trigger word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from lib_trainer.config.task import DIFFERENCE, SLIDER
from lib_trainer.ui.elements import thumbnail
from lib_trainer.ui.form import Form

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib_trainer.dataset.samples import Sample
    from lib_trainer.dataset.scan import Scan
    from lib_trainer.dataset.verify import Verified

KINDS = (
    ("A face or a person", "face"),
    ("A style", "style"),
    ("A slider between prompts", SLIDER),
    ("What differs in pairs", DIFFERENCE),
)
# The presets train at up to 896 × 896: smaller pictures teach fewer details.
SMALL_PX = 768
SHOWN_PICTURES = 48
THUMBNAIL_PX = 112
# javascript/train_lora_browse.js fills it when it is opened.
_BROWSE = '<details class="train-lora-browse"><summary>Browse</summary><div></div></details>'
EMPTY = '<div class="train-lora-pictures idle">10 to 20 pictures for a face, 20 to 50 for a style.</div>'


@dataclass(frozen=True)
class DatasetPanel:
    kind: gr.Radio
    folder: gr.Textbox
    scan: gr.Button
    trigger_word: gr.Textbox
    word_first: gr.Checkbox
    gallery: gr.HTML
    drop: gr.UploadButton
    prompts: tuple[gr.Textbox, ...]


def place_dataset(form: Form, kind_value: str) -> DatasetPanel:
    gr.Markdown("### 1 · Dataset")
    kind = gr.Radio(choices=list(KINDS), value=kind_value, label="Subject", elem_id="train_lora_kind")
    # WebUIs keep their own copy of every default; ours are remembered by us.
    kind.do_not_save_to_config = True
    with gr.Row(elem_classes="train-lora-beside"):
        folder = form.place("train_data_dir", placeholder="/pictures/jeff", scale=4)
        scan = gr.Button("Scan", scale=1, min_width=70, elem_id="train_lora_scan")
    gr.HTML(_BROWSE, elem_id="train_lora_browse")
    # style.css shows what the mode needs: train_lora_settings.js tells it the mode.
    form.place("diff_target_dir", placeholder="/pictures/jeff_with_glasses")
    original_prompt = form.place("original_prompt", placeholder="a sad person")
    target_prompt = form.place("target_prompt", placeholder="a smiling person")
    neutral_prompt = form.place("neutral_prompt", placeholder="a person")
    with gr.Row():
        trigger_word = form.place("trigger_word", placeholder="jeff_person", scale=3)
        # Beside the word, because the scan may propose it.
        word_first = form.place("trigger_word_first", scale=2)
    # javascript/train_lora_workbench.js hands it what is dropped anywhere on the tab.
    with gr.Row(elem_id="train_lora_drop"):
        label = "Add pictures, captions or a zip: press, or drop them onto the tab"
        drop = gr.UploadButton(label, file_count="multiple", file_types=["file"], size="sm")
    gallery = gr.HTML(EMPTY, elem_id="train_lora_gallery")
    prompts = (original_prompt, target_prompt, neutral_prompt)
    return DatasetPanel(kind, folder, scan, trigger_word, word_first, gallery, drop, prompts)


def show_scan(
    verified: Verified, read: Callable[[Path], Image], key: str = "", said: Sequence[str] = (), draws: int = 0
) -> str:
    """Thumbnails, how many pictures there are, and what may spoil the result.

    Args:
        read: gives a picture, or a small copy. Raises UnreadablePicture.
        key: of the folder in the workbench; the script adds its findings.
        said: sentences about files that were just added.
        draws: pictures that the run draws in all; 0 where that is not known.
    """
    scan = verified.scan
    # Some thousand thumbnails would be megabytes of HTML.
    shown = scan.samples[:SHOWN_PICTURES]
    # Decoding releases the interpreter lock; more threads only compete for the disk.
    with ThreadPoolExecutor(max_workers=4) as pool:
        pictures = "".join(pool.map(lambda sample: _figure(sample, read), shown))
    rest = len(scan.samples) - len(shown)
    undecoded = ""
    if verified.decoded < verified.total:
        undecoded = f"{verified.decoded} of {verified.total} files are decoded so far; scan again for the rest."
    more = f'<span class="more">+ {rest} more</span>' if rest else ""
    warnings = "".join(f"<li>⚠ {text}</li>" for text in [*map(escape, said), *warnings_of(scan)])
    opening = '<button type="button" data-open-workbench>Captions &amp; crops</button>' if key else ""
    return (
        f'<div class="train-lora-pictures"><p>{escape(summary_of(scan))} {undecoded}</p>'
        f'<ul class="warnings">{warnings}</ul>'
        f'<div class="findings" data-workbench="{escape(key, quote=True)}">{opening}<ul></ul></div>'
        f'<div class="grid">{pictures}{more}</div>{_show_epoch(scan, draws)}</div>'
    )


def _show_epoch(scan: Scan, draws: int) -> str:
    """What an epoch draws, for folders that differ; one folder is told by the summary."""
    # Imported late, as everything that needs Pillow.
    from lib_trainer.dataset.epoch_table import epoch_table

    rows = epoch_table(scan, draws)
    if len(rows) < 2:
        return ""
    lines = "".join(
        f"<tr><td>{_name(row.folder)}</td>"
        f"<td>{row.pictures}</td><td>{row.shown_repeats}</td><td>{row.drawn} ({row.share:.0%})</td>"
        f'<td>{row.times:.0f}</td><td><input type="checkbox" data-regularise="{_name(row.folder)}"'
        f"{' checked' if row.regularising else ''}{' disabled' if row.of_reg_folder else ''}/></td></tr>"
        for row in rows
    )
    titles = ("Folder", "Pictures", "Repeats", "In an epoch", "Each, in the run", "Regularisation")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f'<table class="epoch"><tr>{head}</tr>{lines}</table>'


def summary_of(scan: Scan) -> str:
    """`12 pictures, 10× each: 120 in an epoch`."""
    count, drawn = len(scan.samples), pictures_per_epoch(scan)
    # kohya's numbered sub-folders may differ: 10_jeff beside 5_jeff_old.
    repeats = {sample.repeats for sample in scan.samples}
    times = f", {next(iter(repeats))}× each" if len(repeats) == 1 else ", repeats by folder"
    left_out = f", {len(scan.excluded)} excluded" if scan.excluded else ""
    epoch = f"{times}: {drawn} in an epoch" if drawn != count else ""
    return f"{count} picture{'s' * (count != 1)}{epoch}{left_out}"


def pictures_per_epoch(scan: Scan) -> int:
    """Pictures in one epoch, repeats included."""
    return sum(sample.repeats for sample in scan.samples)


def warnings_of(scan: Scan) -> list[str]:
    """One escaped sentence for each kind of thing that may spoil the result."""
    small = [sample for sample in scan.samples if _is_small(sample)]
    bare = [sample for sample in scan.samples if not (sample.captioned or sample.regularising)]
    texts = [escape(text) for text in scan.notices]
    if small:
        texts.append(f"{len(small)} below {SMALL_PX} px: fewer details to learn from.")
    if bare:
        caption = f"the trigger word “{escape(scan.trigger_word)}”" if scan.trigger_word else "an empty caption"
        texts.append(f"{len(bare)} without a caption: trained with {caption}.")
    # A folder of something else has hundreds: five show what they are.
    texts += [f"{_name(skipped.path)} is skipped: {escape(skipped.reason)}" for skipped in scan.skipped[:5]]
    more = len(scan.skipped) - 5
    if more > 0:
        texts.append(f"{more} more file{'s are' if more > 1 else ' is'} skipped.")
    return texts


def _is_small(sample: Sample) -> bool:
    return min(sample.width_px, sample.height_px) < SMALL_PX


def _name(path: Path) -> str:
    """The name of a file or folder for HTML, whatever bytes it has."""
    # Imported late, as everything that needs Pillow.
    from lib_trainer.dataset.images import shown_name

    return escape(shown_name(path), quote=True)


def _figure(sample: Sample, read: Callable[[Path], Image]) -> str:
    # The same thresholds as in `warnings_of`, so that a count can be found in the gallery.
    marks = [text for wrong, text in ((_is_small(sample), "small"), (not sample.captioned, "no caption")) if wrong]
    about = escape(f"{sample.width_px}×{sample.height_px} px\n{sample.caption}", quote=True)
    badge = f"<figcaption>{' · '.join(marks)}</figcaption>" if marks else ""
    # Imported late: it pulls in Pillow and numpy, which a page that is only opened does not need.
    from lib_trainer.dataset.images import UnreadablePicture

    try:
        source = thumbnail(read(sample.image), THUMBNAIL_PX, is_square=True)
    except UnreadablePicture as error:
        # It was decoded a moment ago, so the file changed or went; said where it lies.
        return (
            f'<figure title="{escape(str(error), quote=True)}"><figcaption>{escape(error.reason)}</figcaption></figure>'
        )
    return f'<figure title="{_name(sample.image)} · {about}"><img alt="" src="{source}"/>{badge}</figure>'
