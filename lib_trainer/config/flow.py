"""How transformers that are trained by flow matching see noise. The names, ranges and meanings are sd-scripts'."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import QUALITY

TIMESTEP_SAMPLINGS = ("uniform", "sigmoid", "shift", "flux_shift")
PREDICTION_TYPES = ("raw", "sigma_scaled")
# Families that are trained by flow matching, and those of them that were distilled with a guidance scale.
_FLOW = ("flux", "chroma", "klein4b", "klein9b", "zimage", "lumina2", "anima")
_GUIDED = ("flux",)


@dataclass(frozen=True)
class FlowConfig:
    """Noise levels of flow matching."""

    timestep_sampling: str = setting(
        "shift", "Timestep sampling",
        "How noise levels are drawn; shift and flux_shift prefer much noise, flux_shift by the picture's size.",
        group=QUALITY, choices=TIMESTEP_SAMPLINGS, families=_FLOW,
    )  # fmt: skip
    discrete_flow_shift: float = setting(
        0.0, "Discrete flow shift", "For timestep sampling shift; 0 takes what is usual for the checkpoint's family.",
        group=QUALITY, low=0.0, high=100.0, families=_FLOW,
    )  # fmt: skip
    sigmoid_scale: float = setting(
        1.0, "Sigmoid scale", "Width of the distribution of noise levels, but for uniform.",
        group=QUALITY, low=0.01, high=100.0, families=_FLOW,
    )  # fmt: skip
    guidance_scale: float = setting(
        1.0, "Guidance scale", "The distilled guidance that is trained with; 1 is usual.",
        group=QUALITY, low=0.0, high=100.0, families=_GUIDED,
    )  # fmt: skip
    model_prediction_type: str = setting(
        "raw", "Model prediction type", "sigma_scaled counts the clean picture's error, so less noise counts less.",
        group=QUALITY, choices=PREDICTION_TYPES, families=_FLOW,
    )  # fmt: skip
