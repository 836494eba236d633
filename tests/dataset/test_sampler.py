from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from lib_trainer.dataset.sampler import Draw, Schedule
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan
from lib_trainer.errors import UserError
from tests.dataset.tiny import make_recipe

WIDE, TALL = (128, 64), (64, 128)
TAGS = "jeff, a, b, c, d, e"


def make_scan(*shapes, repeats=1, caption=TAGS):
    samples = [Sample(Path(f"{i}.png"), caption, repeats, *shape, True) for i, shape in enumerate(shapes)]
    return Scan(tuple(samples), (), "jeff")


def make_schedule(*shapes, repeats=1, caption=TAGS, **values):
    values = {"resolution_px": (128, 64), **values}
    return Schedule(make_scan(*shapes, repeats=repeats, caption=caption), make_recipe("x", **values))


def drawn(schedule):
    """Every draw of the run's own steps."""
    size = schedule.recipe.training.gradient_accumulation_steps
    steps = []
    for number in range(1, schedule.epochs + 1):
        batches = schedule.epoch(number)
        steps += [batches[start : start + size] for start in range(0, len(batches), size)]
    return [draw for step in steps[: schedule.steps] for batch in step for draw in batch]


def test_an_epoch_draws_every_sample_as_often_as_it_is_repeated():
    schedule = make_schedule(WIDE, WIDE, TALL, repeats=3)
    assert Counter(draw.sample for batch in schedule.epoch(1) for draw in batch) == {0: 3, 1: 3, 2: 3}


def test_batches_hold_one_bucket_and_only_the_last_of_it_is_smaller():
    schedule = make_schedule(WIDE, WIDE, TALL, repeats=3, train_batch_size=4)
    batches = schedule.epoch(1)
    assert sorted(len(batch) for batch in batches) == [2, 3, 4]
    assert len(batches) == schedule.batches_per_epoch == 3
    for batch in batches:
        assert len({schedule.buckets[draw.sample] for draw in batch}) == 1


def test_all_lines_of_a_caption_file_are_drawn_equally_often():
    scan = make_scan(WIDE, repeats=300)
    scan = replace(scan, samples=(replace(scan.samples[0], caption="one", other_captions=("two, three", "four")),))
    schedule = Schedule(scan, make_recipe("x", resolution_px=(128, 64), shuffle_caption=False))
    counts = Counter(draw.caption for batch in schedule.epoch(1) for draw in batch)
    assert set(counts) == {"one", "two, three", "four"} and min(counts.values()) > 60


def test_every_epoch_draws_other_variants_and_captions():
    schedule = make_schedule(*[WIDE] * 20, flip_aug=True, shuffle_caption=True, caption_variants=4)
    epochs = [{draw.sample: draw for batch in schedule.epoch(number) for draw in batch} for number in (1, 2)]
    assert any(epochs[0][index].variant != epochs[1][index].variant for index in range(20))
    assert any(epochs[0][index].caption != epochs[1][index].caption for index in range(20))


def test_buckets_follow_one_another_in_random_order():
    schedule = make_schedule(*[WIDE] * 20, *[TALL] * 20)
    order = [schedule.buckets[batch[0].sample].width_px for batch in schedule.epoch(1)]
    assert 10 < sum(a != b for a, b in pairwise(order)) < 30


@pytest.mark.parametrize(("values", "steps", "epochs"), [
    ({"epoch": 4}, 40, 4),
    ({"epoch": 4, "gradient_accumulation_steps": 4}, 12, 4),
    ({"epoch": 4, "train_batch_size": 4, "gradient_accumulation_steps": 2}, 8, 4),
    ({"epoch": 4, "max_train_steps": 25}, 25, 3),
    ({"max_train_steps": 7, "gradient_accumulation_steps": 4}, 7, 3),
])  # fmt: skip
def test_steps_count_optimizer_steps(values, steps, epochs):
    schedule = make_schedule(*[WIDE] * 10, **values)
    assert (schedule.steps, schedule.epochs) == (steps, epochs)


def test_the_seed_alone_decides_and_epochs_differ():
    values = {"shuffle_caption": True, "flip_aug": True, "caption_dropout_rate": 0.2}
    one, same = (make_schedule(*[WIDE] * 10, seed=1, **values) for _ in range(2))
    assert one.epoch(2) == same.epoch(2)
    assert one.epoch(1) != one.epoch(2)
    assert one.epoch(1) != make_schedule(*[WIDE] * 10, seed=2, **values).epoch(1)


@pytest.mark.parametrize("values", [
    {"epoch": 3},
    {"epoch": 2, "shuffle_caption": True, "keep_tokens": 1, "caption_variants": 3, "caption_dropout_rate": 0.3},
    {"max_train_steps": 5, "flip_aug": True, "color_aug": True, "latent_variants": 6, "shuffle_caption": True},
    {"max_train_steps": 13, "train_batch_size": 2, "gradient_accumulation_steps": 2, "random_crop": True},
    {"epoch": 2, "caption_dropout_rate": 1.0},
])  # fmt: skip
def test_pictures_and_captions_list_exactly_what_is_drawn(values):
    schedule = make_schedule(WIDE, TALL, WIDE, WIDE, repeats=4, **values)
    draws = drawn(schedule)
    assert schedule.pictures() == sorted({(draw.sample, draw.variant) for draw in draws})
    assert schedule.captions() == sorted({draw.caption for draw in draws})


def test_captions_are_shuffled_dropped_and_bounded():
    schedule = make_schedule(
        *[WIDE] * 10, repeats=50, shuffle_caption=True, keep_tokens=1, caption_variants=4, caption_dropout_rate=0.2
    )
    captions = Counter(draw.caption for batch in schedule.epoch(1) for draw in batch)
    assert 0.12 < captions.pop("") / 500 < 0.28
    assert all(caption.startswith("jeff, ") and sorted(caption) == sorted(TAGS) for caption in captions)
    assert 20 < len(captions) <= 40
    of_first = {draw.caption for batch in schedule.epoch(1) for draw in batch if draw.sample == 0 and draw.caption}
    assert len(of_first) == 4


def test_half_of_the_draws_are_mirrored():
    schedule = make_schedule(*[WIDE] * 10, repeats=50, flip_aug=True)
    variants = Counter(draw.variant for batch in schedule.epoch(1) for draw in batch)
    assert set(variants) == {0, 1}
    assert 0.4 < variants[1] / 500 < 0.6


def test_a_schedule_without_a_picture_keeps_what_the_others_are_drawn_with():
    full = make_schedule(*[WIDE] * 4, repeats=2, flip_aug=True, shuffle_caption=True)
    rest = full.leave_out(frozenset({1}))

    def draws(schedule):
        return sorted((d.sample, d.variant, d.caption) for batch in schedule.epoch(1) for d in batch)

    assert draws(rest) == [draw for draw in draws(full) if draw[0] != 1]
    assert rest.batches_per_epoch == 6
    with pytest.raises(UserError, match="no picture left"):
        rest.leave_out(frozenset({0, 2, 3}))


def test_an_endless_run_is_listed_without_going_through_it(monkeypatch):
    schedule = make_schedule(WIDE, WIDE, repeats=10, epoch=100_000, flip_aug=True, shuffle_caption=True)
    walked = []
    with monkeypatch.context() as patch:
        patch.setattr(type(schedule), "epoch", lambda _schedule, number: walked.append(number) or [])
        assert len(schedule.pictures()) == 4 and not walked
    assert schedule.steps == 2_000_000
    assert isinstance(schedule.epoch(99_999)[0][0], Draw)


def test_every_epoch_draws_anew_and_always_the_same():
    schedule = make_schedule(*[WIDE] * 6, repeats=4, epoch=2)
    assert schedule.epoch(1) != schedule.epoch(2)
    assert schedule.epoch(1) == schedule.epoch(1)


def test_every_caption_of_a_file_is_drawn_alike_often_however_short():
    sample = Sample(Path("0.png"), "jeff", 400, *WIDE, True, ("jeff, a, b, c, d",))
    recipe = make_recipe("x", resolution_px=(128, 64), shuffle_caption=True, caption_variants=50)
    schedule = Schedule(Scan((sample,), (), "jeff"), recipe)
    captions = Counter(draw.caption for batch in schedule.epoch(1) for draw in batch)
    assert 0.4 < captions["jeff"] / 400 < 0.6
    assert set(captions) <= set(schedule.captions())
