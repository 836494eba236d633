"""Pictures from untrusted files: their size, their pixels, and the crop that is trained on."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.augment import Augmentation
from lib_trainer.dataset.buckets import Bucket, resized_size
from lib_trainer.dataset.pillow import missing_decoder, open_header, truncated_is_an_error
from lib_trainer.errors import UserError
from lib_trainer.utils.limited_read import read_at_most

# Of a gif or tiff with several pictures the first one is read.
PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"
)  # fmt: skip
# Not read, but reported by a scan.
OTHER_PICTURE_ENDINGS = (".jxl", ".psd")
MAX_FILE_BYTES = 2**29
NO_PICTURE = "it is not a jpg, png or another kind of picture that is read"
TOO_LARGE = f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB"

_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 0x0112, 256, 257
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on malformed data: far more than OSError.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, AttributeError, ArithmeticError, RuntimeError,
    AssertionError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class UnreadablePicture(UserError):
    """A file that we cannot read as a picture; `reason` says why, without its name."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        hint = "Save it again as png or jpg, or take it out of the folder."
        super().__init__(f"{shown_name(path)} cannot be read: {reason}.", hint)


@dataclass(frozen=True)
class Cut:
    """The crop of a picture that is trained on.

    Attributes:
        pixels: (3, H, W) float32 in −1…1.
        size: (6,) float32, one row of `SizeCond.pixels`: the picture's own height and width, the crop's top and left in
            the resized picture, the bucket's height and width. The left of a mirrored picture is counted after
            mirroring, as in diffusers' SDXL training.
    """

    pixels: Tensor
    size: Tensor


def shown_name(path: Path) -> str:
    """The file's name as text that every console and page can show."""
    return path.name.encode("utf-8", "replace").decode("utf-8")


def path_below(path: Path, root: str | Path) -> str:
    """`10_jeff_person/3.png` for a picture of the folder `root`, as text that every console and page can show."""
    text = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return text.encode("utf-8", "replace").decode("utf-8")


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of the picture as seen (EXIF rotation applied), read from the file's header alone.

    Raises:
        UnreadablePicture: the file cannot be a picture, or holds more pixels than are read.
    """
    try:
        with path.open("rb") as stream:
            image = open_header(stream)
            width, height = image.size
            if image.format == "TIFF":
                # Some versions of Pillow have turned this size already, others have not.
                width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
            # Orientations from 5 on are rotated by a quarter.
            return (height, width) if _orientation(image) >= 5 else (width, height)
    except _BROKEN as error:
        raise UnreadablePicture(path, _reason(error, path)) from error


def open_picture(path: Path) -> Image.Image:
    """The picture in RGB: upright, alpha laid over white, 16 bits and CMYK brought to 8-bit RGB.

    Raises:
        UnreadablePicture: the message names the file.
    """
    return decode_picture(read_picture(path), path)


def read_picture(path: Path) -> bytes:
    """The file's bytes. Raises UnreadablePicture where it is gone, too large or may not be read."""
    try:
        data = read_at_most(path, MAX_FILE_BYTES)
    except OSError as error:
        raise UnreadablePicture(path, _reason(error, path)) from error
    if data is None:
        raise UnreadablePicture(path, TOO_LARGE)
    return data


def decode_picture(data: bytes, path: Path) -> Image.Image:
    """As `open_picture`, from the bytes of the file at `path`."""
    try:
        # The settings of Pillow that other extensions change would pass half a picture as a whole one.
        with truncated_is_an_error:
            image = open_header(BytesIO(data))
            upright = _UPRIGHT.get(_orientation(image))
            image.load()
        if image.format == "TIFF":
            # Its decoder has turned the picture by now, and says so.
            upright = _UPRIGHT.get(_orientation(image))
        picture = _to_rgb(image)
        return picture if upright is None else picture.transpose(upright)
    except _BROKEN as error:
        raise UnreadablePicture(path, _reason(error, path)) from error


@dataclass(frozen=True)
class Crop:
    """Where a bucket is cut out of a picture.

    Attributes:
        left, top: of the crop in the resized picture, in pixels.
        resized_width: of the whole resized picture.
        box: left, top, right, bottom of the crop in the picture before it is resized.
    """

    left: int
    top: int
    resized_width: int
    box: tuple[float, float, float, float]


def crop_of(size: tuple[int, int], bucket: Bucket, config: DatasetConfig, change: Augmentation) -> Crop:
    """Where the bucket is cut out of a picture of this size."""
    width_px, height_px = size
    resized_width, resized_height = resized_size(width_px, height_px, bucket, config)
    left = round((resized_width - bucket.width_px) * change.across)
    top = round((resized_height - bucket.height_px) * change.down)
    across, down = width_px / resized_width, height_px / resized_height
    right = min(width_px, (left + bucket.width_px) * across)
    return Crop(
        left,
        top,
        resized_width,
        (left * across, top * down, right, min(height_px, (top + bucket.height_px) * down)),
    )


def decode_alpha(data: bytes, path: Path) -> Image.Image | None:
    """The alpha channel of the file at `path` as a grey picture, upright; None for a file without one."""
    try:
        with truncated_is_an_error:
            image = open_header(BytesIO(data))
            upright = _UPRIGHT.get(_orientation(image))
            image.load()
        if not _has_alpha(image):
            return None
        alpha = image.convert("RGBA").getchannel("A")
        return alpha if upright is None else alpha.transpose(upright)
    except _BROKEN as error:
        raise UnreadablePicture(path, _reason(error, path)) from error


def cut(picture: Image.Image, bucket: Bucket, config: DatasetConfig, augmentation: Augmentation | None = None) -> Cut:
    """The bucket's crop of an RGB picture, resized with Lanczos; centred and unchanged without an augmentation."""
    change = augmentation or Augmentation()
    width, height = bucket.width_px, bucket.height_px
    crop = crop_of(picture.size, bucket, config, change)
    # Only the crop is resized: a 1×10000 picture would take gigabytes at full size.
    part = picture.resize((width, height), Image.Resampling.LANCZOS, box=crop.box)
    left, top = crop.left, crop.top
    if change.mirrored:
        part, left = ImageOps.mirror(part), crop.resized_width - width - left
    # HSV works on 8 bits, gamma on floats without rounding.
    pixels = torch.from_numpy(np.array(_shift_hue(part, change.hue_shift))).permute(2, 0, 1).float() / 255
    pixels = pixels**change.gamma if change.gamma != 1 else pixels
    size = (picture.height, picture.width, top, left, height, width)
    return Cut(pixels.mul_(2).sub_(1).contiguous(), torch.tensor(size, dtype=torch.float32))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8, from what stands before the pixels; 1 where it is missing or broken."""
    try:
        # PNG's own getexif decodes the whole picture first, which a scan cannot afford.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if value in _UPRIGHT else 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys to white instead of scaling them.
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if _has_alpha(image):
        colors = image.convert("RGBA")
        # Transparent pixels often hold black or noise, which would be learned.
        picture = Image.new("RGB", image.size, "white")
        picture.paste(colors, mask=colors.getchannel("A"))
        return picture
    return image.convert("RGB")


def _shift_hue(picture: Image.Image, shift: int) -> Image.Image:
    if shift == 0:
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _reason(error: BaseException, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return missing_decoder(path.suffix.lower()) or NO_PICTURE
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__
