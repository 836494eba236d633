import random
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from lib_trainer.dataset.augment import Augmentation, augmentation_of, count_variants, draw_augmentation
from lib_trainer.dataset.buckets import Bucket
from lib_trainer.dataset.images import UnreadablePicture, cut, decode_picture, open_picture, read_size
from lib_trainer.dataset.pillow import truncated_is_an_error
from tests.dataset.tiny import make_config

# Pillow says so itself where it meets broken EXIF.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Tag data larger", "ignore:Truncated File")

RED_AND_BLUE = np.concatenate([np.full((32, 32, 3), (200, 0, 0)), np.full((32, 32, 3), (0, 0, 200))], axis=1)


def two_colors() -> Image.Image:
    return Image.fromarray(RED_AND_BLUE.astype(np.uint8))


def opened(image: Image.Image, path, **options) -> np.ndarray:
    image.save(path, **options)
    picture = open_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_pictures_are_turned_upright(tmp_path, orientation, ending):
    # What each camera position stores of the same upright scene, by EXIF's table.
    turns = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}
    scene = Image.new("RGB", (48, 32), "white")
    scene.paste((200, 0, 0), (0, 0, 24, 16))
    stored = scene
    for method in turns[orientation]:
        stored = stored.transpose(Image.Transpose(method))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    seen = opened(stored, path, exif=exif, **({"quality": 95} if ending != "png" else {}))
    assert seen.shape == (32, 48, 3)
    assert read_size(path) == (48, 32)
    assert np.abs(seen[4, 4].astype(int) - (200, 0, 0)).max() < 12
    assert seen[28, 44].min() > 240


def test_broken_exif_leaves_the_picture_as_it_is(tmp_path):
    path = tmp_path / "a.jpg"
    two_colors().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x99")
    assert open_picture(path).size == read_size(path) == (64, 32)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_lies_over_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (2, 0, 4, 2))
    if mode == "P":
        image = Image.new("P", (4, 2), 0)
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.paste(1, (2, 0, 4, 2))
        image.info["transparency"] = 1
    seen = opened(image.convert(mode), tmp_path / "a.png")
    assert (seen[0] == [[0] * 3, [0] * 3, [255] * 3, [255] * 3]).all()


def test_half_transparent_is_mixed_with_white(tmp_path):
    seen = opened(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), tmp_path / "a.png")
    assert abs(int(seen[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize(("name", "transparent"), [("L", 7), ("RGB", (7, 7, 7))])
def test_a_transparent_color_is_white(tmp_path, name, transparent):
    image = Image.new(name, (2, 1), transparent)
    image.putpixel((1, 0), 100 if name == "L" else (100, 100, 100))
    seen = opened(image, tmp_path / "a.png", transparency=transparent)
    assert seen[0].tolist() == [[255] * 3, [100] * 3]


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 0x4000, 0x8000, 0xFFFF]], dtype=np.uint16)
    seen = opened(Image.fromarray(values), tmp_path / "a.png")
    assert seen[0, :, 0].tolist() == [0, 0x40, 0x80, 0xFF]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "1", "P"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    seen = opened(two_colors().convert(mode), path)
    if mode in ("CMYK", "YCbCr", "P"):
        assert np.abs(seen[16, 8].astype(int) - (200, 0, 0)).max() < 12
    else:
        assert (seen[..., 0] == seen[..., 2]).all()


def test_bmp_and_animations_open(tmp_path):
    assert (opened(two_colors(), tmp_path / "a.bmp")[0, 0] == (200, 0, 0)).all()
    seen = opened(two_colors(), tmp_path / "a.webp", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    assert seen[16, 8, 0] > 150


def test_what_cannot_be_decoded_is_named(tmp_path):
    two_colors().resize((300, 300)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadablePicture, match=r"a\.jpg cannot be read: .*truncated"):
        open_picture(tmp_path / "a.jpg")
    with pytest.raises(UnreadablePicture, match=r"gone\.png cannot be read: No such file"):
        open_picture(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused_where_the_host_switched_pillows_limit_off(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    two_colors().save(tmp_path / "a.bmp")
    data = bytearray((tmp_path / "a.bmp").read_bytes())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    (tmp_path / "a.bmp").write_bytes(data)
    for read in (read_size, open_picture):
        with pytest.raises(UnreadablePicture, match="60000×60000 px is more than"):
            read(tmp_path / "a.bmp")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp"])
def test_damaged_bytes_give_a_picture_or_its_name_and_nothing_else(tmp_path, ending):
    stream = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    two_colors().save(stream, {"jpg": "JPEG"}.get(ending, ending), **({} if ending == "bmp" else {"exif": exif}))
    rng = random.Random(1)
    for _ in range(150):
        data = bytearray(stream.getvalue())
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / f"a.{ending}"
        path.write_bytes(data)
        for read in (read_size, lambda path: decode_picture(path.read_bytes(), path)):
            try:
                read(path)
            except UnreadablePicture as error:
                assert f"a.{ending}" in error.message


def test_a_cut_is_centred_scaled_and_knows_its_sizes():
    picture = Image.new("RGB", (300, 100), (255, 255, 255))
    picture.paste((0, 0, 0), (100, 0, 200, 100))
    piece = cut(picture, Bucket(64, 64), make_config(enable_bucket=False))
    assert piece.pixels.shape == (3, 64, 64)
    assert piece.pixels.dtype == torch.float32
    assert piece.pixels[:, :, 2:-2].max() < -0.98
    assert piece.size.tolist() == [100, 300, 0, 64, 64, 64]
    white = cut(picture.crop((0, 0, 90, 90)), Bucket(64, 64), make_config())
    assert white.pixels.min() == white.pixels.max() == 1


def test_an_uncut_picture_keeps_its_pixels():
    values = np.random.default_rng(1).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    pixels = cut(Image.fromarray(values), Bucket(128, 64), make_config()).pixels
    assert torch.allclose((pixels + 1) * 127.5, torch.from_numpy(values).permute(2, 0, 1).float(), atol=1e-3)


def test_a_picture_at_its_own_size_is_trimmed_without_resampling():
    values = np.random.default_rng(1).integers(0, 256, (100, 130, 3), dtype=np.uint8)
    piece = cut(Image.fromarray(values), Bucket(128, 64), make_config(resolution_px=(256, 256)))
    expected = torch.from_numpy(values[18:82, 1:129].copy()).permute(2, 0, 1).float()
    assert torch.allclose((piece.pixels + 1) * 127.5, expected, atol=1e-3)
    assert piece.size.tolist() == [100, 130, 18, 1, 64, 128]


def test_a_monstrous_shape_is_cut_without_growing_the_whole():
    picture = Image.new("RGB", (1, 60_000), (200, 0, 0))
    piece = cut(picture, Bucket(64, 256), make_config())
    assert piece.pixels.shape == (3, 256, 64)
    assert torch.allclose(piece.pixels[:, 0, 0], torch.tensor([200 / 127.5 - 1, -1, -1]), atol=1e-2)


def test_a_mirrored_cut_counts_its_left_after_mirroring():
    picture = two_colors()
    config = make_config(enable_bucket=False)
    plain = cut(picture, Bucket(32, 32), config, Augmentation(across=0.0))
    mirrored = cut(picture, Bucket(32, 32), config, Augmentation(across=0.0, mirrored=True))
    assert torch.equal(plain.pixels.flip(2), mirrored.pixels)
    assert plain.size[3] == 0
    assert mirrored.size[3] == 32


def test_crops_reach_both_ends():
    picture = two_colors()
    config = make_config(enable_bucket=False)
    left, right = (cut(picture, Bucket(32, 32), config, Augmentation(across=across)) for across in (0.0, 1.0))
    assert left.pixels[0].mean() > 0.5 > left.pixels[2].mean()
    assert right.pixels[2].mean() > 0.5 > right.pixels[0].mean()
    assert right.size.tolist() == [32, 64, 0, 32, 32, 32]


def test_hue_and_gamma_change_colors_a_little():
    picture = Image.new("RGB", (64, 64), (200, 50, 50))
    config = make_config()
    plain = cut(picture, Bucket(64, 64), config).pixels
    for look in (Augmentation(hue_shift=8), Augmentation(hue_shift=-8), Augmentation(gamma=1.05)):
        change = (cut(picture, Bucket(64, 64), config, look).pixels - plain).abs().max()
        assert 0.01 < change < 0.3


def test_variants_are_as_many_as_the_augmentations_can_tell_apart():
    assert count_variants(make_config()) == 1
    assert count_variants(make_config(flip_aug=True)) == 2
    assert count_variants(make_config(color_aug=True, latent_variants=5)) == 5
    assert count_variants(make_config(flip_aug=True, random_crop=True, latent_variants=5)) == 6


def test_half_of_the_variants_are_mirrored_and_the_first_is_plain():
    config = make_config(flip_aug=True, color_aug=True, random_crop=True, latent_variants=8)
    looks = [augmentation_of(variant, "ab", config, 3) for variant in range(8)]
    assert looks[0] is None
    assert [look.mirrored for look in looks[1:]] == [True, False] * 3 + [True]
    assert len({(look.across, look.down) for look in looks[1:]}) == 7
    assert looks == [augmentation_of(variant, "ab", config, 3) for variant in range(8)]
    assert looks != [augmentation_of(variant, "ab", config, 4) for variant in range(8)]
    assert looks != [augmentation_of(variant, "ac", config, 3) for variant in range(8)]


def test_only_what_is_asked_for_is_varied():
    rng, color, crop = random.Random(1), make_config(color_aug=True), make_config(random_crop=True)
    colors = [draw_augmentation(color, rng, mirrored=False) for _ in range(600)]
    assert {(look.across, look.down) for look in colors} == {(0.5, 0.5)}
    changed = [look for look in colors if look.hue_shift or look.gamma != 1]
    assert 0.25 < len(changed) / 600 < 0.4
    assert not any(look.hue_shift and look.gamma != 1 for look in changed)
    crops = [draw_augmentation(crop, rng, mirrored=False) for _ in range(20)]
    assert all(look.hue_shift == 0 and look.gamma == 1 for look in crops)


@pytest.fixture
def beside_a_tagger(monkeypatch):
    """As another extension of the WebUI sets Pillow for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def half_a_picture(path, format="JPEG"):
    data = BytesIO()
    Image.effect_noise((256, 256), 90).convert("RGB").save(data, format)
    path.write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    return path


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_half_a_picture_is_an_error_whatever_another_extension_set(tmp_path, beside_a_tagger, format):
    with pytest.raises(UnreadablePicture, match="truncated"):
        open_picture(half_a_picture(tmp_path / "a.jpg", format))
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_threads_decode_under_our_settings_and_restore_the_others_once(tmp_path, beside_a_tagger):
    broken = half_a_picture(tmp_path / "broken.jpg")
    two_colors().save(tmp_path / "good.png")

    def fails(number: int) -> bool:
        try:
            open_picture(broken if number % 2 else tmp_path / "good.png")
        except UnreadablePicture:
            return True
        return False

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fails, range(200))) == [False, True] * 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_what_is_set_while_we_decode_stays_set():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        with truncated_is_an_error:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
        assert ImageFile.LOAD_TRUNCATED_IMAGES
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_tiffs_are_turned_upright_once(tmp_path, orientation, compression):
    corners = {1: (4, 4), 2: (43, 4), 3: (43, 27), 4: (4, 27), 5: (4, 4), 6: (27, 4), 7: (27, 43), 8: (4, 43)}
    stored = Image.new("RGB", (48, 32), "white")
    stored.paste((200, 0, 0), (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.tiff"
    stored.save(path, exif=exif, compression=compression)
    seen = open_picture(path)
    assert seen.size == read_size(path) == ((48, 32) if orientation < 5 else (32, 48))
    assert seen.getpixel(corners[orientation]) == (200, 0, 0)


@pytest.mark.parametrize(("ending", "format"), [("gif", "GIF"), ("jfif", "JPEG"), ("tif", "TIFF")])
def test_more_kinds_of_pictures_are_read(tmp_path, ending, format):
    path = tmp_path / f"a.{ending}"
    Image.new("RGB", (48, 32), (200, 0, 0)).save(path, format)
    assert read_size(path) == (48, 32)
    assert np.abs(np.subtract(open_picture(path).getpixel((9, 9)), (200, 0, 0))).max() < 4


@pytest.mark.parametrize(("ending", "needed"), [("avif", "Pillow 11.3"), ("heic", "pillow-heif")])
def test_where_a_decoder_is_missing_it_is_named(tmp_path, monkeypatch, ending, needed):
    monkeypatch.setattr("lib_trainer.dataset.pillow.readable_formats", lambda: ("JPEG", "PNG"))
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"\0\0\0\x20ftyp" + ending.encode() + bytes(64))
    with pytest.raises(UnreadablePicture, match=needed):
        read_size(path)


def test_random_crops_lie_anywhere_and_not_on_the_diagonal():
    config = make_config(random_crop=True)
    looks = [augmentation_of(variant, "abc", config, 1) for variant in range(1, 20)]
    assert all(abs(look.across - look.down) > 1e-6 for look in looks)
