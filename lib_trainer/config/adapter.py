"""Settings of the adapter: its type, its size and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LEARNS, LENGTH, MEMORY, QUALITY
from lib_trainer.config.layers import LayerConfig

ALGOS = ("loha", "lokr", "locon")
KERNEL_STRATEGIES = ("auto", "counted", "dense", "dense_forward", "low_rank")


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
    kernel_strategy: str = setting(
        "auto", "Kernel strategy", "How layers are computed; all learn the same. auto measures once on this device,"
        " counted takes what computes least, the same on every machine.",
        group=LENGTH, choices=KERNEL_STRATEGIES,
    )  # fmt: skip
    int8_matmul: str = setting(
        "off", "8-bit products", "Where the base weights are held in 8 bits, linear layers multiply in 8 bits as well:"
        " each rounds its output by about 1 %. auto does so where it is measured to be faster, on always.",
        group=MEMORY, choices=("off", "auto", "on"),
    )  # fmt: skip
