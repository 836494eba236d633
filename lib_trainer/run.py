"""A run, from a folder of images to an adapter file: the whole story.

`run` is a generator of events. It works on the thread that drives it, which must be the host's generation thread
(`Host.run_exclusive`). Its caller pauses it by not asking for the next event and stops it by throwing `StopRequested`
into it. The host's model is restored however the run ends.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from lib_trainer.adapter.attach import Adapter, attached
from lib_trainer.adapter.kernels.choices import KernelChoices
from lib_trainer.adapter.kernels.int8 import without_int8
from lib_trainer.config.recipe import Recipe, field_of, ignored_in_mode, ignored_settings
from lib_trainer.dataset.cache import cache_texts
from lib_trainer.dataset.cache_store import TextStore, prune_cache
from lib_trainer.dataset.scan import Scan
from lib_trainer.evaluation.evaluation import Evaluation, prepare_evaluation
from lib_trainer.evaluation.final_report import leave_report
from lib_trainer.evaluation.probes import ProbePlan, plan_probes
from lib_trainer.events import (
    Command,
    Event,
    Finished,
    Notice,
    Progress,
    Saved,
)
from lib_trainer.host.base import Host
from lib_trainer.jobs.history import SAMPLE_DIR, STATE_FILE
from lib_trainer.memory.out_of_memory import explained_out_of_memory
from lib_trainer.memory.planner import planned
from lib_trainer.models.base import HostModel
from lib_trainer.training.callbacks import Callbacks, ResumeSaver
from lib_trainer.training.comparison import Comparison
from lib_trainer.training.denoiser import Denoiser
from lib_trainer.training.determinism import deterministic_algorithms
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.optimizer import check_recipe
from lib_trainer.training.outcome import Outcome, Output
from lib_trainer.training.pivotal import (
    check_word,
    describe_embedding,
    known_words,
    new_embedding,
    require_unet,
    trains_embedding,
)
from lib_trainer.training.preservation import prepare_preservation, preserved_prompts
from lib_trainer.training.processes import ALONE, Processes, for_all, per_process, tightest
from lib_trainer.training.resume_facts import dtype_of_run, kernels_of_run, resumed_settings
from lib_trainer.training.run_layers import run_layers
from lib_trainer.training.sampling import Sampling, sample_requests
from lib_trainer.training.saving import Saving
from lib_trainer.training.source import Latents, Source, open_source
from lib_trainer.training.start import Start, open_start
from lib_trainer.training.steps import take_steps, while_ending
from lib_trainer.training.target import free_target, require_space

Events = Generator[Event, None, None]


def run(host: Host, recipe: Recipe, folder: Path | None = None, processes: Processes = ALONE) -> Events:
    """Trains `recipe` on the checkpoint that `host` has selected, and writes the adapter into its LoRA folder.

    Args:
        folder: of this run alone. The run keeps its resume state and samples there, and resumes from a state that it
            finds there; without a folder it does neither.
        processes: that share out the run, each with the same recipe and folder. All but the first write nothing.

    Raises:
        ConfigError: every problem of the recipe, before the model is touched.
        UserError: what a person can fix, at any point.
        StopRequested: as it was thrown in, if nothing was to be saved or no step was taken yet.
    """
    check_recipe(recipe)
    target = free_target(host.lora_dir, recipe)
    # Raises now for a prompt with a mistake in it, not after an hour of training.
    sample_requests(recipe)
    resumed = resumed_settings(folder / STATE_FILE) if folder else {}
    recipe = recipe.with_values(resumed)
    # Fixed now and kept in the resume state: the WebUI may be set otherwise by the time of a resume.
    recipe = recipe.with_values({"clip_skip": recipe.training.clip_skip or host.clip_skip()})
    start = open_start(recipe, host)
    if target.exists() and not resumed:
        # Said now: kohya's tools replace a file of that name without a word.
        yield Notice(f"{target.name} exists: when this run is done it is kept as {target.stem}-previous.")
    source = open_source(recipe)
    check_word(source.recipe, source.scan, start, host)
    yield from map(Notice, _of_no_effect(recipe, source.scan))
    yield Progress("preparing", 0, 1, "Loading the checkpoint")
    output = Output(target, folder, [], resuming=bool(resumed), start=start)
    try:
        with explained_out_of_memory(None), host.open_model() as model, _order_of(recipe, model):
            outcome = yield from _train(host, model, source, output, processes)
    finally:
        # Checkpoints stay however the run ends; without this the WebUI would use older files of the same names.
        for path in output.saved:
            host.lora_changed(path)
    if outcome.failure:
        with explained_out_of_memory(outcome.plan):
            raise outcome.failure
    strength = outcome.strength if outcome.strength is not None else recipe.output.preferred_weight
    path = outcome.path or target
    yield Finished(path, f"<lora:{path.stem}:{strength:g}>", outcome.step, outcome.stopped_early, outcome.evaluated)


def _of_no_effect(recipe: Recipe, scan: Scan) -> Iterator[str]:
    """What of the recipe and its pictures takes no part in the run, a sentence each."""
    if unused := ignored_in_mode(recipe):
        labels = ", ".join(field_of(name).metadata["label"] for name in unused)
        yield f"{labels}: no effect in the mode {recipe.task.mode}."
    for skipped in scan.skipped:
        yield f"{skipped.path.name} is skipped: {skipped.reason}"
    yield from scan.notices


def _order_of(recipe: Recipe, model: HostModel) -> AbstractContextManager[None]:
    return deterministic_algorithms(recipe.training.deterministic, model.device)


def _train(
    host: Host, model: HostModel, source: Source, output: Output, processes: Processes
) -> Generator[Event, Command | None, Outcome]:
    """Plan, cache, attach, train, save: everything that needs the model."""
    recipe, scan = source.recipe, source.scan
    require_unet(recipe, model)
    if unused := ignored_settings(recipe, model.family.key):
        yield Notice(f"{', '.join(unused)}: no effect on {model.family.label}.")
    start = output.start
    layers = run_layers(model, recipe, start)
    frozen, recipe = start.frozen_loras(layers.every), start.sized(recipe, layers.every)
    continued = start.shapes(recipe, layers.every)
    dtype = dtype_of_run(output.folder and output.folder / STATE_FILE, recipe, model.device)
    plan = yield from planned(
        model, per_process(recipe, processes), scan, dtype,
        resuming=output.resuming, frozen_bytes=frozen.size_bytes, continued=continued, agree=tightest(processes),
    )  # fmt: skip
    recipe = for_all(plan.recipe, processes, begun=recipe if output.resuming else None)
    probes = plan_probes(scan, recipe)
    read_weight = frozen.over(model.read_weight)
    ahead = processes.first_ahead(asked=recipe.dataset.cache_latents_to_disk)
    # Encoders that are trained, or whose tokens are, encode anew in every step.
    encodes = bool(layers.text) or trains_embedding(recipe)
    with ahead, attached(Adapter({}), layers.frozen_text, read_weight), known_words(model, start):
        # A cache on the disk is shared by runs without the frozen LoRAs.
        folder = None if start.freezes_text or start.frozen_embeddings else host.cache_dir
        latents, texts = yield from _cache(host, model, recipe, source, probes, folder, with_texts=not encodes)
    embedding = new_embedding(recipe, model, start)
    yield Progress("preparing", 0, 1, "Making room for training")
    model.prepare_training(plan.placement, text_encoder=encodes, guidance_scale=recipe.flow.guidance_scale)
    adapter, begins = start.adapter(recipe, layers.trained(recipe), read_weight)
    adapter.embedding = embedding
    # A frozen LoRA is part of the weight that is read.
    held = plan.placement.int8 and not start.frozen
    yield from map(Notice, _choose_kernels(adapter, host, model, recipe, output, held=held))
    read_int8 = model.read_int8 if held and adapter.choices.takes_int8 else None
    yield from map(Notice, _of_adapter(adapter, start, begins))
    outcome, schedule = Outcome(plan), latents.store.schedule
    require_space(output.target, adapter, recipe.output.save_precision)
    words = known_words(model, start, embedding)
    with explained_out_of_memory(plan), attached(adapter, layers.every, read_weight, read_int8=read_int8), words:
        training = Training(
            model, adapter, recipe, schedule, latents.batches(texts),
            started_from=start.fingerprint, dtype=dtype, processes=processes,
        )  # fmt: skip
        yield from _learn(host, training, source, output, outcome, probes, latents, texts)
    return outcome


def _learn(
    host: Host,
    training: Training,
    source: Source,
    output: Output,
    outcome: Outcome,
    probes: ProbePlan,
    latents: Latents,
    texts: TextStore | None,
) -> Generator[Event, Command | None, None]:
    """The steps of a training whose adapter is attached, and what is written after them."""
    training.targets = source.targets(Denoiser(training, texts))
    yield from prepare_preservation(training, latents.store, texts)
    if training.processes.rank:
        yield from _assist(training, output, source)
        return
    evaluation = yield from prepare_evaluation(training, probes, source.scan, latents.store, texts)
    callbacks = _callbacks(host, training, source, output, evaluation)
    yield from take_steps(callbacks, outcome)
    yield from _finish(callbacks, evaluation, outcome, output)


def _choose_kernels(
    adapter: Adapter, host: Host, model: HostModel, recipe: Recipe, output: Output, *, held: bool
) -> Iterator[str]:
    """Lets the adapter choose its kernels; `held`: the base in 8 bits. Yields what the recipe asks for in vain."""
    recorded = kernels_of_run(output.folder and output.folder / STATE_FILE)
    config = recipe.adapter
    adapter.choices = KernelChoices(config.kernel_strategy, config.int8_matmul, host.cache_dir, recorded)
    if sentence := without_int8(config.int8_matmul, model.device, held=held):
        yield sentence


def _of_adapter(adapter: Adapter, start: Start, sentence: str) -> Iterator[str]:
    """What is trained, a sentence each; `sentence` says where it comes from."""
    if sentence:
        yield sentence
    if start.frozen:
        yield f"Trained over {start.tags}: write both into a prompt."
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    yield f"Training {len(adapter.layers)} layers, {parameters / 1e6:.1f} M parameters."
    if adapter.embedding:
        yield describe_embedding(adapter.embedding)


def _assist(training: Training, output: Output, source: Source) -> Events:
    """Takes the steps of the first process, which alone decides, writes and evaluates."""
    state = output.folder / STATE_FILE if output.folder else None
    yield from fit(training, ResumeSaver(state, training, source.fingerprint()).resume())


def _cache(
    host: Host,
    model: HostModel,
    recipe: Recipe,
    source: Source,
    probes: ProbePlan,
    texts_folder: Path | None,
    *,
    with_texts: bool,
) -> Generator[Event, None, tuple[Latents, TextStore | None]]:
    """Latents, and text encodings if `with_texts`, of everything that the run draws."""
    folder = host.cache_dir if recipe.dataset.cache_latents_to_disk else None
    if folder:
        prune_cache(folder)
    latents = yield from source.cache(model, recipe, folder, frozenset(probes.held_out), probes.samples)
    # Encoders that are trained encode anew in every step.
    if not with_texts:
        return latents, None
    also = [*probes.captions(source.scan), *preserved_prompts(recipe), *source.prompts]
    texts_folder = folder and texts_folder
    texts = yield from cache_texts(latents.store.schedule, model, recipe.training.clip_skip, texts_folder, also=also)
    return latents, texts


def _callbacks(
    host: Host, training: Training, source: Source, output: Output, evaluation: Evaluation | None
) -> Callbacks:
    recipe, adapter, schedule, folder = training.recipe, training.adapter, training.schedule, output.folder
    saving = Saving(output.target, recipe, training.model, adapter, schedule, output.resuming, output.saved)
    sampling = Sampling(host, recipe, schedule, adapter, folder / SAMPLE_DIR if folder else None)
    pictures = source.fingerprint() if folder else ""
    resume_saver = ResumeSaver(folder / STATE_FILE if folder else None, training, pictures, evaluation)
    return Callbacks(saving, resume_saver, sampling, evaluation, Comparison(sampling))


def _finish(callbacks: Callbacks, evaluation: Evaluation | None, outcome: Outcome, output: Output) -> Events:
    """Writes the adapter and the report of what was learned, and does what is due after them."""
    target, name = output.target, output.target.stem
    if outcome.failure:
        yield Notice(f"The weights of step {outcome.step}, the last good ones, are saved as {target.name}.")
    yield from while_ending(Progress("saving", 0, 1, f"Writing {target.name}"))
    for event in callbacks.save_final(outcome.step, outcome.epoch, chosen=outcome.by_itself):
        if isinstance(event, Saved):
            outcome.path = event.path
        yield from while_ending(event)
    outcome.evaluated = evaluation.verdict() if evaluation else None
    if evaluation and outcome.evaluated:
        outcome.strength = outcome.evaluated.best_strength if evaluation.chooses and outcome.by_itself else None
        if output.folder:
            path = output.folder / f"{name}.report.html"
            for event in leave_report(path, evaluation, outcome.evaluated, callbacks.comparison):
                yield from while_ending(event)
    if outcome.last and outcome.by_itself:
        for event in callbacks.at_the_end(outcome.last):
            yield from while_ending(event)
