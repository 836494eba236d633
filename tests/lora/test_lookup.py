"""Which file a name in a prompt means."""

from __future__ import annotations

from pathlib import Path

from lib_trainer.lora.describe import describe_lora
from lib_trainer.lora.lookup import find_lora


def test_a_files_own_name_wins_over_the_alias_of_another() -> None:
    other = describe_lora(Path("a.safetensors"), "a", {}, aliases=("jeff",))
    own = describe_lora(Path("jeff.safetensors"), "jeff", {})
    assert find_lora("jeff", [other, own]) is own
    assert find_lora("jeff", [other]) is other and find_lora("anna", [other, own]) is None


def test_a_file_that_no_prompt_can_call_is_meant_only_where_there_is_no_other() -> None:
    hidden = describe_lora(Path("b/jeff.safetensors"), "jeff", {}, problem="a/jeff.safetensors hides it")
    usable = describe_lora(Path("a/jeff.safetensors"), "jeff", {})
    assert find_lora("jeff", [hidden, usable]) is usable and find_lora("jeff", [hidden]) is hidden


def test_sliders_and_differences_are_known_by_the_recipe_in_their_file() -> None:
    def two_way(recipe: object) -> bool:
        return describe_lora(Path("a.safetensors"), "a", {"train_lora_recipe": recipe}).two_way

    assert two_way('{"mode": "slider"}') and two_way('{"mode": "difference"}')
    # As A1111 keeps it.
    assert two_way({"mode": "slider"})
    assert not any(map(two_way, ('{"mode": "lora"}', "{}", "[]", "not JSON", None, "[" * 100_000)))
