"""Whole runs in the host: from a folder of pictures to a prompt, and the host restored however a run ends."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lib_trainer import run as runs
from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.metadata import EVALUATION_KEY
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Evaluated, Event, Finished, Progress, Saved, Step, StopRequested
from lib_trainer.training import start as beginning
from tests.fakes.room import WebuiRoom
from tests.host.contract_loras import learned, written
from tests.host.helpers import differing, parts_of, state_of

React = Callable[[Event], Exception | None]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small pictures of different shapes and captions."""
    folder = tmp_path_factory.mktemp("pictures") / "2_jeff_person"
    folder.mkdir()
    for number, size in enumerate([(64, 64), (64, 64), (64, 128), (64, 64)]):
        noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"jeff_person, picture {number}, (smiling)")
    return folder.parent


# An adapter on every layer takes more time than one on the linear layers alone, which proves as much of most things.
EVERY_LAYER = {"algo": "loha", "conv_dim": 2}


def recipe(folder: Path, name: str, **changes: object) -> Recipe:
    values = {
        "train_data_dir": str(folder), "output_name": name, "resolution_px": "64,64", "min_bucket_reso": 64,
        "max_train_steps": 2, "optimizer": "AdamW", "learning_rate": 0.05, "seed": 5, "algo": "locon",
        "network_dim": 4, "network_alpha": 4, "conv_dim": 0, "conv_alpha": 2, "save_precision": "fp32",
        "mixed_precision": "fp32",
    }  # fmt: skip
    return Recipe().with_values({**values, **changes})


def drive(room: WebuiRoom, recipe: Recipe, react: React = lambda event: None) -> list[Event]:
    """Runs `recipe` under the lock; what `react` returns is thrown into it after that event."""

    def work() -> list[Event]:
        run = runs.run(room.host, recipe)
        events: list[Event] = []
        thrown = None
        while True:
            try:
                event = next(run) if thrown is None else run.throw(thrown)
            except StopIteration:
                return events
            events.append(event)
            thrown = react(event)

    return room.run(work)


def undisturbed(room: WebuiRoom, pictures: Path, steps: int = 2) -> Path:
    """The file of a run of so many steps during which nothing else happens."""
    run = recipe(pictures, f"undisturbed_{steps}", max_train_steps=steps)
    return room.once(f"undisturbed {steps}", lambda: drive(room, run)[-1].path)


def same_file(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


class HostRuns:
    """What depends on how the host lends its model."""

    @pytest.mark.parametrize("algo", ["loha", "lokr"])
    def test_from_a_folder_to_a_prompt(self, room: WebuiRoom, pictures: Path, algo: str) -> None:
        clean = room.clean_picture()
        events = drive(room, recipe(pictures, f"jeff_{algo}", algo=algo, conv_dim=2, use_tucker=algo == "loha"))
        steps = [event for event in events if isinstance(event, Step)]
        assert [step.number for step in steps] == [1, 2]
        assert isinstance(events[-1], Finished)
        assert events[-1].tag == f"<lora:jeff_{algo}:0.8>"
        tensors = load_file(events[-1].path)
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
        assert room.picture() == clean
        assert room.picture(f"a photo {events[-1].tag}") != clean
        assert json.loads(events[-1].path.with_suffix(".json").read_text("utf-8"))["activation text"] == "jeff_person"

    def test_no_key_of_the_file_is_unknown_to_the_host(self, room: WebuiRoom, pictures: Path) -> None:
        rate = 0.01 if room.trains_text else 0.0
        events = drive(room, recipe(pictures, "keys", max_train_steps=1, text_encoder_lr=rate, **EVERY_LAYER))
        assert list(room.unknown_tensors(events[-1].path)) == []

    def test_captions_are_read_as_prompts_are_unless_a_recipe_says_otherwise(
        self, room: WebuiRoom, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from modules.shared import opts

        read: list[int] = []
        kind = room.run(lambda: _kind(room))
        encode = kind.encode_text

        def noting(model: Any, prompts: Any, clip_skip: int, **options: Any) -> Any:
            read.append(clip_skip)
            return encode(model, prompts, clip_skip, **options)

        monkeypatch.setattr(kind, "encode_text", noting)
        before = opts.CLIP_stop_at_last_layers
        assert room.host.clip_skip() == opts.CLIP_stop_at_last_layers
        opts.data["CLIP_stop_at_last_layers"] = 3
        try:
            drive(room, recipe(pictures, "as_drawn", max_train_steps=1))
            assert set(read) == {3}
            read.clear()
            path = drive(room, recipe(pictures, "asked_for", max_train_steps=1, clip_skip=1))[-1].path
        finally:
            opts.data["CLIP_stop_at_last_layers"] = before
        assert set(read) == {1}
        with safe_open(path, "pt") as file:
            assert file.metadata()["ss_clip_skip"] == "1"

    def test_the_same_seed_gives_the_same_file_even_after_a_lora(self, room: WebuiRoom, pictures: Path) -> None:
        first = undisturbed(room, pictures)
        written(room, "another", learned(room))
        room.picture("a photo <lora:another:1>")
        assert same_file(first, drive(room, recipe(pictures, "seeded"))[-1].path)

    @pytest.mark.parametrize("save", [False, True])
    def test_a_stopped_run_gives_everything_back(self, room: WebuiRoom, pictures: Path, save: bool) -> None:
        clean, state = room.clean_picture(), state_of(parts_of(room))

        def stop(event: Event) -> Exception | None:
            return StopRequested(save=save) if isinstance(event, Step) and event.number == 1 else None

        name = f"stopped_{save}"
        if save:
            assert drive(room, recipe(pictures, name), stop)[-1].stopped_early
        else:
            with pytest.raises(StopRequested):
                drive(room, recipe(pictures, name), stop)
        assert (room.host.lora_dir / f"{name}.safetensors").exists() == save
        assert differing(state, state_of(parts_of(room))) == []
        assert room.picture() == clean

    @pytest.mark.parametrize("phase", ["preparing", "caching", "step", "saving"])
    def test_a_failed_run_gives_everything_back(
        self, room: WebuiRoom, pictures: Path, phase: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clean, state = room.clean_picture(), state_of(parts_of(room))

        def fail(event: Event) -> Exception | None:
            here = isinstance(event, Progress) and event.phase == phase
            return OSError("the machine stumbled") if here or (phase == "step" and isinstance(event, Step)) else None

        with pytest.raises(OSError, match="stumbled"):
            drive(room, recipe(pictures, f"failed_{phase}"), fail)
        assert differing(state, state_of(parts_of(room))) == []
        assert room.picture() == clean

    def test_a_picture_drawn_on_the_way(self, room: WebuiRoom, pictures: Path) -> None:
        """Between two steps the adapter is on the model: the picture shows it, and training does not notice."""
        clean, drawn = room.clean_picture(), []
        plain = undisturbed(room, pictures)

        def draw(event: Event) -> None:
            if isinstance(event, Step) and event.number == 1:
                drawn.append(room.host.generate(room.request())[0].tobytes())

        disturbed = drive(room, recipe(pictures, "disturbed"), draw)[-1].path
        assert drawn[0] != clean
        assert same_file(disturbed, plain)
        assert room.picture() == clean

    def test_nothing_of_a_run_stays_in_memory(
        self, room: WebuiRoom, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Imported here: what a first import logs during the run, pytest keeps with the run's frames.
        pytest.importorskip("lycoris.modules.loha")
        made: list[weakref.ref[Adapter]] = []
        make = beginning.new_adapter

        def noting(*args: Any) -> Adapter:
            adapter = make(*args)
            made.append(weakref.ref(adapter))
            return adapter

        monkeypatch.setattr(beginning, "new_adapter", noting)
        drive(room, recipe(pictures, "forgotten", max_train_steps=1))
        gc.collect()
        assert made[0]() is None


class Runs(HostRuns):
    def test_a_retrained_file_is_what_the_next_picture_shows(self, room: WebuiRoom, pictures: Path) -> None:
        drive(room, recipe(pictures, "retrained", max_train_steps=1))
        first = room.picture("a photo <lora:retrained:1>")
        drive(room, recipe(pictures, "retrained", max_train_steps=1, seed=6))
        assert room.picture("a photo <lora:retrained:1>") != first

    def test_a_full_disk_gives_everything_back_and_keeps_the_older_file(
        self, room: WebuiRoom, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = drive(room, recipe(pictures, "kept", max_train_steps=1))[-1].path
        before, clean, state = path.read_bytes(), room.clean_picture(), state_of(parts_of(room))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", full)
            with pytest.raises(UserError, match="No space left"):
                drive(room, recipe(pictures, "kept", max_train_steps=1, seed=9))
        assert path.read_bytes() == before
        assert differing(state, state_of(parts_of(room))) == []
        assert room.picture() == clean

    def test_copies_on_the_way_can_be_used(self, room: WebuiRoom, pictures: Path) -> None:
        events = drive(room, recipe(pictures, "staged", save_every_n_steps=1))
        saved = [event.path.stem for event in events if isinstance(event, Saved)]
        assert saved == ["staged-step00000001", "staged"]
        assert len({room.picture(f"a photo <lora:{name}:1>") for name in saved}) == 2

    def test_a_run_that_measures_itself_and_preserves_gives_everything_back(
        self, room: WebuiRoom, pictures: Path
    ) -> None:
        clean, state = room.clean_picture(), state_of(parts_of(room))
        watched = {"validate_every_n_steps": 1, "held_out": "2.png", "max_validation_steps": 1}
        kept = {
            "prior_preservation": True, "prior_preservation_every_n_steps": 1, "prior_prompts": "a red car",
        }  # fmt: skip
        events = drive(room, recipe(pictures, "watched", max_train_steps=1, **watched, **kept))
        (found,) = [event for event in events if isinstance(event, Evaluated)]
        assert found.drift > 0
        assert found.memorised is not None
        with safe_open(events[-1].path, "pt") as file:
            assert json.loads(file.metadata()[EVALUATION_KEY])["verdict"] == found.verdict
        assert differing(state, state_of(parts_of(room))) == []
        assert room.picture() == clean

    def test_latents_kept_on_disk_are_not_encoded_again(
        self, room: WebuiRoom, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_disk = {"max_train_steps": 1, "cache_latents_to_disk": True}
        first = load_file(drive(room, recipe(pictures, "on_disk", **on_disk))[-1].path)

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("encoded again")

        monkeypatch.setattr(room.run(lambda: _kind(room)), "encode_images", refuse)
        second = load_file(drive(room, recipe(pictures, "on_disk", **on_disk))[-1].path)
        assert all(torch.equal(second[key], first[key]) for key in first)
        assert any(room.host.cache_dir.rglob("*.safetensors"))


def _kind(room: WebuiRoom) -> type:
    with room.host.open_model() as model:
        return type(model)
