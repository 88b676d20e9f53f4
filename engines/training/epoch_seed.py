"""Randomness that depends on the seed and the epoch alone, so that a resumed training repeats an unbroken one."""

from __future__ import annotations

import ignite.distributed as idist
import numpy as np
from ignite.engine import Events
from ignite.utils import manual_seed
from monai.data.utils import set_rnd
from monai.engines import Trainer


class EpochSeed:
    """Seed Python, NumPy, torch and all random transforms at the start of every epoch of a trainer.

    The seed of an epoch is drawn from (seed, epoch, rank): epoch 7 sees the same crops, flips and order whether the run
    came through epochs 1 to 6 or was resumed. Attach it before handlers that draw random numbers.

    Args:
        seed: the run's seed, 0 or larger.
    """

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected 0 or larger.")
        self.seed = seed

    def attach(self, engine: Trainer) -> None:
        """Register with ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Trainer) -> None:
        """Seed for the epoch that starts."""
        state = np.random.SeedSequence([self.seed, engine.state.epoch, idist.get_rank()]).generate_state(1)
        epoch_seed = int(state[0])
        manual_seed(epoch_seed)
        # Workers seed their own copy of the transforms; without workers nobody does.
        set_rnd(getattr(engine.data_loader, "dataset", None), seed=epoch_seed)
        for transform in getattr(getattr(engine, "prepare_batch", None), "transforms", ()):
            set_rnd(transform, seed=epoch_seed)
