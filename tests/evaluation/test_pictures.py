"""What is left of each picture's loss, and which pictures are named."""

from __future__ import annotations

import json

import torch

from lib_trainer.evaluation.pictures import LEAST_DRAWS, PictureLosses, odd_pictures

NAMES = {index: f"{index}.png" for index in range(8)}


def noted(losses: PictureLosses, window: int, draws: int = 40) -> None:
    """Losses that depend on the timestep a hundredfold, on the picture little, and fall by half from window 1 on."""
    generator = torch.Generator().manual_seed(window)
    for _ in range(draws):
        t = torch.randint(0, 1000, (8,), generator=generator)
        gone = torch.tensor([1.0 if window == 0 else 0.5] * 6 + [1.0, 0.1 if window else 1.0])
        losses.note(tuple(range(8)), t, gone * (0.01 + (1000 - t) / 1000))


def test_what_is_left_does_not_depend_on_the_timesteps_drawn() -> None:
    losses = PictureLosses(NAMES)
    noted(losses, 0)
    first = losses.close_window()
    noted(losses, 1)
    second = losses.close_window()
    assert all(abs(share - 1) < 0.1 for share in first.values())
    assert all(abs(second[f"{index}.png"] - 0.5) < 0.1 for index in range(6))
    assert odd_pictures([first, second]) == (["6.png"], ["7.png"])


def test_pictures_alike_are_not_named() -> None:
    windows = [{f"{i}.png": 0.5 + 0.02 * (i % 3) for i in range(8)}] * 3
    assert odd_pictures(windows) == ([], []) == odd_pictures(windows[:1])


def test_a_resume_goes_on_with_the_sums() -> None:
    whole, first, second = (PictureLosses(NAMES) for _ in range(3))
    for losses in (whole, first):
        noted(losses, 0)
        losses.close_window()
        noted(losses, 1, draws=20)
    second.unpack(json.loads(json.dumps(first.pack())))
    for losses in (whole, second):
        noted(losses, 2, draws=20)
    assert whole.close_window() == second.close_window()


def test_pictures_of_other_kinds_and_too_few_are_not_followed() -> None:
    few = PictureLosses({0: "0.png"})
    noted(few, 0)
    assert few.close_window() == {}
    some = PictureLosses({index: NAMES[index] for index in range(6)})
    noted(some, 0)
    assert set(some.close_window()) == {f"{index}.png" for index in range(6)}


def test_a_picture_that_was_drawn_too_seldom_is_not_judged() -> None:
    losses = PictureLosses(NAMES)
    noted(losses, 0)
    losses.close_window()
    noted(losses, 1, draws=LEAST_DRAWS - 1)
    assert losses.close_window() == {}
    noted(losses, 2, draws=LEAST_DRAWS)
    assert set(losses.close_window()) == set(NAMES.values())
