"""Control of how often the discriminator's images are augmented."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn

from .augmentation import AdaptiveAugmentation


class AdaptiveProbability(nn.Module):
    """Raise the probability of an augmentation while the discriminator knows its real images by heart.

    The sign of the discriminator's answers to (augmented) real images, averaged over some batches, is r_t: 0 where it
    cannot tell real images from generated ones, 1 where it is sure of all. Above ``target`` the probability rises,
    below it falls, so fast that it goes from 0 to 1 within ``ada_kimg`` thousand real images. It stays of [0, 1], where
    the reference has no upper bound. In a training of several processes all of them count. ``state_dict`` holds all
    that a resumed training needs, the augmentation included.

    Args:
        augmentation: whose buffer ``probability`` is moved.
        target: of r_t.
        interval: batches between two moves.
        ada_kimg: thousands of images.

    Source: Karras et al., Training generative adversarial networks with limited data, 2020, section 3.1.
    """

    r_t: torch.Tensor
    sums: torch.Tensor

    def __init__(
        self, augmentation: AdaptiveAugmentation, *, target: float = 0.6, interval: int = 4, ada_kimg: float = 500.0
    ) -> None:
        super().__init__()
        if not -1 <= target <= 1:
            raise ValueError(f"target is {target}, expected a number from -1 to 1, as r_t is.")
        if interval < 1 or ada_kimg <= 0:
            raise ValueError(f"interval and ada_kimg must be above 0, but are {interval} and {ada_kimg}.")
        self.augmentation = augmentation
        self.target = target
        self.interval = interval
        self.ada_kimg = ada_kimg
        self.batches = 0
        # r_t of the last interval; then the sum of signs and the number of images of this one.
        self.register_buffer("r_t", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(2))

    @property
    def probability(self) -> torch.Tensor:
        """The probability, a tensor without axes."""
        return self.augmentation.probability

    @torch.no_grad()
    def update(self, real_logits: torch.Tensor) -> None:
        """Count the answers to one batch of real images, any shape, and move the probability where it is time to."""
        self.sums[0] += real_logits.detach().float().sign().sum()
        self.sums[1] += real_logits.numel()
        self.batches += 1
        if self.batches < self.interval:
            return
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self.sums)
        self.r_t.copy_(self.sums[0] / self.sums[1])
        step = self.sums[1] / (self.ada_kimg * 1000)
        self.probability.add_((self.r_t - self.target).sign() * step).clamp_(0, 1)
        self.sums.zero_()
        self.batches = 0

    def get_extra_state(self) -> dict[str, int]:
        """Return the number of batches counted in this interval, which is kept off the device."""
        return {"batches": self.batches}

    def set_extra_state(self, state: Any) -> None:
        """Take the number of batches up again."""
        self.batches = int(state["batches"])
