"""Print what two-stage segmentation takes, in time and memory, beside the same networks alone and full resolution.

    clinbundles bench two_stage [--sizes 768,2048] [--batches 1,8] [--precisions float32,bfloat16] [--device cuda]

The networks are the paper's U-Net with random weights: the windows they choose mean nothing, the work is the same.
"Networks alone" are both of them on tensors of the sizes that two stages give them: what is left is the cost of
shrinking, scoring, choosing, cutting and pasting. Channels lie last in memory, as in the bundle; bfloat16 is autocast.
``--compiled`` times all again through torch.compile with the weights packed once. On CUDA each row
comes a second time as one captured graph, which casts the weights anew in every run, and is compared with captured
rows. Every round runs each contender once, so that a busy machine slows all of them alike; the tables show the medians
of the rounds and of their ratios. Memory is what one forward adds at its peak, each contender in a process of its own;
weights and image are not part of it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from clinbundles.nets.cuda_graph import CapturedNetwork
from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter, two_stage_macs
from clinbundles.scripts.bench.measurements import add_measurements, as_metric
from clinbundles.scripts.bench.rounds import describe_machine, ratios, time_rounds
from clinbundles.scripts.flags import as_parts, choose_names

N_PATCHES = (2, 4, 8)
PRECISIONS = ("float32", "bfloat16")
SHARES = ("time", "of_networks", "operations")
TITLES = ("", "ms", "time / full resolution", "time / networks alone", "MACs / full resolution")


class NetworksAlone(nn.Module):
    """Both networks, on a small image that stays and on windows."""

    def __init__(self, low_net: nn.Module, high_net: nn.Module, small: torch.Tensor) -> None:
        super().__init__()
        self.low_net, self.high_net, self.small = low_net, high_net, small

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the logits of the windows (K, C, H, W)."""
        self.low_net(self.small)
        return self.high_net(windows)


def networks(channels: int, device: str) -> tuple[nn.Module, nn.Module]:
    """Return the networks of stage 1 and 2 with fixed random weights."""
    torch.manual_seed(0)
    low, high = (StridedUNet(channels).to(device).to(memory_format=torch.channels_last).eval() for _ in range(2))
    return low, high


class Contender(NamedTuple):
    """A network, the image that it is called on, and its operations as a share of full resolution."""

    network: nn.Module
    image: torch.Tensor
    operations: float


def contenders(nets: tuple[nn.Module, nn.Module], shape: tuple[int, int, int], device: str) -> dict[str, Contender]:
    """Return what to call, by name.

    Args:
        nets: of stage 1 and 2.
        shape: batch, channels and side of the square images.
        device: cpu or cuda.
    """
    batch, channels, size = shape

    def random(number: int, side: int) -> torch.Tensor:
        return torch.rand(number, channels, side, side, device=device).to(memory_format=torch.channels_last)

    image, small = random(batch, size), random(batch, size // 8)
    named = {"full resolution": Contender(nets[1], image, 1.0)}
    for n in N_PATCHES:
        segmenter = TwoStageSegmenter(*nets, n_patches=n)
        operations = two_stage_macs(segmenter, (channels, size, size)).ratio
        alone = NetworksAlone(*nets, small)
        named[f"networks alone, N_p = {n}"] = Contender(alone, random(batch * n, size // n), operations)
        named[f"two stages, N_p = {n}"] = Contender(segmenter, image, operations)
    return named


def measure(
    named: dict[str, Contender], rounds: int, device: str, *, sliding: bool = False, runtime: str = ""
) -> list[dict[str, Any]]:
    """Time the contenders, each as one graph where they are captured, and MONAI's inferer, and return a row each."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, (network, image, _) in named.items():
        calls[name] = partial(CapturedNetwork(network, image) if runtime == "captured" else network, image)
    network, image, _ = named["full resolution"]
    for n in N_PATCHES if sliding else ():
        for overlap in (0.0, 0.25):
            inferer = SlidingWindowInferer(image.shape[-1] // n, sw_batch_size=n, overlap=overlap)
            calls[f"SlidingWindowInferer, side / {n}, overlap {overlap}"] = partial(inferer, image, network)
    seconds = time_rounds(calls, rounds=rounds, warm_up=3 if device.startswith("cuda") else 1, device=device)
    rows: list[dict[str, Any]] = []
    for name, values in seconds.items():
        alone = seconds.get(name.replace("two stages", "networks alone")) if "N_p" in name else None
        metrics = {
            "ms": as_metric([1e3 * value for value in values]),
            "time": as_metric(ratios(values, seconds["full resolution"])),
        }
        if alone:
            metrics["of_networks"] = as_metric(ratios(values, alone))
        if name in named:
            metrics["operations"] = {"value": named[name].operations}
        rows.append({"row": f"{name}, {runtime}" if runtime else name, "metrics": metrics})
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    for row in rows:
        metrics = row["metrics"]
        shares = [f"{metrics[name]['value']:.3f}" if name in metrics else "" for name in SHARES]
        print(f"| {row['row']} | {metrics['ms']['value']:.1f} | {' | '.join(shares)} |", flush=True)


def table(
    precision: str, shape: tuple[int, int, int], device: str, rounds: int, *, sliding: bool, compiled: bool
) -> list[dict[str, Any]]:
    """Print the table for images of ``shape`` (batch, channels, side), and return its rows."""
    nets = networks(shape[1], device)
    rows: list[dict[str, Any]] = []
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
        try:
            named = contenders(nets, shape, device)
            rows += measure(named, rounds, device, sliding=sliding)
            if device.startswith("cuda"):
                rows += measure(named, rounds, device, runtime="captured")
            if compiled:
                for network in nets:
                    network.compile(dynamic=False, options={"freezing": True})  # in place: the contenders hold it
                rows += measure(named, rounds, device, runtime="compiled")
        except torch.OutOfMemoryError:
            print("what is missing does not fit the memory of the GPU")
    print_rows(rows)
    return rows


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
        options = [f"--peak_of={n}", f"--patch_batch_size={at_once}"]
        child = [sys.executable, "-m", "clinbundles.scripts.cli", *sys.argv[1:], *options]
        found = int(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
        full = full or found
        name = f"TwoStageSegmenter, N_p = {n}, patch_batch_size {at_once}" if n > 0 else "full resolution"
        print(f"| {name} | {found / 2**20:.0f} | {found / full:.3f} |", flush=True)


def whole_numbers(parts: Any, option: str) -> list[int]:
    """Read "768,2048" as whole numbers of 1 or more."""
    if wrong := [part for part in as_parts(parts) if not part.isdecimal() or int(part) < 1]:
        raise ValueError(f"--{option}: {wrong[0]!r} is no whole number of 1 or more.")
    return [int(part) for part in as_parts(parts)]


def main(
    sizes: str | None = None,
    channels: int = 3,
    device: str = "cpu",
    precisions: str | None = None,
    threads: int = 2,
    batches: str = "1,8",
    rounds: int = 3,
    sliding: bool = False,
    compiled: bool = False,
    memory_size: int = 2048,
    json: str | None = None,
    peak_of: int | None = None,
    patch_batch_size: int | None = None,
) -> None:
    """Print all tables, and write their rows where ``--json`` names a file.

    Args:
        sizes: sides of the square images; 768 and 2048, on CUDA 4096 too.
        channels: of the images.
        device: cpu or cuda.
        precisions: float32, or bfloat16; both.
        threads: of a CPU.
        batches: images at a time.
        rounds: how often each is timed.
        sliding: time MONAI's SlidingWindowInferer with windows of the same size too.
        compiled: time all a second time with the networks through torch.compile, on both sides of the ratios.
        memory_size: side of the image whose peak memory is measured; 0 leaves memory out.
        json: file that the rows are added to, for clinbundles report --merge.
        peak_of: windows along each axis, for the processes that measure memory.
        patch_batch_size: windows at a time, for the same.
    """
    torch.set_num_threads(threads)
    names = choose_names(precisions, list(PRECISIONS), "precisions")
    sides = whole_numbers(sizes or ("768,2048,4096" if device.startswith("cuda") else "768,2048"), "sizes")
    if peak_of is not None:
        with torch.inference_mode():
            nets = networks(channels, device)
            options: dict[str, Any] = {"n_patches": peak_of, "patch_batch_size": patch_batch_size}
            image = torch.rand(1, channels, memory_size, memory_size, device=device)
            print(peak(TwoStageSegmenter(*nets, **options) if peak_of > 0 else nets[1], image))
        return
    print(describe_machine(threads))
    for precision in names:
        for size in sides:
            for batch in whole_numbers(batches, "batches"):
                scale = f"{precision}, batch {batch}, {channels} x {size} x {size}, {rounds} rounds"
                print(f"\n{scale}\n", flush=True)
                shape = (batch, channels, size)
                rows = table(precision, shape, device, rounds, sliding=sliding, compiled=compiled)
                if json:
                    add_measurements(
                        json,
                        "two_stage_segmentation",
                        f"two stages, {size}, batch {batch}, {precision}",
                        {row["row"]: row["metrics"] for row in rows},
                        device=device,
                        threads=threads,
                        scale=f"the paper's U-Net, {scale}",
                    )
    if memory_size:
        print_memory(memory_size)
