"""A recipe as it was read: valid values are filled in, the others have a problem at their field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lib_trainer.config.fields import range_problem
from lib_trainer.config.recipe import SECTIONS, Recipe
from lib_trainer.errors import ConfigError
from lib_trainer.recipes.reading import Reading


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, and a sentence for everything in its source that is not used or means something else here.

    Attributes:
        unread: field -> why its value could not be taken over; the field holds its default.
    """

    recipe: Recipe
    notices: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> dict[str, str]:
        """field -> what is wrong with it: all that is `unread`, and all values that are out of range."""
        return {**_check(self.recipe, False), **self.unread}

    def complete(self, values: Mapping[str, Any], *, needs_name: bool = True) -> Recipe:
        """The checked recipe with these values on top of it, which mend the fields that they name.

        Raises:
            ConfigError: for every field that is still wrong, together.
        """
        unread = {name: text for name, text in self.unread.items() if name not in values}
        recipe, wrong = self.recipe, {}
        try:
            recipe = recipe.with_values(dict(values))
        except ConfigError as error:
            wrong = error.problems
            recipe = recipe.with_values({name: value for name, value in values.items() if name not in wrong})
        problems = {**_check(recipe, needs_name), **unread, **wrong}
        if problems:
            raise ConfigError(problems)
        return recipe


def recipe_of(reading: Reading) -> LoadedRecipe:
    """The recipe of what was read. A value of the wrong type, or that is not one of the choices, stays unread."""
    values, unread = dict(reading.values), dict(reading.problems)
    try:
        recipe = Recipe().with_values(values)
    except ConfigError as error:
        unread = {**error.problems, **unread}
        recipe = Recipe().with_values({name: value for name, value in values.items() if name not in unread})
    wrong = {
        item.name: range_problem(getattr(getattr(recipe, section), item.name), item)
        for section, cls in SECTIONS.items()
        for item in fields(cls)
        if item.metadata["choices"]
    }
    unread = {**{name: text for name, text in wrong.items() if text}, **unread}
    sound = {name: value for name, value in recipe.flat().items() if name not in unread}
    return LoadedRecipe(Recipe().with_values(sound), reading.notices, unread)


def _check(recipe: Recipe, needs_name: bool) -> dict[str, str]:
    try:
        recipe.check(needs_name=needs_name)
    except ConfigError as error:
        return error.problems
    return {}
