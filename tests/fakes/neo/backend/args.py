class _Subscripted(type):
    def __getitem__(cls, key):
        return getattr(cls, key)

    def __setitem__(cls, key, value):
        setattr(cls, key, value)


class dynamic_args(metaclass=_Subscripted):
    forge_unet_storage_dtype = None
    online_lora = False
    ref_latents = []
    last_extra_generation_params = {}
