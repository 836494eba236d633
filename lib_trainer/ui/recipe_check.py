"""The recipe that the page's inputs describe, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lib_trainer.config.dataset import DatasetConfig
from lib_trainer.config.recipe import Recipe
from lib_trainer.config.start import named_paths
from lib_trainer.config.task import DIFFERENCE, SLIDER
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.host.access import Access

if TYPE_CHECKING:
    from lib_trainer.dataset.scan import Scan

SCAN_FIELDS = (
    *("train_data_dir", "reg_data_dir", "mode"),
    *("trigger_word", "caption_extension", "caption_lines", "trigger_word_first"),
)


def checked_recipe(entered: dict[str, Any], access: Access) -> Recipe:
    """The recipe that the inputs describe. An empty trigger word or name comes from the folder.

    Raises:
        ConfigError: with every problem of the fields and of the folder, together.
    """
    # The caller still needs to know which fields were left open.
    entered, problems = dict(entered), {}
    try:
        require_allowed_folders(access, entered)
        require_allowed_files(access, entered)
        if entered["mode"] != SLIDER:
            entered["trigger_word"] = entered["trigger_word"] or scan_pictures(entered, access).trigger_word
        if entered["mode"] == DIFFERENCE and entered["diff_target_dir"].strip():
            _check_pairs(scan_pictures(entered, access), entered, access)
    except ConfigError as error:
        problems = error.problems
    except UserError as error:
        # Whatever is wrong with the pictures is shown at the folder's field.
        problems = {"train_data_dir": str(error)}
    called = entered["trigger_word"] if entered["mode"] != SLIDER else first_line(entered["target_prompt"])
    entered["output_name"] = entered["output_name"] or name_from(called)
    try:
        recipe = recipe_from(entered)
    except ConfigError as error:
        raise ConfigError({**error.problems, **problems}) from error
    if problems:
        raise ConfigError(problems)
    return recipe


def _check_pairs(scan: Scan, entered: Mapping[str, Any], access: Access) -> None:
    """Raises ConfigError for pictures of the target folder that do not fit, or a folder that may not be named."""
    from lib_trainer.dataset.pairs import scan_pairs

    try:
        require_allowed(access, entered["diff_target_dir"])
    except UserError as error:
        raise ConfigError({"diff_target_dir": str(error)}) from error
    scan_pairs(scan, dataset_config(entered), entered["diff_target_dir"])


def first_line(text: str) -> str:
    """The first that holds anything; "" without one."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def problems_of(entered: dict[str, Any], access: Access) -> dict[str, str]:
    """setting -> what is wrong with it, as `checked_recipe` would say it."""
    try:
        checked_recipe(entered, access)
    except ConfigError as error:
        return error.problems
    return {}


def require_allowed(access: Access, folder: str) -> None:
    """Raises UserError for a folder that a page of this program may not name, before anything in it is looked at.

    A program that other machines reach shows its page to anybody there: it takes the folders that its routes take.
    """
    # Paths copied from a file manager come in quotation marks.
    if not access.local_only and folder.strip():
        access.folder(folder.strip().strip("\"'"))


def require_allowed_folders(access: Access, entered: Mapping[str, Any]) -> None:
    """Raises UserError for the image folder, and ConfigError for another, that a page may not name."""
    require_allowed(access, str(entered.get("train_data_dir") or ""))
    try:
        require_allowed(access, str(entered.get("reg_data_dir") or ""))
    except UserError as error:
        raise ConfigError({"reg_data_dir": str(error)}) from error


def require_allowed_files(access: Access, entered: Mapping[str, Any]) -> None:
    """Raises ConfigError for the path of a LoRA that a page of this program may not name."""
    try:
        for path in named_paths(entered):
            require_allowed(access, path)
    except UserError as error:
        raise ConfigError({"network_weights": str(error)}) from error


def scan_pictures(entered: Mapping[str, Any], access: Access) -> Scan:
    """The scan of the folder that the inputs name. Raises UserError for what cannot be scanned, or is not allowed."""
    # Imported late: it pulls in Pillow and numpy, which a page that is only opened does not need.
    from lib_trainer.dataset.scan import scan_folder

    if not entered["train_data_dir"].strip():
        raise ConfigError({"train_data_dir": "name the folder that holds the pictures"})
    require_allowed_folders(access, entered)
    return scan_folder(Recipe().with_values({name: entered[name] for name in SCAN_FIELDS}).for_its_mode().dataset)


def dataset_config(entered: Mapping[str, Any]) -> DatasetConfig:
    """What the inputs say of the pictures; where an input is wrong or empty, the default stands for it."""
    values = {item.name: entered[item.name] for item in fields(DatasetConfig) if entered.get(item.name) is not None}
    try:
        return Recipe().with_values(values).dataset
    except ConfigError as error:
        good = {name: value for name, value in values.items() if name not in error.problems}
        return Recipe().with_values(good).dataset


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """The recipe that the inputs describe.

    Raises:
        ConfigError: with every empty field, wrong type and wrong value, together.
    """
    # A number field that was cleared sends None.
    problems = {name: "is empty" for name, value in values.items() if value is None}
    filled = {name: value for name, value in values.items() if name not in problems}
    try:
        recipe = Recipe().with_values(filled)
    except ConfigError as error:
        problems.update(error.problems)
        # Valid fields are checked all the same, so that all problems are reported at once.
        recipe = Recipe().with_values({name: value for name, value in filled.items() if name not in problems})
    try:
        recipe.check()
    except ConfigError as error:
        # A wrong type explains more than a wrong range of the default that replaced it.
        problems = {**error.problems, **problems}
    if problems:
        raise ConfigError(problems)
    return recipe


def name_from(trigger_word: str) -> str:
    """A file name that the prompt syntax can hold, from the trigger word."""
    return re.sub(r"[^\w\-.]+", "_", trigger_word).strip("._")
