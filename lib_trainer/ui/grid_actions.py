"""What step 4 does: starts a grid, shows it, stops it, and chooses one of its pictures."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html import escape
from itertools import count
from typing import Any

import gradio as gr

from lib_trainer.errors import UserError
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.lora.card import save_prompts, saved_prompts
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.lookup import find_lora, misfit, trained_over
from lib_trainer.lora.prompts import join_lines, kind_of, prompt_lines, propose_combined
from lib_trainer.lora.tags import LoraRef, names_in
from lib_trainer.models.families import FAMILIES
from lib_trainer.preview.choose import choose
from lib_trainer.preview.drawing import Drawn, check_names
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.preview.grid_request import PAIR, GridRequest, usual_cfg
from lib_trainer.preview.ranges import show_strengths, usual_strengths
from lib_trainer.ui.grid_panel import PAIR_STRENGTHS, propose_prompt
from lib_trainer.ui.grid_view import Thumbnails, show_grid
from lib_trainer.ui.last_settings import read_settings, write_settings
from lib_trainer.ui.lora_choices import line_of, name_of
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.proposals import Proposed

REMEMBERED = ("strengths", "other_strengths", "negative", "steps", "cfg", "seeds", "sampler", "schedule")
# Its name in the settings file since the first release.
SETTING = "try"
_USUAL_STRENGTH = 0.8


class GridActions:
    """The behaviour of step 4. The grid lives in the job, so that a reload finds it again."""

    def __init__(self, host: Host, jobs: Jobs, grid_job: GridJob) -> None:
        self._host, self._jobs, self._grid_job = host, jobs, grid_job
        self._thumbnails = Thumbnails()
        self._heartbeats = count(1)

    def open_page(self) -> list[Any]:
        """-> lora, other, width, height, *REMEMBERED, seen, *live: as the last grid was made."""
        kept = read_settings(self._host.settings_file).get(SETTING)
        # The file is a person's to edit.
        kept = kept if isinstance(kept, dict) else {}
        side = self._host.drawing_size_px()
        schedules = self._host.schedulers()
        lists = {
            "sampler": _choices(self._host.samplers(), kept.get("sampler")),
            # A1111 before 1.9 has no schedule types: its samplers bring their own.
            "schedule": _choices(schedules, kept.get("schedule")) if schedules else gr.update(visible=False),
        }
        # CFG is the family's as well: 7 ruins the pictures of a distilled model.
        family = self._host.drawing_family()
        if family and kept.get("family") != family.key:
            kept = {**kept, "cfg": usual_cfg(family)}
        values = [
            lists[name] if name in lists else gr.update(value=kept[name]) if name in kept else gr.update()
            for name in REMEMBERED
        ]
        # The loaded checkpoint's own size; last time's may have been another family's.
        sizes = [gr.update(value=side) if side else gr.update() for _ in range(2)]
        return [*self.list_loras(None, None), *sizes, *values, *self.show(-1)]

    def list_loras(self, lora: str | None, other: str | None, *, refresh: bool = False) -> list[Any]:
        """-> lora, other: every file, with the reason why one does not fit."""
        loras, family = self._host.loras(refresh=refresh), self._host.drawing_family()
        # A line's text may change with the checkpoint, so the choice is found again by its name.
        lines = {item.name: line_of(item, misfit(item, family)) for item in loras}
        return [gr.update(choices=list(lines.values()), value=lines.get(name_of(chosen))) for chosen in (lora, other)]

    def reload(
        self, lora: str | None, other: str | None, prompt: str, proposed: Proposed, strengths: str = ""
    ) -> list[Any]:
        """-> lora, other, strengths: lists the folder again.

        Without a choice, and while the page's own prompt stands, the LoRA of the prompt is chosen: after a second
        training it is the new one.
        """
        named = next(iter(names_in(prompt)), None)
        lists = self.list_loras(named, other, refresh=True)
        is_followed = not lora or not proposed.is_typed("prompt", prompt)
        # The prompt may name a file that is not trained yet.
        lists = lists if is_followed and lists[0]["value"] else self.list_loras(lora, other)
        chosen = find_lora(name_of(lists[0]["value"]), self._host.loras())
        return [*lists, _usual_strengths(chosen, strengths)]

    def follow_checkpoint(self, width: float | None, height: float | None, cfg: float | None) -> list[Any]:
        """-> width, height, cfg: usual for the loaded checkpoint, in place of those usual for another one."""
        family, side = self._host.drawing_family(), self._host.drawing_size_px()
        if family is None:
            return [gr.update()] * 3
        is_usual = width == height and width in {other.native_size_px for other in FAMILIES.values()}
        size = gr.update(value=side) if is_usual and width != side else gr.update()
        is_usual = cfg in {usual_cfg(other) for other in FAMILIES.values()}
        scale = gr.update(value=usual_cfg(family)) if is_usual and cfg != usual_cfg(family) else gr.update()
        return [size, size, scale]

    def offer(
        self,
        mode: str,
        lora: str | None,
        other: str | None,
        prompt: str,
        proposed: Proposed,
        strengths: str = "",
        other_strengths: str = "",
    ) -> list[Any]:
        """-> pair, prompt, proposed, strengths, other, other strengths: for what is chosen, unless the person has
        written their own.

        A prompt that stays is not sent back: it would overwrite what is typed meanwhile.
        """
        loras = self._host.loras()
        first, second = (find_lora(name_of(chosen), loras) for chosen in (lora, other))
        wanted, updates = None, [gr.update(), gr.update()]
        if mode == PAIR and first and not second and (found := trained_over(first, loras)):
            second, strength = found
            # Without both, with each, with both.
            wanted, across = (show_strengths((0, each)) for each in (first.strength or _USUAL_STRENGTH, strength))
            is_usual = other_strengths in ("", show_strengths(PAIR_STRENGTHS))
            line = line_of(second, misfit(second, self._host.drawing_family()))
            updates = [gr.update(value=line), gr.update(value=across) if is_usual else gr.update()]
        # The second LoRA matters for pairs only.
        row, own = gr.update(visible=mode == PAIR), _usual_strengths(first, strengths, wanted)
        if first is None or proposed.is_typed("prompt", prompt.strip()):
            return [row, gr.update(), proposed, own, *updates]
        new = _propose_pair(first, second) if mode == PAIR and second else _propose(first)
        offered = proposed._replace(prompt=new)
        return [row, gr.update() if new == prompt else new, offered, own, *updates]

    def start(self, seen: int, *values: Any) -> list[Any]:
        """-> message, group, seen, *live. Everything is checked before the host is asked for a picture."""
        request = _read(*values)
        try:
            self._refuse_during_run()
            spec = request.grid_spec(self._host.loras())
            # A sampler or LoRA that is gone is reported now, not after the first row.
            check_names(self._host, spec)
            self._grid_job.start(spec)
        except UserError as error:
            return [show_error(error), gr.update(), *self.show(seen)]
        self._remember(request)
        # The picture that was opened belongs to the grid before. -1: the empty grid is sent at once.
        return ["", gr.update(visible=False), *self.show(-1)]

    def stop(self, seen: int) -> list[Any]:
        """-> seen, *live."""
        self._grid_job.stop()
        return self.show(seen)

    def show(self, seen: int) -> list[Any]:
        """-> seen, *live. A live grid that the page has `seen` is not sent again."""
        grid_status = self._grid_job.grid_status()
        # When it ends everything is sent once more, because the saved file's name is new.
        known = grid_status.live and grid_status.version == seen
        return [
            grid_status.version,
            gr.update() if known else show_grid(grid_status, self._thumbnails),
            gr.update(interactive=not grid_status.live),
            gr.update(interactive=grid_status.live and not grid_status.stopping),
            f'<i data-heartbeat="{next(self._heartbeats)}"></i>',
        ]

    def open_cell(self, place: str) -> list[Any]:
        """-> group, picture, about, infotext, choose, done."""
        item = self._find(place)
        if item is None:
            return [gr.update(visible=False), None, "", "", gr.update(), ""]
        # A picture without the LoRA has no strength to put on a card.
        has_it = item.cell.loras[0].strength != 0
        return [gr.update(visible=True), item.picture, _about(item), item.infotext, gr.update(interactive=has_it), ""]

    def choose(self, place: str) -> str:
        """-> done: puts the picture and its strength on the card; a saved step becomes the final file."""
        item = self._find(place)
        try:
            if item is None:
                raise UserError("Another grid has replaced this picture.", "Reload the page to see it.")
            self._refuse_during_run()
            return f"<p>{escape(choose(self._host, item))}</p>"
        except UserError as error:
            return show_error(error)

    def send(self, place: str) -> str | dict[str, Any]:
        """-> prompt: outside a WebUI there is no txt2img, so the picture's prompt goes into the tab's own."""
        item = self._find(place)
        return item.cell.request.prompt if item else gr.update()

    def generate_picture(self, *values: Any) -> tuple[dict[str, Any], str]:
        """-> picture, message: one picture of the first prompt, or a sentence where there is none."""
        entered = _read(*values)
        try:
            self._refuse_during_run()
            request = entered.picture(self._host.loras())
            # It waits for the WebUI's own generation.
            pictures = self._host.run_exclusive(lambda: self._host.generate(request))
            if not pictures:
                raise UserError("The picture was interrupted.", "Generate it again.")
            return gr.update(value=pictures[0], visible=True), ""
        except UserError as error:
            return gr.update(value=None, visible=False), show_error(error)

    def _find(self, place: str) -> Drawn | None:
        # It comes from the browser, and may be anything.
        if not re.fullmatch(r"[0-9]{1,9} [0-9]{1,9} [0-9]{1,9}", place):
            return None
        number, row, column = map(int, place.split())
        return self._grid_job.grid_status().find(row, column, number)

    def _refuse_during_run(self) -> None:
        if self._jobs.status().live:
            raise UserError("The checkpoint is being trained on.", "Pictures can be made when the run is over.")

    def _remember(self, request: GridRequest) -> None:
        """The settings for the next time, and the prompts with the run."""
        path, values = self._host.settings_file, asdict(request)
        family = self._host.drawing_family()
        kept = {name: values[name] for name in REMEMBERED} | {"family": family.key if family else ""}
        write_settings(path, {**read_settings(path), SETTING: kept})
        # The prompts of a pair belong to neither of the two.
        lora = find_lora(request.lora, self._host.loras())
        if lora is not None and request.mode != PAIR:
            save_prompts(lora, prompt_lines(request.prompt))


def show_drawing() -> str:
    """Shown at once: the picture may take a minute, and nothing else shows progress."""
    return "<p>Generating …</p>"


def _usual_strengths(lora: LoraInfo | None, strengths: str, wanted: str | None = None) -> dict[str, Any]:
    """The update of the strengths' input: `wanted` or those usual for the LoRA, in place of those usual for another."""
    usual = {two_way: show_strengths(usual_strengths(two_way=two_way)) for two_way in (False, True)}
    if lora is None or strengths not in usual.values():
        return gr.update()
    wanted = wanted or usual[lora.two_way]
    return gr.update(value=wanted) if strengths != wanted else gr.update()


def _propose(lora: LoraInfo) -> str:
    """The prompts saved with the LoRA; else proposals from its trigger words."""
    strength = lora.strength or _USUAL_STRENGTH
    return join_lines(saved_prompts(lora)) or propose_prompt(kind_of(lora), lora.trigger_words, lora.name, strength)


def _propose_pair(first: LoraInfo, second: LoraInfo) -> str:
    refs = [(item.trigger_words, LoraRef(item.name, item.strength or _USUAL_STRENGTH)) for item in (first, second)]
    return propose_combined(kind_of(first), *refs)


def _choices(names: list[str], kept: Any) -> dict[str, Any]:
    return gr.update(choices=names, value=kept if kept in names else next(iter(names), None))


def _about(item: Drawn) -> str:
    refs = " + ".join(ref.label for ref in item.cell.loras)
    change = "" if item.change is None else f" · Δ {item.change:.1f} %"
    return f'<p class="train-lora-plan">{escape(refs)} · seed {item.cell.request.seed}{change}</p>'


def _read(*values: Any) -> GridRequest:
    """From the inputs' own values, in the order of `GridPanel.inputs`, where a LoRA is a line of its list."""
    request = GridRequest(*values)
    return replace(request, lora=name_of(request.lora), other=name_of(request.other))
