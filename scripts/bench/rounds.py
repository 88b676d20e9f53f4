"""Rounds of timings: each contender once a round, so that what slows the machine slows all of them."""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch


def now(device: str) -> float:
    """Return the time in seconds, once the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def time_rounds(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Time every contender in every round.

    Args:
        contenders: what to call, by name.
        rounds: how often each is timed.
        warm_up: rounds before, which do not count.
        device: cpu or cuda.

    Returns:
        The seconds of each contender, one a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-warm_up, rounds):
        for name, call in contenders.items():
            time.sleep(0.01)  # OpenMP's threads spin on for milliseconds after their work: let them come to rest
            start = now(device)
            call()
            if number >= 0:
                seconds[name].append(now(device) - start)
            else:
                now(device)
    return seconds


def ratios(ours: Sequence[float], plain: Sequence[float]) -> list[float]:
    """Return ours / plain of every round."""
    return [a / b for a, b in zip(ours, plain, strict=True)]


def ratio(ours: Sequence[float], plain: Sequence[float]) -> float:
    """Return the median over the rounds of ours / plain."""
    return statistics.median(ratios(ours, plain))


def chip() -> str:
    """Name the processor."""
    cpu_info = Path("/proc/cpuinfo")  # Linux
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def versions(packages: Sequence[str] = ()) -> str:
    """Name the versions of Python, torch, MONAI and other packages."""
    listed = ", ".join(f"{name} {version(name)}" for name in ("torch", "monai", *packages))
    return f"Python {platform.python_version()}, {listed}"


def describe_machine(threads: int, packages: Sequence[str] = ()) -> str:
    """Say what timings depend on: command, chip, threads, load and versions."""
    gpu = f"{torch.cuda.get_device_name()}; " if torch.cuda.is_available() else ""
    return (
        f"{shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}\n{gpu}{chip()}, {threads} of {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} before; {versions(packages)}"
    )
