import random

import pytest

from lib_trainer.dataset.buckets import Bucket, bucket_for, cut_share, is_enlarged, resized_size
from tests.dataset.tiny import make_config


def config(**values):
    return make_config(**{"resolution_px": (512, 512), "min_bucket_reso": 256, "max_bucket_reso": 1024, **values})


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((512, 512), (512, 512)),  # kohya's BucketManager gives the same for all of these
        ((1024, 1024), (512, 512)),
        ((3000, 4000), (384, 512)),
        ((4000, 3000), (512, 384)),
        ((1920, 1080), (640, 384)),
        ((500, 400), (448, 384)),
        ((300, 700), (256, 640)),
        ((3247, 3243), (512, 512)),  # 511.7 pixels are 512
        ((960, 896), (448, 448)),  # as near in shape as 512×448
    ],
)
def test_a_picture_is_never_enlarged_by_default(size, bucket):
    assert bucket_for(*size, config()) == Bucket(*bucket)
    assert not is_enlarged(*size, Bucket(*bucket))


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((100, 100), (512, 512)), ((3000, 4000), (448, 576)), ((1920, 1080), (640, 384)), ((5000, 1000), (1024, 256))],
)
def test_with_upscaling_the_bucket_nearest_in_shape_is_taken(size, bucket):
    assert bucket_for(*size, config(bucket_no_upscale=False)) == Bucket(*bucket)


def test_of_buckets_as_near_in_shape_the_larger_is_taken():
    settings = config(bucket_no_upscale=False, resolution_px=(896, 896), max_bucket_reso=1536)
    # As far from 960×832 on one side as from 896×896 on the other.
    assert bucket_for(896, 832, settings) == Bucket(896, 896)
    assert bucket_for(1200, 3840, settings) == Bucket(512, 1536)


@pytest.mark.parametrize("size", [(100, 900), (900, 100), (255, 512), (256, 511)])
def test_a_picture_too_small_on_one_side_is_enlarged(size):
    assert is_enlarged(*size, Bucket(256, 512))
    assert not is_enlarged(256, 512, Bucket(256, 512))


def test_without_buckets_every_picture_has_the_resolution():
    flat = config(enable_bucket=False, resolution_px=(512, 768))
    assert {bucket_for(*size, flat) for size in [(100, 900), (900, 100), (64, 64)]} == {Bucket(512, 768)}
    assert bucket_for(100, 100, config(enable_bucket=False, resolution_px=(500, 700))) == Bucket(448, 640)


def test_a_tiny_picture_is_enlarged_in_its_own_shape():
    bucket = bucket_for(50, 100, config())
    assert bucket == Bucket(256, 512)
    assert is_enlarged(50, 100, bucket)


@pytest.mark.parametrize("no_upscale", [True, False])
@pytest.mark.parametrize("step", [8, 64, 96])
def test_sides_area_and_steps_are_kept_for_any_picture(no_upscale, step):
    settings = config(
        bucket_no_upscale=no_upscale, bucket_reso_steps=step, resolution_px=(640, 512), max_bucket_reso=1000
    )
    rng = random.Random(1)
    sizes = [(1, 1), (1, 100_000), (100_000, 1), (256, 256), (640, 512)]
    sizes += [(rng.randint(1, 5000), rng.randint(1, 5000)) for _ in range(400)]
    for size in sizes:
        bucket = bucket_for(*size, settings)
        for side in (bucket.width_px, bucket.height_px):
            assert side % step == 0
            assert 256 <= side <= 1000
        assert bucket.width_px * bucket.height_px <= 640 * 512
        if no_upscale and min(size) >= 288 + step and size[0] * size[1] > 640 * 512 and 0.7 < size[0] / size[1] < 1.4:
            assert bucket.width_px * bucket.height_px > 0.55 * 640 * 512, (size, bucket)


def test_a_cap_below_the_smallest_side_lowers_that_side():
    assert bucket_for(64, 64, config(resolution_px=(64, 64))) == Bucket(64, 64)
    assert bucket_for(600, 200, config(resolution_px=(128, 128))) == Bucket(192, 64)
    assert bucket_for(900, 900, config(resolution_px=(100, 100))) == Bucket(64, 64)


def test_a_picture_within_the_cap_is_trimmed_and_not_shrunk():
    assert resized_size(500, 400, Bucket(448, 384), config()) == (500, 400)
    assert resized_size(1000, 800, Bucket(512, 384), config()) == (512, 410)
    assert resized_size(500, 400, Bucket(448, 384), config(bucket_no_upscale=False)) == (480, 384)
    assert resized_size(50, 100, Bucket(256, 512), config()) == (256, 512)


@pytest.mark.parametrize("upscales", [False, True])
def test_a_panorama_keeps_its_shape_if_that_is_asked_for(upscales):
    usual = config(resolution_px=(896, 896), max_bucket_reso=1536, bucket_no_upscale=not upscales)
    wide = config(resolution_px=(896, 896), max_bucket_reso=1536, bucket_no_upscale=not upscales, bucket_panoramas=True)
    assert bucket_for(4000, 200, usual) == Bucket(1536, 256)
    assert cut_share(4000, 200, Bucket(1536, 256), usual) == pytest.approx(0.7, abs=0.01)
    bucket = bucket_for(4000, 200, wide)
    assert cut_share(4000, 200, bucket, wide) < 0.1
    assert bucket.width_px * bucket.height_px <= 896 * 896
    assert bucket_for(200, 4000, wide) == Bucket(bucket.height_px, bucket.width_px)
    # Every other picture trains as before, also a wide one that loses less than a third.
    for size in ((1600, 900), (1700, 250), (250, 1700)):
        assert bucket_for(*size, wide) == bucket_for(*size, usual)
    assert bucket_for(4000, 200, config(enable_bucket=False, bucket_panoramas=True)) == Bucket(512, 512)


def test_the_share_that_is_cut_counts_what_is_left_after_resizing():
    assert cut_share(512, 512, Bucket(512, 512), config()) == 0
    square = config(enable_bucket=False)
    assert cut_share(1024, 512, Bucket(512, 512), square) == pytest.approx(0.5)
    # A picture that is only trimmed is not resized first.
    assert cut_share(500, 400, Bucket(448, 384), config()) == pytest.approx(1 - 448 * 384 / 200_000)
