"""Saving, as far as our grids are concerned: numbered files with their infotext."""

import os

from PIL.PngImagePlugin import PngInfo


def save_image(image, path, basename, seed=None, prompt=None, extension="png", info=None, short_filename=False,
               grid=False, p=None):  # fmt: skip
    os.makedirs(path, exist_ok=True)
    number = len([name for name in os.listdir(path) if name.startswith(f"{basename}-")])
    decoration = "" if short_filename or seed is None else f"-{seed}"
    filename = os.path.join(path, f"{basename}-{number:04}{decoration}.{extension}")
    text = PngInfo()
    text.add_text("parameters", info)
    image.save(filename, pnginfo=text)
    return filename, None
