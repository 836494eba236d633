dynamic_args = {"forge_unet_storage_dtype": None, "online_lora": False}
