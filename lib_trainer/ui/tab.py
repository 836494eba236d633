"""The tab: four steps, left to right, and what their buttons are wired to."""

from __future__ import annotations

from functools import partial

import gradio as gr

from lib_trainer.host.base import Host
from lib_trainer.jobs import Jobs
from lib_trainer.ui.actions import PLAN_FIELDS, Actions, recipe_size, show_plan_of, starting_point
from lib_trainer.ui.form import Form
from lib_trainer.ui.packages import show_missing
from lib_trainer.ui.pictures import PicturesPanel, place_pictures
from lib_trainer.ui.recipe import RecipePanel, place_recipe
from lib_trainer.ui.train import TrainPanel, place_train
from lib_trainer.ui.tryit import TryPanel, make_picture, place_try, show_drawing

# Short answers bypass gradio's queue: they must be heard while a picture is being made.
QUICK = {"queue": False, "show_progress": "hidden", "api_name": False}
SLOW = {"show_progress": "minimal", "api_name": False}


def build(host: Host, jobs: Jobs, page_key: str = "") -> gr.Blocks:
    """The whole tab for one host; `page_key` lets it ask the routes.

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
                    train = place_train()
                with gr.Column(elem_classes="train-lora-card"):
                    tryit = place_try(recipe_size(values))
        actions = Actions(host, jobs, form, page_key)
        proposed, draws = gr.State(("", "")), gr.State(0)
        _wire_settings(actions, form, pictures, recipe, tryit, proposed, draws)
        _wire_run(actions, form, pictures, recipe, train)
        tryit.make.click(show_drawing, None, tryit.message, **QUICK).then(
            partial(make_picture, host, jobs), tryit.inputs, [tryit.picture, tryit.message], **SLOW
        )
        blocks.load(
            actions.open_page,
            None,
            [head, pictures.kind, recipe.preset, tryit.prompt, proposed, *form.components],
            **QUICK,
        )
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
    pictures.look.click(actions.look, given, found, **SLOW)
    pictures.folder.submit(actions.look, given, found, **SLOW)
    for named in (pictures.word, recipe.name):
        named.blur(actions.propose, given, [recipe.name, tryit.prompt, proposed], **QUICK)
    filled = [recipe.notices, tryit.prompt, proposed, *form.components]
    pictures.kind.input(actions.choose_kind, given, [recipe.preset, *filled], **QUICK)
    recipe.preset.input(actions.choose_preset, [recipe.preset, *given], filled, **QUICK)
    recipe.upload.upload(actions.open_recipe, [recipe.upload, *given], [recipe.preset, *filled], **QUICK)
    counted = [form.inputs[name] for name in PLAN_FIELDS]
    for number in counted:
        number.change(show_plan_of, [draws, *counted], recipe.plan, **QUICK)


def _wire_run(actions: Actions, form: Form, pictures: PicturesPanel, recipe: RecipePanel, train: TrainPanel) -> None:
    """The buttons of the run, and the hidden one by which the page asks how it stands."""
    checked = [train.message, *form.components, *form.folds.values(), *train.live]
    train.train.click(actions.train, [pictures.kind, recipe.preset, *form.components], checked, **QUICK)
    live = actions.live
    for button, action in (
        (train.pause, live.pause),
        (train.stop_save, live.stop_save),
        (train.stop, live.stop),
        (train.refresh, live.show),
    ):
        button.click(action, None, train.live, **QUICK)
