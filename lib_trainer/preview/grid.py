"""Pictures of the same prompts at several strengths, side by side and labelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

# A prompt with its `<lora:…>` tags -> a picture. The seed is the caller's: all pictures of a row should share it.
Generate = Callable[[str], Image.Image]

CELL_PX = 192
GAP_PX = 8
TEXT_PX = 16
PAPER, INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True)
class Column:
    """One way to draw every prompt: the tags that are added to it, and what stands above."""

    label: str
    tags: str = ""


def strength_grid(
    generate: Generate,
    prompts: Sequence[str],
    name: str,
    strengths: Sequence[float],
    other: tuple[str, float] | None = None,
) -> Image.Image:
    """A row a prompt, a column a strength of the LoRA `name`; 0 draws without it.

    Args:
        other: a second LoRA and its strength, the same in every picture.
    """
    return prompt_grid(generate, prompts, strength_columns(name, strengths, other))


def strength_columns(name: str, strengths: Sequence[float], other: tuple[str, float] | None = None) -> list[Column]:
    columns = []
    for strength in strengths:
        parts = [(name, strength), *([other] if other else [])]
        tags = [f"<lora:{lora}:{value:g}>" for lora, value in parts if value]
        columns.append(Column(" + ".join(f"{lora} {value:g}" for lora, value in parts), " ".join(tags)))
    return columns


def prompt_grid(generate: Generate, prompts: Sequence[str], columns: Sequence[Column]) -> Image.Image:
    """A row a prompt, a column a way to draw it."""
    rows = [[generate(f"{prompt} {column.tags}".strip()) for column in columns] for prompt in prompts]
    return label_grid(rows, prompts, [column.label for column in columns])


def label_grid(
    rows: Sequence[Sequence[Image.Image]], row_labels: Sequence[str], column_labels: Sequence[str]
) -> Image.Image:
    """Pictures of one size in a grid: a line of text above each row, one above each column.

    Small pictures are enlarged by a whole number, so that their pixels stay what they are.
    """
    width, height = rows[0][0].size
    factor = max(1, CELL_PX // max(width, height))
    cell_width, cell_height = width * factor, height * factor
    font, across = _font(), cell_width + GAP_PX
    heads = [_wrap(label, cell_width, font) for label in column_labels]
    titles = [_wrap(label, len(column_labels) * across - GAP_PX, font) for label in row_labels]
    row_heights = [_text_height(title, font) + cell_height + 2 * GAP_PX for title in titles]
    top = _text_height(max(heads, key=len), font) + 2 * GAP_PX
    canvas = Image.new("RGB", (GAP_PX + len(heads) * across, top + sum(row_heights)), PAPER)
    brush = ImageDraw.Draw(canvas)
    for place, head in enumerate(heads):
        brush.multiline_text((GAP_PX + place * across, GAP_PX), "\n".join(head), INK, font)
    for pictures, title, row_height in zip(rows, titles, row_heights, strict=True):
        brush.multiline_text((GAP_PX, top), "\n".join(title), INK, font)
        top += row_height
        for place, picture in enumerate(pictures):
            enlarged = picture.convert("RGB").resize((cell_width, cell_height), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (GAP_PX + place * across, top - cell_height - GAP_PX))
    return canvas


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(TEXT_PX)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()


def _wrap(text: str, width_px: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Lines of whole words that fit; a word that does not fit alone keeps its line."""
    # The old bitmap font has Latin letters only, and refuses all others.
    words = text.encode("latin-1", "replace").decode("latin-1").split()
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getbbox(longer)[2] > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _text_height(lines: Sequence[str], font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> int:
    brush = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return int(brush.multiline_textbbox((0, 0), "\n".join(["Ag"] * len(lines)), font)[3])
