import time
from types import SimpleNamespace


class State:
    skipped = interrupted = stopping_generation = False
    job, job_no, job_count, sampling_step, sampling_steps = "", 0, 0, 0, 0
    textinfo, time_start = None, None

    def interrupt(self):
        self.interrupted = True

    def stop_generating(self):
        self.stopping_generation = True

    def skip(self):
        self.skipped = True

    def set_current_image(self):
        raise AssertionError("a preview loads the VAE, on the thread of whoever asks for progress")

    def nextjob(self):
        self.job_no += 1
        self.sampling_step = 0

    def begin(self, job="(unknown)"):
        self.sampling_step, self.job_no, self.job_count, self.time_start = 0, 0, -1, time.time()
        self.skipped = self.interrupted = self.stopping_generation = False
        self.textinfo, self.job = None, job

    def end(self):
        self.job, self.job_count = "", 0


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


state = State()
cmd_opts = SimpleNamespace(lora_dir="", ckpt_dir="", no_prompt_history=False)
opts = Options(
    {
        "sd_model_checkpoint": None, "forge_additional_modules": [], "forge_unet_storage_dtype": "Automatic",
        "enable_pnginfo": True, "enable_prompt_comments": True, "font": "", "grid_save": True, "grid_format": "png",
        "grid_save_to_dirs": False, "grid_extended_filename": False, "outdir_grids": "",
        "outdir_txt2img_grids": "output/txt2img-grids",
        "emphasis": "Original", "CLIP_stop_at_last_layers": 1, "sdxl_crop_top": 0, "sdxl_crop_left": 0,
    }
)  # fmt: skip


def __getattr__(name):
    if name != "sd_model":
        raise AttributeError(name)
    from modules.sd_models import model_data

    return model_data.get_sd_model()
