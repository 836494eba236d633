from types import SimpleNamespace

from modules.options import COMMON, Options
from modules.shared_state import State

state = State()
cmd_opts = SimpleNamespace(lora_dir="", embeddings_dir="", ckpt_dir="", no_prompt_history=False)
opts = Options({**COMMON, "forge_additional_modules": [], "forge_unet_storage_dtype": "Automatic"})


def __getattr__(name):
    if name != "sd_model":
        raise AttributeError(name)
    from modules.sd_models import model_data

    return model_data.get_sd_model()
