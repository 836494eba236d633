"""Settings of the dataset: pictures, captions, buckets and augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.config.fields import setting
from lib_trainer.config.groups import LEARNS, MEMORY, QUALITY

CAPTION_LINES = ("first", "random", "all")


@dataclass(frozen=True)
class DatasetConfig:
    """What it is trained on."""

    train_data_dir: str = setting(
        "", "Image folder", "A folder of pictures, or of folders named like 10_jeff_person.", group=LEARNS, basic=True
    )
    reg_data_dir: str = setting(
        "", "Regularisation folder", "Pictures of the class in folders named like 1_man, drawn as often as the others.",
        group=LEARNS,
    )  # fmt: skip
    trigger_word: str = setting(
        "", "Trigger word", "Write it in a prompt to get what was learned.", group=LEARNS, basic=True
    )
    resolution_px: tuple[int, int] = setting(
        (768, 768), "Resolution", "Largest area of a picture: width × height.", group=QUALITY, common=True, unit="px"
    )
    enable_bucket: bool = setting(
        True, "Aspect-ratio buckets", "Groups pictures by shape instead of cropping all to one.",
        group=QUALITY, common=True,
    )  # fmt: skip
    min_bucket_reso: int = setting(
        256, "Min bucket resolution", "No bucket is narrower.", group=QUALITY, unit="px", low=64, high=8192
    )
    max_bucket_reso: int = setting(
        1536, "Max bucket resolution", "No bucket is wider.", group=QUALITY, unit="px", low=64, high=8192
    )
    bucket_reso_steps: int = setting(
        64, "Bucket resolution steps", "Bucket sides are multiples of this.", group=QUALITY, unit="px", low=8, high=512
    )
    bucket_no_upscale: bool = setting(
        True, "Don't upscale bucket resolution", "Trains small pictures at their own size.", group=QUALITY
    )
    bucket_panoramas: bool = setting(
        False, "Buckets for panoramas", "Pictures that would lose over a third to the crop train at their own shape,"
        " outside the smallest and largest bucket side.",
        group=QUALITY,
    )  # fmt: skip
    caption_extension: str = setting(
        ".txt", "Caption file extension", "Ending of the text file beside each picture.", group=LEARNS
    )
    caption_lines: str = setting(
        "first", "Lines of a caption file", "Of a file with several: its first line, as in kohya's tools; a random one"
        " in each step; or all, joined by commas.",
        group=LEARNS, choices=CAPTION_LINES,
    )  # fmt: skip
    trigger_word_first: bool = setting(
        False, "Trigger word in every caption", "Puts it first in every caption of the run; files stay as they are.",
        group=LEARNS, basic=True,
    )  # fmt: skip
    shuffle_caption: bool = setting(
        False, "Shuffle caption", "Shuffles the comma-separated tags.", group=LEARNS, common=True
    )
    keep_tokens: int = setting(
        0, "Keep tokens", "Number of first tags that stay in place.",
        group=LEARNS, common=True, unit="tags", low=0, high=255,
    )  # fmt: skip
    caption_dropout_rate: float = setting(
        0.0, "Caption dropout", "Share of steps without a caption.", group=LEARNS, low=0.0, high=1.0
    )
    caption_variants: int = setting(
        8, "Caption variants", "Shuffled captions encoded in advance per picture.", group=MEMORY, low=1, high=1000
    )
    flip_aug: bool = setting(False, "Flip augmentation", "Mirrors half of the pictures.", group=QUALITY, common=True)
    color_aug: bool = setting(False, "Colour augmentation", "Varies hue and gamma a little.", group=QUALITY)
    random_crop: bool = setting(False, "Random crop", "Crops at random positions instead of the centre.", group=QUALITY)
    latent_variants: int = setting(
        4, "Latent variants", "Augmented versions encoded in advance per picture.", group=MEMORY, low=1, high=1000
    )
    cache_latents_to_disk: bool = setting(
        False, "Cache latents to disk", "Keeps encoded pictures for the next run.", group=MEMORY, common=True
    )
