"""Print how long a training step of StyleGAN2 takes, beside the published formulation of the same networks.

    clinbundles bench gan [--sizes 64] [--rows step] [--device cuda --autocast]

- step: one step of the generator and one of the discriminator, forward, backward and Adam; then the same with the R1
  penalty. No augmentation, style mixing or running mean. 64 px is the preset of train_gan.json, 256 px that of gpu.json
  (on a CPU with a batch of 4).
- first_image: from the import of the generator, torch's included, to its first image, each time in a new process.

The published formulation is what its code comes down to where the CUDA extensions do not compile
(:mod:`.gan_reference`): so neither side compiles anything here. "groups" is the paper's one convolution of N groups;
"factors" scales images instead, as the authors' code of 2020 trains. Before anything is timed both sides must give the
same losses and gradients. Every round runs each contender once, so that a busy machine slows all of them alike; shown
are medians, and the ratio's range over the rounds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from clinbundles.engines.datasetgan.gan_trainer import lazy_adam
from clinbundles.nets.datasetgan.discriminator import Discriminator
from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.losses import discriminator_loss, generator_loss, gradient_penalty
from clinbundles.scripts.bench.gan_reference import ReferenceDiscriminator, ReferenceGenerator
from clinbundles.scripts.bench.rounds import describe_machine, ratio, time_rounds
from clinbundles.scripts.flags import choose_names

ROWS = ("step", "first_image")
SIZES = ("64", "256")
# Options of the networks, by the side of the images in px: those of bundles/ct_datasetgan, train_gan.json and gpu.json.
PRESETS: dict[str, dict[str, int]] = {
    "64": {"image_size": 64, "channel_base": 1024, "channel_max": 64, "z_dim": 64, "w_dim": 64},
    "256": {"image_size": 256, "channel_base": 4096, "channel_max": 256, "z_dim": 256, "w_dim": 256},
}
OURS = "ours"
PUBLISHED = {"groups": True, "factors": False}
TOLERANCE = 1e-4

_FIRST_IMAGE = """
import sys, time
start = time.perf_counter()
from {module} import {name}
import torch
torch.set_num_threads({threads})
generator = {name}(**{options}).to("{device}")
with torch.inference_mode():
    generator(torch.randn(1, generator.z_dim, device="{device}")).cpu()
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Contender:
    """Networks in one formulation, and what moves their weights."""

    generator: Generator
    discriminator: Discriminator
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer


def contenders(options: Mapping[str, Any], device: str = "cpu") -> dict[str, Contender]:
    """Return ours and the published formulations, with the same random weights.

    Args:
        options: of the generator; those of its size and channels are the discriminator's too.
        device: cpu or cuda.
    """
    torch.manual_seed(0)
    widths = {name: value for name, value in options.items() if not name.endswith("_dim")}
    generator, discriminator = Generator(**options), Discriminator(**widths)
    for name, parameter in (*generator.named_parameters(), *discriminator.named_parameters()):
        if name.endswith(("noise_strength", "bias")):
            parameter.data += 0.1 * torch.randn_like(parameter)  # those that start from 0 would hide a difference
    made: dict[str, tuple[Generator, Discriminator]] = {OURS: (generator, discriminator)}
    for name, grouped in PUBLISHED.items():
        made[name] = (ReferenceGenerator(grouped=grouped, **options), ReferenceDiscriminator(**widths))
        made[name][0].load_state_dict(generator.state_dict())
        made[name][1].load_state_dict(discriminator.state_dict())
    return {
        name: Contender(
            g.to(device),
            d.to(device),
            lazy_adam(g, learning_rate=0.0025, interval=None),
            lazy_adam(d, learning_rate=0.0025, interval=16),
        )
        for name, (g, d) in made.items()
    }


def step(contender: Contender, real: torch.Tensor, *, penalty: bool = False) -> dict[str, torch.Tensor]:
    """Take a step of the generator and one of the discriminator, as clinbundles.engines.datasetgan.gan_trainer does.

    Args:
        contender: whose weights move.
        real: images (N, C, H, W).
        penalty: a further step of the discriminator against R1.

    Returns:
        the losses, and after the dot the gradients of each by the name of the weight.
    """
    generator, discriminator = contender.generator, contender.discriminator
    found: dict[str, torch.Tensor] = {}

    def learn(name: str, loss: torch.Tensor, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        found[name] = loss.detach()
        found.update((f"{name}.{key}", p.grad) for key, p in network.named_parameters() if p.grad is not None)
        optimizer.step()

    def generate() -> torch.Tensor:
        return generator(torch.randn(len(real), generator.z_dim, device=real.device, dtype=real.dtype)).to(real)

    def score(images: torch.Tensor) -> torch.Tensor:
        return discriminator(images).to(real)

    discriminator.requires_grad_(False)
    loss = generator_loss(score(generate()))
    discriminator.requires_grad_(True)
    learn("generator", loss, generator, contender.g_optimizer)
    with torch.no_grad():
        fake = generate()
    loss = discriminator_loss(score(real), score(fake))
    learn("discriminator", loss, discriminator, contender.d_optimizer)
    if penalty:
        images = real.clone().requires_grad_(True)
        loss = gradient_penalty(images, score(images))
        learn("penalty", loss, discriminator, contender.d_optimizer)
    return found


def largest_difference(options: Mapping[str, int], device: str = "cpu", batch: int = 2) -> float:
    """Take a step with R1 of each contender, from the same weights, latents and noise, in float64.

    In float32 a value within rounding of 0 is now and then on the other side of a leaky ReLU, and the gradients of
    large networks differ by more than rounding.

    Returns:
        the largest difference of a loss or gradient to ours, over the largest value of that loss or gradient.
    """
    side = options["image_size"]
    real = torch.rand(batch, 1, side, side, device=device, dtype=torch.float64) * 2 - 1
    results = []
    for contender in contenders(options, device).values():
        contender.generator.double()
        contender.discriminator.double()
        for optimizer in (contender.g_optimizer, contender.d_optimizer):
            optimizer.param_groups[0]["lr"] = 0.0
        torch.manual_seed(1)
        results.append(step(contender, real, penalty=True))
    ours, *others = results
    return max(
        float((other[name] - value).abs().max() / value.abs().max().clamp(min=1e-8))
        for other in others
        for name, value in ours.items()
    )


def bench_step(size: str, batch: int, device: str, rounds: int, autocast: bool) -> None:
    """Print the table of one size."""
    options = PRESETS[size]
    difference = largest_difference(options, device)
    if difference > TOLERANCE:
        raise AssertionError(f"the contenders differ by {difference:.2g} in a loss or gradient of {size} px.")
    real = torch.rand(batch, 1, options["image_size"], options["image_size"], device=device) * 2 - 1
    networks = contenders(options, device)
    calls: dict[str, Callable[[], Any]] = {}
    for penalty in (False, True):
        for name, contender in networks.items():
            calls[f"{name} {penalty}"] = partial(_timed, contender, real, penalty, autocast)
    seconds = time_rounds(calls, rounds=rounds, device=device)
    precision = "bfloat16" if autocast else "float32"
    print(f"\na step at {size} px, batch {batch}, {precision}, {rounds} rounds")
    print(f"in float64 losses and gradients agree to {difference:.0e}\n")
    print("| | ours, s | published, s | published / ours | smallest | largest |\n|---|---|---|---|---|---|")
    for penalty, label in ((False, "step"), (True, "step with R1")):
        ours = seconds[f"{OURS} {penalty}"]
        for name in PUBLISHED:
            _print_row(f"{label}, {name}", ours, seconds[f"{name} {penalty}"])


def _timed(contender: Contender, real: torch.Tensor, penalty: bool, autocast: bool) -> None:
    with torch.autocast(real.device.type, torch.bfloat16, enabled=autocast):
        step(contender, real, penalty=penalty)


def _print_row(label: str, ours: list[float], published: list[float]) -> None:
    ratios = [b / a for a, b in zip(ours, published, strict=True)]
    print(
        f"| {label} | {statistics.median(ours):.3f} | {statistics.median(published):.3f} | "
        f"{ratio(published, ours):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |",
        flush=True,
    )


def first_image(name: str, options: Mapping[str, int], device: str = "cpu", threads: int = 1) -> float:
    """Return the seconds from the import of a generator to its first image, in a new process.

    Args:
        name: ours, or a published formulation.
        options: of the generator.
        device: cpu or cuda.
        threads: of the process.
    """
    target = Generator if name == OURS else ReferenceGenerator
    given = dict(options) if name == OURS else {**options, "grouped": PUBLISHED[name]}
    values = {"module": target.__module__, "name": target.__name__, "options": given}
    source = _FIRST_IMAGE.format(**values, device=device, threads=threads)
    child = [sys.executable, "-c", source]
    return float(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def bench_first_image(sizes: list[str], device: str, rounds: int, threads: int) -> None:
    """Print the table of first images."""
    print(f"\nfrom the import to the first image, {rounds} rounds\n")
    print("| | ours, s | published, s | published / ours | smallest | largest |\n|---|---|---|---|---|---|")
    for size in sizes:
        names = (OURS, *PUBLISHED)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds + 1):
            for name in names:
                value = first_image(name, PRESETS[size], device, threads)
                if number:  # the first reads the files of torch from the disk
                    seconds[name].append(value)
        for name in PUBLISHED:
            _print_row(f"{size} px, {name}", seconds[OURS], seconds[name])


def main(
    rows: str | None = None,
    sizes: str | None = None,
    device: str = "cpu",
    autocast: bool = False,
    batch: int | None = None,
    threads: int = 2,
    rounds: int = 5,
) -> None:
    """Print the tables.

    Args:
        rows: step, first_image; both by default.
        sizes: 64, 256; both by default.
        device: cpu or cuda.
        autocast: bfloat16, as the preset of 256 px trains on a GPU.
        batch: images in a step; by default 32 at 64 px and 64 at 256 px, there 4 on a CPU.
        threads: of torch.
        rounds: how often each contender is timed.
    """
    some, sides = choose_names(rows, list(ROWS), "rows"), choose_names(sizes, list(SIZES), "sizes")
    torch.set_num_threads(threads)
    print(describe_machine(threads))
    for size in sides if "step" in some else ():
        usual = 32 if size == "64" else 4 if device == "cpu" else 64
        bench_step(size, usual if batch is None else batch, device, rounds, autocast)
    if "first_image" in some:
        bench_first_image(sides, device, rounds, threads)
