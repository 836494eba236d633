import sys
import types
from types import SimpleNamespace

from modules.options import COMMON, Options
from modules.shared_state import State

state = State()
# As with `--use-cpu all --no-half`.
cmd_opts = SimpleNamespace(
    lora_dir="", embeddings_dir="", ckpt_dir="", no_prompt_history=False, lowvram=False, medvram=False, no_half=True
)  # fmt: skip
opts = Options({**COMMON, "fp8_storage": "Disable", "sdxl_clip_l_skip": False, "sd_noise_schedule": "Default"})
loaded_hypernetworks = []


class Shared(types.ModuleType):
    """Reading `shared.sd_model` loads a model where none has been loaded yet."""

    @property
    def sd_model(self):
        from modules import sd_models

        return sd_models.model_data.get_sd_model()


sys.modules[__name__].__class__ = Shared
