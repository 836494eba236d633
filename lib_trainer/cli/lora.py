"""`lora`: resize and merge LoRAs, merge them into a checkpoint, extract one from two checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.cli.output import Answer
from lib_trainer.cli.paths import read_path
from lib_trainer.errors import UserError

if TYPE_CHECKING:
    from lib_trainer.adapter.io import AdapterFile
    from lib_trainer.lora.svd import Cut

PRECISIONS = ("fp16", "bf16", "fp32")


def add_lora(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its own commands."""
    parser = commands.add_parser("lora", help="resize, merge and extract LoRAs")
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    resize = tools.add_parser("resize", help="write a LoRA of any type as LoCon of another rank")
    resize.add_argument("file", type=read_path, metavar="FILE")
    _add_target(resize)
    _add_cut(resize)
    resize.set_defaults(command=_resize)
    merge = tools.add_parser("merge", help="write several LoRAs as one")
    _add_target(merge)
    merge.add_argument("lora", nargs="+", metavar="FILE:STRENGTH", help="without a strength 1")
    _add_cut(merge)
    merge.set_defaults(command=_merge)
    into = tools.add_parser("merge-checkpoint", help="write a checkpoint with LoRAs in its weights")
    into.add_argument(
        "checkpoint", type=read_path, metavar="CHECKPOINT", help="an SD 1.x, SD 2.x or SDXL .safetensors file"
    )
    _add_target(into)
    into.add_argument("lora", nargs="+", metavar="FILE:STRENGTH", help="without a strength 1")
    into.set_defaults(command=_merge_checkpoint)
    extract = tools.add_parser("extract", help="write the difference of two checkpoints as a LoRA")
    extract.add_argument("tuned", type=read_path, metavar="TUNED")
    extract.add_argument("base", type=read_path, metavar="BASE")
    _add_target(extract)
    _add_cut(extract)
    extract.set_defaults(command=_extract)
    for tool in tools.choices.values():
        tool.add_argument("--json", action="store_true", help="one JSON object as the last line of the output")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", type=read_path, metavar="TARGET", help="the .safetensors file to write")


def _add_cut(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=int, default=0, help="at most this rank (default: all that is there)")
    parser.add_argument(
        "--energy", type=float, default=1.0, help="the least rank with this share of a layer's σ² (default: 1)"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="(default: fp16)")


def _resize(options: argparse.Namespace) -> Answer:
    from lib_trainer.lora.tools import Target, merge_loras

    file = merge_loras([(options.file, 1.0)], Target(options.target), _cut(options), options.precision)
    return _about(options.target, file)


def _merge(options: argparse.Namespace) -> Answer:
    from lib_trainer.lora.tools import Target, merge_loras

    loras = [_strong(text) for text in options.lora]
    return _about(options.target, merge_loras(loras, Target(options.target), _cut(options), options.precision))


def _merge_checkpoint(options: argparse.Namespace) -> Answer:
    from lib_trainer.lora.tools import Target, merge_into_checkpoint

    loras = [_strong(text) for text in options.lora]
    changed = merge_into_checkpoint(options.checkpoint, loras, Target(options.target))
    return Answer({"path": options.target, "layers": changed}, (f"{options.target}: {changed} layers changed.",))


def _extract(options: argparse.Namespace) -> Answer:
    from lib_trainer.lora.tools import Target, extract_lora

    file = extract_lora(options.tuned, options.base, Target(options.target), _cut(options), options.precision)
    return _about(options.target, file)


def _about(target: Path, file: AdapterFile) -> Answer:
    ranks = [module.rank for module in file.factors.values()]
    values: dict[str, Any] = {"path": target, "layers": len(ranks), "ranks": [min(ranks), max(ranks)]}
    values["bytes"] = target.stat().st_size
    return Answer(values, (f"{target}: {file.size}, {values['bytes'] / 1e6:.1f} MB.",))


def _cut(options: argparse.Namespace) -> Cut:
    from lib_trainer.lora.svd import checked_cut

    return checked_cut(options.rank, options.energy)


def _strong(text: str) -> tuple[Path, float]:
    """`style.safetensors:0.6` -> the file and its strength. A drive's colon is part of the path."""
    path, sign, strength = text.rpartition(":")
    if not sign or path.endswith(":") or strength.endswith(".safetensors"):
        return read_path(text), 1.0
    try:
        return read_path(path), float(strength)
    except ValueError as error:
        raise UserError(f"{strength!r} in {text} is not a strength.", "Write FILE:0.8.") from error
