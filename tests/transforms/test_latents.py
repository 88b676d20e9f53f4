"""Tests of latents from seeds: the same on every machine, and standard normal."""

import numpy as np
import pytest
import torch

from clinbundles.transforms.latents import SeedToLatentd, latent_of


def test_a_seed_gives_the_same_latent_on_every_machine() -> None:
    assert torch.equal(latent_of(5, 8), latent_of(5, 8))
    assert not torch.equal(latent_of(5, 8), latent_of(6, 8))
    assert latent_of(0, 3).tolist() == pytest.approx([1.1176220, -1.3871249, -0.4265716], abs=1e-6)


def test_latents_are_standard_normal() -> None:
    values = torch.stack([latent_of(seed, 64) for seed in range(200)]).numpy()
    assert abs(values.mean()) < 0.03
    assert abs(values.std() - 1) < 0.03
    assert abs(np.corrcoef(values[:100].ravel(), values[100:].ravel())[0, 1]) < 0.05


def test_an_item_keeps_its_seed_beside_the_latent() -> None:
    item = {"seed": 4}
    result = SeedToLatentd("seed", 8)(item)
    assert result["seed"] == 4
    assert torch.equal(result["latent"], latent_of(4, 8))
    assert item == {"seed": 4}


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed is -1, expected 0 or larger"):
        latent_of(-1, 8)
