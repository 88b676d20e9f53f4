import random
from types import SimpleNamespace

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import RandGaussianNoise

from clinbundles.engines.training.epoch_seed import EpochSeed


def draws(seed: int, epoch: int) -> tuple:
    noise = RandGaussianNoise(prob=1.0)
    data_loader = SimpleNamespace(dataset=Dataset([torch.zeros(1, 2)], noise))
    engine = SimpleNamespace(state=SimpleNamespace(epoch=epoch), data_loader=data_loader)
    EpochSeed(seed)(engine)  # type: ignore[arg-type]
    global_numpy = float(np.random.rand())  # noqa: NPY002 (many transforms of others draw from it)
    return random.random(), global_numpy, float(torch.rand(1)), float(data_loader.dataset[0][0, 0])


def test_every_source_of_randomness_repeats_for_the_same_seed_and_epoch() -> None:
    assert draws(3, 7) == draws(3, 7)


@pytest.mark.parametrize(("seed", "epoch"), [(4, 7), (3, 8), (7, 3)])
def test_another_seed_or_epoch_changes_every_source(seed: int, epoch: int) -> None:
    assert all(a != b for a, b in zip(draws(3, 7), draws(seed, epoch), strict=True))


def test_each_process_of_a_training_draws_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that flip and crop alike would train on half the variety, and nothing would tell."""
    first = draws(3, 7)
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    assert all(a != b for a, b in zip(first, draws(3, 7), strict=True))


def test_a_negative_seed_is_named() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        EpochSeed(-1)
