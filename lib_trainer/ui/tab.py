"""The tab: four steps, every setting below them, and what calls what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_trainer.host.access import Access
from lib_trainer.host.base import Host
from lib_trainer.jobs.queue import Jobs
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.actions import Actions
from lib_trainer.ui.dataset_panel import DatasetPanel, place_dataset
from lib_trainer.ui.form import Form
from lib_trainer.ui.grid_actions import GridActions
from lib_trainer.ui.grid_events import bind_grid, opened_page
from lib_trainer.ui.grid_panel import CellPanel, GridPanel, place_cell, place_grid
from lib_trainer.ui.history_panel import HistoryPanel, place_history
from lib_trainer.ui.proposals import Proposed
from lib_trainer.ui.recipe_panel import RecipePanel, place_recipe, show_length
from lib_trainer.ui.settings_panel import SettingsPanel, place_settings
from lib_trainer.ui.starting_point import StartingPoint, recipe_size, starting_point
from lib_trainer.ui.tools_panel import ToolsPanel, bind_tools, place_tools
from lib_trainer.ui.train_panel import TrainPanel, place_train
from lib_trainer.ui.workbench_panel import WorkbenchActions, WorkbenchPanel, place_workbench
from lib_trainer.workbench.folders import Workbench

# Short answers bypass gradio's queue: they must arrive while a picture is being generated.
QUICK = {"queue": False, "show_progress": "hidden", "api_name": False}
SLOW = {"show_progress": "minimal", "api_name": False}
LENGTH_FIELDS = ("max_train_steps", "epoch", "train_batch_size", "gradient_accumulation_steps")
# What the memory plan depends on.
MEMORY_FIELDS = (
    *("algo", "network_dim", "conv_dim", "factor", "decompose_both", "full_matrix", "use_tucker", "resolution_px"),
    *(
        "dora_wd",
        "train_norm",
        "lycoris_preset",
        "network_reg_dims",
        "network_reg_lrs",
        "block_dims",
        "conv_block_dims",
    ),
    *("down_lr_weight", "mid_lr_weight", "up_lr_weight", "ema_decay", "network_weights", "dim_from_weights"),
    *("train_batch_size", "gradient_accumulation_steps", "text_encoder_lr", "optimizer", "gradient_checkpointing"),
    *("fused_backward_pass", "vram_budget_gb", "mixed_precision"),
)


@dataclass(frozen=True)
class Page:
    """Everything on the page that an event reads or changes."""

    head: gr.HTML
    form: Form
    dataset: DatasetPanel
    recipe: RecipePanel
    train: TrainPanel
    past: HistoryPanel
    grid: GridPanel
    cell: CellPanel
    settings: SettingsPanel
    workbench: WorkbenchPanel
    tools: ToolsPanel
    proposed: gr.State
    asked: gr.State
    pictures: gr.State

    @property
    def typed(self) -> list[gr.components.Component]:
        """The inputs of `Actions` that propose or fill in something: `Typed`, then the settings."""
        return [self.dataset.kind, self.grid.prompt, self.proposed, *self.form.components]

    @property
    def scanned(self) -> list[gr.components.Component]:
        """What a scan of the folder fills in: the outputs of `Actions.scan`."""
        found = [self.dataset.gallery, self.pictures, self.recipe.length, self.dataset.folder]
        return [*found, self.dataset.trigger_word, self.recipe.name, self.grid.prompt, self.proposed]

    @property
    def filled(self) -> list[gr.components.Component]:
        """What a recipe that is loaded changes; what Train said of the last one goes."""
        changed = [self.recipe.notices, self.settings.base, self.grid.prompt, self.proposed]
        return [*changed, *self.form.components, self.form.fold, self.train.message]


def build(
    host: Host,
    jobs: Jobs,
    access: Access | None = None,
    grid_job: GridJob | None = None,
    *,
    workbench: Workbench | None = None,
    in_webui: bool = True,
) -> gr.Blocks:
    """The whole tab for one host. It asks for no model and no picture until the page is opened.

    Args:
        access: which folders the page may name, and the key with which it calls the routes.
        grid_job: draws its grids.
        workbench: the folders that pages have open; without one there are no captions and crops.
        in_webui: decides the advice on missing packages and where pictures are sent.
    """
    with gr.Blocks(analytics_enabled=False, title="Train LoRA") as blocks:
        # Placed first and bound second: events refer to components of other panels.
        page = _place(starting_point(host.settings_file, host.drawing_family()))
        actions = Actions(host, jobs, page.form, access, workbench=workbench, in_webui=in_webui)
        grid_actions = GridActions(host, jobs, grid_job or GridJob(host))
        _bind_settings(actions, page)
        _bind_run(actions, page)
        _bind_history(actions, page)
        bind_tools(host, access, page.tools, QUICK)
        if workbench:
            panel = page.workbench
            panel.send.click(WorkbenchActions(workbench).run, panel.command, panel.answer, **QUICK)
        seen = bind_grid(host, grid_actions, page.grid, page.cell, page.proposed, QUICK, SLOW)
        opened = [page.head, page.dataset.kind, page.recipe.preset, page.settings.base, page.grid.prompt, page.proposed]
        _then_memory(actions, page, blocks.load(actions.open_page, None, [*opened, *page.form.components], **QUICK))
        # Three events: the slowest of the answers must not hold the others up.
        blocks.load(actions.history.list_runs, None, page.past.changing, **QUICK)
        blocks.load(grid_actions.open_page, None, opened_page(page.grid, seen), **QUICK)
    return blocks


def _place(start: StartingPoint) -> Page:
    form = Form(start.values)
    with gr.Column(elem_id="train_lora_page"):
        head = gr.HTML("", elem_id="train_lora_head", elem_classes="train-lora-maybe")
        with gr.Row(elem_id="train_lora_steps"):
            with gr.Column(min_width=380, elem_classes="train-lora-side"):
                with gr.Column(elem_classes="train-lora-card"):
                    dataset = place_dataset(form, start.kind)
                with gr.Column(elem_classes="train-lora-card"):
                    recipe = place_recipe(form, start.preset)
            with gr.Column(min_width=380, elem_classes="train-lora-side"):
                with gr.Column(elem_classes="train-lora-card"):
                    train, past = place_train(), place_history()
                with gr.Column(elem_classes="train-lora-card"):
                    grid = place_grid(recipe_size(start.values))
        with gr.Row(elem_id="train_lora_results", elem_classes="train-lora-card"):
            with gr.Column(scale=3, min_width=420):
                grid.view.render()
            with gr.Column(scale=2, min_width=380, elem_id="train_lora_beside_grid"):
                cell = place_cell()
        workbench = place_workbench()
        settings = place_settings(form, start.base)
        tools = place_tools()
    return Page(
        head, form, dataset, recipe, train, past, grid, cell, settings, workbench, tools,
        proposed=gr.State(Proposed()), asked=gr.State(""), pictures=gr.State(0),
    )  # fmt: skip


def _then_memory(actions: Actions, page: Page, event: Any) -> None:
    """After what changes many settings at once, the memory bar is drawn again."""
    event.then(actions.memory, page.form.components, page.recipe.memory, **QUICK)


def _bind_settings(actions: Actions, page: Page) -> None:
    """Folder, subject, trigger word, name and recipe: each fills in what follows from it."""
    form, dataset, recipe, settings = page.form, page.dataset, page.recipe, page.settings
    found = page.scanned
    _then_memory(actions, page, dataset.scan.click(actions.scan, page.typed, found, **SLOW))
    dataset.folder.submit(actions.scan, page.typed, found, **SLOW)
    # In the fold of all settings, and part of what an epoch draws.
    form.inputs["reg_data_dir"].submit(actions.rescan, page.typed, found, **SLOW)
    dataset.drop.upload(actions.drop, [dataset.drop, *page.typed], found, **SLOW)
    # What was said of the captions may be settled by it.
    dataset.word_first.input(actions.rescan, page.typed, found, **SLOW)
    # On blur: while somebody types, half a word proposes nothing useful.
    for named in (dataset.trigger_word, recipe.name, *dataset.prompts):
        named.blur(actions.propose, page.typed, [recipe.name, page.grid.prompt, page.proposed], **QUICK)
    with_preset = [recipe.preset, *page.filled]
    reset = [settings.reset_name, settings.base]
    for loaded in (
        dataset.kind.input(actions.choose_kind, page.typed, with_preset, **QUICK),
        recipe.preset.input(actions.choose_preset, [recipe.preset, *page.typed], page.filled, **QUICK),
        recipe.upload.upload(actions.open_recipe, [recipe.upload, *page.typed], with_preset, **QUICK),
        settings.reset.click(actions.reset, reset, form.components, **QUICK),
    ):
        _then_memory(actions, page, loaded)
    checked = [page.train.message, *form.components]
    settings.check.click(actions.check, [settings.check_names, page.proposed, *form.components], checked, **QUICK)
    settings.follow.click(actions.memory, form.components, recipe.memory, **QUICK)
    for name in MEMORY_FIELDS:
        component = form.inputs[name]
        # On blur, where every letter would be an input.
        changed = component.blur if isinstance(component, gr.Textbox) else component.input
        changed(actions.memory, form.components, recipe.memory, **QUICK)
    counted = [form.inputs[name] for name in LENGTH_FIELDS]
    for number in counted:
        # `change`, not `input`: a recipe that is loaded changes the length as well.
        number.change(_length, [page.pictures, *counted], recipe.length, **QUICK)


def _length(pictures: int, *values: Any) -> str:
    return show_length(pictures, dict(zip(LENGTH_FIELDS, values, strict=True)))


def _bind_run(actions: Actions, page: Page) -> None:
    """The buttons of the run, and the hidden one by which the script asks for the state of the run."""
    train, live = page.train, actions.live
    checked = [train.message, *page.form.components, page.form.fold, *train.live]
    checked += [train.replace, page.asked, page.proposed]
    sent = [page.dataset.kind, page.recipe.preset, page.settings.base, page.asked, page.proposed]
    for button, action in (
        (train.train, actions.start.train),
        (train.replace, actions.start.replace_existing),
        (train.less, actions.start.train_with_less),
    ):
        button.click(action, [*sent, *page.form.components], checked, **QUICK)
    train.more.click(actions.history.train_more, None, [train.message, *train.live], **QUICK)
    train.leave_out.click(actions.history.leave_out, train.odd, train.message, **QUICK).then(
        actions.rescan, page.typed, page.scanned, **SLOW
    )
    for button, action in (
        (train.pause, live.pause),
        (train.stop_save, live.stop_save),
        (train.stop, live.stop),
        (train.stop_anyway, live.stop_anyway),
        (train.save, live.save),
        (train.sample, live.sample),
        (train.refresh, live.show),
    ):
        button.click(action, None, train.live, **QUICK)


def _bind_history(actions: Actions, page: Page) -> None:
    """Past runs: shown, used again, resumed, removed. The list follows the run."""
    history, past, changed = actions.history, page.past, [*page.past.changing, *page.train.live]
    for choice in past.chosen:
        choice.input(history.show_past, past.chosen, past.shown, **QUICK)
    past.use.click(actions.use_run, [past.choice, *page.typed], [page.recipe.preset, *page.filled], **QUICK)
    past.resume.click(history.resume, past.chosen, changed, **QUICK)
    past.remove.click(history.remove, past.chosen, changed, **QUICK)
    page.train.refresh.click(history.list_runs, past.chosen, past.changing, **QUICK)
