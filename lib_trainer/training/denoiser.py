"""The model's answers without a graph, with the adapter at any strength: how the base and the adapter compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.dataset.cache_store import TextStore
from lib_trainer.models.base import SizeCond, TextCond
from lib_trainer.models.device import to_device
from lib_trainer.training.loop import Training
from lib_trainer.training.objective import objective_of

# Deterministic sampling (Song et al., "Denoising Diffusion Implicit Models", 2021) in so few steps.
_DRAW_STEPS = 10


@dataclass(frozen=True)
class Query:
    """One picture to denoise.

    Attributes:
        x_t: (C, h, w) noised latents, float32 on the CPU.
        size: (6,) one row of `SizeCond.pixels`.
    """

    x_t: Tensor
    timestep: float
    caption: str
    size: Tensor


@dataclass(frozen=True)
class Denoiser:
    """Asks the model that is trained, never more pictures at once than training does: that much memory is planned for.

    Args:
        texts: what the text encoders made of the captions; None where they are trained and encode anew.
    """

    training: Training
    texts: TextStore | None

    @torch.no_grad()
    def predict(self, queries: Sequence[Query], strength: float) -> list[Tensor]:
        """What the model says of each query with the adapter at this strength, 0 being the base.

        Returns:
            (C, h, w) each, float32 on the CPU.
        """
        return [answer.cpu() for answer in self.predict_on_device(queries, strength)]

    @torch.no_grad()
    def predict_on_device(self, queries: Sequence[Query], strength: float) -> list[Tensor]:
        """`predict` without waiting for the device: float32 on it."""
        batch = self.training.recipe.training.train_batch_size
        answers: dict[int, Tensor] = {}
        # Strength 0 is the base itself: no second copy of the model is needed.
        with self.training.adapter.at(strength):
            texts = {caption: self._text(caption) for caption in dict.fromkeys(query.caption for query in queries)}
            # Images of one size and texts of one length can share a batch.
            alike: dict[tuple[int, ...], list[int]] = {}
            for index, query in enumerate(queries):
                alike.setdefault((*query.x_t.shape, texts[query.caption].context.shape[1]), []).append(index)
            for indices in alike.values():
                for start in range(0, len(indices), batch):
                    part = indices[start : start + batch]
                    together = self._predict([queries[p] for p in part], [texts[queries[p].caption] for p in part])
                    answers |= dict(zip(part, together.float(), strict=True))
        return [answers[index] for index in range(len(queries))]

    def predict_with_graph(self, query: Query) -> Tensor:
        """(1, C, h, w) on the device, float32, with its graph: the adapter acts as it does in training."""
        return self._predict([query], [self._text(query.caption)]).float()

    def draw(self, prompts: Sequence[str], noises: Sequence[Tensor], size: Tensor) -> list[Tensor]:
        """Latents (C, h, w) that the base draws from noises (C, h, w), without guidance."""
        objective, drawn = objective_of(self.training.model), list(noises)
        times = objective.drawing_times(_DRAW_STEPS)
        for t, following in zip(times, [*times[1:], None], strict=True):
            queries = [Query(x, t, prompt, size) for x, prompt in zip(drawn, prompts, strict=True)]
            for index, (x, answer) in enumerate(zip(drawn, self.predict(queries, 0.0), strict=True)):
                clean, noise = objective.split(x, answer, t)
                # DDIM without noise: the predicted noise is added again, at the next level.
                if following is not None:
                    clean = objective.add_noise(clean[None], noise[None], torch.tensor([following]))[0]
                drawn[index] = clean
        return drawn

    def _predict(self, queries: Sequence[Query], texts: Sequence[TextCond]) -> Tensor:
        x_t = self._on_device(torch.stack([query.x_t for query in queries]).to(self.training.dtype))
        timesteps = self._on_device(torch.tensor([query.timestep for query in queries]))
        sizes = SizeCond(self._on_device(torch.stack([query.size for query in queries])))
        return self.training.model.predict(x_t, timesteps, TextCond.joined(texts), sizes)

    def _text(self, caption: str) -> TextCond:
        """A caption's text (1, L, D) on the device, in the compute dtype."""
        training = self.training
        if self.texts is None:
            # As the training step encodes: the encoders are on the device, with their adapter.
            text = training.model.encode_text([caption], training.recipe.training.clip_skip, grad=True)
        else:
            text = self.texts.read(caption).mapped(lambda tensor: tensor[None])
        return text.mapped(lambda tensor: self._on_device(tensor.to(training.dtype)))

    def _on_device(self, tensor: Tensor) -> Tensor:
        device = self.training.model.device
        # What the text encoders made lies there already.
        return to_device(tensor, device) if tensor.device.type == "cpu" else tensor.to(device)
