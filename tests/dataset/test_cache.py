import pytest
import torch
from PIL import Image

from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.cache import cache_latents, cache_texts
from lib_trainer.dataset.collate import make_batch
from lib_trainer.dataset.sampler import Draw, Schedule
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import UserError
from lib_trainer.events import Notice, Progress, StopRequested
from lib_trainer.models.families import KLEIN4B
from tests.dataset.tiny import TinyModel, drive, make_recipe


def plan(recipe: Recipe) -> Schedule:
    return Schedule(scan_folder(recipe.dataset), recipe)


def cached(schedule, model, folder=None):
    return drive(cache_latents(schedule, model, folder))


@pytest.fixture
def pictures(draw_picture):
    draw_picture("data/2_jeff/a.png", 128, 128, caption="jeff, smile, hat")
    draw_picture("data/2_jeff/b.png", 128, 128, caption="jeff, night", shade=40)
    return draw_picture("data/2_jeff/c.png", 128, 64, shade=80).parents[1]


@pytest.fixture(params=["ram", "disk"])
def cache_folder(request, tmp_path):
    return tmp_path / "cache" if request.param == "disk" else None


def test_every_draw_of_a_run_finds_its_picture_and_caption(pictures, model, cache_folder):
    schedule = plan(make_recipe(
        pictures, epoch=3, train_batch_size=2, flip_aug=True, color_aug=True, random_crop=True, shuffle_caption=True,
        caption_dropout_rate=0.3,
    ))  # fmt: skip
    events, latents = cached(schedule, model, cache_folder)
    _, texts = drive(cache_texts(schedule, model, 1, cache_folder))
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in progress] == list(range(1, len(schedule.pictures()) + 1))
    assert {(event.phase, event.total) for event in progress} == {("caching", len(progress))}
    assert {event.note for event in progress} == {"a.png", "b.png", "c.png"}
    for number in (1, 2, 3):
        for draws in schedule.epoch(number):
            batch = make_batch(draws, latents, texts)
            bucket = schedule.buckets[draws[0].sample]
            assert batch.latents.shape == (len(draws), 4, bucket.height_px // 8, bucket.width_px // 8)
            assert batch.sizes.pixels.shape == (len(draws), 6)
            assert batch.sizes.pixels[0, 4:].tolist() == [bucket.height_px, bucket.width_px]
            assert batch.captions == tuple(draw.caption for draw in draws)
            assert len(batch.text.context) == len(draws)


def test_pictures_that_are_not_whole_cells_are_refused_before_any_is_encoded(draw_picture, model):
    model.family = KLEIN4B
    folder = draw_picture("data/2_jeff/a.png", 72, 64).parents[1]
    sizes = {"resolution_px": "72,64", "min_bucket_reso": 64}
    with pytest.raises(UserError, match=r"FLUX\.2 Klein 4B takes sides that are multiples of 16 px; .* 72×64 px"):
        cached(plan(make_recipe(folder, **sizes, bucket_reso_steps=8)), model)
    assert model.pictures == 0
    cached(plan(make_recipe(folder, **sizes, bucket_reso_steps=16)), model)


def test_a_mirrored_variant_holds_the_mirrored_latents(pictures, model, cache_folder):
    schedule = plan(make_recipe(pictures, epoch=4, flip_aug=True))
    _, latents = cached(schedule, model, cache_folder)
    (plain, _), (mirrored, _) = latents.read(0, 0), latents.read(0, 1)
    assert torch.equal(plain.flip(2), mirrored)
    assert not torch.equal(plain, mirrored)


def test_pictures_of_a_bucket_are_encoded_together_within_a_pixel_budget(draw_picture, model):
    for number in range(20):
        folder = draw_picture(f"{number:02}.png", 64, 64).parent
        draw_picture(f"large{number:02}.png", 512, 768)
    schedule = plan(make_recipe(folder, resolution_px=(768, 768)))
    cached(schedule, model)
    assert model.batch_shapes == [(16, 3, 64, 64), (4, 3, 64, 64)] + [(2, 3, 768, 512)] * 10


def test_a_second_run_reads_and_a_changed_picture_does_not(pictures, tmp_path, draw_picture):
    recipe, folder = make_recipe(pictures, flip_aug=True, color_aug=True, epoch=9), tmp_path / "cache"

    def encoded(recipe=recipe, **checkpoint):
        model = TinyModel(**checkpoint)
        schedule = plan(recipe)
        _, latents = cached(schedule, model, folder)
        drive(cache_texts(schedule, model, recipe.training.clip_skip, folder))
        first = latents.read(*schedule.pictures()[0])[0]
        return model.pictures, len(model.texts), first

    pictures_first, texts_first, latents_first = encoded()
    assert pictures_first == 12
    assert texts_first == 1 + 4
    again = encoded()
    assert again[:2] == (0, 0)
    assert torch.equal(again[2], latents_first)
    draw_picture("data/2_jeff/b.png", 128, 128, shade=41)
    # Its four variants, and the four of the picture in its batch.
    assert encoded()[:2] == (8, 0)
    for ending in ("png", "txt"):
        (pictures / f"2_jeff/a.{ending}").rename(pictures / f"2_jeff/renamed.{ending}")
    assert encoded()[:2] == (0, 0)
    assert encoded(sha256="other")[:2] == (12, 5)
    assert encoded(vae="other.vae")[0] == 12
    assert encoded(recipe.with_values({"clip_skip": 2}))[:2] == (0, 5)
    # Another seed asks for other augmentations; the plain pictures are there, and the mirrored ones mostly.
    before = len(list(folder.rglob("*.safetensors")))
    encoded(recipe.with_values({"seed": 5}))
    assert 0 < len(list(folder.rglob("*.safetensors"))) - before <= 9
    assert encoded(recipe.with_values({"resolution_px": "64,64"}))[0] == 12


def test_the_same_bucket_cut_at_another_scale_is_another_file(draw_picture, tmp_path):
    recipe, model = make_recipe(draw_picture("data/a.png", 120, 100).parent, min_bucket_reso=64), TinyModel()
    for no_upscale in (True, False):
        schedule = plan(recipe.with_values({"bucket_no_upscale": no_upscale, "max_bucket_reso": 64}))
        assert (schedule.buckets[0].width_px, schedule.buckets[0].height_px) == (64, 64)
        _, latents = cached(schedule, model, tmp_path / "cache")
        assert latents.read(0, 0)[1][2:4].tolist() == ([18, 28] if no_upscale else [0, 6])


def test_a_damaged_cache_file_is_made_anew(pictures, tmp_path):
    folder = tmp_path / "cache"
    schedule = plan(make_recipe(pictures))
    cached(schedule, TinyModel(), folder)
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}
    assert len(before) == 3
    for path, whole in before.items():
        path.write_bytes(whole[:-8])
        model = TinyModel()
        _, latents = cached(schedule, model, folder)
        # In the batch that it was in: a batch can change the last digit, and a run that was killed must go on the same.
        assert model.batch_shapes in ([(2, 3, 128, 128)], [(1, 3, 64, 128)])
        assert path.read_bytes() == whole
        assert all(torch.isfinite(latents.read(*picture)[0]).all() for picture in schedule.pictures())


def test_the_disk_store_holds_no_pictures_in_ram(pictures, tmp_path, model):
    schedule = plan(make_recipe(pictures))
    _, latents = cached(schedule, model, tmp_path / "cache")
    assert all(not hasattr(entry, "keys") and entry.is_file() for entry in latents.entries.values())


def test_an_unreadable_picture_is_named_and_the_run_goes_on_without_it(pictures, model, cache_folder):
    Image.effect_noise((128, 128), 90).save(pictures / "2_jeff/broken.jpg")
    broken = pictures / "2_jeff/broken.jpg"
    broken.write_bytes(broken.read_bytes()[:3000])
    schedule = plan(make_recipe(pictures, flip_aug=True, max_train_steps=9))
    assert len(schedule.scan.samples) == 4
    events, latents = cached(schedule, model, cache_folder)
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert len(notices) == 1
    assert "broken.jpg cannot be read" in notices[0]
    left = latents.schedule
    assert (schedule.batches_per_epoch, left.batches_per_epoch) == (8, 6)
    assert left.steps == 9
    draws = [draw for number in (1, 2) for batch in left.epoch(number) for draw in batch][:9]
    assert {schedule.scan.samples[draw.sample].image.name for draw in draws} == {"a.png", "b.png", "c.png"}
    assert len(make_batch(draws[:1], latents, None).latents) == 1
    assert set(left.pictures()) <= set(latents.entries)


def test_a_folder_in_which_nothing_can_be_decoded_is_said(draw_picture, model):
    path = draw_picture("a.bmp", 128, 128)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="no picture left"):
        cached(plan(make_recipe(path.parent)), model)


def test_a_vae_that_returns_nan_is_said_with_its_cure(pictures, model, cache_folder):
    model.nan_from = 2
    with pytest.raises(UserError, match=r"b\.png") as caught:
        cached(plan(make_recipe(pictures)), model, cache_folder)
    assert "--no-half-vae" in caught.value.hint


def test_a_stop_is_heard_within_one_batch(pictures, model):
    events = cache_latents(plan(make_recipe(pictures, epoch=9, flip_aug=True)), model, None)
    next(events)
    with pytest.raises(StopRequested):
        events.throw(StopRequested(save=False))
    assert len(model.batch_shapes) == 1


def test_small_pictures_are_enlarged_and_noticed(draw_picture, model):
    folder = draw_picture("tiny.png", 20, 40).parent
    draw_picture("fine.png", 64, 64)
    schedule = plan(make_recipe(folder))
    events, latents = cached(schedule, model)
    assert [event.text for event in events if isinstance(event, Notice)] == [
        "1 of 2 pictures: smaller than their bucket, so enlarged: tiny.png"
    ]
    assert latents.read(1, 0)[0].shape == (4, 16, 8)


@pytest.mark.parametrize("pooled", [False, True])
def test_short_captions_end_in_empty_chunks(pictures, cache_folder, pooled):
    long = "jeff one two three four five"
    (pictures / "2_jeff/a.txt").write_text(long)
    schedule, model = plan(make_recipe(pictures, train_batch_size=2)), TinyModel(pooled=pooled)
    _, latents = cached(schedule, model, cache_folder)
    _, texts = drive(cache_texts(schedule, model, 1, cache_folder))
    assert [len(texts.read(caption).context) for caption in (long, "jeff", "")] == [6, 3, 3]
    batch = make_batch([Draw(0, 0, long), Draw(1, 0, "jeff"), Draw(1, 0, "")], latents, texts)
    reference = model.encode_text([long, "jeff", ""], 1)
    assert torch.equal(batch.text.context, reference.context)
    if pooled:
        assert torch.equal(batch.text.pooled, reference.pooled)
    else:
        assert batch.text.pooled is None
    alone = make_batch([Draw(1, 0, "jeff")], latents, texts)
    assert alone.text.context.shape == (1, 3, 4)


def test_exactly_the_drawn_captions_are_encoded_and_the_empty_one(pictures, model):
    schedule = plan(make_recipe(pictures, shuffle_caption=True))
    events, texts = drive(cache_texts(schedule, model, 1, None))
    assert set(texts.entries) == {"", *schedule.captions()}
    assert [event.done for event in events] == list(range(1, len(texts.entries) + 1))
    assert events[-1].total == len(texts.entries)


def test_captions_that_encode_to_nan_are_said(pictures, model, monkeypatch):
    schedule = plan(make_recipe(pictures))
    encode = model.encode_text

    def broken(prompts, clip_skip):
        encoded = encode(prompts, clip_skip)
        encoded.context[-1] = float("nan")
        return encoded

    monkeypatch.setattr(model, "encode_text", broken)
    with pytest.raises(UserError, match="text encoders produced NaN or Inf"):
        drive(cache_texts(schedule, model, 1, None))


def test_pictures_that_lose_much_to_the_crop_are_named_with_their_share(draw_picture, model):
    folder = draw_picture("5_jeff/square.png").parent
    draw_picture("5_jeff/wide.png", 1024, 64)
    said = [
        event.text
        for event in cached(plan(make_recipe(folder, max_bucket_reso=256)), model)[0]
        if type(event) is Notice
    ]
    assert any(
        "1 of 2 pictures lose more than a third to the crop: wide.png (75%); “Buckets for pano" in text for text in said
    )
    schedule = plan(make_recipe(folder, max_bucket_reso=256, bucket_panoramas=True, bucket_reso_steps=16))
    assert not [event for event in cached(schedule, model)[0] if type(event) is Notice]
