import functools

from safetensors.torch import load_file


@functools.lru_cache(maxsize=5)
def load_lora_state_dict(filename):
    return load_file(filename)
