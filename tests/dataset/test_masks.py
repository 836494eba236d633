"""Masks: found beside their picture, cut as it is, cached, and weighing the loss by the formula."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.augment import Augmentation
from lib_trainer.dataset.buckets import Bucket
from lib_trainer.dataset.cache import cache_latents
from lib_trainer.dataset.collate import make_batch
from lib_trainer.dataset.edits import PictureEdit, change_edits
from lib_trainer.dataset.images import cut
from lib_trainer.dataset.masks import cut_mask, read_mask
from lib_trainer.dataset.sampler import Draw, Schedule
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.training.loss import weighted_loss
from lib_trainer.training.micro_batch import prepare_micro_batch
from tests.dataset.tiny import drive, make_recipe


def half_white(width=128, height=128):
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (0, 0, width // 2, height))
    return mask


@pytest.fixture
def masked(tmp_path, draw_picture):
    """One picture for each place a mask can lie, and one without."""
    for shade, name in enumerate("abcd"):
        draw_picture(f"data/5_jeff/{name}.png", caption="jeff", shade=shade)
    folder = tmp_path / "data/5_jeff"
    half_white().save(folder / "a.mask.png")
    (folder / "masks").mkdir()
    half_white().save(folder / "masks/b.png")
    picture = Image.open(folder / "c.png").convert("RGBA")
    picture.putalpha(half_white())
    picture.save(folder / "c.png")
    return tmp_path / "data"


def cached(folder, model, cache=None, **values):
    recipe = make_recipe(folder, masked_loss=True, **values)
    scan = scan_folder(recipe.dataset)
    _, store = drive(cache_latents(Schedule(scan, recipe), model, cache))
    return recipe, scan, store


def test_masks_are_no_pictures_of_the_run(masked):
    scan = scan_folder(make_recipe(masked).dataset)
    assert [sample.image.name for sample in scan.samples] == ["a.png", "b.png", "c.png", "d.png"]
    assert scan.skipped == ()


def test_each_kind_of_mask_is_cached_with_its_latents(masked, model, tmp_path):
    for cache in (None, tmp_path / "cache"):
        _, _, store = cached(masked, model, cache)
        left_half = torch.tensor([1.0] * 8 + [0.0] * 8).expand(16, 16)
        for index in range(3):
            torch.testing.assert_close(store.tensors(index, 0)["mask"], left_half, atol=0.01, rtol=0)
        assert "mask" not in store.tensors(3, 0)


def test_without_the_setting_nothing_is_masked_and_the_cache_is_another(masked, model, tmp_path):
    cached(masked, model, tmp_path / "cache")
    files = len(list((tmp_path / "cache").rglob("*.safetensors")))
    recipe = make_recipe(masked)
    _, store = drive(cache_latents(Schedule(scan_folder(recipe.dataset), recipe), model, tmp_path / "cache"))
    assert all("mask" not in store.tensors(index, 0) for index in range(4))
    added = len(list((tmp_path / "cache").rglob("*.safetensors"))) - files
    assert added == 3, "only the picture without a mask is the same"


def test_a_mask_follows_the_crop_that_a_person_has_drawn(masked, model):
    change_edits(masked / "5_jeff", {"a.png": PictureEdit(crop=(0.25, 0, 0.75, 1))})
    _, _, store = cached(masked, model)
    mask = store.tensors(0, 0)["mask"]
    assert mask.shape == (16, 8) and float(mask[:, :4].min()) > 0.98 and float(mask[:, 4:].max()) < 0.02
    change_edits(masked / "5_jeff", {"a.png": PictureEdit(crop=(0, 0, 0.5, 1))})
    assert float(cached(masked, model)[2].tensors(0, 0)["mask"].min()) > 0.98, "the left half is white"


@pytest.mark.parametrize("change", [Augmentation(), Augmentation(mirrored=True), Augmentation(across=0.1, down=0.9)])
def test_a_mask_is_cut_as_its_picture(change):
    """A picture that is its own mask: what is cut out of both is the same."""
    # Other on every side, so that a wrong corner or side shows.
    down = Image.linear_gradient("L")
    mask = Image.blend(down, down.rotate(90), 0.3).resize((300, 170))
    config, bucket = DatasetConfig(resolution_px=(128, 128)), Bucket(128, 128)
    pixels = cut(mask.convert("RGB"), bucket, config, change).pixels[0] / 2 + 0.5
    assert float((pixels - cut_mask(mask, bucket, config, change)).abs().max()) < 0.05


def test_a_mask_of_another_size_fits_and_an_opaque_channel_is_none(tmp_path, draw_picture):
    path = draw_picture("a.png")
    half_white(32, 32).save(tmp_path / "a-masklabel.png")
    assert read_mask(path.read_bytes(), path, (128, 128))[0].size == (128, 128)
    (tmp_path / "a-masklabel.png").unlink()
    Image.open(path).convert("RGBA").save(path)
    assert read_mask(path.read_bytes(), path, (128, 128)) is None


def test_a_mask_that_is_a_link_is_not_followed(tmp_path, draw_picture):
    path = draw_picture("data/a.png")
    half_white().save(tmp_path / "elsewhere.png")
    (tmp_path / "data/a.mask.png").symlink_to(tmp_path / "elsewhere.png")
    assert read_mask(path.read_bytes(), path, (128, 128)) is None


def test_a_mask_that_was_painted_anew_is_not_read_from_the_cache(masked, model, tmp_path):
    cached(masked, model, tmp_path / "cache")
    Image.new("L", (128, 128), 255).save(masked / "5_jeff/a.mask.png")
    _, _, store = cached(masked, model, tmp_path / "cache")
    assert float(store.tensors(0, 0)["mask"].min()) == 1.0


def test_the_batch_has_ones_for_pictures_without_a_mask_and_the_loss_their_weights(masked, model):
    recipe, _, store = cached(masked, model, unmasked_weight=0.1)
    batch = make_batch([Draw(0, 0, "jeff"), Draw(3, 0, "jeff")], store, None)
    model.alphas_cumprod = torch.linspace(0.99, 0.01, 1000)
    micro_batch = prepare_micro_batch(batch, 0, model, recipe, torch.float32)
    assert micro_batch.masks[0].unique().tolist() == pytest.approx([0.1, 1.0]) and bool(
        (micro_batch.masks[1] == 1).all()
    )


def test_the_gradient_is_that_of_the_masked_mean():
    """d/dp of mean(mask · (p − w)²) is 2 · mask · (p − w) / N: nothing outside the mask moves."""
    generator = torch.Generator().manual_seed(1)
    predicted = torch.randn(2, 4, 6, 6, generator=generator, requires_grad=True)
    wanted, masks = torch.randn(2, 4, 6, 6, generator=generator), torch.rand(2, 6, 6, generator=generator)
    masks[:, :3] = 0
    weights = torch.tensor([1.0, 0.5])
    weighted_loss(predicted, wanted, weights, masks=masks).backward()
    by_hand = 2 * masks[:, None] * (predicted.detach() - wanted) * weights.reshape(2, 1, 1, 1) / predicted.numel()
    torch.testing.assert_close(predicted.grad, by_hand)
    assert not predicted.grad[:, :, :3].any()


def test_pictures_of_a_marked_folder_count_by_the_prior_weight(tmp_path, draw_picture, model):
    draw_picture("data/2_jeff/a.png", caption="jeff")
    draw_picture("data/1_man/b.png", caption="a man")
    change_edits(tmp_path / "data/1_man", {}, regularisation=True)
    recipe = make_recipe(tmp_path / "data", prior_loss_weight=0.25)
    scan = scan_folder(recipe.dataset)
    assert [sample.regularising for sample in scan.samples] == [True, False]
    _, store = drive(cache_latents(Schedule(scan, recipe), model, None))
    model.alphas_cumprod = torch.linspace(0.99, 0.01, 1000)
    batch = make_batch([Draw(0, 0, "a man"), Draw(1, 0, "jeff")], store, None)
    assert prepare_micro_batch(batch, 0, model, recipe, torch.float32).weights.tolist() == [0.25, 1.0]
