"""Print what two-stage segmentation takes, in time and memory, as a share of the same network at full resolution.

    clinbundles bench two_stage [--size 768] [--channels 3] [--device cuda] [--autocast] [--channels_last]

The networks are the paper's U-Net with random weights: the windows they choose mean nothing, the work is the same.
Every round runs each contender once, so that a busy machine slows all of them alike; the tables show medians. Memory is
what one forward adds at its peak, each contender in a process of its own; weights and image are not part of it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter, two_stage_macs
from clinbundles.scripts.bench.rounds import describe_machine, now, time_rounds

N_PATCHES = (2, 4, 8)


def networks(channels: int, device: str, layout: torch.memory_format) -> tuple[nn.Module, ...]:
    """Return the networks of stage 1 and 2 with fixed random weights."""
    torch.manual_seed(0)
    return tuple(StridedUNet(channels).to(device).to(memory_format=layout).eval() for _ in range(2))


def times(calls: dict[str, Callable[[], Any]], nets: tuple[nn.Module, ...], rounds: int, device: str) -> dict[str, Any]:
    """Return the median seconds of each call, and the median share of them spent outside the networks."""
    inside: dict[str, list[float]] = {name: [] for name in calls}
    spent = [0.0]
    enter, leave = (lambda *_, sign=sign: spent.append(spent.pop() + sign * now(device)) for sign in (-1, 1))
    handles = [net.register_forward_pre_hook(enter) for net in nets] + [
        net.register_forward_hook(leave) for net in nets
    ]

    def counted(name: str) -> None:
        spent[0] = 0.0
        calls[name]()
        inside[name].append(spent[0])

    measured = time_rounds({name: partial(counted, name) for name in calls}, rounds=rounds, device=device)
    for handle in handles:
        handle.remove()
    shares = {
        name: [1 - within / whole for within, whole in zip(inside[name][-rounds:], measured[name], strict=True)]
        for name in calls
    }
    return {name: [statistics.median(measured[name]), statistics.median(shares[name])] for name in calls}


def print_times(nets: tuple[nn.Module, ...], shape: tuple[int, int, int], device: str, rounds: int) -> None:
    """Print the table for images of ``shape`` (batch, channels, side), square."""
    batch, channels, size = shape
    random = partial(torch.rand, device=device)
    image, small = random(batch, channels, size, size), random(batch, channels, size // 8, size // 8)
    calls: dict[str, Callable[[], Any]] = {"full resolution": partial(nets[1], image)}
    macs = {"full resolution": "1.0000"}
    for n in N_PATCHES:
        windows = random(batch * n, channels, size // n, size // n)
        segmenter = TwoStageSegmenter(*nets, n_patches=n)
        alone, whole = f"networks alone, N_p = {n}", f"TwoStageSegmenter, N_p = {n}"
        calls[alone] = lambda windows=windows: (nets[0](small), nets[1](windows))  # type: ignore[misc]
        calls[whole] = partial(segmenter, image)
        macs[alone] = macs[whole] = f"{two_stage_macs(segmenter, (channels, size, size)).ratio:.4f}"
    for n in N_PATCHES:
        for overlap in (0.0, 0.25):
            inferer = SlidingWindowInferer(size // n, sw_batch_size=n, overlap=overlap)
            calls[f"SlidingWindowInferer, side / {n}, overlap {overlap}"] = partial(inferer, image, nets[1])
    measured = times(calls, nets, rounds, device)
    full = measured["full resolution"][0]
    print(f"\nbatch {batch}, {channels} x {size} x {size}, {rounds} rounds\n")
    print("| | ms | time / full resolution | outside the networks | MACs / full resolution |\n|---|---|---|---|---|")
    for name, (seconds, outside) in measured.items():
        print(f"| {name} | {seconds * 1e3:.1f} | {seconds / full:.3f} | {outside:.1%} | {macs.get(name, '')} |")


def peak(network: nn.Module, image: torch.Tensor) -> int:
    """Return the bytes that one forward of the image adds."""
    network(image[..., :256, :256])
    if image.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network(image)
        return torch.cuda.max_memory_allocated() - before
    status = Path("/proc/self/status")  # Linux: resident now, and at its highest
    before = int(status.read_text().split("VmRSS:")[1].split()[0])
    network(image)
    return 1024 * (int(status.read_text().split("VmHWM:")[1].split()[0]) - before)


def print_memory(size: int) -> None:
    """Print the table for one image of side ``size``, measured in new processes."""
    print(f"\nPeak memory, batch 1, {size} x {size}\n\n| | MiB | / full resolution |\n|---|---|---|")
    full = 0
    for n, at_once in ((0, None), (2, None), (4, None), (8, None), (2, 1), (4, 1), (8, 1)):
        child = [sys.executable, *sys.argv, f"--peak_of={n}", f"--patch_batch_size={at_once}"]
        found = int(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
        full = full or found
        name = f"TwoStageSegmenter, N_p = {n}, patch_batch_size {at_once}" if n > 0 else "full resolution"
        print(f"| {name} | {found / 2**20:.0f} | {found / full:.3f} |", flush=True)


def main(
    size: int = 768,
    channels: int = 3,
    device: str = "cpu",
    autocast: bool = False,
    channels_last: bool = False,
    threads: int = 2,
    batches: Sequence[int] = (1, 8),
    rounds: int = 3,
    memory_size: int = 2048,
    peak_of: int | None = None,
    patch_batch_size: int | None = None,
) -> None:
    """Print all tables; ``memory_size`` 0 leaves memory out, ``peak_of`` is for the processes that measure it."""
    torch.set_num_threads(threads)
    nets = networks(channels, device, torch.channels_last if channels_last else torch.contiguous_format)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=autocast):
        if peak_of is not None:
            segmenter = partial(TwoStageSegmenter, *nets, n_patches=peak_of, patch_batch_size=patch_batch_size)
            image = torch.rand(1, channels, memory_size, memory_size, device=device)
            print(peak(segmenter() if peak_of > 0 else nets[1], image))
            return
        print(describe_machine(threads))
        for batch in batches:
            print_times(nets, (batch, channels, size), device, rounds)
    if memory_size:
        print_memory(memory_size)
