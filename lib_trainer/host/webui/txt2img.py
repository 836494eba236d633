"""The WebUIs' text-to-image, and where their grids go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.webui.lock import InterruptFlags
from lib_trainer.host.webui.loras import require_networks
from lib_trainer.utils.patch import attributes
from lib_trainer.utils.png import INFOTEXT_KEY

if TYPE_CHECKING:
    from PIL.Image import Image

GRID_NAME = "train_lora_grid"
_AUTOMATIC = "Automatic"


def draw(request: GenerateRequest, presses: InterruptFlags) -> list[Image]:
    """Pictures through the WebUI's text-to-image, `<lora:…>` included; nothing is saved to its output folders.

    Raises:
        UserError: for a `<lora:…>` that the WebUI cannot find, and would drop with all others without a word; and for
            a sampler or scheduler that it would replace as silently.
    """
    from modules import processing, shared

    # It was meant for an earlier picture.
    presses.skip = False
    require_networks(request.prompt)
    _require("sampler", request.sampler, samplers())
    _require("schedule", request.scheduler, schedulers())
    job = make_job(request)
    # The last prompt that a person used stays the one that the WebUI's button brings back.
    with closing(job), attributes([shared.cmd_opts], no_prompt_history=True):
        processed = processing.process_images(job)
    if presses.cut_short():
        # What was cut short is handed over half-drawn.
        return []
    pictures = list(processed.images)
    for picture, infotext in zip(pictures, processed.infotexts, strict=False):
        # A person who wants no infotext in files still wants to know what was drawn.
        picture.info[INFOTEXT_KEY] = infotext
    return pictures


def make_job(request: GenerateRequest) -> Any:
    """The WebUI's own description of a text-to-image job."""
    from modules import processing, scripts, shared

    job = processing.StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        width=request.width_px,
        height=request.height_px,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        sampler_name=request.sampler or samplers()[0],
        scheduler=request.scheduler or _AUTOMATIC,
        batch_size=request.batch_size,
        do_not_save_samples=True,
        do_not_save_grid=True,
    )
    # No script runs; but without a runner the infotext loses the prompt's `<lora:…>`.
    job.scripts = scripts.ScriptRunner()
    return job


@contextmanager
def expected(pictures: int) -> Iterator[None]:
    """While entered, the WebUI's progress bar counts to so many pictures."""
    from modules import shared

    shared.state.job_count, shared.state.job_no = pictures, 0
    yield


def samplers() -> list[str]:
    from modules import sd_samplers

    return list(sd_samplers.visible_sampler_names())


def schedulers() -> list[str]:
    if not find_spec("modules.sd_schedulers"):
        return []
    from modules import sd_schedulers

    return [scheduler.label for scheduler in sd_schedulers.schedulers]


def save_grid(picture: Image, infotext: str, request: GenerateRequest) -> Path | None:
    """Where and as the WebUI keeps its grids; None if it is set to keep none. Raises UserError when it cannot."""
    from modules import images, shared

    opts = shared.opts
    if not opts.grid_save:
        return None
    folder = opts.outdir_grids or opts.outdir_txt2img_grids
    job = make_job(request)
    try:
        path, _ = images.save_image(
            picture, folder, GRID_NAME, request.seed, request.prompt, opts.grid_format, info=infotext,
            short_filename=not opts.grid_extended_filename, grid=True, p=job,
        )  # fmt: skip
    except OSError as error:
        message = f"The grid could not be saved: {error.strerror or error}."
        raise UserError(message, f"Make room in {folder}, or choose another folder in the settings.") from error
    return Path(path).absolute()


def label_font() -> Path | None:
    from modules import shared
    from modules.paths_internal import roboto_ttf_file

    return Path(getattr(shared.opts, "font", "") or roboto_ttf_file)


def bind_sending(button: Any, infotext: Any) -> bool:
    """Registers the button with the WebUI's own "Send to txt2img", which wires it when its page is built."""
    from modules import infotext_utils

    binding = infotext_utils.ParamBinding(
        paste_button=button, tabname="txt2img", source_text_component=infotext, source_image_component=None
    )
    infotext_utils.register_paste_params_button(binding)
    return True


def _require(kind: str, name: str, known: list[str]) -> None:
    if name and name not in known:
        raise UserError(f"There is no {kind} {name!r} here.", f"Choose one of {', '.join(known)}.")
