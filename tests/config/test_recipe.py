"""A recipe's values: what they may be, and how everything that is wrong is said at once."""

from __future__ import annotations

from dataclasses import fields

import pytest

from lib_trainer.config.adapter import ALGOS
from lib_trainer.config.recipe import (
    SECTIONS,
    Recipe,
    default_of,
    field_of,
    field_types,
    fields_by_group,
    ignored_in_mode,
)
from lib_trainer.config.task import MODES_OF, SliderPrompt
from lib_trainer.errors import ConfigError

NAMED = {"output_name": "jeff_person", "train_data_dir": "pictures"}


def problems(**values: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        Recipe().with_values({**NAMED, **values}).check()
    return caught.value.problems


def test_the_defaults_are_a_recipe() -> None:
    assert Recipe().with_values(NAMED).check().output.output_name == "jeff_person"


def test_field_names_are_unique_and_every_field_explains_itself() -> None:
    names = [item.name for section in SECTIONS.values() for item in fields(section)]
    assert len(names) == len(set(names)) == len(field_types())
    for name in names:
        assert field_of(name).metadata["label"] and field_of(name).metadata["help"].endswith("."), name


def test_every_setting_has_one_group_and_its_own_label() -> None:
    grouped = [item for items in fields_by_group().values() for item in items]
    assert {item.name for item in grouped} == set(field_types()) and len(grouped) == len(field_types())
    labels = [item.metadata["label"] for item in grouped]
    assert len(labels) == len(set(labels))


def test_common_settings_come_first() -> None:
    for items in fields_by_group().values():
        rare = [not (item.metadata["basic"] or item.metadata["common"]) for item in items]
        assert rare == sorted(rare) and not rare[0]


def test_adapters_that_a_setting_applies_to_exist() -> None:
    for name in field_types():
        assert set(field_of(name).metadata["adapters"]) <= set(ALGOS)
    assert field_of("factor").metadata["adapters"] == ("lokr",)


def test_flat_and_back() -> None:
    recipe = Recipe().with_values({"resolution_px": "512,768", "algo": "lokr", "seed": 2**62 + 1})
    assert Recipe().with_values(recipe.flat()) == recipe
    assert recipe.training.seed == 2**62 + 1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("network_dim", "24", 24),
        ("network_dim", 24.0, 24),
        ("learning_rate", "3e-5", 3e-5),
        ("flip_aug", "true", True),
        ("flip_aug", "0", False),
        ("resolution_px", "896,640", (896, 640)),
        ("resolution_px", "896x640", (896, 640)),
        ("resolution_px", "512", (512, 512)),
        ("resolution_px", [512, 768], (512, 768)),
        ("seed", "9007199254740993", 9007199254740993),
        ("output_name", " jeff ", "jeff"),
    ],
)
def test_a_value_may_be_text(name: str, text: object, value: object) -> None:
    assert Recipe().with_values({name: text}).flat()[name] == value


def test_every_wrong_type_is_said_at_once() -> None:
    wrong = {"network_dim": "many", "flip_aug": "perhaps", "resolution_px": "1,2,3", "learning_rate": "nan", "nope": 1}
    with pytest.raises(ConfigError) as caught:
        Recipe().with_values(wrong)
    assert set(caught.value.problems) == set(wrong)
    assert "'many' is not a whole number" in caught.value.problems["network_dim"]


def test_every_wrong_value_is_said_at_once() -> None:
    found = problems(network_dim=0, algo="dora", caption_dropout_rate=2, bucket_reso_steps=12, factor=0, output_name="")
    expected = {"network_dim", "algo", "caption_dropout_rate", "bucket_reso_steps", "factor", "output_name"}
    assert set(found) == expected
    assert "2.0 is above the largest allowed, 1.0" in found["caption_dropout_rate"]
    assert "loha, lokr, locon" in found["algo"]


@pytest.mark.parametrize("name", ["../jeff", "a:b", "a<b", "a>b", "a,b", "jeff.", "jeff ", "con|x", 'a"b', "a\nb"])
def test_a_name_that_the_prompt_or_the_disk_cannot_hold(name: str) -> None:
    recipe = Recipe().with_values({"train_data_dir": "pictures"})
    object.__setattr__(recipe.output, "output_name", name)  # with_values strips the spaces at its ends
    with pytest.raises(ConfigError) as caught:
        recipe.check()
    assert set(caught.value.problems) == {"output_name"}


@pytest.mark.parametrize("name", ["jeff_person", "Jeff Person v1.2", "ジェフ", "a-b+c(1)", "x"])
def test_names_that_are_fine(name: str) -> None:
    assert Recipe().with_values({**NAMED, "output_name": name}).check()


def test_what_belongs_together() -> None:
    assert "min_bucket_reso" in problems(min_bucket_reso=1024, max_bucket_reso=512)
    assert "learning_rate" in problems(learning_rate=0, text_encoder_lr=0)
    assert "resolution_px" in problems(resolution_px="32,32")
    assert "train_data_dir" in problems(train_data_dir="")
    assert Recipe().check(needs_name=False)


def test_defaults_can_be_asked_for() -> None:
    assert default_of("network_dim") == 32
    with pytest.raises(KeyError):
        field_of("nope")


def test_what_a_slider_and_a_difference_lack_is_said() -> None:
    assert problems(mode="slider", train_data_dir="", max_train_steps=0) == {
        "original_prompt": "a slider needs a prompt to come from, or one to go to",
        "max_train_steps": "a slider has no epochs: say how many steps it trains",
    }
    lines = problems(mode="slider", max_train_steps=9, original_prompt="a\nb", target_prompt="c\nd\ne")
    assert "2, 3 and 2" in lines["target_prompt"]
    assert (
        "nothing to learn"
        in problems(mode="slider", max_train_steps=9, original_prompt="a", target_prompt="a")["target_prompt"]
    )
    assert set(problems(mode="difference", train_data_dir="")) == {"train_data_dir", "diff_target_dir"}


def test_a_slider_takes_one_line_for_all_and_the_original_as_neutral_prompt() -> None:
    given = {"mode": "slider", "original_prompt": "a sad cat\n\na sad dog", "target_prompt": "happy"}
    assert Recipe().with_values(given).task.prompts == (
        SliderPrompt("a sad cat", "a sad cat", "happy"),
        SliderPrompt("a sad dog", "a sad dog", "happy"),
    )


def test_settings_of_other_modes_have_no_effect() -> None:
    given = Recipe().with_values({"mode": "slider", "flip_aug": True, "network_dim": 3, "text_encoder_lr": 1e-4})
    assert set(ignored_in_mode(given)) == {"flip_aug", "text_encoder_lr"} and ignored_in_mode(Recipe()) == []
    acting = given.for_its_mode()
    assert not acting.dataset.flip_aug and not acting.training.trains_text and acting.adapter.network_dim == 3
    assert MODES_OF.keys() <= field_types().keys()
