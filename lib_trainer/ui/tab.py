"""The tab: four steps, left to right, and what their buttons are wired to."""

from __future__ import annotations

import gradio as gr

from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.actions import MEMORY_FIELDS, PLAN_FIELDS, Actions, recipe_size, show_plan_of, starting_point
from lib_trainer.ui.dataset_panel import PicturesPanel, place_pictures
from lib_trainer.ui.form import Form
from lib_trainer.ui.grid_actions import TryActions
from lib_trainer.ui.grid_events import opened_page, wire_try
from lib_trainer.ui.grid_panel import TryPanel, place_cell, place_try
from lib_trainer.ui.history_panel import HistoryPanel, place_history
from lib_trainer.ui.missing_packages import show_missing
from lib_trainer.ui.recipe_panel import RecipePanel, place_recipe
from lib_trainer.ui.train_panel import TrainPanel, place_train

# Short answers bypass gradio's queue: they must be heard while a picture is being made.
QUICK = {"queue": False, "show_progress": "hidden", "api_name": False}
SLOW = {"show_progress": "minimal", "api_name": False}


def build(host: Host, jobs: Jobs, page_key: str = "", grid_job: GridJob | None = None) -> gr.Blocks:
    """The whole tab for one host; `page_key` lets it ask the routes, `grid_job` draws its grids.

    It looks for no model and no picture until the page is opened.
    """
    kind, preset, values = starting_point(host)
    form = Form(values)
    with gr.Blocks(analytics_enabled=False, title="Train LoRA") as blocks:
        head = gr.HTML("", elem_id="train_lora_head", elem_classes="train-lora-maybe")
        gr.HTML(show_missing(), elem_classes="train-lora-maybe")
        with gr.Row(elem_id="train_lora_steps"):
            with gr.Column(min_width=380, elem_classes="train-lora-side"):
                with gr.Column(elem_classes="train-lora-card"):
                    pictures = place_pictures(form, kind)
                with gr.Column(elem_classes="train-lora-card"):
                    recipe = place_recipe(form, preset)
            with gr.Column(min_width=380, elem_classes="train-lora-side"):
                with gr.Column(elem_classes="train-lora-card"):
                    train, past = place_train(), place_history()
                with gr.Column(elem_classes="train-lora-card"):
                    tryit, cell = place_try(recipe_size(values)), place_cell()
        actions = Actions(host, jobs, form, page_key)
        proposed, draws = gr.State(("", "")), gr.State(0)
        _wire_settings(actions, form, pictures, recipe, tryit, proposed, draws)
        _wire_run(actions, form, pictures, recipe, train)
        _wire_history(actions, form, pictures, recipe, tryit, proposed, train, past)
        trying = TryActions(host, jobs, grid_job or GridJob(host))
        seen = wire_try(host, trying, tryit, cell, proposed, QUICK, SLOW)
        blocks.load(
            actions.open_page,
            None,
            [head, pictures.kind, recipe.preset, tryit.prompt, proposed, *form.components],
            **QUICK,
        ).then(actions.memory, form.components, recipe.memory, **QUICK)
        blocks.load(actions.history.list, None, past.changing, **QUICK)
        blocks.load(trying.open_page, None, opened_page(tryit, seen), **QUICK)
    return blocks


def _wire_settings(
    actions: Actions,
    form: Form,
    pictures: PicturesPanel,
    recipe: RecipePanel,
    tryit: TryPanel,
    proposed: gr.State,
    draws: gr.State,
) -> None:
    """Folder, kind, word, name and recipe: each fills in what follows from it."""
    given = [pictures.kind, tryit.prompt, proposed, *form.components]
    found = [pictures.gallery, draws, recipe.plan, pictures.folder, pictures.word, recipe.name, tryit.prompt, proposed]
    looked = pictures.look.click(actions.look, given, found, **SLOW)
    looked.then(actions.memory, form.components, recipe.memory, **QUICK)
    pictures.folder.submit(actions.look, given, found, **SLOW)
    for named in (pictures.word, recipe.name):
        named.blur(actions.propose, given, [recipe.name, tryit.prompt, proposed], **QUICK)
    filled = [recipe.notices, tryit.prompt, proposed, *form.components, *form.folds.values()]
    for loaded in (
        pictures.kind.input(actions.choose_kind, given, [recipe.preset, *filled], **QUICK),
        recipe.preset.input(actions.choose_preset, [recipe.preset, *given], filled, **QUICK),
        recipe.upload.upload(actions.open_recipe, [recipe.upload, *given], [recipe.preset, *filled], **QUICK),
    ):
        loaded.then(actions.memory, form.components, recipe.memory, **QUICK)
    for name in MEMORY_FIELDS:
        form.inputs[name].input(actions.memory, form.components, recipe.memory, **QUICK)
    counted = [form.inputs[name] for name in PLAN_FIELDS]
    for number in counted:
        number.change(show_plan_of, [draws, *counted], recipe.plan, **QUICK)


def _wire_run(actions: Actions, form: Form, pictures: PicturesPanel, recipe: RecipePanel, train: TrainPanel) -> None:
    """The buttons of the run, and the hidden one by which the page asks how it stands."""
    checked = [train.message, *form.components, *form.folds.values(), *train.live]
    asked = [pictures.kind, recipe.preset, *form.components]
    train.train.click(actions.train, asked, checked, **QUICK)
    train.less.click(actions.train_with_less, asked, checked, **QUICK)
    live = actions.live
    for button, action in (
        (train.pause, live.pause),
        (train.stop_save, live.stop_save),
        (train.stop, live.stop),
        (train.save, live.save),
        (train.sample, live.sample),
        (train.refresh, live.show),
    ):
        button.click(action, None, train.live, **QUICK)


def _wire_history(
    actions: Actions,
    form: Form,
    pictures: PicturesPanel,
    recipe: RecipePanel,
    tryit: TryPanel,
    proposed: gr.State,
    train: TrainPanel,
    past: HistoryPanel,
) -> None:
    """Past runs: looked at, used again, resumed. The list follows the run."""
    history, changed = actions.history, [*past.changing, *train.live]
    given = [past.choice, pictures.kind, tryit.prompt, proposed, *form.components]
    filled = [recipe.preset, recipe.notices, tryit.prompt, proposed, *form.components, *form.folds.values()]
    past.choice.input(history.look, past.choice, past.shown, **QUICK)
    past.use.click(actions.use_run, given, filled, **QUICK)
    past.resume.click(history.resume, past.choice, changed, **QUICK)
    past.remove.click(history.remove, past.choice, changed, **QUICK)
    train.refresh.click(history.list, past.choice, past.changing, **QUICK)
