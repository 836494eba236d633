"""How questions to the model are put together."""

from __future__ import annotations

import torch

from lib_trainer.adapter.attach import attached
from lib_trainer.dataset.cache_store import TextStore
from lib_trainer.training.denoiser import Denoiser, Query
from tests.evaluation.test_evaluation import AnyText, training_of
from tests.training.small import recipe_of


def test_no_more_pictures_at_once_than_training_takes() -> None:
    training = training_of(recipe_of(train_batch_size=2))
    sides = (8, 4, 8, 8, 4, 8)
    queries = [Query(torch.full((4, side, side), float(n)), 500, "", torch.zeros(6)) for n, side in enumerate(sides)]
    with attached(training.adapter, training.model.layers, training.model.read_weight):
        answers = Denoiser(training, TextStore(AnyText())).predict(queries, 1.0)
        alone = [Denoiser(training, TextStore(AnyText())).predict([query], 1.0)[0] for query in queries]
    assert [tuple(seen.shape) for seen in training.model.seen[:3]] == [(2, 4, 8, 8), (2, 4, 8, 8), (2, 4, 4, 4)]
    # A product of two pictures rounds otherwise than one of one, depending on the CPU; unlike pictures are far apart.
    same = [torch.allclose(one, other, atol=1e-5) for one, other in zip(answers, alone, strict=True)]
    assert all(same), "in their order"
