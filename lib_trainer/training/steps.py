"""The steps of a run, with what is due after each, and how they end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from traceback import clear_frames

from lib_trainer.events import Command, Event, Started, Step, StopRequested
from lib_trainer.training.callbacks import Callbacks
from lib_trainer.training.loop import fit
from lib_trainer.training.outcome import Outcome
from lib_trainer.training.processes import ProcessLost


def take_steps(callbacks: Callbacks, outcome: Outcome) -> Generator[Event, Command | None, None]:
    """Every step from the resume state on; records in `outcome` how it went."""
    resume_saver = callbacks.resume_saver
    training = resume_saver.training
    taken = resume_saver.resume()
    outcome.step, outcome.epoch = taken, -(-taken // training.schedule.steps_per_epoch)
    yield Started(taken, training.schedule.steps, training.model.checkpoint.name, resume_saver.pictures)
    try:
        with closing(fit(training, taken)) as events:
            while not callbacks.ended and (event := next(events, None)):
                if isinstance(event, Step):
                    outcome.last, outcome.step, outcome.epoch = event, event.number, event.epoch
                    yield from callbacks.after(event, (yield event))
                else:
                    yield event
        if callbacks.wants_more:
            # So that the person can extend the run.
            yield from resume_saver.save(outcome.step)
    except StopRequested as stop:
        if not stop.save or not outcome.step:
            raise
        outcome.stopped_early = True
        for event in resume_saver.save(outcome.step):
            yield from while_ending(event)
    except ProcessLost:
        # A fused backward pass may have stepped some layers: the saved state is whole.
        raise
    except Exception as error:
        # The traceback's frames hold the failed step's tensors, which the host's model needs the memory of.
        clear_frames(error.__traceback__)
        # What was learned until here is saved first.
        if not outcome.step:
            raise
        outcome.failure = error


def while_ending(event: Event) -> Generator[Event, Command | None, None]:
    """Yields `event`; ignores a request to stop and save, since the run does so already."""
    try:
        yield event
    except StopRequested as stop:
        if not stop.save:
            raise
