"""What the tab does when something is pressed: values of inputs in, updates of components out."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from lib_trainer.config.recipe import Recipe, default_of
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.recipes.loaded import LoadedRecipe
from lib_trainer.ui.dataset_panel import EMPTY, draws_of, show_scan
from lib_trainer.ui.form import WRONG, Form, help_of, recipe_from
from lib_trainer.ui.grid_panel import propose_prompt
from lib_trainer.ui.history_panel import HistoryActions
from lib_trainer.ui.last_settings import read_settings, read_values, write_settings
from lib_trainer.ui.memory_bar import show_memory
from lib_trainer.ui.messages import show_error
from lib_trainer.ui.recipe_panel import load_preset, load_upload, preset_for, recipe_values, show_notices, show_plan
from lib_trainer.ui.train_panel import LiveView

PLAN_FIELDS = ("max_train_steps", "epoch", "train_batch_size", "gradient_accumulation_steps")
# What the memory plan depends on.
MEMORY_FIELDS = (
    *("algo", "network_dim", "conv_dim", "factor", "decompose_both", "full_matrix", "use_tucker", "resolution_px"),
    *("train_batch_size", "gradient_accumulation_steps", "text_encoder_lr", "optimizer", "gradient_checkpointing"),
    *("fused_backward_pass", "vram_budget_gb", "mixed_precision"),
)
SCAN_FIELDS = ("train_data_dir", "trigger_word", "caption_extension")
# What was proposed last, (name, prompt): only what the person has not changed is proposed anew.
Proposed = tuple[str, str]


class Actions:
    """The tab's behaviour. It keeps no state of its own: a page's state lives in the page, a run's in the jobs."""

    def __init__(self, host: Host, jobs: Jobs, form: Form, page_key: str = "") -> None:
        self._host, self._jobs, self._form = host, jobs, form
        self.live = LiveView(jobs, page_key)
        self.history = HistoryActions(jobs, self.live)

    def open_page(self) -> list[Any]:
        """-> head, kind, preset, prompt, proposed, *form: as the last run was started with."""
        kind, preset, values = starting_point(self._host)
        proposed = self._propose(kind, "", ("", ""), values)
        head = f'<p class="train-lora-head">{escape(self._host.describe())}</p>'
        return [head, kind, preset, proposed[1], proposed, *self._form.show(values)]

    def look(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> gallery, draws, plan, folder, word, name, prompt, proposed."""
        given = self._form.read(values)
        try:
            scan = scan_pictures(given)
        except UserError as error:
            complaint = gr.update(info=f"{WRONG} {error}")
            return [EMPTY, 0, "", complaint, gr.update(), gr.update(), gr.update(), proposed]
        given["trigger_word"] = given["trigger_word"] or scan.trigger_word
        new = self._propose(kind, prompt, proposed, given)
        plan = show_plan(draws_of(scan), given)
        folder = gr.update(info=help_of("train_data_dir"))
        name, prompt = self._keep_typed(given["output_name"], prompt, proposed, new)
        return [show_scan(scan), draws_of(scan), plan, folder, given["trigger_word"], name, prompt, new]

    def propose(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> name, prompt, proposed: from the word, where the person has not typed their own."""
        given = self._form.read(values)
        new = self._propose(kind, prompt, proposed, given)
        return [*self._keep_typed(given["output_name"], prompt, proposed, new), new]

    def memory(self, *values: Any) -> str:
        """-> the memory bar."""
        return show_memory(self._host, self._form.read(values))

    def choose_kind(self, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, prompt, proposed, *form, *folds: the recipe shipped for this kind."""
        preset = preset_for(kind)
        if not preset:
            return [gr.update(), "", *self.propose(kind, prompt, proposed, *values)[1:], *self._form.complain({}, {})]
        return [preset, *self.choose_preset(preset, kind, prompt, proposed, *values)]

    def choose_preset(self, preset: str, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> notices, prompt, proposed, *form, *folds."""
        return self._fill(lambda: load_preset(preset), "", kind, prompt, proposed, values)

    def open_recipe(self, file: Any, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, prompt, proposed, *form, *folds: of a recipe file or an adapter, what is right."""
        title = re.split(r"[/\\]", str(getattr(file, "name", file)))[-1]
        return [None, *self._fill(lambda: load_upload(file), title, kind, prompt, proposed, values)]

    def use_run(self, chosen: str | None, kind: str, prompt: str, proposed: Proposed, *values: Any) -> list[Any]:
        """-> preset, notices, prompt, proposed, *form, *folds: the settings of a past run."""
        title = (chosen or "").rpartition(" · ")[0]
        return [None, *self._fill(lambda: self.history.settings(chosen), title, kind, prompt, proposed, values)]

    def train(self, kind: str, preset: str | None, *values: Any) -> list[Any]:
        """-> message, *form, *folds, *live. Everything is checked before the host's model is touched."""
        return self._start(kind, preset, self._form.read(values), ())

    def train_with_less(self, kind: str, preset: str | None, *values: Any) -> list[Any]:
        """As `train`, with the settings by which a run that failed may do better."""
        remedy = self._jobs.status().remedy
        return self._start(kind, preset, {**self._form.read(values), **remedy}, tuple(remedy))

    def _start(self, kind: str, preset: str | None, given: dict[str, Any], changed: tuple[str, ...]) -> list[Any]:
        try:
            recipe = checked_recipe(given)
            self._jobs.start(recipe)
        except UserError as error:
            problems = error.problems if isinstance(error, ConfigError) else {}
            return [show_error(error, "Not started."), *self._form.complain(problems, {}), *self.live.show()]
        path, settings = self._host.settings_file, {"kind": kind, "preset": preset, "values": recipe.flat()}
        write_settings(path, {**read_settings(path), **settings})
        # Only what was left open: the person may have typed on while the answer was on its way.
        filled = [name for name in ("trigger_word", "output_name") if not given[name]]
        named = {name: recipe.flat()[name] for name in (*filled, *changed)}
        return ["", *self._form.complain({}, named), *self.live.show()]

    def _fill(
        self, load: Callable[[], LoadedRecipe], title: str, kind: str, prompt: str, proposed: Proposed, values: tuple
    ) -> list[Any]:
        try:
            loaded = load()
        except UserError as error:
            return [show_error(error, "Not loaded."), prompt, proposed, *self._form.complain({}, {})]
        changes = recipe_values(loaded)
        given = {**self._form.read(values), **changes}
        new = self._propose(kind, prompt, proposed, given)
        _, prompt = self._keep_typed(given["output_name"], prompt, proposed, new)
        notices = show_notices(title, loaded) if title else ""
        return [notices, prompt, new, *self._form.complain(loaded.problems, changes)]

    def _propose(self, kind: str, prompt: str, proposed: Proposed, given: dict[str, Any]) -> Proposed:
        word, name = given.get("trigger_word", ""), given.get("output_name", "")
        new_name = name_from(word)
        used = new_name if name in ("", proposed[0]) else name
        return new_name, propose_prompt(kind, word, used, given.get("preferred_weight") or 0.8)

    @staticmethod
    def _keep_typed(name: str, prompt: str, proposed: Proposed, new: Proposed) -> tuple[str, str]:
        return (
            new[0] if name in ("", proposed[0]) else name,
            new[1] if prompt in ("", proposed[1]) else prompt,
        )


def show_plan_of(draws: int, *values: Any) -> str:
    return show_plan(draws, dict(zip(PLAN_FIELDS, values, strict=True)))


def checked_recipe(given: dict[str, Any]) -> Recipe:
    """The recipe that the inputs describe. A word and a name that are not given come from the folder.

    Raises:
        ConfigError: with every problem of the fields and of the folder, together.
    """
    given, problems = dict(given), {}
    try:
        given["trigger_word"] = given["trigger_word"] or scan_pictures(given).trigger_word
    except ConfigError as error:
        problems = error.problems
    except UserError as error:
        problems = {"train_data_dir": str(error)}
    given["output_name"] = given["output_name"] or name_from(given["trigger_word"])
    try:
        recipe = recipe_from(given)
    except ConfigError as error:
        raise ConfigError({**error.problems, **problems}) from error
    if problems:
        raise ConfigError(problems)
    return recipe


def scan_pictures(given: dict[str, Any]) -> Any:
    """The scan of the folder that the inputs name. Raises UserError for what cannot be looked at."""
    from lib_trainer.dataset.scan import scan_folder

    if not given["train_data_dir"].strip():
        raise ConfigError({"train_data_dir": "name the folder that holds the pictures"})
    return scan_folder(Recipe().with_values({name: given[name] for name in SCAN_FIELDS}).dataset)


def recipe_size(values: dict[str, Any]) -> tuple[int, int]:
    """Width and height in pixels that the values train at: what the adapter will draw best."""
    size = values.get("resolution_px", default_of("resolution_px"))
    return Recipe().with_values({"resolution_px": size}).dataset.resolution_px


def name_from(word: str) -> str:
    """A file name that the prompt syntax can hold, from the word."""
    return re.sub(r"[^\w\-.]+", "_", word).strip("._")


def starting_point(host: Host) -> tuple[str, str | None, dict[str, Any]]:
    """(kind, preset, values) of the last run; without one, the recipe for faces."""
    settings = read_settings(host.settings_file)
    values = read_values(settings)
    if values:
        return str(settings.get("kind", "face")), settings.get("preset"), values
    preset = preset_for("face")
    return "face", preset, recipe_values(load_preset(preset)) if preset else {}
