"""What steps 1 to 3 do when something is pressed: values of inputs in, updates of components out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_trainer.config.task import SLIDER
from lib_trainer.errors import UserError
from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.lora.prompts import prompt_lines
from lib_trainer.recipes.loaded import LoadedRecipe
from lib_trainer.ui.dataset_panel import EMPTY, pictures_per_epoch, show_scan
from lib_trainer.ui.form import WRONG, Form, help_of
from lib_trainer.ui.grid_panel import propose_prompt
from lib_trainer.ui.history_panel import HistoryActions
from lib_trainer.ui.memory_bar import show_memory
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.missing_packages import show_missing
from lib_trainer.ui.proposals import NAMED, Proposed, Typed, existing_adapter, tell_existing
from lib_trainer.ui.recipe_check import dataset_config, first_line, name_from, problems_of, scan_pictures
from lib_trainer.ui.recipe_panel import (
    load_preset,
    load_upload,
    pictures_drawn,
    preset_for,
    recipe_values,
    show_length,
    show_notices,
)
from lib_trainer.ui.settings_panel import reset_to_base, show_base
from lib_trainer.ui.start_actions import StartActions
from lib_trainer.ui.starting_point import starting_point
from lib_trainer.ui.train_panel import LiveView

if TYPE_CHECKING:
    from lib_trainer.dataset.verify import PictureVerifier
    from lib_trainer.workbench.folders import Workbench


class Actions:
    """The tab's behaviour. It keeps no state of its own: a page's state lives in the page, a run's in the jobs."""

    def __init__(
        self,
        host: Host,
        jobs: Jobs,
        form: Form,
        access: Access | None = None,
        *,
        workbench: Workbench | None = None,
        in_webui: bool = True,
    ) -> None:
        self._workbench = workbench
        self._host, self._jobs, self._form, self._in_webui = host, jobs, form, in_webui
        self._access = access or Access()
        self.live = LiveView(jobs, self._access.page_key)
        self.start = StartActions(host, jobs, form, self.live, self._access)
        self.history = HistoryActions(jobs, self.live, self._access)

    def open_page(self) -> list[Any]:
        """-> head, kind, preset, base, prompt, proposed, *form: as the last run was started with."""
        start = starting_point(self._host.settings_file, self._host.drawing_family())
        # What is filled in from the last run was not typed into this page.
        before = start.proposed._replace(train_data_dir=start.values.get("train_data_dir", ""))
        proposed = self._propose(start.kind, before, start.values)
        head = f'<p class="train-lora-head">{escape(self._host.describe())}</p>{show_missing(in_webui=self._in_webui)}'
        filled = self._form.show(start.values, self._notes(start.values))
        return [head, start.kind, start.preset, show_base(start.base), proposed.prompt, proposed, *filled]

    def drop(self, files: list[Any] | None, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> as `scan`: takes the files into a folder of their own, and scans it."""
        # Imported late, as everything that needs Pillow.
        from lib_trainer.dataset.dropping import take_dropped

        paths = [Path(str(getattr(file, "name", file))) for file in files or []]
        entered = proposed.opened(self._form.read(values))
        name = entered["trigger_word"] or next((path.stem for path in paths if path.suffix.lower() == ".zip"), "")
        try:
            dropped = take_dropped(paths, self._host.settings_file.parent, name)
        except UserError as error:
            return [
                gr.update(),
                gr.update(),
                gr.update(),
                gr.update(info=f"{WRONG} {error}"),
                *[gr.update()] * 3,
                proposed,
            ]
        place = list(self._form.inputs).index("train_data_dir")
        changed = [*values[:place], str(dropped.folder), *values[place + 1 :]]
        found = self._scan(kind, prompt, proposed, changed, dropped.refused)
        return [*found[:3], {**found[3], "value": str(dropped.folder)}, *found[4:]]

    def scan(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> gallery, pictures, length, folder, trigger word, name, prompt, proposed."""
        return self._scan(kind, prompt, proposed, values)

    def _scan(
        self, kind: str, prompt: str, proposed: Proposed, values: Sequence[Any], said: Sequence[str] = ()
    ) -> list[Any]:
        entered = proposed.opened(self._form.read(values))
        try:
            scan = scan_pictures(entered, self._access)
            # The checks of an open folder look at every picture.
            verified = self._verifier.verify(scan, entered["train_data_dir"], continues=self._workbench is None)
        except UserError as error:
            # The message stands at the folder's field: the gallery has no place for a mistake.
            complaint = gr.update(info=f"{WRONG} {error}")
            return [EMPTY, 0, "", complaint, gr.update(), gr.update(), gr.update(), proposed]
        scan = verified.scan
        # kohya's folder names carry it: 10_jeff_person.
        word = entered["trigger_word"] = entered["trigger_word"] or scan.trigger_word
        new = self._propose(kind, proposed, entered)._replace(trigger_word=scan.trigger_word)
        count = pictures_per_epoch(scan)
        name, prompt = self._kept(entered, prompt, proposed, new)
        length, folder = show_length(count, entered), gr.update(info=help_of("train_data_dir"))
        key, read = "", self._verifier.read
        if self._workbench:
            key = self._workbench.open(scan, dataset_config(entered), kind, read)
        return [
            show_scan(verified, read, key, said, pictures_drawn(count, entered)),
            count,
            length,
            folder,
            word,
            name,
            prompt,
            new,
        ]

    def rescan(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """As `scan`, once there is a folder."""
        if not self._form.read(values)["train_data_dir"].strip():
            return [*(gr.update() for _ in range(7)), proposed]
        return self.scan(kind, prompt, proposed, *values)

    def propose(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> name, prompt, proposed: from the trigger word, where the person has not typed their own."""
        entered = self._form.read(values)
        if not proposed.is_typed("output_name", entered["output_name"]):
            entered["output_name"] = ""
        new = self._propose(kind, proposed, entered)
        return [*self._kept(entered, prompt, proposed, new), new]

    @cached_property
    def _verifier(self) -> PictureVerifier:
        # Imported late: it pulls in Pillow and numpy, which a page that is only opened does not need.
        from lib_trainer.dataset.verify import PictureVerifier

        return PictureVerifier(reader=self._workbench.thumbnails.read if self._workbench else None)

    def check(self, names: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> message, *form: what is still wrong beside the inputs of these names, which stood there before."""
        entered, asked = proposed.opened(self._form.read(values)), set(names.split())
        problems = {name: text for name, text in problems_of(entered, self._access).items() if name in asked}
        shown = dict(zip(self._form.inputs, self._form.complain(problems, {}, self._notes(entered)), strict=False))
        # Only what complains is touched: somebody may be typing elsewhere.
        updates = [update if name in asked else gr.update() for name, update in shown.items()]
        return [gr.update() if problems else "", *updates]

    def memory(self, *values: Any) -> str:
        """-> the memory bar."""
        return show_memory(self._host, self._form.read(values), self._access)

    def choose_kind(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, base, prompt, proposed, *form, fold, message: the recipe shipped for this kind."""
        if kind == proposed.kind:
            # gradio 4 reports a choice that `open_page` has set as if a person had made it.
            kept = [gr.update() for _ in self._form.components]
            return [gr.update(), gr.update(), gr.update(), gr.update(), proposed, *kept, gr.update(), gr.update()]
        preset = preset_for(kind, self._host.drawing_family())
        if not preset:
            proposal = self.propose(kind, prompt, proposed, *values)[1:]
            return [gr.update(), "", gr.update(), *proposal, *self._form.complain({}, {}), ""]
        return [preset, *self.choose_preset(preset, kind, prompt, proposed, *values)]

    def choose_preset(self, preset: str, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> notices, base, prompt, proposed, *form, fold, message."""
        return self._fill(lambda: load_preset(preset), "", Typed(kind, prompt, proposed), values)

    def open_recipe(self, file: Any, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, base, prompt, proposed, *form, fold, message: what is valid in a recipe file."""
        # gradio 3 hands over an object, gradio 4 a string; the server may run on Windows.
        title = re.split(r"[/\\]", str(getattr(file, "name", file)))[-1]
        return [None, *self._fill(lambda: load_upload(file), title, Typed(kind, prompt, proposed), values)]

    def use_run(self, chosen: str | None, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, base, prompt, proposed, *form, fold, message: the settings of a past run."""
        # The line ends with the run's id, which says nothing to a person.
        title = (chosen or "").rpartition(" · ")[0]
        # Folder, word and name of a run belong together: they come whatever was typed.
        typed = Typed(kind, prompt, proposed._replace(**{name: self._form.read(values)[name] for name in NAMED}))
        return [None, *self._fill(lambda: self.history.settings(chosen), title, typed, values)]

    def reset(self, name: str, base: str) -> list[Any]:
        """-> *form: one setting, or with "" all of them, as the chosen recipe has them."""
        return reset_to_base(self._form, name, base)

    def _fill(self, load: Callable[[], LoadedRecipe], title: str, typed: Typed, values: tuple) -> list[Any]:
        """-> notices, base, prompt, proposed, *form, fold, message."""
        entered, proposed = self._form.read(values), typed.proposed
        try:
            loaded = load()
        except UserError as error:
            # Nothing is changed, but complaints of an earlier attempt go.
            shown = self._form.complain({}, {}, self._notes(entered))
            return [show_error(error, "Not loaded."), gr.update(), typed.prompt, proposed, *shown, ""]
        found = recipe_values(loaded)
        kept = [name for name in NAMED if name in found and proposed.is_typed(name, entered[name])]
        changes = {name: value for name, value in found.items() if name not in kept}
        entered |= changes
        new = self._propose(typed.kind, proposed, entered)
        # What the file has filled in follows the folder from now on.
        new = new._replace(**{name: changes[name] for name in NAMED if name in changes})
        prompt = typed.prompt if proposed.is_typed("prompt", typed.prompt) else new.prompt
        # A shipped recipe has nothing to report.
        differing = {name: found[name] for name in kept if found[name] != entered[name]}
        notices = show_notices(title, loaded, differing) if title else ""
        shown = self._form.complain(loaded.problems, changes, self._notes(entered))
        return [notices, show_base(found), prompt, new, *shown, ""]

    def _propose(self, kind: str, proposed: Proposed, entered: dict[str, Any]) -> Proposed:
        trigger_word, name = entered.get("trigger_word", ""), entered.get("output_name", "")
        is_slider = entered.get("mode") == SLIDER
        prompts = prompt_lines(entered["neutral_prompt"] or entered["original_prompt"]) if is_slider else []
        # The proposed prompt has to name the file as it will be called.
        new_name = name_from(first_line(entered["target_prompt"]) if is_slider else trigger_word)
        used = name if proposed.is_typed("output_name", name) else new_name
        prompt = propose_prompt(kind, trigger_word, used, entered.get("preferred_weight") or 0.8, prompts)
        return proposed._replace(kind=kind, output_name=new_name, prompt=prompt)

    def _kept(
        self, entered: dict[str, Any], prompt: str, proposed: Proposed, new: Proposed
    ) -> tuple[dict[str, Any], str]:
        """(name, prompt): what a person typed; the name entered is empty where they typed none."""
        name = entered["output_name"] or new.output_name
        note = self._notes({"output_name": name}).get("output_name", "")
        info = " ".join(filter(None, (help_of("output_name"), note)))
        # Said here too: this answer may come after that to Train, and must not take its complaint away.
        if name and (problem := problems_of({**entered, "output_name": name}, self._access).get("output_name")):
            info = f"{WRONG} {problem}"
        return gr.update(value=name, info=info), prompt if proposed.is_typed("prompt", prompt) else new.prompt

    def _notes(self, values: Mapping[str, Any]) -> dict[str, str]:
        """setting -> what stands beside its input: that a file of this name exists."""
        found = existing_adapter(self._host.lora_dir, values.get("output_name", ""))
        return {"output_name": tell_existing(found)} if found else {}
