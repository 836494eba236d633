from types import SimpleNamespace

from modules.options import COMMON, Options
from modules.shared_state import State

state = State()
cmd_opts = SimpleNamespace(lora_dir="", embeddings_dir="", ckpt_dir="", no_prompt_history=False)
# CLIP skip 2 is what a new Neo draws with.
opts = Options(
    {
        **COMMON,
        "CLIP_stop_at_last_layers": 2,
        "forge_additional_modules": [],
        "forge_unet_storage_dtype": "Automatic",
        "neta_template_positive": "Draw it well.",
        "neta_template_negative": "Draw it badly.",
    }
)


def __getattr__(name):
    if name != "sd_model":
        raise AttributeError(name)
    from modules.sd_models import model_data

    return model_data.get_sd_model()
