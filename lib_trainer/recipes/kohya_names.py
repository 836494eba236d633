"""kohya's words for what is here under another name."""

from __future__ import annotations

ALGOS = {
    "lycoris/loha": "loha",
    "kohya loha": "loha",
    "lycoris/lokr": "lokr",
    "kohya lokr": "lokr",
    "lycoris/locon": "locon",
    "kohya locon": "locon",
    "locon": "locon",
    "standard": "locon",
    "flux1": "locon",
}
# kohya's own networks leave k×k convolutions alone unless they are given a rank; LyCORIS gives them that of the rest.
KOHYAS_OWN = ("kohya loha", "kohya lokr", "kohya locon", "standard", "flux1")
RENAMED = {
    "max_resolution": "resolution_px",
    "training_comment": "comment",
    "lora_network_weights": "network_weights",
    "LyCORIS_preset": "lycoris_preset",
    "stop_text_encoder_training_pct": "stop_text_encoder_training",
}
# Lists of numbers as text, which may hold one.
WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_dims", "block_alphas")
# sd-scripts takes several values for these, ours are separated by commas.
SEVERAL = ("base_weights", "base_weights_multiplier")
PRECISIONS = {"no": "fp32", "float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
# Replacements for optimizers and schedules that we lack, where the other settings keep their meaning.
OPTIMIZERS_LIKE = {"pagedadamw": "AdamW", "pagedadamw32bit": "AdamW", "pagedlion8bit": "Lion8bit"}
OPTIMIZERS_LIKE |= {"pagedademamix8bit": "AdEMAMix8bit", "radamschedulefree": "ScheduleFreeRAdam"}
OPTIMIZERS_LIKE |= {"dadaptation": "DAdaptAdam", "dadaptadampreprint": "DAdaptAdam", "dadaptadanip": "DAdaptAdan"}
SCHEDULERS_LIKE = {"constant_with_warmup": "constant"}
# sd-scripts' fields for options of schedules.
SCHEDULE_FIELDS = {
    "lr_decay_steps": ("num_decay_steps",),
    "lr_scheduler_min_lr_ratio": ("min_lr_rate", "min_lr_ratio"),
}
# Options the optimizers have here anyway.
AS_GIVEN = {f"{name}=true" for name in ("decouple", "safeguard_warmup", "use_bias_correction")}
AS_GIVEN |= {f"{name}=false" for name in ("scale_parameter", "relative_step", "warmup_init")}
FLOW_FIELDS = ("discrete_flow_shift", "model_prediction_type", "timestep_sampling", "guidance_scale")
