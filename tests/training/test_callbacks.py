"""What happens between two steps: copies and which of them stay, test pictures, what is wished for, going on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.events import (
    Command,
    Event,
    Finished,
    Notice,
    Sampled,
    Saved,
    Started,
    StateSaved,
    Step,
    StopRequested,
)
from lib_trainer.host.forge.host import ForgeHost
from lib_trainer.run import run
from lib_trainer.training.callbacks import Callbacks, ResumeSaver
from lib_trainer.training.sampling import sample_requests
from tests.fakes.forge_room import ForgeRoom, fake_forge
from tests.test_run import pictures, recipe_of  # noqa: F401 - a fixture

React = Callable[[Event], StopRequested | Command | None]


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors") as room:
        yield room


def drive(forge: ForgeRoom, recipe: Recipe, folder: Path | None, react: React = lambda event: None) -> list[Event]:
    """Every event of a run in `folder`; each is answered as `react` says."""

    def work() -> list[Event]:
        events, story, answer = run(forge.host, recipe, folder), [], None
        while True:
            try:
                event = events.throw(answer) if isinstance(answer, StopRequested) else events.send(answer)
            except StopIteration:
                return story
            story.append(event)
            answer = react(event)

    return forge.run(work)


def at_step(number: int, answer: StopRequested | Command) -> React:
    return lambda event: answer if isinstance(event, Step) and event.number == number else None


def files_of(forge: ForgeRoom, name: str) -> list[str]:
    return sorted(path.name for path in forge.host.lora_dir.glob(f"{name}*"))


def of_kind(story: list[Event], *kinds: type) -> list[Event]:
    return [event for event in story if isinstance(event, kinds)]


def test_the_last_copies_by_steps_stay(forge, pictures) -> None:  # noqa: F811
    drive(forge, recipe_of(pictures, "steps", save_every_n_steps=1, save_last_n_steps=2), None)
    stages = [f"steps-step0000000{number}" for number in (3, 4, 5)]
    assert files_of(forge, "steps") == sorted(
        f"{stem}.{ending}" for stem in ("steps", *stages) for ending in ("safetensors", "json")
    )


def test_the_last_copies_by_epochs_stay(forge, pictures) -> None:  # noqa: F811
    """Six pictures in an epoch, one a step."""
    recipe = recipe_of(pictures, "epochs", max_train_steps=0, epoch=4, save_every_n_epochs=1, save_last_n_epochs=2)
    drive(forge, recipe, None)
    assert [name for name in files_of(forge, "epochs") if name.endswith("safetensors")] == [
        "epochs-000002.safetensors", "epochs-000003.safetensors", "epochs.safetensors",
    ]  # fmt: skip


def test_a_copy_on_demand_stays_and_so_does_a_card_that_was_edited(forge, pictures) -> None:  # noqa: F811
    def react(event: Event) -> Command | None:
        if isinstance(event, Saved) and event.step == 2:
            card = event.path.with_suffix(".json")
            card.write_text(json.dumps({**json.loads(card.read_text()), "notes": "mine"}))
        return Command.SAVE if isinstance(event, Step) and event.number == 3 else None

    drive(forge, recipe_of(pictures, "demand", save_every_n_steps=2, save_last_n_steps=1), None, react)
    assert files_of(forge, "demand") == [
        "demand-step00000002.json", "demand-step00000003.json", "demand-step00000003.safetensors",
        "demand-step00000004.json", "demand-step00000004.safetensors", "demand.json", "demand.safetensors",
    ]  # fmt: skip


def test_a_copy_never_replaces_or_removes_another_programs_file(forge, pictures) -> None:  # noqa: F811
    theirs = forge.host.lora_dir / "guest-step00000002.safetensors"
    save_file({"a": torch.zeros(1)}, theirs, {"made": "elsewhere"})
    before = theirs.read_bytes()
    story = drive(forge, recipe_of(pictures, "guest", save_every_n_steps=2, save_last_n_steps=1), None)
    # At step 4 the copy of step 2 would go, and its name is theirs.
    assert theirs.read_bytes() == before
    assert (forge.host.lora_dir / "guest-step00000002-2.safetensors").exists()
    assert any("another program" in event.text for event in of_kind(story, Notice))


def test_what_a_crash_left_half_written_is_removed_and_nothing_else(forge, pictures) -> None:  # noqa: F811
    folder = forge.host.lora_dir
    ours = [folder / f".parts{stage}.safetensors.part" for stage in ("", "-step00000003", "-000002")]
    others = [folder / ".parts2.safetensors.part", folder / ".other.part"]
    for path in (*ours, *others):
        path.write_bytes(b"half")
    drive(forge, recipe_of(pictures, "parts", max_train_steps=1), None)
    assert [path.exists() for path in (*ours, *others)] == [False, False, False, True, True]


def test_test_pictures_come_after_the_copy_and_change_nothing(forge, pictures, tmp_path) -> None:  # noqa: F811
    values = {"save_every_n_steps": 2, "rank_dropout": 0.3, "resolution_px": (64, 64), "max_train_steps": 4}
    prompts = "a photo --w 64 --h 64 --s 1 --l 1 --d 7\njeff_person as a superhero --s 1\n# not this"
    clean = forge.picture()
    story = drive(
        forge, recipe_of(pictures, "drawn", sample_every_n_steps=2, sample_prompts=prompts, **values), tmp_path / "run"
    )
    told = [type(event).__name__ for event in of_kind(story, Step, Saved, StateSaved, Sampled)]
    between = ["Saved", "StateSaved", "Sampled", "Sampled"]
    assert told == ["Step", "Step", *between, "Step", "Step", "Saved", "Sampled", "Sampled"]
    samples = of_kind(story, Sampled)
    assert [sample.step for sample in samples] == [2, 2, 4, 4]
    assert samples[1].prompt == "jeff_person as a superhero"
    from PIL import Image

    drawn = [Image.open(sample.path).tobytes() for sample in samples[::2]]
    assert len({clean, *drawn}) == 3, "each shows what was learned by then"
    assert forge.picture() == clean
    plain = drive(forge, recipe_of(pictures, "plain", **values), None)[-1].path
    assert _same_numbers(plain, story[-1].path)


def test_a_picture_that_fails_is_said_and_the_run_goes_on(forge, pictures, tmp_path, monkeypatch) -> None:  # noqa: F811
    def fail(_host: ForgeHost, _request: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(ForgeHost, "generate", fail)
    story = drive(forge, recipe_of(pictures, "blind", sample_every_n_steps=2, max_train_steps=2), tmp_path / "run")
    assert isinstance(story[-1], Finished)
    assert any("could not be generated: no memory" in event.text for event in of_kind(story, Notice))


def test_prompts_are_read_as_kohya_writes_them() -> None:
    recipe = Recipe().with_values(
        {
            "sample_prompts": "a cat --n ugly, bad --w 512 --h 519 --d 42 --s 28 --l 7.5\n\n# no\na -- dog",
            "resolution_px": "640,512",
        }
    )
    cat, dog = sample_requests(recipe)
    assert (cat.prompt, cat.negative_prompt, cat.width_px, cat.height_px) == ("a cat", "ugly, bad", 512, 512)
    assert (cat.seed, cat.steps, cat.cfg_scale) == (42, 28, 7.5)
    assert (dog.prompt, dog.width_px, dog.height_px) == ("a -- dog", 640, 512)
    word = Recipe().with_values({"trigger_word": "jeff"})
    assert [request.prompt for request in sample_requests(word)] == ["jeff"]
    brackets = Recipe().with_values({"trigger_word": "jeff (actor)"})
    assert [request.prompt for request in sample_requests(brackets)] == [r"jeff \(actor\)"], "no emphasis"


@pytest.mark.parametrize("line", ["a --w wide", "a --q 3", "a --l many"])
def test_a_prompt_that_cannot_be_read_is_said_before_the_model_is_touched(forge, pictures, line, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(ForgeHost, "open_model", lambda self: pytest.fail("the model was touched"))
    with pytest.raises(ConfigError) as caught:
        drive(forge, recipe_of(pictures, sample_prompts=line), None)
    assert "sample_prompts" in caught.value.problems


@pytest.mark.parametrize("command", Command)
def test_a_wish_is_fulfilled_after_the_step(forge, pictures, tmp_path, command: Command) -> None:  # noqa: F811
    recipe = recipe_of(pictures, f"wish-{command.value}", max_train_steps=4, sample_prompts="a --s 1 --l 1")
    story = drive(forge, recipe, tmp_path / "run", at_step(3, command))
    kind = {Command.SAVE: Saved, Command.SAMPLE: Sampled, Command.SAVE_STATE: StateSaved}[command]
    place = story.index(next(event for event in story if isinstance(event, kind)))
    assert [event.number for event in of_kind(story[:place], Step)] == [1, 2, 3]
    assert story[place].step == 3


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_never_had(forge, pictures, tmp_path) -> None:  # noqa: F811
    values = {"shuffle_caption": True, "noise_offset": 0.1, "lr_scheduler": "cosine"}
    whole = drive(forge, recipe_of(pictures, "whole", **values), None)[-1].path
    recipe = recipe_of(pictures, "broken", **values)
    stopped = drive(forge, recipe, tmp_path / "run", at_step(3, StopRequested(save=True)))
    assert stopped[-1].stopped_early and of_kind(stopped, StateSaved)[0].step == 3
    story = drive(forge, recipe, tmp_path / "run")
    begun = of_kind(story, Started)[0]
    assert (begun.step, begun.steps, len(begun.pictures)) == (3, 6, 64)
    assert [step.number for step in of_kind(story, Step)] == [4, 5, 6]
    assert _same_numbers(whole, story[-1].path)


def test_a_run_whose_pictures_changed_cannot_go_on(forge, pictures, tmp_path) -> None:  # noqa: F811
    recipe = recipe_of(pictures, "changed")
    drive(forge, recipe, tmp_path / "run", at_step(3, StopRequested(save=True)))
    next(pictures.rglob("*.txt")).write_text("another caption")
    with pytest.raises(UserError, match="pictures or captions have changed"):
        drive(forge, recipe, tmp_path / "run")


def test_what_the_memory_plan_chose_is_kept_for_the_next_life(forge, pictures, tmp_path) -> None:  # noqa: F811
    """A run that began with less memory goes on as it began, though the recipe says otherwise."""
    folder = tmp_path / "run"
    lean = recipe_of(pictures, "lean", gradient_accumulation_steps=2)
    drive(forge, lean, folder, at_step(2, StopRequested(save=True)))
    story = drive(forge, recipe_of(pictures, "lean"), folder)
    metadata = _metadata(story[-1].path)
    assert json.loads(metadata[RECIPE_KEY])["gradient_accumulation_steps"] == 2


def _metadata(path: Path) -> dict[str, str]:
    from lib_trainer.adapter.io import read_metadata

    return read_metadata(path)


def _same_numbers(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    ("copy_due", "state_due", "kept"),
    [(False, False, []), (True, False, ["copy", "state"]), (False, True, ["state"]), (True, True, ["copy", "state"])],
)
def test_the_state_is_kept_when_it_is_due_and_with_every_copy(copy_due: bool, state_due: bool, kept: list[str]) -> None:
    """Without the second a resumed run would write a copy twice, without the first a run without copies keeps none."""
    saving = SimpleNamespace(is_due=lambda step: copy_due, save_checkpoint=lambda step: iter(["copy"]))
    training = SimpleNamespace(averaged=nullcontext)
    saver = SimpleNamespace(is_due=lambda: state_due, save=lambda number: iter(["state"]), training=training)
    between = Callbacks(saving, saver, SimpleNamespace(is_due=lambda step: False))
    assert list(between.after(Step(3, 8, 1, 0.1, 1e-4, 0.1), None)) == kept
    asked = list(between.after(Step(3, 8, 1, 0.1, 1e-4, 0.1), Command.SAVE_STATE))
    assert asked == (kept or ["state"]), "once, though it is due as well"
    assert list(between.after(Step(8, 8, 1, 0.1, 1e-4, 0.1), None)) == [], "the final file replaces the last copy"


def test_an_event_may_be_answered_with_a_command_that_is_carried_out_next() -> None:
    saving = SimpleNamespace(is_due=lambda step: False, save_checkpoint=lambda step: iter(["copy"]))
    saver = SimpleNamespace(
        is_due=lambda: False, save=lambda number: iter(["state"]), training=SimpleNamespace(averaged=nullcontext)
    )
    between = Callbacks(saving, saver, SimpleNamespace(is_due=lambda step: False)).after(
        Step(3, 8, 1, 0.1, 1e-4, 0.1), Command.SAVE
    )
    assert next(between) == "copy" and between.send(Command.SAVE_STATE) == "state"
    assert next(between, None) is None


@pytest.mark.parametrize(("best", "done"), [(4, ["final 4 of 2"]), (1, ["step 4 of 2", "best", "final 1 of 1"])])
def test_the_best_step_becomes_the_file_and_another_last_one_stays_beside_it(best: int, done: list[str]) -> None:
    story: list[str] = []

    def save(kind: str) -> Callable[..., list[Event]]:
        return lambda step, epoch, **_: story.append(f"{kind} {step} of {epoch}") or []

    saving = SimpleNamespace(save_step=save("step"), save_final=save("final"))
    saving.schedule = SimpleNamespace(steps_per_epoch=2)
    training = SimpleNamespace(average=None, end=lambda: None)
    saver = SimpleNamespace(save=lambda step: iter([]), training=training)
    measured = SimpleNamespace(
        verdict=lambda: SimpleNamespace(best_strength=1.0),
        chooses=True, best_step=best, restore_best=lambda: story.append("best"),
    )  # fmt: skip
    between = Callbacks(saving, saver, SimpleNamespace(), measured)
    assert list(between.save_final(4, 2, chosen=True)) == [] and story == done


def test_a_run_without_a_folder_keeps_no_state() -> None:
    saver = ResumeSaver(None, SimpleNamespace(), "")
    assert saver.resume() == 0 and list(saver.save(3)) == []
