from __future__ import annotations

import threading

import torch

from lib_trainer.adapter.attach import new_adapter
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.sampler import Draw
from lib_trainer.training.loop import Training, fit
from lib_trainer.training.micro_batch import MicroBatch, prepare_micro_batch
from tests.training.small import make_batch, one_layer_model, recipe_of, schedule_of

DRAWS = (Draw(0, 0, "word"), Draw(1, 0, "word"))


def prepared(index: int, dtype: torch.dtype = torch.float32, **config: object) -> MicroBatch:
    return prepare_micro_batch(make_batch(DRAWS), index, one_layer_model(), Recipe().with_values(config), dtype)


def test_a_pass_follows_from_the_seed_and_its_number() -> None:
    one, again, next_one, other_seed = prepared(5), prepared(5), prepared(6), prepared(5, seed=1)
    assert torch.equal(one.x_t, again.x_t) and torch.equal(one.timesteps, again.timesteps)
    for different in (next_one, other_seed):
        assert not torch.equal(one.x_t, different.x_t)


def test_what_the_unet_reads_has_the_compute_dtype_and_what_the_loss_reads_is_float32() -> None:
    half = prepared(0, torch.bfloat16)
    assert {half.x_t.dtype, half.text.context.dtype} == {torch.bfloat16}
    assert {half.wanted.dtype, half.weights.dtype} == {torch.float32}


def test_on_a_device_everything_is_there_and_nothing_is_lost() -> None:
    moved = prepared(0).on(torch.device("meta"))
    tensors = (moved.x_t, moved.timesteps, moved.wanted, moved.weights, moved.sizes.pixels, moved.text.context)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.captions == ("word", "word") and moved.text.pooled is None


def test_settings_of_noise_and_loss_reach_the_pass() -> None:
    plain = prepared(3)
    assert plain.thresholds is None
    huber = prepared(3, loss_type="huber", huber_schedule="constant", huber_c=0.5, debiased_estimation_loss=True)
    assert huber.thresholds.tolist() == [0.5, 0.5] and not torch.equal(huber.weights, plain.weights)
    assert torch.equal(huber.x_t, plain.x_t) and huber.on(torch.device("meta")).thresholds.device.type == "meta"
    perturbed = prepared(3, ip_noise_gamma=0.1)
    assert torch.equal(perturbed.wanted, plain.wanted) and not torch.equal(perturbed.x_t, plain.x_t)
    assert prepared(3, min_timestep=10, max_timestep=12).timesteps.max() < 12
    for changed in ({"multires_noise_iterations": 3}, {"noise_offset": 0.1}):
        assert not torch.equal(prepared(3, **changed).wanted, plain.wanted)


def test_passes_are_prepared_by_a_thread_of_their_own_one_before_its_turn() -> None:
    model, recipe, threads = one_layer_model(), recipe_of(max_train_steps=3), []

    def watched(draws: tuple[Draw, ...]):
        threads.append(threading.current_thread())
        return make_batch(draws)

    adapter = new_adapter(model.layers, recipe.adapter, 0)
    steps = fit(Training(model, adapter, recipe, schedule_of(recipe), watched))
    model.predict = lambda x_t, *_: x_t * next(adapter.parameters()).sum()
    next(steps)
    assert len(threads) in (1, 2) and threading.current_thread() not in threads
    list(steps)
    assert len(threads) == 3
