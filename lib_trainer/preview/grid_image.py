"""Pictures of the same prompts side by side, as one labelled picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lib_trainer.preview.drawing import Drawn
from lib_trainer.preview.grid_spec import GridSpec
from lib_trainer.preview.picture_file import PictureFile
from lib_trainer.utils.png import quoted

CELL_PX = 192
GAP_PX = 8
TEXT_PX = 16
# Labels grow with the pictures, or nobody reads them beside large ones.
TEXT_SHARE = 1 / 24
PAPER, INK, MISSING = (255, 255, 255), (30, 30, 30), (225, 225, 225)
SCRIPT = "Train LoRA grid"

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def compose_grid(spec: GridSpec, drawn: Sequence[Drawn], font_file: Path | None = None) -> Image.Image:
    """The grid of what is drawn so far; the other cells stay grey. At least one must be drawn."""
    # Files, not pictures: they are opened one after another.
    pictures = {(item.cell.row, item.cell.column): item.file for item in drawn}
    rows = [
        [pictures.get((row, column)) for column in range(len(spec.column_labels))]
        for row in range(len(spec.row_labels))
    ]
    return label_grid(rows, spec.row_labels, spec.column_labels, font_file)


def grid_infotext(spec: GridSpec, drawn: Sequence[Drawn]) -> str:
    """The infotext of the first picture, and what the grid varies: "PNG Info" reads it, and so does "Send to"."""
    about = {"Script": SCRIPT, "Grid": spec.title, "Grid columns": ", ".join(spec.column_labels)}
    return ", ".join([drawn[0].infotext, *(f"{key}: {quoted(text)}" for key, text in about.items())])


def label_grid(
    rows: Sequence[Sequence[Image.Image | PictureFile | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    font_file: Path | None = None,
) -> Image.Image:
    """Pictures of one size in a grid: a line of text above each row, one above each column.

    Small pictures are enlarged by a whole number, so that their pixels stay what they are.
    """
    # All pictures of a grid have one size.
    width, height = next(picture.size for pictures in rows for picture in pictures if picture)
    factor = max(1, CELL_PX // max(width, height))
    cell_width, cell_height = width * factor, height * factor
    font, across = _font(max(TEXT_PX, round(cell_width * TEXT_SHARE)), font_file), cell_width + GAP_PX
    heads = [_wrap(label, cell_width, font) for label in column_labels]
    titles = [_wrap(label, len(column_labels) * across - GAP_PX, font) for label in row_labels]
    row_heights = [_text_height(title, font) + cell_height + 2 * GAP_PX for title in titles]
    top = _text_height(max(heads, key=len), font) + 2 * GAP_PX
    canvas = Image.new("RGB", (GAP_PX + len(heads) * across, top + sum(row_heights)), PAPER)
    brush = ImageDraw.Draw(canvas)
    for column, head in enumerate(heads):
        brush.multiline_text((GAP_PX + column * across, GAP_PX), "\n".join(head), INK, font)
    for pictures, title, row_height in zip(rows, titles, row_heights, strict=True):
        brush.multiline_text((GAP_PX, top), "\n".join(title), INK, font)
        top += row_height
        for column, picture in enumerate(pictures):
            cell = _cell(picture, (cell_width, cell_height))
            canvas.paste(cell, (GAP_PX + column * across, top - cell_height - GAP_PX))
    return canvas


def _cell(picture: Image.Image | PictureFile | None, size_px: tuple[int, int]) -> Image.Image:
    if picture is None:
        return Image.new("RGB", size_px, MISSING)
    opened = picture.open() if isinstance(picture, PictureFile) else picture
    return opened.convert("RGB").resize(size_px, Image.Resampling.NEAREST)


def _font(size_px: int, font_file: Path | None) -> Font:
    if font_file is not None:
        try:
            return ImageFont.truetype(str(font_file), size_px)
        except OSError:  # the settings name a font file that does not exist
            return _font(size_px, None)
    try:
        return ImageFont.load_default(size_px)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()


def _wrap(text: str, width_px: int, font: Font) -> list[str]:
    """Lines of whole words that fit; a word that does not fit alone keeps its line."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        # The old bitmap font has Latin letters only, and refuses all others.
        text = text.encode("latin-1", "replace").decode("latin-1")
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getbbox(longer)[2] > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _text_height(lines: Sequence[str], font: Font) -> int:
    brush = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    # Measured with letters that reach up and down, so that all rows are equally high.
    return int(brush.multiline_textbbox((0, 0), "\n".join(["Ag"] * len(lines)), font)[3])
