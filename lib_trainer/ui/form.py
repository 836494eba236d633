"""The inputs of a recipe, built from the metadata of `lib_trainer.config.recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import gradio as gr

from lib_trainer.config.groups import GROUPS
from lib_trainer.config.recipe import field_of, field_types, fields_by_group

# A browser's number field holds doubles: whole numbers beyond this would lose digits.
EXACT_IN_BROWSER = 2**53
# javascript/train_lora.js colours an input whose help holds this.
WRONG = "⚠"


class Form:
    """One input a setting, in the order they were placed. Values go in and out as flat mappings."""

    def __init__(self, initial: Mapping[str, Any]) -> None:
        self._initial = initial
        self.inputs: dict[str, gr.components.Component] = {}
        self.fold: gr.Accordion | None = None

    def place(self, name: str, **options: Any) -> gr.components.Component:
        """Puts the input of one setting here. `options` override what the metadata says."""
        # Remembered settings of an earlier release lack the newer ones.
        value = self._initial.get(name, settings()[name][2].default)
        self.inputs[name] = make_input(name, value, **options)
        return self.inputs[name]

    def place_rest(self, head: str = "") -> None:
        """Puts every setting that has no place yet into one closed fold, by group, under the HTML `head`."""
        with gr.Accordion("All settings", open=False, elem_id="train_lora_all") as self.fold:
            if head:
                gr.HTML(head)
            for group, items in fields_by_group().items():
                # style.css lays the inputs of a group out as a grid.
                with gr.Column(elem_classes="train-lora-group"):
                    gr.Markdown(f"#### {GROUPS[group]}")
                    for name in [item.name for item in items if item.name not in self.inputs]:
                        self.place(name)

    @property
    def components(self) -> list[gr.components.Component]:
        return list(self.inputs.values())

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """What the inputs hold, by setting."""
        return dict(zip(self.inputs, values, strict=True))

    def show(self, flat: Mapping[str, Any], notes: Mapping[str, str] = MappingProxyType({})) -> list[dict[str, Any]]:
        """Updates of every input: those named in `flat` get its value, and all lose their complaints.

        Args:
            notes: setting -> what its input says beside the help.
        """
        return [
            gr.update(
                info=" ".join(filter(None, (help_of(name), notes.get(name, "")))),
                **({"value": to_input(name, flat[name])} if name in flat else {}),
            )
            for name in self.inputs
        ]

    def complain(
        self, problems: Mapping[str, str], flat: Mapping[str, Any], notes: Mapping[str, str] = MappingProxyType({})
    ) -> list[dict[str, Any]]:
        """As `show`, with what is wrong at its input; then the update of the fold, opened where that is inside."""
        inputs = self.show(flat, notes)
        for update, name in zip(inputs, self.inputs, strict=True):
            if name in problems:
                update["info"] = f"{WRONG} {problems[name]}"
        # A complaint inside the closed fold would not be seen.
        hidden = any(name in self.inputs and not settings()[name][2].metadata["basic"] for name in problems)
        return [*inputs, gr.update(open=True) if hidden else gr.update()]


def make_input(name: str, value: Any, **options: Any) -> gr.components.Component:
    """The gradio input that suits the type of a setting."""
    _, kind, item = settings()[name]
    common = {
        "label": label_of(name),
        "info": help_of(name),
        "value": to_input(name, value),
        "elem_id": f"train_lora_{name}",
        **options,
    }
    # The kind of input follows from the type; a new setting needs no line here.
    if item.metadata["choices"]:
        free = item.metadata["others"]
        component = gr.Dropdown(choices=list(item.metadata["choices"]), allow_custom_value=free, **common)
    elif kind is bool:
        component = gr.Checkbox(**common)
    elif kind in (int, float) and (item.metadata["high"] or 0) < EXACT_IN_BROWSER:
        # No limits here: gradio would answer with a toast, and we answer beside the field.
        component = gr.Number(**common)
    else:
        # A size is a text: two numbers in one input.
        lines = item.metadata["lines"]
        component = gr.Textbox(lines=lines, max_lines=lines, **common)
    # WebUIs keep their own copy of every default; ours are remembered by us.
    component.do_not_save_to_config = True
    return component


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


def to_input(name: str, value: Any) -> Any:
    """A setting's value as its input holds it: sizes as `768x768`, huge whole numbers as text."""
    # See EXACT_IN_BROWSER.
    kind = settings()[name][1]
    if kind is int and (settings()[name][2].metadata["high"] or 0) >= EXACT_IN_BROWSER:
        return str(value)
    # A size that was remembered as its input held it is a text already.
    return value if kind in (bool, int, float, str) or isinstance(value, str) else "x".join(map(str, value))
