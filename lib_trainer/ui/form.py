"""The inputs of a recipe, built from the metadata of `lib_trainer.config.recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from functools import lru_cache
from typing import Any

import gradio as gr

from lib_trainer.config.recipe import SECTIONS, Recipe, field_of, field_types
from lib_trainer.errors import ConfigError

SECTION_TITLES = {"adapter": "Adapter", "dataset": "Pictures and captions", "training": "Training", "output": "File"}
ALL = "all"
# A browser's number field holds doubles: whole numbers beyond this would change on the way.
EXACT_IN_BROWSER = 2**53
# javascript/train_lora.js colours an input whose help holds this.
WRONG = "⚠"


class Form:
    """One input a setting, in the order they were placed. Values go in and out as flat mappings."""

    def __init__(self, initial: Mapping[str, Any]) -> None:
        self._initial = initial
        self.inputs: dict[str, gr.components.Component] = {}
        self.folds: dict[str, gr.Accordion] = {}

    def place(self, name: str, **look: Any) -> gr.components.Component:
        """Puts the input of one setting here. `look` overrides what the metadata says."""
        value = self._initial.get(name, settings()[name][2].default)
        self.inputs[name] = make_input(name, value, **look)
        return self.inputs[name]

    def place_rest(self) -> None:
        """Puts every setting that has no place yet into one closed fold, with a fold inside for each section."""
        with gr.Accordion("All settings", open=False, elem_id="train_lora_all") as self.folds[ALL]:
            for section, cls in SECTIONS.items():
                rest = [item.name for item in fields(cls) if item.name not in self.inputs]
                with gr.Accordion(SECTION_TITLES[section], open=False) as self.folds[section]:
                    for start in range(0, len(rest), 2):
                        with gr.Row():
                            for name in rest[start : start + 2]:
                                self.place(name)

    @property
    def components(self) -> list[gr.components.Component]:
        return list(self.inputs.values())

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """What the inputs hold, by setting."""
        return dict(zip(self.inputs, values, strict=True))

    def show(self, flat: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Updates of every input: those named in `flat` get its value, and all lose their complaints."""
        return [
            gr.update(info=help_of(name), **({"value": to_input(name, flat[name])} if name in flat else {}))
            for name in self.inputs
        ]

    def complain(self, problems: Mapping[str, str], flat: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As `show`, with what is wrong at its input; then updates of every fold: those with complaints open."""
        inputs = self.show(flat)
        for update, name in zip(inputs, self.inputs, strict=True):
            if name in problems:
                update["info"] = f"{WRONG} {problems[name]}"
        wrong = {settings()[name][0] for name in problems if name in self.inputs and not is_basic(name)}
        wrong |= {ALL} if wrong else set()
        return inputs + [gr.update(open=True) if section in wrong else gr.update() for section in self.folds]


def make_input(name: str, value: Any, **look: Any) -> gr.components.Component:
    """The gradio input that suits the type of a setting."""
    _, kind, item = settings()[name]
    common = {
        "label": label_of(name),
        "info": help_of(name),
        "value": to_input(name, value),
        "elem_id": f"train_lora_{name}",
        **look,
    }
    if item.metadata["choices"]:
        component = gr.Dropdown(choices=list(item.metadata["choices"]), **common)
    elif kind is bool:
        component = gr.Checkbox(**common)
    elif kind in (int, float) and (item.metadata["high"] or 0) < EXACT_IN_BROWSER:
        # No limits here: gradio would answer with a toast, and we answer beside the field.
        component = gr.Number(**common)
    else:
        lines = item.metadata["lines"]
        component = gr.Textbox(lines=lines, max_lines=lines, **common)
    # WebUIs keep their own copy of every default; ours are remembered by us.
    component.do_not_save_to_config = True
    return component


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """The recipe that the inputs describe.

    Raises:
        ConfigError: with every empty field, wrong type and wrong value, together.
    """
    problems = {name: "is empty" for name, value in values.items() if value is None}
    given = {name: value for name, value in values.items() if name not in problems}
    try:
        recipe = Recipe().with_values(given)
    except ConfigError as error:
        problems.update(error.problems)
        # What can be read is checked all the same, so that everything is said at once.
        recipe = Recipe().with_values({name: value for name, value in given.items() if name not in problems})
    try:
        recipe.check()
    except ConfigError as error:
        problems = {**error.problems, **problems}
    if problems:
        raise ConfigError(problems)
    return recipe


@lru_cache(maxsize=1)
def settings() -> dict[str, tuple[str, Any, Field]]:
    """field -> (section, type, dataclass field). Every update of the form reads it fifty times."""
    return {name: (section, kind, field_of(name)) for name, (section, kind) in field_types().items()}


def label_of(name: str) -> str:
    item = settings()[name][2]
    label, unit = item.metadata["label"], item.metadata["unit"]
    # "Epochs (epochs)" and "Save every N steps (steps)" would say it twice.
    return f"{label} ({unit})" if unit and unit.lower() not in label.lower() else label


def shown_name(name: str) -> str:
    """The label of a setting; the name itself where there is no such setting."""
    return label_of(name) if name in settings() else name


def help_of(name: str) -> str:
    return settings()[name][2].metadata["help"]


def is_basic(name: str) -> bool:
    return settings()[name][2].metadata["basic"]


def to_input(name: str, value: Any) -> Any:
    """A setting's value as its input holds it: sizes as `768x768`, huge whole numbers as text."""
    kind = settings()[name][1]
    if kind is int and (settings()[name][2].metadata["high"] or 0) >= EXACT_IN_BROWSER:
        return str(value)
    return value if kind in (bool, int, float, str) else "x".join(str(side) for side in value)
