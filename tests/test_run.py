"""What comes out of whole runs, and what a person is told when something is wrong.

How runs leave the host is in `tests/host/contract_runs.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lib_trainer.adapter.io import read_adapter, read_metadata
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, OutOfMemory, UserError
from lib_trainer.events import Event, Finished, Notice, Planned, Progress, Saved, Step, StopRequested
from lib_trainer.memory import out_of_memory
from lib_trainer.run import run
from lib_trainer.training import loop, loss
from lib_trainer.training.optimizer_step import OptimizerStep
from tests.fakes.forge_room import ForgeRoom, fake_forge

VALUES = {
    "algo": "lokr",
    "network_dim": 4,
    "conv_dim": 2,
    "factor": 4,
    "resolution_px": (64, 64),
    "max_train_steps": 6,
    "learning_rate": 1e-2,
    "optimizer": "AdamW",
    "save_precision": "fp32",
}


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForgeRoom]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors") as room:
        yield room


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "2_jeff_person"
    folder.mkdir(parents=True)
    for i, size in enumerate([(64, 64), (96, 64), (64, 64)]):
        Image.effect_noise(size, 40 + i).convert("RGB").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("jeff_person, portrait photo, looking at camera")
    return tmp_path / "data"


def recipe_of(pictures: Path, name: str = "jeff", **values: Any) -> Recipe:
    return Recipe().with_values({**VALUES, "train_data_dir": str(pictures), "output_name": name, **values})


def drive(
    forge: ForgeRoom, recipe: Recipe, at: Callable[[Event], StopRequested | None] = lambda event: None
) -> list[Event]:
    """Every event of a run on the generation thread; what `at` answers to an event is thrown into the run."""

    def work() -> list[Event]:
        events, story, thrown = run(forge.host, recipe), [], None
        while True:
            try:
                event = events.throw(thrown) if thrown else next(events)
            except StopIteration:
                return story
            story.append(event)
            thrown = at(event)

    return forge.run(work)


def test_from_a_folder_to_a_lora_that_changes_the_picture(forge: ForgeRoom, pictures: Path) -> None:
    plain = forge.picture()
    story = drive(forge, recipe_of(pictures))
    assert forge.picture() == plain
    finished = story[-1]
    assert isinstance(finished, Finished)
    assert finished.tag == "<lora:jeff:0.8>" and finished.steps == 6 and not finished.stopped_early
    assert [event.number for event in story if isinstance(event, Step)] == [1, 2, 3, 4, 5, 6]
    assert {event.phase for event in story if isinstance(event, Progress)} == {"preparing", "caching", "saving"}
    assert forge.picture(f"a photo {finished.tag}") != plain
    card = json.loads(finished.path.with_suffix(".json").read_text("utf-8"))
    assert card["activation text"] == "jeff_person" and card["preferred weight"] == 0.8
    metadata = read_metadata(finished.path)
    assert metadata["ss_output_name"] == "jeff" and metadata["ss_steps"] == "6"
    assert read_adapter(finished.path).unmatched == ()
    before = forge.picture(f"a photo {finished.tag}")
    drive(forge, recipe_of(pictures, seed=1, max_train_steps=2))
    assert forge.picture(f"a photo {finished.tag}") != before, "a retrained file of the same name shows at once"


def test_the_same_seed_gives_the_same_file(forge: ForgeRoom, pictures: Path) -> None:
    random = {"shuffle_caption": True, "flip_aug": True, "noise_offset": 0.1, "max_train_steps": 3}
    contents = []
    for seed in (42, 42, 1):
        path = drive(forge, recipe_of(pictures, "twin", seed=seed, **random))[-1].path
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_the_loss_of_every_step_weighs_what_the_masks_allow(
    forge: ForgeRoom, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.png has an alpha channel, 2.png a mask file."""
    folder, left = pictures / "2_jeff_person", Image.new("L", (64, 64))
    left.paste(255, (0, 0, 32, 64))
    (folder / "1.png").unlink()
    picture = Image.open(folder / "0.png")
    picture.putalpha(left)
    picture.save(folder / "0.png")
    left.save(folder / "2.mask.png")
    errors = []

    def noted(predicted: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor, *rest: Any) -> torch.Tensor:
        errors.append((predicted - wanted).detach() ** 2 * weights[:, None, None, None])
        return loss.weighted_loss(predicted, wanted, weights, *rest)

    monkeypatch.setattr(loop, "weighted_loss", noted)
    story = drive(
        forge,
        recipe_of(pictures, "masked", masked_loss=True, unmasked_weight=0.25, train_batch_size=2, max_train_steps=2),
    )
    allowed = torch.full((8, 8), 0.25)
    allowed[:, :4] = 1
    told = [event.loss for event in story if isinstance(event, Step)]
    assert told == pytest.approx([float((allowed * each).mean()) for each in errors], rel=1e-5)
    assert told != pytest.approx([float(each.mean()) for each in errors], rel=0.05)


def test_norms_are_trained_and_the_plan_counts_the_layers_and_ranks_of_a_lora_that_is_continued(
    forge: ForgeRoom, pictures: Path
) -> None:
    uneven = {"network_reg_dims": "attn2_to_[kv]=3, ff_net=0", "train_norm": True, "max_train_steps": 2}
    story = drive(forge, recipe_of(pictures, "norms", **uneven))
    planned = next(event.parts["the adapter"] for event in story if isinstance(event, Planned))
    first = read_adapter(story[-1].path)
    norms = [module for module in first.factors.values() if module.algo == "norm"]
    assert norms and all(float(module.w.abs().max()) > 0 and float(module.b.abs().max()) > 0 for module in norms)
    assert planned == sum(value.nbytes for module in first.factors.values() for value in module.tensors.values())
    plain = forge.picture()
    assert forge.picture("a photo <lora:norms:1>") != plain and forge.picture() == plain

    start = {"network_weights": "norms", "dim_from_weights": True, "algo": "loha", "network_dim": 64}
    story = drive(forge, recipe_of(pictures, "went_on", **start, max_train_steps=1))
    assert next(event.parts["the adapter"] for event in story if isinstance(event, Planned)) == planned
    assert read_adapter(story[-1].path).factors.keys() == first.factors.keys()


def test_a_dora_begins_with_the_norms_of_the_model_and_is_continued(forge: ForgeRoom, pictures: Path) -> None:
    settings = {"algo": "locon", "dora_wd": True, "max_train_steps": 1, "learning_rate": 1e-6}
    first = read_adapter(drive(forge, recipe_of(pictures, "dora", **settings))[-1].path)
    assert len(first.dora) == len(first.factors)
    norms = {}

    def measured() -> None:
        with forge.host.open_model() as model:
            for layer in model.adaptable_layers():
                weight = model.read_weight(layer, torch.zeros(1))[0]
                norms[layer.name] = torch.linalg.vector_norm(weight.transpose(0, 1).flatten(1), dim=1)

    forge.run(measured)
    for name, module in first.factors.items():
        # One small step after the start.
        torch.testing.assert_close(module.dora_scale.flatten(), norms[name], rtol=1e-3, atol=1e-4)
    # A rate that moves nothing: what the file holds is what was continued.
    settings |= {"learning_rate": 1e-12, "network_weights": "dora", "save_precision": "fp32"}
    second = read_adapter(drive(forge, recipe_of(pictures, "more", **settings))[-1].path)
    for name, module in second.factors.items():
        torch.testing.assert_close(module.dora_scale, first.factors[name].dora_scale, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("algo", ["loha", "lokr", "locon"])
def test_text_encoders_are_trained_where_the_recipe_says_so(forge: ForgeRoom, pictures: Path, algo: str) -> None:
    plain = forge.picture()
    recipe = recipe_of(pictures, f"text {algo}", algo=algo, text_encoder_lr=1e-2, use_tucker=True, max_train_steps=2)
    factors = read_adapter(drive(forge, recipe)[-1].path).factors
    text = {name: layer for name, layer in factors.items() if name.startswith("lora_te_")}
    assert text and all(float(layer.delta().abs().max()) > 0 for layer in text.values())
    assert forge.picture() == plain


def test_a_run_continues_a_lora_over_a_frozen_one(forge: ForgeRoom, pictures: Path) -> None:
    plain = forge.picture()
    style = drive(forge, recipe_of(pictures, "style", text_encoder_lr=1e-2, max_train_steps=2))[-1].path
    drive(forge, recipe_of(pictures, "first", algo="locon", network_dim=3, max_train_steps=2))
    both = {"network_weights": "first", "base_weights": str(style), "base_weights_multiplier": "0.5"}
    with pytest.raises(UserError, match="another type or rank"):
        drive(forge, recipe_of(pictures, "second", **both))
    story = drive(forge, recipe_of(pictures, "second", **both, dim_from_weights=True, max_train_steps=1))
    notices = [event.text for event in story if isinstance(event, Notice)]
    assert any("Trained over <lora:style:0.5>" in text for text in notices)
    first, second = (read_adapter(forge.host.lora_dir / f"{name}.safetensors") for name in ("first", "second"))
    assert any(text.startswith(f"Continues first: {len(first.factors)} of its") for text in notices)
    assert {name: layer.algo for name, layer in second.factors.items()} == dict.fromkeys(first.factors, "locon")
    layer = next(iter(first.factors))
    moved = (second.factors[layer].tensors["down"] - first.factors[layer].tensors["down"]).abs().max()
    assert 0 < float(moved) <= 2e-2, "one step from where the file ended"
    assert second.metadata["ss_network_dim"] == "3"
    kept = json.loads(second.metadata["train_lora_recipe"])
    assert kept["base_weights"] == "style", "a path is private"
    assert forge.picture() == plain
    with pytest.raises(UserError, match="no LoRA named frist"):
        drive(forge, recipe_of(pictures, "third", network_weights="frist"))


def test_a_stop_while_caching_ends_the_run_without_a_file(forge: ForgeRoom, pictures: Path) -> None:
    def stop(event: Event) -> StopRequested | None:
        return StopRequested(save=True) if isinstance(event, Progress) and event.phase == "caching" else None

    with pytest.raises(StopRequested):
        drive(forge, recipe_of(pictures, "never"), stop)
    assert not list(forge.host.lora_dir.glob("never*"))


@pytest.mark.parametrize("moment", [Progress, Saved])
def test_a_stop_that_comes_while_saving_loses_nothing(forge: ForgeRoom, pictures: Path, moment: type) -> None:
    def stop(event: Event) -> StopRequested | None:
        saving = isinstance(event, Saved) or (isinstance(event, Progress) and event.phase == "saving")
        return StopRequested(save=True) if saving and isinstance(event, moment) else None

    finished = drive(forge, recipe_of(pictures, f"late-{moment.__name__}", max_train_steps=2), stop)[-1]
    assert isinstance(finished, Finished) and finished.steps == 2 and finished.path.exists()


def test_a_copy_of_a_run_that_was_given_up_is_what_the_next_picture_shows(forge: ForgeRoom, pictures: Path) -> None:
    def give_up(event: Event) -> StopRequested | None:
        return StopRequested(save=False) if isinstance(event, Step) and event.number == 5 else None

    shown = []
    for seed in (0, 1):
        with pytest.raises(StopRequested):
            drive(forge, recipe_of(pictures, "given-up", save_every_n_steps=4, seed=seed), give_up)
        shown.append(forge.picture("a photo <lora:given-up-step00000004:1>"))
    assert shown[0] != shown[1]
    assert not (forge.host.lora_dir / "given-up.safetensors").exists()


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(forge: ForgeRoom, pictures: Path, monkeypatch) -> None:
    good = drive(forge, recipe_of(pictures, "good", max_train_steps=3, lr_scheduler="constant"))[-1].path
    whole, losses = loop.weighted_loss, []

    def break_down(*inputs: torch.Tensor) -> torch.Tensor:
        losses.append(whole(*inputs))
        return losses[-1] * (float("nan") if len(losses) > 3 else 1.0)

    monkeypatch.setattr(loop, "weighted_loss", break_down)
    with pytest.raises(UserError, match="diverged at step 4") as caught:
        drive(forge, recipe_of(pictures, "broken", lr_scheduler="constant"))
    assert "learning rate" in caught.value.hint
    kept = read_adapter(forge.host.lora_dir / "broken.safetensors").factors
    for name, factors in read_adapter(good).factors.items():
        assert torch.equal(factors.delta(), kept[name].delta())


def test_out_of_memory_says_what_to_lower(forge: ForgeRoom, pictures: Path, monkeypatch) -> None:
    def short(*_args: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(OptimizerStep, "finish", short)
    # As where every saving is in use already; whether one is left is tested in `tests/memory`.
    monkeypatch.setattr(out_of_memory, "smaller_card_gb", lambda _plan: None)
    with pytest.raises(UserError, match="ran out of memory") as caught:
        drive(forge, recipe_of(pictures, "large", train_batch_size=2))
    assert "lower the resolution from" in caught.value.hint and isinstance(caught.value, OutOfMemory)


def test_every_problem_is_told_before_the_model_is_touched(forge: ForgeRoom, pictures: Path, monkeypatch) -> None:
    monkeypatch.setattr(type(forge.host), "open_model", lambda self: pytest.fail("the model was touched"))
    bad = recipe_of(pictures, "a/b", network_dim=0, optimizer="Magic", train_data_dir="")
    with pytest.raises(ConfigError) as caught:
        drive(forge, bad)
    assert set(caught.value.problems) == {"output_name", "network_dim", "optimizer", "train_data_dir"}
    for folder, words in ((pictures / "none", "does not exist"), (pictures.parent / "empty", "no picture")):
        (pictures.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"(?i){words}"):
            drive(forge, recipe_of(folder))


def test_a_slider_is_trained_from_prompts_and_a_difference_from_pairs(forge: ForgeRoom, pictures: Path) -> None:
    plain = forge.picture()
    slider = {"mode": "slider", "original_prompt": "a sad cat", "target_prompt": "a happy cat", "train_data_dir": ""}
    story = drive(
        forge,
        recipe_of(
            pictures, "mood", **slider, max_denoising_steps=3, preferred_weight=1, flip_aug=True, max_train_steps=2
        ),
    )
    notices = [event.text for event in story if isinstance(event, Notice)]
    assert "Flip augmentation: no effect in the mode slider." in notices
    made = read_adapter(story[-1].path)
    assert story[-1].tag == "<lora:mood:1>" and made.unmatched == ()
    kept = json.loads(made.metadata["train_lora_recipe"])
    assert (kept["mode"], kept["target_prompt"], kept["flip_aug"]) == ("slider", "a happy cat", False)
    card = json.loads(story[-1].path.with_suffix(".json").read_text("utf-8"))
    assert (
        card["activation text"] == ""
        and "Strength 1: a sad cat → a happy cat; strength -1 the other way" in card["notes"]
    )
    assert made.metadata["ss_num_train_images"] == "0"
    others = pictures.parent / "others"
    others.mkdir()
    for path in (pictures / "2_jeff_person").glob("*.png"):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(others / path.name)
    pairs = {"mode": "difference", "diff_target_dir": str(others), "preferred_weight": 1, "max_train_steps": 2}
    story = drive(forge, recipe_of(pictures, "mirrored", **pairs))
    made = read_adapter(story[-1].path)
    assert any(float(layer.delta().abs().max()) > 0 for layer in made.factors.values())
    assert "diff_target_dir" not in made.metadata["train_lora_recipe"] and str(others) not in str(made.metadata)
    assert forge.picture() == plain


def test_an_unreadable_picture_is_named_and_skipped(forge: ForgeRoom, pictures: Path) -> None:
    (pictures / "2_jeff_person" / "broken.jpg").write_bytes(b"not a picture")
    cut_short = pictures / "2_jeff_person" / "cut.png"
    cut_short.write_bytes((pictures / "2_jeff_person" / "0.png").read_bytes()[:200])
    story = drive(forge, recipe_of(pictures, "skipping", max_train_steps=1))
    notices = " ".join(event.text for event in story if isinstance(event, Notice))
    assert "broken.jpg" in notices and "cut.png" in notices
    assert isinstance(story[-1], Finished)


def test_somebody_elses_file_is_never_replaced(forge: ForgeRoom, pictures: Path) -> None:
    made = drive(forge, recipe_of(pictures, "ours", max_train_steps=1))[-1].path
    from safetensors.torch import load_file, save_file

    theirs = made.with_name("theirs.safetensors")
    save_file(load_file(made), theirs, {"ss_output_name": "theirs"})
    before = theirs.read_bytes()
    with pytest.raises(ConfigError, match="made by another program"):
        drive(forge, recipe_of(pictures, "theirs"))
    assert theirs.read_bytes() == before
    card = made.with_suffix(".json")
    card.write_text(
        json.dumps({**json.loads(card.read_text("utf-8")), "notes": "my favourite", "preferred weight": 0.6})
    )
    bob = replace(
        recipe_of(pictures, "ours", max_train_steps=1), dataset=replace(recipe_of(pictures).dataset, trigger_word="bob")
    )
    events = drive(forge, bob)
    # Before the first step, for those who start it without the page.
    assert events[0] == Notice("ours.safetensors exists: when this run is done it is kept as ours-previous.")
    kept = json.loads(card.with_name("ours-previous.json").read_text("utf-8"))
    assert kept["notes"] == "my favourite" and kept["preferred weight"] == 0.6
    assert json.loads(card.read_text("utf-8"))["activation text"] == "bob"


@pytest.mark.parametrize("checkpoint", ["sd3.safetensors", "sd1-inpainting.safetensors"])
def test_a_family_that_is_not_trained_is_named(forge: ForgeRoom, pictures: Path, checkpoint: str) -> None:
    forge.select(checkpoint)
    try:
        with pytest.raises(UserError, match=checkpoint):
            drive(forge, recipe_of(pictures))
    finally:
        forge.select()
