"""What a run learns from: pictures, prompts alone, or pairs of pictures.

Names are TrainTrain's (https://github.com/hako-mikan/sd-webui-traintrain) and LECO's
(https://github.com/p1atdev/LECO) where they have the setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LEARNS

LORA, SLIDER, DIFFERENCE = "lora", "slider", "difference"
MODES = (LORA, SLIDER, DIFFERENCE)
# Settings that apply to some modes only: those of pictures, of what a run measures and of text encoders, of prompts.
_ONLY = {
    (LORA, DIFFERENCE): (
        "train_data_dir trigger_word enable_bucket min_bucket_reso max_bucket_reso bucket_reso_steps bucket_no_upscale"
        " bucket_panoramas caption_extension caption_lines trigger_word_first shuffle_caption keep_tokens"
        " caption_dropout_rate caption_variants flip_aug color_aug random_crop latent_variants masked_loss"
        " unmasked_weight epoch"
    ),
    (LORA,): (
        "text_encoder_lr text_encoder2_lr stop_text_encoder_training loraplus_text_encoder_lr_ratio prior_loss_weight"
        " reg_data_dir num_vectors_per_token token_string init_word embedding_lr"
        " stop_when_learned validate_every_n_steps validation_split held_out validation_seed max_validation_steps"
    ),
    (SLIDER,): ("original_prompt target_prompt neutral_prompt positive_strength negative_strength max_denoising_steps"),
    (DIFFERENCE,): "diff_target_dir",
}
MODES_OF = {name: modes for modes, names in _ONLY.items() for name in names.split()}
# Settings that name folders of pictures.
FOLDER_FIELDS = ("train_data_dir", "reg_data_dir", "diff_target_dir")
MAX_PROMPTS = 50
_SHOWN = 3


@dataclass(frozen=True)
class SliderPrompt:
    """One line of a slider: prompts like `neutral` move from `original` to `target`."""

    neutral: str
    original: str
    target: str


@dataclass(frozen=True)
class TaskConfig:
    """What is learned, and from what."""

    mode: str = setting(
        LORA, "Mode",
        "lora learns pictures; slider the way from one prompt to another, without pictures; difference what changes"
        " between pairs of pictures. Strength −1 of the last two does the opposite.",
        group=LEARNS, common=True, choices=MODES,
    )  # fmt: skip
    original_prompt: str = setting(
        "", "Original prompt", "Where the slider comes from, like a sad person; one a line. Strength −1 goes there.",
        group=LEARNS, basic=True, lines=2,
    )  # fmt: skip
    target_prompt: str = setting(
        "", "Target prompt", "Where strength 1 goes, like a smiling person; empty removes the original.",
        group=LEARNS, basic=True, lines=2,
    )  # fmt: skip
    neutral_prompt: str = setting(
        "", "Neutral prompt", "What the slider moves, like a person; empty takes the original prompt.",
        group=LEARNS, basic=True, lines=2,
    )  # fmt: skip
    positive_strength: float = setting(
        1.0, "Positive strength", "How far strength 1 goes towards the target, in units of its distance to the"
        " original.",
        group=LEARNS, low=0.01, high=20.0,
    )  # fmt: skip
    negative_strength: float = setting(
        1.0, "Negative strength", "How far strength −1 goes the other way; 0 does not train it.",
        group=LEARNS, low=0.0, high=20.0,
    )  # fmt: skip
    max_denoising_steps: int = setting(
        20, "Max denoising steps", "In so many steps the checkpoint draws the half-finished pictures that a slider"
        " trains on; 0 takes noise, which is faster.",
        group=LEARNS, unit="steps", low=0, high=1000,
    )  # fmt: skip
    diff_target_dir: str = setting(
        "", "Target folder", "The second picture of each pair, of the same size and file name; strength 1 turns the"
        " first into it.",
        group=LEARNS, basic=True,
    )  # fmt: skip

    @property
    def signs(self) -> tuple[float, ...]:
        """The strengths that the adapter trains at, in turn."""
        both = self.mode == DIFFERENCE or (self.mode == SLIDER and self.negative_strength > 0)
        return (1.0, -1.0) if both else (1.0,)

    @property
    def prompts(self) -> tuple[SliderPrompt, ...]:
        """The lines of a slider; () in other modes.

        Raises:
            ValueError: the numbers of lines do not fit together, with a sentence's end.
        """
        if self.mode != SLIDER:
            return ()
        original, target = _lines(self.original_prompt), _lines(self.target_prompt)
        neutral = _lines(self.neutral_prompt) if self.neutral_prompt.strip() else original
        count = max(map(len, (original, target, neutral)))
        if any(len(lines) not in (1, count) for lines in (original, target, neutral)):
            counts = f"{len(original)}, {len(target)} and {len(neutral)}"
            raise ValueError(f"has another number of lines than the others: {counts}; write one line or as many")
        if count > MAX_PROMPTS:
            raise ValueError(f"has {count} lines; {MAX_PROMPTS} is the most")
        parts = [lines * count if len(lines) == 1 else lines for lines in (neutral, original, target)]
        return tuple(SliderPrompt(*line) for line in zip(*parts, strict=True))

    @property
    def summary(self) -> str:
        """What strengths 1 and −1 do, for the card; "" for a run that learns pictures."""
        if self.mode == DIFFERENCE:
            return "Strength 1: what the second pictures of the pairs have; strength -1 takes it away"
        directions = [f"{line.original or 'without'} → {line.target or 'without'}" for line in self.prompts[:_SHOWN]]
        more = " …" if len(self.prompts) > _SHOWN else ""
        back = "; strength -1 the other way" if self.negative_strength > 0 else ""
        return f"Strength 1: {', '.join(directions)}{more}{back}" if directions else ""

    def task_problems(self) -> dict[str, str]:
        """field -> what is wrong with it in this mode, as the end of a sentence."""
        if self.mode == DIFFERENCE and not self.diff_target_dir:
            return {"diff_target_dir": "name the folder that holds the second picture of each pair"}
        try:
            prompts = self.prompts
        except ValueError as error:
            return {"target_prompt": str(error)}
        same = next((line.target for line in prompts if line.target == line.original), None)
        if same is None:
            return {}
        if not same:
            return {"original_prompt": "a slider needs a prompt to come from, or one to go to"}
        return {"target_prompt": f"{same[:60]!r} is the original prompt too: there is nothing to learn"}


def named_folders(values: Mapping[str, Any]) -> list[str]:
    """The folders of pictures that settings name."""
    return [str(values[name]) for name in FOLDER_FIELDS if values.get(name)]


def _lines(text: str) -> list[str]:
    """`"a\\nb"` -> `["a", "b"]`; an empty text is the empty prompt."""
    return [line.strip() for line in text.splitlines() if line.strip()] or [""]
