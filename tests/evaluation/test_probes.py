"""Which pictures are held out and measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan
from lib_trainer.errors import ConfigError
from lib_trainer.evaluation.probes import ProbePlan, bind_captions, class_word, describe_held_out, plan_probes


def scan_of(pictures: int, others: int = 0, word: str = "jeff_person") -> Scan:
    own = [Sample(Path(f"{i:02}.png"), f"{word}, photo {i}", 10, 64, 64, True) for i in range(pictures)]
    rest = [Sample(Path(f"other {i:02}.png"), f"a red car {i}", 1, 64, 64, True) for i in range(others)]
    return Scan((*own, *rest), (), word)


def plan(pictures: int, others: int = 0, **values: object) -> ProbePlan:
    recipe = Recipe().with_values({"stop_when_learned": True, **values})
    return plan_probes(scan_of(pictures, others), recipe)


def test_a_run_that_is_not_evaluated_holds_nothing_out() -> None:
    assert plan(40, stop_when_learned=False) == ProbePlan() and not ProbePlan().captions(scan_of(4))
    assert plan(40, stop_when_learned=False, validate_every_n_steps=10).held_out


@pytest.mark.parametrize(("pictures", "held_out"), [(9, 0), (10, 1), (16, 2), (31, 3), (32, 4), (400, 4)])
def test_how_many_are_held_out(pictures: int, held_out: int) -> None:
    found = plan(pictures)
    assert len(found.held_out) == held_out and len(found.trained) == 2
    assert not set(found.held_out) & set(found.trained)


def test_the_seed_chooses() -> None:
    assert plan(40) == plan(40) != plan(40, validation_seed=1)


def test_pictures_that_remind_of_what_is_known_are_not_measured() -> None:
    found = plan(12, others=60)
    assert len(found.held_out) == 1 and max(found.samples) < 12


def test_a_share_may_be_given_and_only_so_many_are_measured() -> None:
    found = plan(40, validation_split=0.5, max_validation_steps=3)
    assert len(found.held_out) == 20 and found.measured == found.held_out[:3]
    assert len(plan(40, validation_split=0.5).measured) == 4


def test_a_person_chooses_by_name() -> None:
    found = plan(12, held_out="03.png, 05.png")
    assert found.held_out == (3, 5)
    assert describe_held_out(found, scan_of(12)).endswith("03.png, 05.png.")
    assert plan(12, held_out="None").held_out == () and plan(12, held_out="none").trained
    with pytest.raises(ConfigError, match=r"no picture named 77\.png"):
        plan(12, held_out="77.png")
    with pytest.raises(ConfigError, match="no picture would be left"):
        plan(2, held_out="00.png,01.png")


def test_captions_with_and_without_the_trigger_word() -> None:
    assert bind_captions("Jeff_Person, smiling", "jeff_person") == ("Jeff_Person, smiling", "person, smiling")
    assert bind_captions("a house", "style_name") == ("style_name, a house", "style, a house")


@pytest.mark.parametrize(
    ("word", "kind"), [("jeff_person", "person"), ("style_name", "style"), ("my fluffy dog", "dog"), ("ohwx", "person"),
                       ("sks_car", "car")],
)  # fmt: skip
def test_the_class_word(word: str, kind: str) -> None:
    assert class_word(word) == kind


def test_pictures_whose_captions_never_name_the_word_are_known_by_their_folder() -> None:
    """Else pictures that remind of what is known would be measured, of which nothing is learned."""
    own = [Sample(Path(f"10_jeff_person/{i}.png"), f"photo {i}", 10, 64, 64, True) for i in range(12)]
    rest = [Sample(Path(f"2_reminders/{i}.png"), f"a red car {i}", 1, 64, 64, True) for i in range(60)]
    found = plan_probes(Scan((*own, *rest), (), "jeff_person"), Recipe().with_values({"stop_when_learned": True}))
    assert max(found.samples) < 12 and not found.named and not found.few
    assert plan(12).named and plan(6).few
