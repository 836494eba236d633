"""A `Recipe`: the whole description of a run, in sections of settings.

Field names are unique over all sections, so a flat mapping `{field: value}` describes a recipe too (`Recipe.flat`,
`Recipe.with_values`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, get_type_hints

from lib_trainer.config.adapter import AdapterConfig
from lib_trainer.config.arguments import parse_arguments
from lib_trainer.config.dataset import DatasetConfig
from lib_trainer.config.embedding import EmbeddingConfig
from lib_trainer.config.evaluation import EvaluationConfig
from lib_trainer.config.fields import convert, describe, quoted, range_problem
from lib_trainer.config.flow import FlowConfig
from lib_trainer.config.groups import GROUPS
from lib_trainer.config.loss import LossConfig
from lib_trainer.config.optimization import averages_weights, needs_all_gradients, schedule_options
from lib_trainer.config.output import OutputConfig
from lib_trainer.config.start import StartConfig
from lib_trainer.config.task import MODES_OF, SLIDER, TaskConfig
from lib_trainer.config.training import TrainingConfig
from lib_trainer.errors import ConfigError

# What the prompt syntax <lora:NAME:0.8> and every file system allow.
NAME_PATTERN = re.compile(r"[^\s:<>,/\\|?*\"\x00-\x1f]([^:<>,/\\|?*\"\x00-\x1f]*[^\s.:<>,/\\|?*\"\x00-\x1f])?")

_DEVICES = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]", re.IGNORECASE)
# 255 in nearly every file system, less what copies of a run and half-written files add to the name.
MAX_NAME_BYTES = 220

SECTIONS = {
    "adapter": AdapterConfig,
    "start": StartConfig,
    "embedding": EmbeddingConfig,
    "dataset": DatasetConfig,
    "task": TaskConfig,
    "training": TrainingConfig,
    "loss": LossConfig,
    "flow": FlowConfig,
    "evaluation": EvaluationConfig,
    "output": OutputConfig,
}


@dataclass(frozen=True)
class Recipe:
    """The whole description of a run."""

    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    start: StartConfig = field(default_factory=StartConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)

    def flat(self) -> dict[str, Any]:
        """`{field: value}` over all sections."""
        return {
            item.name: getattr(getattr(self, name), item.name) for name, cls in SECTIONS.items() for item in fields(cls)
        }

    def with_values(self, values: dict[str, Any]) -> Recipe:
        """A copy with these fields set, each given as its type or as text.

        Raises:
            ConfigError: for every unknown field and every value of the wrong type, together.
        """
        known, problems = field_types(), {}
        converted: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for name, value in values.items():
            if name not in known:
                problems[name] = "there is no such setting"
                continue
            section, kind = known[name]
            try:
                converted[section][name] = convert(value, kind)
            # Collected: a person mends all of them in one go.
            except (TypeError, ValueError, OverflowError):
                problems[name] = f"{quoted(value)} is not {describe(kind)}"
        if problems:
            raise ConfigError(problems)
        return replace(self, **{s: replace(getattr(self, s), **changes) for s, changes in converted.items()})

    def for_its_mode(self) -> Recipe:
        """A copy whose settings of other modes are at their defaults, so that they have no effect."""
        return self.with_values({name: default_of(name) for name in ignored_in_mode(self)})

    def check(self, *, needs_name: bool = True) -> Recipe:
        """Raises ConfigError with every problem of the values; returns itself when there is none."""
        problems = {}
        for section in SECTIONS:
            part = getattr(self, section)
            for item in fields(part):
                text = range_problem(getattr(part, item.name), item)
                if text:
                    problems[item.name] = text
        problems.update({k: v for k, v in _cross_problems(self, needs_name).items() if k not in problems})
        if problems:
            raise ConfigError(problems)
        return self


@lru_cache(maxsize=1)
def field_types() -> Mapping[str, tuple[str, Any]]:
    """field -> (section, type), for every field of every section."""
    hints = {section: get_type_hints(cls) for section, cls in SECTIONS.items()}
    known = {
        item.name: (section, hints[section][item.name]) for section, cls in SECTIONS.items() for item in fields(cls)
    }
    return MappingProxyType(known)


def field_of(name: str) -> Field:
    """The dataclass field of a setting, for its metadata. Raises KeyError when there is none."""
    section, _ = field_types()[name]
    return next(item for item in fields(SECTIONS[section]) if item.name == name)


def fields_by_group() -> dict[str, list[Field]]:
    """group -> its settings, common ones first: the order of the page, of `settings` and of docs/settings.md."""
    items = sorted(
        (item for section in SECTIONS.values() for item in _own_first(section)),
        key=lambda item: (not item.metadata["basic"], not item.metadata["common"]),
    )
    return {group: [item for item in items if item.metadata["group"] == group] for group in GROUPS}


def _own_first(section: type) -> list[Field]:
    """Its fields, then those of the sections that it builds on: rank and alpha before rules for single layers."""
    inherited = {item.name for base in section.__bases__ if is_dataclass(base) for item in fields(base)}
    return sorted(fields(section), key=lambda item: item.name in inherited)


def ignored_settings(recipe: Recipe, family: str) -> list[str]:
    """Labels of settings that are not at their default and do not apply to the model family of that key."""
    values = recipe.flat()
    items = [item for cls in SECTIONS.values() for item in fields(cls)]
    changed = [item for item in items if item.metadata["families"] and values[item.name] != item.default]
    return [item.metadata["label"] for item in changed if family not in item.metadata["families"]]


def ignored_in_mode(recipe: Recipe) -> list[str]:
    """Names of settings that are not at their default and do not apply to the recipe's mode."""
    values = recipe.flat()
    return [
        name for name, modes in MODES_OF.items() if recipe.task.mode not in modes and values[name] != default_of(name)
    ]


def default_of(name: str) -> Any:
    item = field_of(name)
    return None if item.default is MISSING else item.default


def _cross_problems(recipe: Recipe, needs_name: bool) -> dict[str, str]:
    problems = _training_problems(recipe)
    data, adapter = recipe.dataset, recipe.adapter
    step = data.bucket_reso_steps
    if min(data.resolution_px) < 64 or max(data.resolution_px) > 8192:
        problems["resolution_px"] = (
            f"{data.resolution_px[0]}×{data.resolution_px[1]} px: each side must be 64 to 8192 px"
        )
    # The VAE makes one cell of 8×8 px.
    if step % 8:
        problems["bucket_reso_steps"] = f"{step} px is not a multiple of 8, the size of one latent cell"
    if data.min_bucket_reso > data.max_bucket_reso:
        problems["min_bucket_reso"] = (
            f"{data.min_bucket_reso} px is larger than the largest side, {data.max_bucket_reso} px"
        )
    problems |= _start_problems(recipe) | adapter.layer_problems()
    if needs_name:
        problems |= recipe.task.task_problems()
    if adapter.tlora_min_rank and adapter.algo != "locon":
        problems["tlora_min_rank"] = "only LoCon has ranks that can be left out"
    elif adapter.tlora_min_rank and adapter.dora_wd:
        problems["tlora_min_rank"] = "DoRA needs one W + ΔW for all pictures; turn one off"
    if adapter.factor == 0:
        problems["factor"] = "0 does not split a layer; use −1 or a number from 1"
    if "/" in data.caption_extension or "\\" in data.caption_extension:
        problems["caption_extension"] = f"{quoted(data.caption_extension)} is not a file ending; it looks like .txt"
    if needs_name and not recipe.output.output_name:
        problems["output_name"] = "the adapter needs a name"
    elif recipe.output.output_name and not NAME_PATTERN.fullmatch(recipe.output.output_name):
        problems["output_name"] = (
            f"{quoted(recipe.output.output_name)} cannot be written as <lora:NAME:0.8>:"
            " leave out / \\ : < > , | ? * and quotes, and dots or spaces at the end"
        )
    elif text := _reserved_name(recipe.output.output_name):
        problems["output_name"] = text
    if needs_name and not data.train_data_dir and recipe.task.mode != SLIDER:
        problems["train_data_dir"] = "name the folder that holds the pictures"
    return problems


def _reserved_name(name: str) -> str:
    """Why some system cannot keep a file of this name; "" where all can."""
    if name.startswith("."):
        return f"{quoted(name)} begins with a dot, which hides the file"
    # Windows means a device by these, whatever ending follows.
    if _DEVICES.fullmatch(name.partition(".")[0].strip()):
        return f"{quoted(name)} is a device's name on Windows, which cannot write such a file"
    if (size := len(name.encode())) > MAX_NAME_BYTES:
        return f"has {size} bytes; the names of its files hold {MAX_NAME_BYTES} at most"
    return ""


def _training_problems(recipe: Recipe) -> dict[str, str]:
    problems = {}
    training = recipe.training
    if training.learning_rate == 0 and not training.trains_text and not recipe.embedding.num_vectors_per_token:
        problems["learning_rate"] = "0 would train nothing"
    if recipe.loss.min_timestep > recipe.loss.max_timestep:
        problems["min_timestep"] = f"{recipe.loss.min_timestep} is above the max timestep, {recipe.loss.max_timestep}"
    if 0 < training.vram_budget_gb < 1:
        problems["vram_budget_gb"] = f"{training.vram_budget_gb:g} GB is not a valid VRAM size; use e.g. 8"
    if recipe.task.mode == SLIDER and not training.max_train_steps:
        problems["max_train_steps"] = "a slider has no epochs: say how many steps it trains"
    if training.fused_backward_pass and needs_all_gradients(training.optimizer):
        problems["fused_backward_pass"] = (
            f"{training.optimizer} computes its rate from all gradients at once; use another optimizer"
        )
    if training.fused_backward_pass and recipe.evaluation.prior_preservation:
        problems["fused_backward_pass"] = "prior preservation adds to gradients, which are not kept; turn one off"
    if training.fused_backward_pass and training.gradient_accumulation_steps > 1:
        problems["fused_backward_pass"] = "gradient accumulation needs the gradients kept; set it to 1"
    if training.ema_decay and averages_weights(training.optimizer):
        problems["ema_decay"] = f"{training.optimizer} averages the weights itself; use another optimizer"
    try:
        parse_arguments(training.optimizer_args)
    except ValueError as error:
        problems["optimizer_args"] = str(error)
    try:
        schedule_options(training.lr_scheduler, training.lr_scheduler_args)
    except ValueError as error:
        problems["lr_scheduler_args"] = str(error)
    return problems


def _start_problems(recipe: Recipe) -> dict[str, str]:
    problems = {}
    word = recipe.embedding.token_string
    if word and (text := recipe.embedding.word_problem(word)):
        problems["token_string"] = text
    if recipe.start.dim_from_weights and not recipe.start.network_weights:
        problems["dim_from_weights"] = "name the LoRA in network_weights"
    try:
        recipe.start.base_loras  # noqa: B018 - raises for what is wrong
    except ValueError as error:
        problems["base_weights_multiplier"] = str(error)
    return problems
