"""Tests of the training of StyleGAN2: lazy optimizers, the running mean, exact resuming, a stop before NaN is kept."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch.utils.data import DataLoader, RandomSampler

from clinbundles.engines.checkpoint import TrainingCheckpoint
from clinbundles.engines.datasetgan.gan_trainer import StyleGAN2Trainer, lazy_adam
from clinbundles.engines.training.epoch_seed import EpochSeed
from clinbundles.nets.datasetgan.adaptation import AdaptiveProbability
from clinbundles.nets.datasetgan.augmentation import AdaptiveAugmentation
from clinbundles.nets.datasetgan.discriminator import Discriminator
from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.losses import PathLengthPenalty


class Slices(torch.utils.data.Dataset):
    """Discs of different places, in [-1, 1]."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
        disc = ((y - 4 - index % 8) ** 2 + (x - 4 - index // 2) ** 2 < 16).float()
        return {"image": (disc * 2 - 1)[None]}


def trainer(folder: Path | None = None, *, max_epochs: int, resume: bool = False, **options: Any) -> StyleGAN2Trainer:
    torch.manual_seed(0)
    generator = Generator(16, 1, 8, 8, channel_base=64, channel_max=8)
    discriminator = Discriminator(16, 1, 64, 8)
    averaged = copy.deepcopy(generator)
    augmentation = AdaptiveAugmentation("ct", probability=0.5)
    controller = AdaptiveProbability(augmentation, ada_kimg=0.5)
    penalty = PathLengthPenalty()
    optimizers = [
        lazy_adam(generator, learning_rate=0.003, interval=4),
        lazy_adam(discriminator, learning_rate=0.003, interval=2),
    ]
    handlers: list[Any] = [EpochSeed(3)]
    if folder is not None:
        more = {
            "generator": generator,
            "discriminator": discriminator,
            "discriminator_optimizer": optimizers[1],
            "controller": controller,
            "path_length": penalty,
        }
        handlers.append(TrainingCheckpoint(folder, averaged, optimizers[0], more=more, resume=resume))
    return StyleGAN2Trainer(
        "cpu",
        max_epochs,
        DataLoader(Slices(), batch_size=4, sampler=RandomSampler(Slices(), num_samples=24)),
        generator,
        discriminator,
        averaged,
        augmentation,
        controller,
        *optimizers,
        train_handlers=handlers,
        **{"r1_gamma": 0.1, "r1_interval": 2, "path_length": penalty, "path_length_interval": 4} | options,
    )


def test_an_optimizer_of_a_lazy_penalty_takes_smaller_steps() -> None:
    network = torch.nn.Linear(2, 2)
    group = lazy_adam(network, learning_rate=0.0025, interval=16).param_groups[0]
    assert group["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert group["betas"] == (0, pytest.approx(0.99 ** (16 / 17)))
    group = lazy_adam(network, learning_rate=0.0025, interval=None).param_groups[0]
    assert (group["lr"], group["betas"]) == (0.0025, (0, 0.99))


def test_losses_progress_and_the_augmentation_are_in_the_state() -> None:
    engine = trainer(max_epochs=1)
    seen: list[set[str]] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(set(e.state.output)))
    engine.run()
    assert seen[0] == {"g_loss", "d_loss", "path_length_loss", "r1_loss"}
    assert seen[1] == {"g_loss", "d_loss"}
    assert seen[2] == {"g_loss", "d_loss", "r1_loss"}
    assert seen[4] == {"g_loss", "d_loss", "path_length_loss", "r1_loss"}
    assert engine.state.metrics["kimg"] == pytest.approx(0.024)
    assert 0 <= engine.state.metrics["p"] <= 1
    assert -1 <= engine.state.metrics["r_t"] <= 1


def test_the_running_mean_starts_near_the_generator_and_follows_by_its_half_life() -> None:
    engine = trainer(max_epochs=1, ema_kimg=0.004, ema_ramp=None, r1_gamma=0.0)
    means: list[torch.Tensor] = [engine.averaged_generator.blocks[0].const.clone()]
    values: list[torch.Tensor] = []

    def note(e: Any) -> None:
        means.append(engine.averaged_generator.blocks[0].const.clone())
        values.append(engine.generator.blocks[0].const.detach().clone())

    engine.add_event_handler(Events.ITERATION_COMPLETED, note)
    engine.run()
    # Four images a step and a half-life of four images: half of the way at every step.
    for before, after, value in zip(means[:-1], means[1:], values, strict=True):
        assert torch.allclose(after, (before + value) / 2, atol=1e-6)
    assert torch.equal(engine.averaged_generator.mapping.average, engine.generator.mapping.average)


def test_a_resumed_training_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    trainer(tmp_path / "whole", max_epochs=3).run()
    trainer(tmp_path / "parts", max_epochs=2).run()
    trainer(tmp_path / "parts", max_epochs=3, resume=True).run()
    for name in ("model.pt", "resume.ckpt"):
        whole, parts = (torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "parts"))
        flat_whole, flat_parts = flatten(whole), flatten(parts)
        assert flat_whole.keys() == flat_parts.keys()
        different = [key for key, value in flat_whole.items() if not torch.equal(value, flat_parts[key])]
        assert not different
    assert "more" not in whole
    assert {"generator", "discriminator", "controller", "path_length", "discriminator_optimizer"} <= whole.keys()


def flatten(content: Any, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(content, dict):
        return {k: v for key, value in content.items() for k, v in flatten(value, f"{path}/{key}").items()}
    if isinstance(content, list | tuple):
        return {k: v for key, value in enumerate(content) for k, v in flatten(value, f"{path}/{key}").items()}
    return {path: torch.as_tensor(content)} if isinstance(content, torch.Tensor | int | float) else {}


def test_a_loss_that_is_not_finite_stops_the_training_and_the_last_checkpoint_stays_good(tmp_path: Path) -> None:
    engine = trainer(tmp_path, max_epochs=3)

    def poison(e: Any) -> None:
        if e.state.epoch == 2:
            engine.discriminator.score.weight.data.fill_(float("nan"))

    engine.add_event_handler(Events.EPOCH_STARTED, poison)
    with pytest.raises(
        ValueError, match=r"a loss is not finite after 0.0 kimg \(g_loss nan.*checkpoint of the last epoch"
    ):
        engine.run()
    content = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert content["progress"]["epoch"] == 1
    assert all(torch.isfinite(v).all() for v in content["discriminator"].values())


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    engine = trainer(tmp_path, max_epochs=1)
    step = engine.d_optimizer.step

    def poisoned_step(*arguments: Any) -> None:
        step(*arguments)
        if engine.state.iteration == 6:  # the last, after its losses are known
            engine.discriminator.score.weight.data[0, 0] = float("inf")

    engine.d_optimizer.step = poisoned_step  # type: ignore[method-assign]
    with pytest.raises(
        ValueError, match=r"discriminator: score.weight is not finite: the checkpoint of the epoch before"
    ):
        engine.run()
    assert not (tmp_path / "model.pt").exists()


def test_bfloat16_trains_and_another_precision_is_refused() -> None:
    engine = trainer(max_epochs=1, precision="bfloat16")
    engine.run()
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in engine.generator.parameters())
    with pytest.raises(ValueError, match="precision is 'float16', expected one of float32, bfloat16"):
        trainer(max_epochs=1, precision="float16")


@pytest.mark.parametrize(
    "options", [{"r1_gamma": -1}, {"path_length_weight": -1}, {"style_mixing": 1.5}, {"ema_kimg": -1}]
)
def test_numbers_out_of_their_range_are_refused(options: dict[str, Any]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} is {value}, expected 0 or more"):
        trainer(max_epochs=1, **options)
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"learning_rate is {rate}, expected a number above 0"):
            lazy_adam(torch.nn.Linear(1, 1), learning_rate=rate, interval=None)
    with pytest.raises(ValueError, match=r"r1_interval, path_length_interval\) is 0"):
        lazy_adam(torch.nn.Linear(1, 1), learning_rate=1, interval=0)


def test_style_mixing_gives_later_layers_another_latent() -> None:
    engine = trainer(max_epochs=1, style_mixing=1.0)
    ws = engine._latents(64)
    assert (ws[:, 0] != ws[:, -1]).any(dim=1).all()
    plain = trainer(max_epochs=1, style_mixing=0.0)._latents(8)
    assert torch.equal(plain[:, 0], plain[:, -1])
