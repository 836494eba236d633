"""What a run is told to do: frozen dataclasses whose fields carry label, unit, range and help.

A `Recipe` is the whole description of a run. Field names are kohya's where kohya has the field, and unique over
all sections, so a flat mapping `{field: value}` describes a recipe too (`Recipe.flat`, `Recipe.with_values`).
The form in the tab, `--set key=value` and the JSON files are all built from the same metadata.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

from lib_trainer.config.fields import convert, describe, range_problem, setting
from lib_trainer.errors import ConfigError

ALGOS = ("loha", "lokr", "locon")
OPTIMIZERS = ("AdamW", "AdamW8bit", "Prodigy", "Adafactor")
SCHEDULERS = ("constant", "cosine", "cosine_with_restarts", "linear")
PRECISIONS = ("fp16", "bf16", "fp32")
# What the prompt syntax <lora:NAME:0.8> and every file system can hold.
NAME_PATTERN = re.compile(r"[^\s:<>,/\\|?*\"\x00-\x1f]([^:<>,/\\|?*\"\x00-\x1f]*[^\s.:<>,/\\|?*\"\x00-\x1f])?")


@dataclass(frozen=True)
class AdapterConfig:
    """What is trained: the kind and size of the adapter."""

    algo: str = setting(
        "loha", "Adapter", "LoHa keeps faces well, LoKr styles; LoCon is the classic LoRA.", choices=ALGOS
    )
    network_dim: int = setting(32, "Rank", "Size of the adapter for linear layers.", low=1, high=100000)
    network_alpha: float = setting(16.0, "Alpha", "The adapter's output is scaled by alpha / rank.", low=0.0)
    conv_dim: int = setting(8, "Conv rank", "Size for k×k convolutions; 0 leaves them alone.", low=0, high=100000)
    conv_alpha: float = setting(4.0, "Conv alpha", "As alpha, for k×k convolutions.", low=0.0)
    factor: int = setting(-1, "LoKr factor", "How LoKr splits each side; −1 splits near the square root.", low=-1)
    decompose_both: bool = setting(False, "LoKr: low rank on both", "Also write LoKr's first factor as a product.")
    full_matrix: bool = setting(False, "LoKr: full matrices", "Use full factors whatever the rank.")
    use_tucker: bool = setting(False, "Tucker form", "Smaller k×k convolutions (kohya's use_cp).")
    rank_dropout: float = setting(0.0, "Rank dropout", "Share of ranks silenced in a step.", low=0.0, high=0.95)
    module_dropout: float = setting(0.0, "Module dropout", "Share of layers skipped in a step.", low=0.0, high=0.95)


@dataclass(frozen=True)
class DatasetConfig:
    """What it is trained on."""

    train_data_dir: str = setting(
        "", "Folder", "A folder of pictures, or of folders named like 10_jeff_person.", basic=True
    )
    trigger_word: str = setting("", "Word", "The word that will call the adapter in a prompt.", basic=True)
    resolution_px: tuple[int, int] = setting((768, 768), "Size", "Area cap, width and height.", unit="px")
    enable_bucket: bool = setting(True, "Keep shapes", "Group pictures by shape instead of cropping to one.")
    min_bucket_reso: int = setting(256, "Smallest side", "No bucket is narrower.", unit="px", low=64, high=8192)
    max_bucket_reso: int = setting(1536, "Largest side", "No bucket is wider.", unit="px", low=64, high=8192)
    bucket_reso_steps: int = setting(64, "Size step", "Bucket sides are multiples of this.", unit="px", low=8, high=512)
    bucket_no_upscale: bool = setting(True, "Never enlarge", "Small pictures train at their own size.")
    caption_extension: str = setting(".txt", "Caption files", "Ending of the text beside each picture.")
    shuffle_caption: bool = setting(False, "Shuffle captions", "Shuffle the comma-separated parts.")
    keep_tokens: int = setting(0, "Keep first parts", "How many first parts stay in place.", low=0, high=255)
    caption_dropout_rate: float = setting(0.0, "Drop captions", "Share of steps without a caption.", low=0.0, high=1.0)
    caption_variants: int = setting(
        8, "Caption variants", "Shuffled captions encoded beforehand per picture.", low=1, high=1000
    )
    flip_aug: bool = setting(False, "Mirror", "Half of the time, mirrored left to right.")
    color_aug: bool = setting(False, "Vary colours", "Small changes of hue and gamma.")
    random_crop: bool = setting(False, "Vary crops", "Crop at random places instead of the middle.")
    latent_variants: int = setting(
        4, "Picture variants", "Augmented versions encoded beforehand per picture.", low=1, high=1000
    )
    cache_latents_to_disk: bool = setting(False, "Cache on disk", "Keep encoded pictures for the next run.")


@dataclass(frozen=True)
class TrainingConfig:
    """How it is trained."""

    max_train_steps: int = setting(0, "Steps", "Optimizer steps; 0 goes by epochs.", unit="steps", low=0, basic=True)
    epoch: int = setting(10, "Epochs", "Passes over the folder, repeats included.", unit="epochs", low=1, high=100000)
    train_batch_size: int = setting(1, "Batch", "Pictures in one pass.", unit="pictures", low=1, high=512)
    gradient_accumulation_steps: int = setting(
        1, "Accumulate", "Passes summed into one step.", unit="passes", low=1, high=1024
    )
    learning_rate: float = setting(1e-4, "Learning rate", "Step size of the UNet's adapter.", low=0.0, high=10.0)
    text_encoder_lr: float = setting(0.0, "Text encoder rate", "0 leaves the text encoder alone.", low=0.0, high=10.0)
    optimizer: str = setting("AdamW8bit", "Optimizer", "Prodigy finds its own rate: set 1.0.", choices=OPTIMIZERS)
    weight_decay: float = setting(0.01, "Weight decay", "Pull of the adapter towards zero.", low=0.0, high=1.0)
    lr_scheduler: str = setting("cosine", "Rate over time", "How the learning rate moves.", choices=SCHEDULERS)
    lr_scheduler_num_cycles: int = setting(1, "Restarts", "For cosine_with_restarts.", unit="cycles", low=1, high=1000)
    lr_warmup: float = setting(0.0, "Warm-up", "Share of the steps the rate rises over.", unit="%", low=0.0, high=100.0)
    max_grad_norm: float = setting(1.0, "Clip gradients", "Largest gradient norm; 0 is off.", low=0.0)
    min_snr_gamma: float = setting(
        0.0, "Min-SNR γ", "Balances the noise levels; 5 is usual, 0 is off.", low=0.0, high=100.0
    )
    noise_offset: float = setting(0.0, "Noise offset", "Lets it learn dark and bright; at most 0.1.", low=0.0, high=1.0)
    gradient_checkpointing: bool = setting(True, "Save memory", "Recompute activations as far as needed: slower.")
    vram_budget_gb: float = setting(
        0.0, "Memory", "Plan for a card of this size; 0 plans for what is free.", unit="GB", low=0.0, high=1024.0
    )
    fused_backward_pass: bool = setting(
        False, "Step within backward", "Each layer learns as soon as it can: no gradient is kept, clipping is by layer."
    )
    mixed_precision: str = setting(
        "bf16", "Compute in", "bf16 where the card has it, else fp16; fp32 on a CPU.", choices=PRECISIONS
    )
    clip_skip: int = setting(1, "CLIP skip", "Which of the text encoder's last layers is read.", low=1, high=12)
    seed: int = setting(0, "Seed", "Same seed, same machine: same file.", low=0, high=2**63 - 1)


@dataclass(frozen=True)
class OutputConfig:
    """What comes out."""

    output_name: str = setting("", "Name", "The file's name, and NAME in <lora:NAME:0.8>.", basic=True)
    save_precision: str = setting("fp16", "Save as", "Number format of the file.", choices=PRECISIONS)
    save_every_n_epochs: int = setting(0, "Save every", "Also keep NAME-000003 …; 0 is off.", unit="epochs", low=0)
    save_every_n_steps: int = setting(0, "Save every", "Also keep NAME-step00000200 …; 0 is off.", unit="steps", low=0)
    save_last_n_epochs: int = setting(
        0, "Keep the last", "Of the copies by epochs, older ones are removed; 0 keeps all.", unit="copies", low=0
    )
    save_last_n_steps: int = setting(
        0, "Keep the last", "Copies by steps from before are removed; 0 keeps all.", unit="steps", low=0
    )
    sample_every_n_steps: int = setting(0, "Draw every", "Test pictures on the way; 0 is off.", unit="steps", low=0)
    sample_every_n_epochs: int = setting(0, "Draw every", "Test pictures on the way; 0 is off.", unit="epochs", low=0)
    sample_prompts: str = setting(
        "",
        "Prompts",
        "One a line, kohya's options may follow: --n negative --w width --h height --d seed --s steps --l CFG. "
        "Empty draws the word.",
        lines=3,
    )
    resume_every_minutes: float = setting(
        5.0, "Resumable every", "What can be lost when the power fails; 0 keeps nothing.", unit="min", low=0.0
    )
    preferred_weight: float = setting(0.8, "Card strength", "Strength the card proposes.", low=-2.0, high=2.0)
    comment: str = setting("", "Comment", "Kept in the file's metadata.")


SECTIONS = {"adapter": AdapterConfig, "dataset": DatasetConfig, "training": TrainingConfig, "output": OutputConfig}


@dataclass(frozen=True)
class Recipe:
    """The whole description of a run."""

    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def flat(self) -> dict[str, Any]:
        """`{field: value}` over all sections."""
        return {name: value for section in SECTIONS for name, value in asdict(getattr(self, section)).items()}

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
            except (TypeError, ValueError, OverflowError):
                problems[name] = f"{value!r} is not {describe(kind)}"
        if problems:
            raise ConfigError(problems)
        return replace(self, **{s: replace(getattr(self, s), **changes) for s, changes in converted.items()})

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


def field_types() -> dict[str, tuple[str, Any]]:
    """field -> (section, type), for every field of every section."""
    hints = {section: get_type_hints(cls) for section, cls in SECTIONS.items()}
    return {
        item.name: (section, hints[section][item.name]) for section, cls in SECTIONS.items() for item in fields(cls)
    }


def field_of(name: str) -> Field:
    """The dataclass field of a setting, for its metadata. Raises KeyError when there is none."""
    section, _ = field_types()[name]
    return next(item for item in fields(SECTIONS[section]) if item.name == name)


def default_of(name: str) -> Any:
    item = field_of(name)
    return None if item.default is MISSING else item.default


def _cross_problems(recipe: Recipe, needs_name: bool) -> dict[str, str]:
    problems = {}
    data, training, adapter = recipe.dataset, recipe.training, recipe.adapter
    step = data.bucket_reso_steps
    if min(data.resolution_px) < 64 or max(data.resolution_px) > 8192:
        problems["resolution_px"] = (
            f"{data.resolution_px[0]}×{data.resolution_px[1]} px: each side must be 64 to 8192 px"
        )
    if step % 8:
        problems["bucket_reso_steps"] = f"{step} px is not a multiple of 8, the size of one latent cell"
    if data.min_bucket_reso > data.max_bucket_reso:
        problems["min_bucket_reso"] = (
            f"{data.min_bucket_reso} px is larger than the largest side, {data.max_bucket_reso} px"
        )
    if adapter.factor == 0:
        problems["factor"] = "0 does not split a layer; use −1 or a number from 1"
    if "/" in data.caption_extension or "\\" in data.caption_extension:
        problems["caption_extension"] = f"{data.caption_extension!r} is no file ending; it looks like .txt"
    if training.learning_rate == 0 and training.text_encoder_lr == 0:
        problems["learning_rate"] = "0 would train nothing"
    if 0 < training.vram_budget_gb < 1:
        problems["vram_budget_gb"] = f"{training.vram_budget_gb:g} GB is no graphics card; give its size, like 8"
    if training.fused_backward_pass and training.optimizer == "Prodigy":
        problems["fused_backward_pass"] = "Prodigy finds its rate from all gradients at once; use another optimizer"
    if training.fused_backward_pass and training.gradient_accumulation_steps > 1:
        problems["fused_backward_pass"] = "accumulated passes need their gradients kept; accumulate 1 pass"
    if needs_name and not recipe.output.output_name:
        problems["output_name"] = "the adapter needs a name"
    elif recipe.output.output_name and not NAME_PATTERN.fullmatch(recipe.output.output_name):
        problems["output_name"] = (
            f"{recipe.output.output_name!r} cannot be written as <lora:NAME:0.8>:"
            " leave out / \\ : < > , | ? * and quotes, and dots or spaces at the end"
        )
    if needs_name and not data.train_data_dir:
        problems["train_data_dir"] = "name the folder that holds the pictures"
    return problems
