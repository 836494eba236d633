"""A LoRA as a line of a list, and which one a line means. Gradio 3 shows lists of plain strings alone."""

from __future__ import annotations

from lib_trainer.lora.info import LoraInfo

# No-break spaces, which look like others and stand in no name of a file.
_MARK, _GAP = "⚠\u00a0", "\u00a0· "


def line_of(lora: LoraInfo, is_misfit: bool) -> str:
    """`jeff · SD 1.x`, `⚠ oil · SDXL, does not fit …`, `⚠ a=b · “=” in its name …`."""
    family = lora.family.label if lora.family else ""
    # A damaged file matters more than its family.
    about = lora.problem or (f"{family}, does not fit the checkpoint" if is_misfit else family)
    mark = _MARK if lora.problem or is_misfit else ""
    return f"{mark}{lora.name}{f'{_GAP}{about}' if about else ''}"


def name_of(line: str | None) -> str:
    """The LoRA's name; a bare name means itself, and nothing chosen is ""."""
    return (line or "").removeprefix(_MARK).partition(_GAP)[0]
