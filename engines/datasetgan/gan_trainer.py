"""Training of StyleGAN2 by an ignite engine: lazy penalties, adaptive augmentation, a running mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import Trainer
from torch import nn

from ...nets.datasetgan.adaptation import AdaptiveProbability
from ...nets.datasetgan.augmentation import AdaptiveAugmentation
from ...nets.datasetgan.discriminator import Discriminator
from ...nets.datasetgan.generator import Generator
from ...nets.datasetgan.losses import PathLengthPenalty, discriminator_loss, generator_loss, gradient_penalty

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def lazy_adam(network: nn.Module, *, learning_rate: float, interval: int | None) -> torch.optim.Adam:
    """Make an Adam for a loss of which a part is added at every k-th step only (Karras et al. 2020, appendix B).

    Args:
        network: what learns.
        learning_rate: of a step without the part.
        interval: k; None where there is no such part.

    Returns:
        Adam with rate lr * k / (k + 1) and betas (0, 0.99 ** (k / (k + 1))).

    Raises:
        ValueError: the rate is not above 0, or the interval below 1.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}, expected a number above 0.")
    if interval is not None and interval < 1:
        raise ValueError(f"the interval of a penalty (r1_interval, path_length_interval) is {interval}, expected 1 on.")
    ratio = 1.0 if interval is None else interval / (interval + 1)
    return torch.optim.Adam(network.parameters(), lr=learning_rate * ratio, betas=(0.0, 0.99**ratio), eps=1e-8)


class StyleGAN2Trainer(Trainer):
    """Train a generator against a discriminator whose images are augmented.

    An iteration is a step of the generator and one of the discriminator, each on a batch of new latents; every
    ``path_length_interval``-th adds the path-length penalty, every ``r1_interval``-th the R1 penalty, each times its
    interval. R1's gradient is with regard to the images before the augmentation. ``state.output`` holds the losses,
    ``state.metrics`` kimg (thousands of real images seen), the probability of augmentation p and its sign r_t.

    Args:
        device: of the networks.
        max_epochs: number of epochs.
        train_data_loader: batches with ``image`` (N, C, H, W) in [-1, 1].
        generator: learns.
        discriminator: learns.
        averaged_generator: running mean of the generator, of the same shape: it is what makes images later.
        augmentation: maps images to images, by the probability that ``controller`` sets.
        controller: moves that probability after each step of the discriminator.
        generator_optimizer: of the generator, see :func:`lazy_adam`.
        discriminator_optimizer: of the discriminator.
        r1_gamma: weight of the R1 penalty.
        r1_interval: in steps.
        path_length: its penalty, which keeps a running mean; None for none.
        path_length_weight: weight of the penalty.
        path_length_interval: in steps.
        style_mixing: probability that the later layers of an image take the w of another latent.
        ema_kimg: half-life of the running mean in thousands of images.
        ema_ramp: the half-life is at most this part of the images seen so far.
        precision: float32 or bfloat16 (autocast).
        train_handlers: ignite handlers.

    Raises:
        ValueError: a loss or a weight is no longer finite; an unknown precision, or a number out of its range.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        generator: Generator,
        discriminator: Discriminator,
        averaged_generator: Generator,
        augmentation: AdaptiveAugmentation,
        controller: AdaptiveProbability,
        generator_optimizer: torch.optim.Optimizer,
        discriminator_optimizer: torch.optim.Optimizer,
        *,
        r1_gamma: float,
        r1_interval: int = 16,
        path_length: PathLengthPenalty | None = None,
        path_length_weight: float = 2.0,
        path_length_interval: int = 4,
        style_mixing: float = 0.9,
        ema_kimg: float = 5.0,
        ema_ramp: float | None = 0.05,
        precision: str = "float32",
        train_handlers: list[Any] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}.")
        for name, value, least, most in (
            ("r1_gamma", r1_gamma, 0, math.inf),
            ("path_length_weight", path_length_weight, 0, math.inf),
            ("style_mixing", style_mixing, 0, 1),
            ("ema_kimg", ema_kimg, 0, math.inf),
        ):
            if not least <= value <= most:
                raise ValueError(
                    f"{name} is {value}, expected {least} or more" + (", at most 1." if most == 1 else ".")
                )
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            handlers=train_handlers,
        )
        self.generator, self.discriminator = generator, discriminator
        self.averaged_generator = averaged_generator
        self.augmentation, self.controller = augmentation, controller
        self.g_optimizer, self.d_optimizer = generator_optimizer, discriminator_optimizer
        self.r1_gamma, self.r1_interval = r1_gamma, r1_interval
        self.path_length, self.path_length_weight = path_length, path_length_weight
        self.path_length_interval = path_length_interval
        self.style_mixing, self.ema_kimg, self.ema_ramp = style_mixing, ema_kimg, ema_ramp
        self.precision = precision
        averaged_generator.requires_grad_(False).eval()

    def _iteration(self, engine: Engine, batchdata: Mapping[str, Any]) -> dict[str, float]:
        real = torch.as_tensor(batchdata["image"]).to(self.state.device, torch.float32)
        step = engine.state.iteration - 1
        with torch.autocast(self.state.device.type, PRECISIONS[self.precision], enabled=self.precision != "float32"):
            losses = {"g_loss": self._generator_step(len(real))}
            if self.path_length is not None and step % self.path_length_interval == 0:
                losses["path_length_loss"] = self._path_length_step(max(len(real) // 2, 1))
            losses["d_loss"], scores = self._discriminator_step(real)
            if step % self.r1_interval == 0:
                losses["r1_loss"] = self._penalty_step(real)
        self._average(len(real))
        self.controller.update(scores)
        controls = {"kimg": engine.state.iteration * len(real) / 1000}
        controls |= {"p": float(self.controller.probability), "r_t": float(self.controller.r_t)}
        self.state.metrics |= controls
        numbers = {name: float(value) for name, value in losses.items()}
        if not all(map(math.isfinite, numbers.values())):
            text = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
            raise ValueError(
                f"a loss is not finite after {self.state.metrics['kimg']:.1f} kimg ({text}): the checkpoint of the "
                "last epoch is kept; a smaller learning_rate or a larger r1_gamma may help."
            )
        if engine.state.iteration % (engine.state.epoch_length or 1) == 0:
            self.check_weights()
        return numbers

    def check_weights(self) -> None:
        """Stop at the end of an epoch, before its checkpoint, if a weight is not finite."""
        for name, network in (("generator", self.generator), ("discriminator", self.discriminator)):
            for key, weight in network.named_parameters():
                if not torch.isfinite(weight).all():
                    raise ValueError(f"{name}: {key} is not finite: the checkpoint of the epoch before is kept.")

    def _latents(self, n: int) -> torch.Tensor:
        """Draw ws (n, n_ws, w_dim), some of them mixed from two latents."""
        mapping = self.generator.mapping
        z = torch.randn(2, n, self.generator.z_dim, device=self.state.device)
        first = mapping(z[0])
        mapping.track(first)
        ws = self.generator.spread(first)
        if self.style_mixing:
            n_ws = self.generator.n_ws
            start = torch.randint(1, n_ws, (n,), device=self.state.device)
            start[torch.rand(n, device=self.state.device) >= self.style_mixing] = n_ws
            later = torch.arange(n_ws, device=self.state.device) >= start[:, None]
            ws = torch.where(later[:, :, None], self.generator.spread(mapping(z[1])), ws)
        return ws

    def _score(self, images: torch.Tensor) -> torch.Tensor:
        return self.discriminator(self.augmentation(images.float())).float()

    def _generator_step(self, n: int) -> torch.Tensor:
        self.discriminator.requires_grad_(False)
        loss = generator_loss(self._score(self.generator.synthesize(self._latents(n))))
        self.discriminator.requires_grad_(True)
        self._step(self.g_optimizer, loss)
        return loss.detach()

    def _path_length_step(self, n: int) -> torch.Tensor:
        assert self.path_length is not None
        ws = self._latents(n)
        loss = self.path_length(self.generator.synthesize(ws).float(), ws) * self.path_length_weight
        self._step(self.g_optimizer, loss * self.path_length_interval)
        return loss.detach()

    def _discriminator_step(self, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            fake = self.generator.synthesize(self._latents(len(real)))
        # Apart from each other, so that the deviation within a batch is one of real or of generated images.
        real_scores, fake_scores = self._score(real), self._score(fake)
        loss = discriminator_loss(real_scores, fake_scores)
        self._step(self.d_optimizer, loss)
        return loss.detach(), real_scores.detach()

    def _penalty_step(self, real: torch.Tensor) -> torch.Tensor:
        images = real.detach().requires_grad_(True)
        loss = gradient_penalty(images, self._score(images)) * self.r1_gamma
        self._step(self.d_optimizer, loss * self.r1_interval)
        return loss.detach()

    @staticmethod
    def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def _average(self, n: int) -> None:
        half_life = self.ema_kimg * 1000
        if self.ema_ramp is not None:
            half_life = min(half_life, self.state.iteration * n * self.ema_ramp)
        weight = 1 - 0.5 ** (n / max(half_life, 1e-8))
        pairs = zip(self.averaged_generator.parameters(), self.generator.parameters(), strict=True)
        for mean, value in pairs:
            mean.lerp_(value, weight)
        for kept, buffer in zip(self.averaged_generator.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(buffer)
