from types import SimpleNamespace

args = SimpleNamespace(fp8_e4m3fn_unet=False)
