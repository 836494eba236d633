class Options:
    def __init__(self, data):
        self.__dict__["data"] = data

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self.data[name] = value


# What the WebUIs' settings pages have in common, as far as anything here reads it.
COMMON = {
    "sd_model_checkpoint": None, "emphasis": "Original", "CLIP_stop_at_last_layers": 1,
    "sdxl_crop_top": 0, "sdxl_crop_left": 0, "enable_pnginfo": True, "enable_prompt_comments": True, "font": "",
    "grid_save": True, "grid_format": "png", "grid_save_to_dirs": False, "grid_extended_filename": False,
    "outdir_grids": "", "outdir_txt2img_grids": "output/txt2img-grids",
}  # fmt: skip
