"""The settings of a run: frozen dataclasses, one field a setting.

Field names are kohya's where kohya has the setting, and labels are those of the kohya_ss GUI. The form in the tab,
`--set key=value`, the recipe readers and docs/settings.md are all made from these fields.
"""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.layers import LayerConfig
from lib_trainer.config.optimization import OPTIMIZERS, SCHEDULERS
from lib_trainer.config.rates import RateConfig

ALGOS = ("loha", "lokr", "locon")
PRECISIONS = ("fp16", "bf16", "fp32")
CAPTION_LINES = ("first", "random", "all")

# What a person wants, in the order of the page. Which section a setting belongs to says what the code wants.
LEARNS, LENGTH, QUALITY, MEMORY, SAVING = "learns", "length", "quality", "memory", "saving"
GROUPS = {
    LEARNS: "What it learns",
    LENGTH: "How long and how fast",
    QUALITY: "Quality",
    MEMORY: "Memory",
    SAVING: "Saving and sampling",
}
# Families whose text encoder can be read at another layer.
_CLIP_SKIP = ("sd1", "sd2")


@dataclass(frozen=True)
class AdapterConfig(LayerConfig):
    """What is trained: the type and size of the adapter."""

    algo: str = setting(
        "loha", "LoRA type", "LoHa suits faces, LoKr styles; LoCon is the classic LoRA.",
        group=LEARNS, common=True, choices=ALGOS,
    )  # fmt: skip
    network_dim: int = setting(
        32, "Network rank (dim)", "Capacity for linear layers: more learns more detail and overfits sooner.",
        group=LEARNS, common=True, low=1, high=100000,
    )  # fmt: skip
    network_alpha: float = setting(
        16.0, "Network alpha", "Scales what is learned by alpha / rank.", group=LEARNS, common=True, low=0.0
    )
    conv_dim: int = setting(
        8, "Conv rank", "Rank for k×k convolutions; 0 does not train them.", group=LEARNS, low=0, high=100000
    )
    conv_alpha: float = setting(4.0, "Conv alpha", "Network alpha for k×k convolutions.", group=LEARNS, low=0.0)
    factor: int = setting(
        -1, "LoKr factor", "Splits each side of a layer; −1 splits near the square root.",
        group=LEARNS, low=-1, adapters=("lokr",),
    )  # fmt: skip
    decompose_both: bool = setting(
        False, "LoKr decompose both", "Uses low rank for the first factor too.", group=LEARNS, adapters=("lokr",)
    )
    full_matrix: bool = setting(
        False, "LoKr full matrix", "Uses full factors whatever the rank.", group=LEARNS, adapters=("lokr",)
    )
    unbalanced_factorization: bool = setting(
        False, "LoKr unbalanced factorization", "Gives the larger side of the outputs to the first factor.",
        group=LEARNS, adapters=("lokr",),
    )  # fmt: skip
    rs_lora: bool = setting(
        False, "Rank-stabilized scaling", "Scales by alpha / √rank, so that a high rank learns as fast.", group=LEARNS
    )
    dora_wd: bool = setting(
        False, "DoRA weight decomposition", "Learns the size of each row of weights apart from its direction;"
        " slower, and takes more memory.",
        group=LEARNS,
    )  # fmt: skip
    wd_on_output: bool = setting(
        False, "DoRA norm per output", "LyCORIS' default; of the WebUIs none draws it exactly as trained. Off, the norm"
        " is taken per input, and all read it alike.",
        group=LEARNS,
    )  # fmt: skip
    train_norm: bool = setting(
        False, "Train norm layers", "Trains weight and bias of the norms in the UNet's blocks as well.",
        group=LEARNS, families=("sd1", "sd2", "sdxl"),
    )  # fmt: skip
    tlora_min_rank: int = setting(
        0, "T-LoRA min rank", "Ranks that learn from the noisiest pictures; all learn from clean ones. WebUIs draw with"
        " all ranks at every step. 0 is off.",
        group=LEARNS, low=0, high=100000, adapters=("locon",),
    )  # fmt: skip
    tlora_alpha: float = setting(
        1.0, "T-LoRA alpha", "Above 1 fewer ranks learn from half-noised pictures, below 1 more.",
        group=LEARNS, low=0.01, high=10.0, adapters=("locon",),
    )  # fmt: skip
    use_tucker: bool = setting(
        False, "Tucker decomposition", "Makes k×k convolutions smaller (use_cp in kohya_ss).", group=LEARNS
    )
    rank_dropout: float = setting(
        0.0, "Rank dropout", "Share of ranks that a step leaves out.", group=QUALITY, low=0.0, high=0.95
    )
    rank_dropout_scale: bool = setting(
        False, "Rescale rank dropout", "Raises what is kept, so that its sum stays as large.", group=QUALITY
    )
    network_dropout: float = setting(
        0.0, "Network dropout", "Share of the values between the two factors that a step leaves out.",
        group=QUALITY, low=0.0, high=0.95, adapters=("locon",),
    )  # fmt: skip
    module_dropout: float = setting(
        0.0, "Module dropout", "Share of layers that a step leaves out.", group=QUALITY, low=0.0, high=0.95
    )


@dataclass(frozen=True)
class DatasetConfig:
    """What it is trained on."""

    train_data_dir: str = setting(
        "", "Image folder", "A folder of pictures, or of folders named like 10_jeff_person.", group=LEARNS, basic=True
    )
    reg_data_dir: str = setting(
        "", "Regularisation folder", "Pictures of the class in folders named like 1_man, drawn as often as the others.",
        group=LEARNS,
    )  # fmt: skip
    trigger_word: str = setting(
        "", "Trigger word", "Write it in a prompt to get what was learned.", group=LEARNS, basic=True
    )
    resolution_px: tuple[int, int] = setting(
        (768, 768), "Resolution", "Largest area of a picture: width × height.", group=QUALITY, common=True, unit="px"
    )
    enable_bucket: bool = setting(
        True, "Aspect-ratio buckets", "Groups pictures by shape instead of cropping all to one.",
        group=QUALITY, common=True,
    )  # fmt: skip
    min_bucket_reso: int = setting(
        256, "Min bucket resolution", "No bucket is narrower.", group=QUALITY, unit="px", low=64, high=8192
    )
    max_bucket_reso: int = setting(
        1536, "Max bucket resolution", "No bucket is wider.", group=QUALITY, unit="px", low=64, high=8192
    )
    bucket_reso_steps: int = setting(
        64, "Bucket resolution steps", "Bucket sides are multiples of this.", group=QUALITY, unit="px", low=8, high=512
    )
    bucket_no_upscale: bool = setting(
        True, "Don't upscale bucket resolution", "Trains small pictures at their own size.", group=QUALITY
    )
    bucket_panoramas: bool = setting(
        False, "Buckets for panoramas", "Pictures that would lose over a third to the crop train at their own shape,"
        " outside the smallest and largest bucket side.",
        group=QUALITY,
    )  # fmt: skip
    caption_extension: str = setting(
        ".txt", "Caption file extension", "Ending of the text file beside each picture.", group=LEARNS
    )
    caption_lines: str = setting(
        "first", "Lines of a caption file", "Of a file with several: its first line, as in kohya's tools; a random one"
        " in each step; or all, joined by commas.",
        group=LEARNS, choices=CAPTION_LINES,
    )  # fmt: skip
    trigger_word_first: bool = setting(
        False, "Trigger word in every caption", "Puts it first in every caption of the run; files stay as they are.",
        group=LEARNS, basic=True,
    )  # fmt: skip
    shuffle_caption: bool = setting(
        False, "Shuffle caption", "Shuffles the comma-separated tags.", group=LEARNS, common=True
    )
    keep_tokens: int = setting(
        0, "Keep tokens", "Number of first tags that stay in place.",
        group=LEARNS, common=True, unit="tags", low=0, high=255,
    )  # fmt: skip
    caption_dropout_rate: float = setting(
        0.0, "Caption dropout", "Share of steps without a caption.", group=LEARNS, low=0.0, high=1.0
    )
    caption_variants: int = setting(
        8, "Caption variants", "Shuffled captions encoded in advance per picture.", group=MEMORY, low=1, high=1000
    )
    flip_aug: bool = setting(False, "Flip augmentation", "Mirrors half of the pictures.", group=QUALITY, common=True)
    color_aug: bool = setting(False, "Colour augmentation", "Varies hue and gamma a little.", group=QUALITY)
    random_crop: bool = setting(False, "Random crop", "Crops at random positions instead of the centre.", group=QUALITY)
    latent_variants: int = setting(
        4, "Latent variants", "Augmented versions encoded in advance per picture.", group=MEMORY, low=1, high=1000
    )
    cache_latents_to_disk: bool = setting(
        False, "Cache latents to disk", "Keeps encoded pictures for the next run.", group=MEMORY, common=True
    )


@dataclass(frozen=True)
class TrainingConfig(RateConfig):
    """How it is trained."""

    max_train_steps: int = setting(
        0, "Max train steps", "Optimizer steps; 0 trains for the epochs instead.",
        group=LENGTH, unit="steps", low=0, basic=True,
    )  # fmt: skip
    epoch: int = setting(
        10, "Epochs", "Times through the folder, repeats included.",
        group=LENGTH, common=True, unit="epochs", low=1, high=100000,
    )  # fmt: skip
    train_batch_size: int = setting(
        1, "Batch size", "Pictures computed at once.", group=LENGTH, common=True, unit="pictures", low=1, high=512
    )
    gradient_accumulation_steps: int = setting(
        1, "Gradient accumulation", "Batches added up into one step.", group=LENGTH, unit="batches", low=1, high=1024
    )
    learning_rate: float = setting(
        1e-4, "Learning rate", "Of the UNet. Too high burns pictures, too low learns little.",
        group=LENGTH, common=True, low=0.0, high=10.0,
    )  # fmt: skip
    text_encoder_lr: float = setting(
        0.0, "Text encoder learning rate", "0 does not train the text encoder.", group=LENGTH, low=0.0, high=10.0
    )
    optimizer: str = setting(
        "AdamW8bit", "Optimizer", "Prodigy adapts the learning rate itself: set 1.0.",
        group=LENGTH, common=True, choices=OPTIMIZERS,
    )  # fmt: skip
    optimizer_args: str = setting(
        "", "Optimizer extra arguments", "Options of its class, like betas=0.9,0.99 d_coef=2.", group=LENGTH
    )
    weight_decay: float = setting(
        0.01, "Weight decay", "Pulls the weights towards zero.", group=QUALITY, low=0.0, high=1.0
    )
    lr_scheduler: str = setting(
        "cosine", "LR scheduler", "How the learning rate changes during the run.",
        group=LENGTH, common=True, choices=SCHEDULERS,
    )  # fmt: skip
    lr_scheduler_num_cycles: int = setting(
        1, "LR number of cycles", "Restarts of cosine_with_restarts.", group=LENGTH, unit="cycles", low=1, high=1000
    )
    lr_scheduler_power: float = setting(
        1.0, "LR power", "Of the scheduler polynomial; 1 is a straight line.", group=LENGTH, low=0.0, high=100.0
    )
    lr_scheduler_args: str = setting(
        "", "LR scheduler extra arguments", "Like min_lr_rate=0.1 for cosine_with_min_lr.", group=LENGTH
    )
    lr_warmup: float = setting(
        0.0, "LR warm-up", "Share of the steps over which the rate rises.", group=LENGTH, unit="%", low=0.0, high=100.0
    )
    max_grad_norm: float = setting(1.0, "Max grad norm", "Clips larger gradients; 0 is off.", group=QUALITY, low=0.0)
    gradient_checkpointing: bool = setting(
        True, "Gradient checkpointing", "Saves memory by recomputing activations where needed; slower.",
        group=MEMORY, common=True,
    )  # fmt: skip
    vram_budget_gb: float = setting(
        0.0, "VRAM budget", "Plans for a card of this size; 0 uses what is free.",
        group=MEMORY, common=True, unit="GB", low=0.0, high=1024.0,
    )  # fmt: skip
    fused_backward_pass: bool = setting(
        False, "Fused backward pass", "Updates each layer during backward: saves its gradient, clips by layer.",
        group=MEMORY,
    )  # fmt: skip
    mixed_precision: str = setting(
        "bf16", "Mixed precision", "Falls back to fp16 where a GPU has no bf16, to fp32 on a CPU where it is slower.",
        group=MEMORY, common=True, choices=PRECISIONS,
    )  # fmt: skip
    clip_skip: int = setting(
        0, "Clip skip", "Which of the text encoder's last layers is read, counted from the end; 0: the one that the"
        " WebUI draws with.",
        group=QUALITY, low=0, high=12, families=_CLIP_SKIP,
    )  # fmt: skip
    seed: int = setting(
        0, "Seed", "The same seed gives the same file on the same CPU; on a GPU see Deterministic.",
        group=QUALITY, common=True, low=0, high=2**63 - 1,
    )  # fmt: skip
    deterministic: bool = setting(
        False, "Deterministic", "On a GPU, adds up in one order where PyTorch can; slower.", group=QUALITY
    )

    @property
    def text_rates(self) -> tuple[float, float]:
        """Of the first text encoder, or the only one, and of SDXL's second."""
        second = self.text_encoder2_lr
        return self.text_encoder_lr, self.text_encoder_lr if second < 0 else second

    @property
    def trains_text(self) -> bool:
        """Whether any text encoder learns."""
        return max(self.text_rates) > 0

    def rate_of(self, layer: str) -> float:
        """The learning rate of the part of the model that a layer of this name belongs to."""
        if layer.startswith("lora_te"):
            return self.text_rates[layer.startswith("lora_te2_")]
        return self.learning_rate


@dataclass(frozen=True)
class OutputConfig:
    """What is saved."""

    output_name: str = setting(
        "", "Output name", "The file's name, and NAME in <lora:NAME:0.8>.", group=SAVING, basic=True
    )
    save_precision: str = setting(
        "fp16", "Save precision", "Number format of the file.", group=SAVING, choices=PRECISIONS
    )
    save_every_n_epochs: int = setting(
        0, "Save every N epochs", "Also saves NAME-000003 …; 0 is off.", group=SAVING, unit="epochs", low=0
    )
    save_every_n_steps: int = setting(
        0, "Save every N steps", "Also saves NAME-step00000200 …; 0 is off.",
        group=SAVING, common=True, unit="steps", low=0,
    )  # fmt: skip
    save_last_n_epochs: int = setting(
        0, "Save last N epochs", "Removes older copies saved by epoch; 0 keeps all.",
        group=SAVING, unit="copies", low=0,
    )  # fmt: skip
    save_last_n_steps: int = setting(
        0, "Save last N steps", "Removes copies older than this many steps; 0 keeps all.",
        group=SAVING, unit="steps", low=0,
    )  # fmt: skip
    sample_every_n_steps: int = setting(
        0, "Sample every N steps", "Draws test pictures during the run; 0 is off.",
        group=SAVING, common=True, unit="steps", low=0,
    )  # fmt: skip
    sample_every_n_epochs: int = setting(
        0, "Sample every N epochs", "Draws test pictures during the run; 0 is off.", group=SAVING, unit="epochs", low=0
    )
    sample_prompts: str = setting(
        "", "Sample prompts",
        "One a line; --n negative --w width --h height --d seed --s steps --l CFG may follow."
        " Empty uses the trigger word.",
        group=SAVING, common=True, lines=3,
    )  # fmt: skip
    resume_every_minutes: float = setting(
        5.0, "Save state every", "At most this much is lost in a crash; 0 saves no state.",
        group=SAVING, unit="min", low=0.0,
    )  # fmt: skip
    preferred_weight: float = setting(
        0.8, "Preferred weight", "Strength on the LoRA's card.", group=SAVING, common=True, low=-2.0, high=2.0
    )
    comment: str = setting("", "Training comment", "Saved in the file's metadata.", group=SAVING)
