"""kohya's names in ours: what a JSON file of the kohya_ss GUI means here.

The meanings are those of kohya_ss (https://github.com/bmaltais/kohya_ss) and sd-scripts
(https://github.com/kohya-ss/sd-scripts). A file's values come out as ours, with a sentence for everything else.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from lib_trainer.config.layers import PRESETS
from lib_trainer.config.optimization import OPTIMIZERS, SCHEDULE_OPTIONS, SCHEDULERS
from lib_trainer.config.recipe import field_types
from lib_trainer.recipes.kohya_names import (
    ALGOS,
    AS_GIVEN,
    FLOW_FIELDS,
    KOHYAS_OWN,
    OPTIMIZERS_LIKE,
    PRECISIONS,
    RENAMED,
    SCHEDULE_FIELDS,
    SCHEDULERS_LIKE,
    SEVERAL,
    WEIGHTS,
)
from lib_trainer.recipes.kohya_table import not_used
from lib_trainer.recipes.reading import Reading, is_off, shown


def read_gui(data: Mapping[str, Any]) -> Reading:
    """The settings of a kohya_ss GUI file. An empty value means what it means to kohya: not set."""
    reader = _Reader(data)
    reader.additional_parameters()
    reader.model()
    reader.adapter()
    reader.convolutions()
    reader.rates()
    reader.length()
    reader.optimizer()
    reader.schedule()
    reader.pictures()
    reader.same_names()
    return Reading(reader.values, (*reader.notices, *not_used(reader.rest)), reader.problems)


class _Reader:
    """Takes one key after the other out of a file; what is left at the end is reported."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.rest = dict(data)
        self.values: dict[str, Any] = {}
        self.notices: list[str] = []
        self.problems: dict[str, str] = {}
        self.kind = shown(data.get("LoRA_type") or "").strip()

    def take(self, key: str) -> Any:
        """The value of a key, taken out; None where it is missing or empty."""
        value = self.rest.pop(key, None)
        return None if isinstance(value, str) and not value.strip() else value

    def additional_parameters(self) -> None:
        """Options of sd-scripts' command line, which go before the fields of the page."""
        text = self.take("additional_parameters")
        options: dict[str, Any] = {}
        for part in _words(text):
            if part.startswith("--"):
                name, _, value = part[2:].partition("=")
                options[name] = value or True
            elif options:
                name = list(options)[-1]
                between = ", " if name in SEVERAL else " "
                options[name] = part if options[name] is True else f"{options[name]}{between}{part}"
        self.rest.update(options)

    def model(self) -> None:
        """Every file holds the settings of flow matching; they say something where it is for such a model."""
        if "flux1_checkbox" in self.rest and is_off(self.rest["flux1_checkbox"]):
            for name in FLOW_FIELDS:
                self.rest.pop(name, None)
        # musubi-tuner's name for FLUX.2, whose tokens are counted otherwise; here the family knows how.
        if self.rest.get("timestep_sampling") == "flux2_shift":
            self.rest["timestep_sampling"] = "flux_shift"

    def adapter(self) -> None:
        kind = self.kind.lower()
        self.rest.pop("LoRA_type", None)
        if kind in ALGOS:
            self.values["algo"] = ALGOS[kind]
        elif kind:
            self.problems["algo"] = f"{self.kind!r} cannot be trained here; LoHa, LoKr, LoCon and Standard can"
        if "network_alpha" in self.rest and is_off(self.rest["network_alpha"]) and "network_dim" in self.rest:
            self.rest["network_alpha"] = self.rest["network_dim"]  # kohya's scale is 1 then
        if str(self.rest.get("LyCORIS_preset") or "full") not in PRESETS:
            preset = self.take("LyCORIS_preset")
            self.notices.append(f"LyCORIS_preset = {shown(preset)} is not one of {', '.join(PRESETS)}; full is used.")
        if not is_off(self.rest.get("dora_wd")):
            self.rest.setdefault("wd_on_output", True)
            if not is_off(self.rest["wd_on_output"]):
                self.notices.append(
                    "dora_wd takes the norm per output, as in kohya; WebUIs draw it exactly with wd_on_output off."
                )
        if kind in KOHYAS_OWN:
            # Only LyCORIS' types train norms.
            self.take("train_norm")
        tucker = [self.take(key) for key in ("use_cp", "use_tucker") if key in self.rest]
        if tucker:
            self.values["use_tucker"] = any(not is_off(value) for value in tucker)

    def convolutions(self) -> None:
        """An empty rank of k×k convolutions is 0 to kohya's own networks, and that of the rest to LyCORIS."""
        kind = self.kind.lower()
        if kind in KOHYAS_OWN:
            if kind == "standard":
                self.notices.append("LoRA_type Standard is trained as LoCon that leaves k×k convolutions alone.")
            if kind in ("standard", "flux1") or is_off(self.rest.get("conv_dim")):
                self.values["conv_dim"] = 0
            elif self.rest.get("conv_alpha") in (None, ""):
                self.values["conv_alpha"] = 1
        elif kind:
            for conv, linear in (("conv_dim", "network_dim"), ("conv_alpha", "network_alpha")):
                if self.rest.get(conv) in (None, "") and self.rest.get(linear) not in (None, ""):
                    self.rest[conv] = self.rest[linear]

    def rates(self) -> None:
        """The UNet's own rate wins. A text encoder learns only where the file says so itself."""
        given = self.rest.keys() & {"unet_lr", "text_encoder_lr"}
        general, unet, text = (self.take(key) for key in ("learning_rate", "unet_lr", "text_encoder_lr"))
        only = {part: not is_off(self.take(f"network_train_{part}_only")) for part in ("unet", "text_encoder")}
        # sd-scripts takes a list for SDXL's two text encoders.
        if isinstance(text, list) and text:
            if len(text) > 1:
                self.values["text_encoder2_lr"] = 0 if is_off(text[1]) else text[1]
            text = text[0]
        if "unet_lr" not in given:
            unet = general
        if only["unet"]:
            unet, text = (general if is_off(unet) else unet), 0
        elif only["text_encoder"]:
            unet, text = 0, (general if is_off(text) else text)
        # kohya_ss passes neither of two zeros on, and sd-scripts then falls back to the general rate.
        elif len(given) == 2 and is_off(unet) and is_off(text):
            unet = text = general
            self.notices.append(
                f"unet_lr and text_encoder_lr are 0: both are trained at {shown(general)}, as in kohya."
            )
        elif "text_encoder_lr" not in given:
            self.notices.append("text_encoder_lr is not in the file: the text encoder is left alone.")
        if unet is not None:
            self.values["learning_rate"] = 0 if is_off(unet) else unet
        self.values["text_encoder_lr"] = 0 if is_off(text) else text

    def length(self) -> None:
        """kohya: max_train_epochs, else max_train_steps, else epoch."""
        epochs, steps, epoch = (self.take(key) for key in ("max_train_epochs", "max_train_steps", "epoch"))
        if not is_off(epochs):
            self.values.update(epoch=epochs, max_train_steps=0)
            return
        if epoch is not None:
            self.values["epoch"] = epoch
        self.values["max_train_steps"] = 0 if is_off(steps) else steps

    def optimizer(self) -> None:
        name, arguments = self.take("optimizer"), self.take("optimizer_args")
        old = not is_off(self.take("use_8bit_adam"))
        if name is None and old:
            name = "AdamW8bit"
        if name is not None:
            # kohya names some with their package, like pytorch_optimizer.CAME.
            bare = shown(name).strip().rpartition(".")[2]
            if bare.lower() in OPTIMIZERS_LIKE or not bare.isidentifier():
                self._choose("optimizer", bare, OPTIMIZERS, OPTIMIZERS_LIKE)
            else:
                # Any other may be a class of pytorch-optimizer, which is looked for when the run begins.
                known = {choice.lower(): choice for choice in OPTIMIZERS}
                self.values["optimizer"] = known.get(bare.lower(), bare)
        parts = _words(arguments)
        decay = [part for part in parts if part.startswith("weight_decay=")]
        if decay:
            self.values["weight_decay"] = decay[-1].partition("=")[2]
        left = [part for part in parts if part not in decay and part.lower() not in AS_GIVEN]
        self.values["optimizer_args"] = shlex.join(left)

    def schedule(self) -> None:
        name = self.take("lr_scheduler")
        if name is not None:
            self._choose("lr_scheduler", shown(name), SCHEDULERS, SCHEDULERS_LIKE)
        self._schedule_arguments()
        steps, total = self.take("lr_warmup_steps"), self.values["max_train_steps"]
        if is_off(steps):
            return
        try:
            self.values["lr_warmup"] = 100 * _share(steps, total)
            self.rest.pop("lr_warmup", None)
        except ZeroDivisionError:
            self.notices.append(f"lr_warmup_steps = {shown(steps)} needs max_train_steps here; lr_warmup counts.")
        except (TypeError, ValueError, OverflowError):
            self.problems["lr_warmup"] = f"lr_warmup_steps = {shown(steps)} of {shown(total)} steps is not a share"

    def _schedule_arguments(self) -> None:
        """Those that the schedule takes here; sd-scripts' own options for them among them."""
        known = SCHEDULE_OPTIONS.get(self.values.get("lr_scheduler", ""), {})
        given = _words(self.take("lr_scheduler_args"))
        for key, names in SCHEDULE_FIELDS.items():
            value = self.take(key)
            given += [f"{name}={value}" for name in names if not is_off(value) and name in known]
        left = [part for part in given if part.partition("=")[0] not in known]
        if left:
            self.notices.append(f"lr_scheduler_args = {shown(' '.join(left))} is not done here.")
        self.values["lr_scheduler_args"] = shlex.join(part for part in given if part not in left)

    def _choose(self, field: str, name: str, ours: tuple[str, ...], like: Mapping[str, str]) -> None:
        key = name.strip().lower()
        exact = next((choice for choice in ours if choice.lower() == key), None)
        if exact:
            self.values[field] = exact
        elif key in like:
            self.values[field] = like[key]
            if key != "constant_with_warmup":  # another name for the same thing
                self.notices.append(f"{field} {name} is not available; {like[key]} replaces it.")
        else:
            self.problems[field] = f"{name!r} is not one of {', '.join(ours)}"

    def pictures(self) -> None:
        self.noise()
        step = self.take("bucket_reso_steps")
        if step is not None:
            self.values["bucket_reso_steps"] = step
            if str(step).strip() in ("1", "1.0"):
                self.values["bucket_reso_steps"] = 64
                self.notices.append("bucket_reso_steps 1 cannot be: sides are multiples of 8 px; 64 is used.")
        # kohya refuses to cache these, so there its file cannot ask for it; here every variant is encoded once.
        if not is_off(self.rest.get("color_aug")) or not is_off(self.rest.get("random_crop")):
            self.take("cache_latents_to_disk")
            self.values["cache_latents_to_disk"] = True
        if is_off(self.rest.get("clip_skip")):
            self.rest.pop("clip_skip", None)
        for field in ("mixed_precision", "save_precision"):
            value = self.take(field)
            if value is not None:
                self.values[field] = PRECISIONS.get(str(value).strip().lower(), value)

    def noise(self) -> None:
        """kohya_ss hands on either the offset or the multires noise, by noise_offset_type."""
        kind = self.take("noise_offset_type")
        if kind is not None:
            unused = "multires_noise_iterations" if str(kind).strip().lower() == "original" else "noise_offset"
            self.values[unused] = 0
            value = self.take(unused)
            if not is_off(value):
                text = f"{unused} = {shown(value)} is not used, as in kohya: noise_offset_type is {shown(kind)}."
                self.notices.append(text)
        if "max_timestep" in self.rest and is_off(self.rest["max_timestep"]):
            self.rest.pop("max_timestep")

    def same_names(self) -> None:
        """Every other key that means here what it means to kohya."""
        known = field_types()
        for key in list(self.rest):
            field = RENAMED.get(key, key)
            if field in known:
                value = self.take(key)
                if isinstance(value, list) and key in SEVERAL:
                    value = ", ".join(map(str, value))
                if key in WEIGHTS and isinstance(value, (int, float)) and not isinstance(value, bool):
                    value = str(value)
                if value is not None and field not in self.values:
                    self.values[field] = value


def _words(text: Any) -> list[str]:
    """Arguments as a shell would split them: of a text; a list is split already."""
    if isinstance(text, list):
        return [str(part) for part in text]
    try:
        return shlex.split(str(text or ""))
    except ValueError:
        return [str(text)]


def _share(steps: Any, total: Any) -> float:
    """What share of all steps a warm-up takes. sd-scripts: below 1 it is that share itself."""
    warmup = float(steps)
    return warmup if 0 < warmup < 1 else warmup / float(total)
