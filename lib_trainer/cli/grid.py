"""`grid`: prompts × strengths, saved steps × strengths, or two adapters against each other, as one picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from lib_trainer.cli.host import open_host
from lib_trainer.cli.output import Answer
from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest, Host, picture_problem
from lib_trainer.host.standalone.images import save_picture
from lib_trainer.lora.card import saved_prompts
from lib_trainer.lora.checkpoints import saved_steps_of
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.lookup import find_lora, require_loras
from lib_trainer.lora.prompts import kind_of, propose_prompts
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.drawing import Drawn, check_names, draw_cells
from lib_trainer.preview.grid_image import compose_grid, grid_infotext
from lib_trainer.preview.grid_spec import GridSpec, checkpoint_grid, combined_grid, strength_grid
from lib_trainer.preview.ranges import read_seeds, read_strengths, usual_strengths

GRID_FILE = "strength_grid.png"


def run_grid(options: argparse.Namespace) -> Answer:
    """Draws, and answers where the grid is. Ctrl-C keeps what is drawn by then."""
    host = open_host(options.out, options.checkpoint)
    plan = make_plan(host, options)
    path = options.file or options.out / GRID_FILE
    drawn: list[Drawn] = []
    stopped = False
    try:
        draw_plan(host, plan, drawn)
    except KeyboardInterrupt:
        # Nothing to save: it ends as interrupted.
        if not drawn:
            raise
        stopped = True
    save_drawn(path, plan, drawn)
    values = {"path": path, "cells": [_describe(item, plan) for item in drawn]}
    return Answer({**values, "stopped_early": True} if stopped else values, (str(path),))


def draw_plan(host: Host, plan: GridSpec, drawn: list[Drawn]) -> list[Drawn]:
    """Draws a grid under a progress bar. What is done is in `drawn` even if it is interrupted."""

    def work() -> None:
        with tqdm(total=len(plan.cells), desc="drawing") as bar:
            for item in draw_cells(host, plan):
                drawn.append(item)
                bar.update()

    # Nobody else draws or trains in between.
    host.run_exclusive(work)
    return drawn


def save_drawn(path: Path, plan: GridSpec, drawn: Sequence[Drawn]) -> None:
    """Writes the grid as a PNG with its infotext, atomically."""
    save_picture(path, compose_grid(plan, drawn), grid_infotext(plan, drawn))


def make_plan(host: Host, options: argparse.Namespace) -> GridSpec:
    """The grid that the options describe. Raises UserError for unknown names and invalid numbers or sizes."""
    given = read_strengths(options.strengths) if options.strengths else ()
    width_px, height_px = _size(options.size) if options.size else (host.drawing_size_px(),) * 2
    seeds = read_seeds(options.seed)
    if problem := picture_problem(width_px, height_px, options.steps):
        raise UserError(f"{problem}.", "See --size and --steps.")
    base = GenerateRequest(
        "", options.negative, width_px, height_px, options.steps, options.cfg, options.sampler, seed=seeds[0]
    )
    other, other_strengths = _other(options.other)
    loras = host.loras()
    if not options.lora:
        raise UserError("No LoRA is named.", "Write its name after --lora, without .safetensors.")
    # Named on the command line, so they must exist even where no prompt holds them.
    require_loras([f"<lora:{name}:1>" for name in (options.lora, other) if name], loras, None)
    lora = find_lora(options.lora, loras)
    strengths = given or usual_strengths(two_way=lora.two_way)
    # The prompts that were used with this LoRA before show it best.
    prompts = options.prompt or saved_prompts(lora) or propose_prompts(kind_of(lora), lora.trigger_words or lora.name)
    if options.epochs:
        saved = [(item.name, label) for item, label in saved_steps_of(lora.name, loras)]
        plan = checkpoint_grid(base, prompts, seeds, saved, strengths)
    # Several strengths become an axis; a single one is constant in every cell.
    elif len(other_strengths) > 1:
        plan = combined_grid(base, prompts, seeds, (_ref(lora), strengths), (LoraRef(other), other_strengths))
    else:
        beside = [LoraRef(other, other_strengths[0])] if other else []
        plan = strength_grid(base, prompts, seeds, _ref(lora), strengths, beside)
    check_names(host, plan)
    return plan


def _ref(lora: LoraInfo) -> LoraRef:
    return LoraRef(lora.name, aliases=lora.aliases)


def _other(text: str | None) -> tuple[str, tuple[float, ...]]:
    """`NAME:0.6` or `NAME:0,0.5,1` -> (name, strengths)."""
    if not text:
        return "", ()
    name, colon, strengths = text.partition(":")
    if not colon:
        raise UserError(f"{text!r} in --with has no strength.", "Write it like NAME:0.6, or NAME:0,0.3,0.6.")
    return name, read_strengths(strengths)


def _describe(item: Drawn, plan: GridSpec) -> dict[str, object]:
    return {
        "row": plan.row_labels[item.cell.row],
        "column": plan.column_labels[item.cell.column],
        "prompt": item.cell.request.prompt,
        "seed": item.cell.request.seed,
        "change_percent": None if item.change is None else round(item.change, 2),
    }


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise UserError(f"{text!r} in --size is not a size.", "Write it like 512x512.") from error
    return width, height
