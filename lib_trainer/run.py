"""A run, from a folder of pictures to an adapter file: the whole story.

`run` is a generator of events. It works on the thread that drives it, which must be the host's generation thread
(`Host.run_exclusive`). Whoever drives it pauses by not asking for the next event and stops it by throwing
`StopRequested` into it. However it ends, the host has its model back as it was.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.adapter.io import is_ours
from lib_trainer.config.recipe import Recipe, ignored_settings
from lib_trainer.dataset.cache import cache_latents, cache_texts
from lib_trainer.dataset.cache_store import prune_cache
from lib_trainer.dataset.collate import make_batch
from lib_trainer.dataset.fingerprint import fingerprint
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.scan import Scan, scan_folder
from lib_trainer.errors import ConfigError
from lib_trainer.evaluation.evaluation import Evaluation, prepare_evaluation
from lib_trainer.evaluation.probes import plan_probes
from lib_trainer.events import Begun, Command, Evaluated, Event, Finished, Notice, Progress, Step, StopRequested
from lib_trainer.host.base import Host
from lib_trainer.jobs.history import SAMPLE_DIR, STATE_FILE
from lib_trainer.memory.out_of_memory import explained_shortage
from lib_trainer.memory.plan import Plan
from lib_trainer.memory.planner import planned
from lib_trainer.models.base import HostModel
from lib_trainer.training.callbacks import Callbacks, ResumeSaver
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.objective import objective_of
from lib_trainer.training.preservation import prepare_preservation, preserved_prompts
from lib_trainer.training.resume_facts import kept_settings
from lib_trainer.training.sampling import Sampling, sample_requests
from lib_trainer.training.saving import Saving, clear_parts

Events = Generator[Event, None, None]


def run(host: Host, recipe: Recipe, folder: Path | None = None) -> Events:
    """Trains `recipe` on the checkpoint that `host` has selected, and writes the adapter into its LoRA folder.

    Args:
        folder: of this run alone. What a resume needs is kept there, and the run goes on from what it finds there;
            without a folder nothing is kept, and no test pictures are drawn.

    Raises:
        ConfigError: every problem of the recipe, before the model is touched.
        UserError: what a person can mend, at any point.
        StopRequested: as it was thrown in, when nothing was to be saved or nothing was learned yet.
    """
    recipe.check()
    target = _free_target(host, recipe)
    sample_requests(recipe)
    kept = kept_settings(folder / STATE_FILE) if folder else {}
    recipe = recipe.with_values(kept)
    # Read as it is drawn, and kept so: whoever resumes may have the WebUI set otherwise by then.
    recipe = recipe.with_values({"clip_skip": recipe.training.clip_skip or host.clip_skip()})
    scan = scan_folder(recipe.dataset)
    for skipped in scan.skipped:
        yield Notice(f"{skipped.path.name} is skipped: {skipped.reason}")
    recipe = replace(recipe, dataset=replace(recipe.dataset, trigger_word=scan.trigger_word))
    yield Progress("preparing", 0, 1, "Loading the checkpoint")
    saved: list[Path] = []
    try:
        with explained_shortage(None), host.open_model() as model:
            outcome = yield from _train(
                host, model, recipe, scan, OutputPaths(target, folder, saved, goes_on=bool(kept))
            )
    finally:
        # Copies on the way stay, however the run ends, and must not show as the older ones of that name.
        for path in saved:
            host.lora_changed(path)
    if outcome.failure:
        with explained_shortage(outcome.plan):
            raise outcome.failure
    strength = outcome.strength if outcome.strength is not None else recipe.output.preferred_weight
    tag = f"<lora:{recipe.output.output_name}:{strength:g}>"
    yield Finished(target, tag, outcome.step, outcome.stopped_early, outcome.evaluated)


@dataclass
class _Outcome:
    """How training ended. `failure` is raised once the host has its model back.

    Attributes:
        evaluated: what was found of the file's weights; None for a run that is not evaluated.
        strength: the file's best; None where the recipe's stands.
    """

    plan: Plan
    step: int = 0
    epoch: int = 0
    stopped_early: bool = False
    failure: Exception | None = None
    last: Step | None = None
    evaluated: Evaluated | None = None
    strength: float | None = None

    @property
    def by_itself(self) -> bool:
        """Nobody stopped it, and nothing failed."""
        return not (self.stopped_early or self.failure)


@dataclass(frozen=True)
class OutputPaths:
    """Where things are written.

    Attributes:
        target: the adapter file.
        folder: of the run; see `run`.
        saved: the adapter files that were written so far, filled as they come.
        goes_on: an earlier life of the run has left something in the folder.
    """

    target: Path
    folder: Path | None
    saved: list[Path]
    goes_on: bool


def _train(
    host: Host, model: HostModel, recipe: Recipe, scan: Scan, places: OutputPaths
) -> Generator[Event, Command | None, _Outcome]:
    """Everything that happens while the model is borrowed."""
    # Raises for a schedule that cannot be trained, before anything is encoded.
    objective_of(model)
    if unused := ignored_settings(recipe, model.family.key):
        yield Notice(f"{', '.join(unused)}: no effect on {model.family.label}.")
    text_layers = model.text_layers() if recipe.training.text_encoder_lr > 0 else []
    plan = yield from planned(model, recipe, scan, settled=places.goes_on)
    recipe = plan.recipe
    folder = host.cache_dir if recipe.dataset.cache_latents_to_disk else None
    if folder:
        prune_cache(folder)
    probes = plan_probes(scan, recipe)
    schedule = Schedule(scan, recipe, frozenset(probes.held_out))
    latents = yield from cache_latents(schedule, model, folder, also=probes.samples)
    texts = None
    if not text_layers:
        clip_skip, also = recipe.training.clip_skip, [*probes.captions(scan), *preserved_prompts(recipe)]
        texts = yield from cache_texts(latents.schedule, model, clip_skip, folder, also=also)
    yield Progress("preparing", 0, 1, "Making room for training")
    guidance = recipe.flow.guidance_scale
    model.prepare_training(plan.placement, text_encoder=bool(text_layers), guidance_scale=guidance)
    layers = [*model.adaptable_layers(), *text_layers]
    adapter = new_adapter(layers, recipe.adapter, recipe.training.seed)
    yield Notice(
        f"Training {len(adapter.layers)} layers, {sum(p.numel() for p in adapter.parameters()) / 1e6:.1f} M parameters."
    )
    outcome, saving = _Outcome(plan), Saving(places.target, recipe, model, adapter, latents.schedule, places.saved)
    with explained_shortage(plan), attached(adapter, layers, model.read_weight):
        training = Training(model, adapter, recipe, latents.schedule, partial(make_batch, latents=latents, texts=texts))
        yield from prepare_preservation(training, latents, texts)
        evaluation = yield from prepare_evaluation(training, probes, scan, latents, texts)
        stages = _stages(host, training, saving, scan, places.folder, evaluation)
        yield from _steps(stages, outcome)
        outcome.evaluated = evaluation.verdict() if evaluation else None
        target = places.target
        if outcome.failure:
            yield Notice(f"The weights of step {outcome.step}, the last good ones, are saved as {target.name}.")
        yield from _said(Progress("saving", 0, 1, f"Writing {target.name}"))
        for event in stages.save_final(target, outcome.step, outcome.epoch, chosen=outcome.by_itself):
            yield from _said(event)
        if outcome.by_itself and outcome.evaluated and evaluation.chooses:
            outcome.strength = outcome.evaluated.best_strength
        if outcome.last and outcome.by_itself:
            for event in stages.at_the_end(outcome.last):
                yield from _said(event)
    return outcome


def _steps(stages: Callbacks, outcome: _Outcome) -> Generator[Event, Command | None, None]:
    """Every step from where an earlier life of the run was kept; how it went is noted in `outcome`."""
    training = stages.keeping.training
    taken = stages.keeping.go_on()
    outcome.step, outcome.epoch = taken, -(-taken // training.schedule.steps_per_epoch)
    yield Begun(taken, training.schedule.steps, training.model.checkpoint.name, stages.keeping.pictures)
    try:
        with closing(fit(training, taken)) as events:
            while not stages.ended and (event := next(events, None)):
                if isinstance(event, Step):
                    outcome.last, outcome.step, outcome.epoch = event, event.number, event.epoch
                    yield from stages.after(event, (yield event))
                else:
                    yield event
        if stages.wants_more:
            # A person may let it go on to more steps.
            yield from stages.keeping.keep(outcome.step)
    except StopRequested as stop:
        if not stop.save or not outcome.step:
            raise
        outcome.stopped_early = True
        for event in stages.keeping.keep(outcome.step):
            yield from _said(event)
    except Exception as error:
        if not outcome.step:
            raise
        outcome.failure = error


def _stages(
    host: Host, training: Training, saving: Saving, scan: Scan, folder: Path | None, evaluation: Evaluation | None
) -> Callbacks:
    pictures = fingerprint(scan) if folder else ""
    sampling = Sampling(host, training.recipe, training.adapter, folder / SAMPLE_DIR if folder else None)
    keeping = ResumeSaver(folder / STATE_FILE if folder else None, training, pictures, evaluation)
    return Callbacks(saving, keeping, sampling, evaluation)


def _said(event: Event) -> Events:
    """Says `event`; a wish to stop and save that comes at this moment is being fulfilled already."""
    try:
        yield event
    except StopRequested as stop:
        if not stop.save:
            raise


def _free_target(host: Host, recipe: Recipe) -> Path:
    """Where the adapter goes. A file of that name that we did not write is never replaced."""
    target = host.lora_dir / f"{recipe.output.output_name}.safetensors"
    clear_parts(target)
    if target.exists() and not is_ours(target):
        raise ConfigError({"output_name": f"{target.name} exists and was made by another program; choose another name"})
    return target
