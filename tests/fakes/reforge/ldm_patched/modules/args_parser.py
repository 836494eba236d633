from types import SimpleNamespace

args = SimpleNamespace(unet_in_fp8_e4m3fn=False)
