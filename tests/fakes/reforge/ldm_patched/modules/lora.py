from tests.fakes.lora_merging import (  # noqa: F401 - found here
    load_lora,
    merge_lora_to_weight,
    model_lora_keys_clip,
    model_lora_keys_unet,
)
