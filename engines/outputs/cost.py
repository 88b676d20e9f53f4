"""The cost of inference: operations, seconds and memory of a network, and seconds from a file to its probabilities."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.utils import CommonKeys, convert_to_tensor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...transforms.readers.loading import reading_error
from .files import write_atomically


@dataclass(frozen=True)
class Cost:
    """The cost of inference and what it depends on, the content of every ``cost.json``; null is not measured.

    Attributes:
        macs_per_image: multiply-accumulates by torch's ``FlopCounterMode``.
        seconds_per_image: median time of the network for an image that is read and preprocessed.
        peak_memory_bytes: the most that torch's allocator gives out during one forward, weights and input not included;
            on a CPU without the scratch memory that libraries get by themselves.
        seconds_per_file: median time from a file's name to its result, with mean and percentiles.
        preprocessing_seconds: median of the part that reads and preprocesses.
        images: how many were timed.
        batch_size, image_shape: of the network's input, (C, H, W).
        parameters: of the network.
        device, threads: where it ran.
    """

    macs_per_image: int
    seconds_per_image: float
    peak_memory_bytes: int
    images: int
    batch_size: int
    image_shape: Sequence[int]
    parameters: int
    device: str
    threads: int
    seconds_per_file: float | None = None
    seconds_per_file_mean: float | None = None
    seconds_per_file_p5: float | None = None
    seconds_per_file_p95: float | None = None
    preprocessing_seconds: float | None = None

    def write(self, output_dir: str | os.PathLike) -> None:
        """Write ``cost.json`` into a folder, which is made."""
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "cost.json", json.dumps(asdict(self), indent=4) + "\n")


def read_cost(path: Path, name: str) -> float | None:
    """Read one number of a ``cost.json``, None where it was not measured.

    Raises:
        ValueError: the file has no number of that name.
    """
    costs = json.loads(path.read_text(encoding="utf-8"))
    if name not in costs:
        raise ValueError(f"{path}: has no {name}, only {', '.join(costs)}.")
    return costs[name]


class InferenceCost:
    """Measure every forward of a network in an evaluator and write its :class:`Cost` after each epoch.

    Operations are counted and memory is measured in forwards of their own. The seconds of an image are those between
    entering and leaving the network, summed over the calls that one batch takes (an inferer may cut it into windows),
    divided by its images; the median is over the batches but the first.

    Args:
        output_dir: folder of ``cost.json``.
        network: the network as the evaluator calls it. What runs outside it (an inferer's own work) is not measured.
        count_every: count operations and memory in the first batch, and in every n-th after it when this is n; the mean
            and the peak are written. 0 is enough unless the work depends on the image, as where a threshold selects
            windows.

    Raises:
        ValueError: ``count_every`` below 0; at the end of an epoch, a network that the evaluator never called.
    """

    def __init__(self, output_dir: str | os.PathLike, network: nn.Module, *, count_every: int = 0) -> None:
        if count_every < 0:
            raise ValueError(f"count_every is {count_every}, expected 0 or more.")
        self.output_dir = output_dir
        self.network = network
        self.count_every = count_every
        self._handles: list[Any] = []

    def attach(self, engine: Evaluator) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.start_batch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.finish_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self, engine: Evaluator) -> None:
        """Forget the last epoch and begin to watch the network."""
        self._unhook()
        self.seconds: list[float] = []
        self.images = self.counted_images = self.macs = self.peak = 0
        self._handles = [
            self.network.register_forward_pre_hook(self._enter, with_kwargs=True),
            self.network.register_forward_hook(self._leave),
        ]

    def start_batch(self, engine: Evaluator) -> None:
        """Note the images of the batch, which MONAI takes apart later."""
        batch: Any = engine.state.batch
        shape = tuple(batch[CommonKeys.IMAGE].shape)
        if not self.seconds:
            self._first_shape = shape
        self._batch_size = shape[0]
        self._batch_seconds: float | None = None
        index = len(self.seconds)
        self._counting = index == 0 or (self.count_every > 0 and index % self.count_every == 0)
        if self._counting:
            self.counted_images += self._batch_size

    def _enter(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._device = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        if self._counting:
            macs, peak = _count(partial(network.forward, *args, **kwargs), self._device)
            self.macs, self.peak = self.macs + macs, max(self.peak, peak)
        self._start = time.perf_counter()

    def _leave(self, *_: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._batch_seconds = time.perf_counter() - self._start + (self._batch_seconds or 0.0)

    def finish_batch(self, engine: Evaluator) -> None:
        """Keep the batch's time."""
        if self._batch_seconds is None:
            raise ValueError("InferenceCost: the evaluator does not call the network that was given to be measured.")
        self.seconds.append(self._batch_seconds / self._batch_size)
        self.images += self._batch_size

    def write(self, engine: Evaluator) -> None:
        """Write ``cost.json`` and leave the network alone."""
        self._unhook()
        Cost(
            macs_per_image=round(self.macs / self.counted_images),
            seconds_per_image=statistics.median(self.seconds[1:] or self.seconds),
            peak_memory_bytes=self.peak,
            images=self.images,
            batch_size=self._first_shape[0],
            image_shape=self._first_shape[1:],
            **_circumstances(self.network, self._device),
        ).write(self.output_dir)

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _circumstances(network: nn.Module, device: torch.device) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
    }


def _count(call: Callable[[], Any], device: torch.device) -> tuple[int, int]:
    """Count the multiply-accumulates of a call, and measure its peak memory in bytes."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2, peak_memory(call, device)


def peak_memory(call: Callable[[], Any], device: torch.device) -> int:
    """Measure the most bytes that torch's allocator holds for a call at a time, the result included.

    On a CPU the allocator's own record is read: what a process takes from the system depends on what it did before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it looks for a GPU and calls it an error that there is none
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    steps = [event["args"] for event in sorted(events, key=lambda e: e.get("ts", 0)) if event["name"] == "[memory]"]
    if not steps:
        return 0
    return max(step["Total Allocated"] for step in steps) - (steps[0]["Total Allocated"] - steps[0]["Bytes"])


def time_files(
    items: Sequence[dict[str, Any]],
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    network: nn.Module,
    *,
    output_dir: str | os.PathLike,
    device: str | torch.device,
    n_files: int = 50,
    warm_up: int = 5,
) -> Cost:
    """Time a classifier from a file's name to its probabilities, file by file, and write its :class:`Cost`.

    The seconds of a file end with the probabilities in the memory of the processor: reading and preprocessing, then
    transfer, network and softmax, which are the seconds of an image. Files that cannot be read are left out. The first
    files are read twice, so that they are in the system's cache, as a file is that has just arrived.

    Args:
        items: files to take in this order.
        preprocessing: reads and preprocesses the ``image`` of an item to (C, H, W).
        network: gives logits (1, num_classes) of images (1, C, H, W); on ``device``. Its mode is as before afterwards.
        output_dir: folder of ``cost.json``.
        device: where the network is.
        n_files: how many files to time, at most.
        warm_up: how many of them to classify before, at most.

    Raises:
        ValueError: ``n_files`` below 1, ``warm_up`` below 0, or no file can be read.

    Source: COVID-19 chest X-ray classification by transfer learning (medRxiv 2020.12.14.20248158), figure 6.
    """
    if n_files < 1 or warm_up < 0:
        raise ValueError(f"n_files is {n_files} and warm_up {warm_up}, expected 1 or more and 0 or more.")
    device = torch.device(device)
    was_training = network.training
    network.eval()
    try:
        for _ in islice(_time_each(items, preprocessing, network, device), warm_up):
            pass
        times = list(islice(_time_each(items, preprocessing, network, device), n_files))
        if not times:
            raise ValueError(f"none of the {len(items)} files can be read: nothing to time.")
        image = times[0].image
        with torch.no_grad():
            macs, peak = _count(partial(network, image[None].to(device)), device)
    finally:
        network.train(was_training)
    seconds = [one.preprocessing + one.network for one in times]
    cost = Cost(
        macs_per_image=macs,
        seconds_per_image=statistics.median(one.network for one in times),
        peak_memory_bytes=peak,
        images=len(times),
        batch_size=1,
        image_shape=tuple(image.shape),
        **_circumstances(network, device),
        seconds_per_file=statistics.median(seconds),
        seconds_per_file_mean=statistics.fmean(seconds),
        seconds_per_file_p5=float(np.percentile(seconds, 5)),
        seconds_per_file_p95=float(np.percentile(seconds, 95)),
        preprocessing_seconds=statistics.median(one.preprocessing for one in times),
    )
    cost.write(output_dir)
    return cost


class FileCost:
    """Time a classifier at the end of its evaluator, before handlers that stand behind this one take what is written.

    Args:
        arguments: as :func:`time_files` takes them, by name.
    """

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose weights are loaded at its start."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self) -> None:
        """Write ``cost.json``, see :func:`time_files`."""
        time_files(**self.arguments)


class _FileTime(NamedTuple):
    """Seconds of both parts of a file, and its preprocessed image (C, H, W)."""

    preprocessing: float
    network: float
    image: torch.Tensor


def _time_each(
    items: Sequence[dict[str, Any]],
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    network: nn.Module,
    device: torch.device,
) -> Iterator[_FileTime]:
    """Time every file that can be read."""
    for item in items:
        start = time.perf_counter()
        try:
            image = preprocessing(item)[CommonKeys.IMAGE]
        except (RuntimeError, ValueError, OSError) as error:
            if reading_error(error) is None:
                raise
            continue
        _wait_for(device)
        middle = time.perf_counter()
        with torch.no_grad():
            plain = convert_to_tensor(image, track_meta=False)
            torch.softmax(network(plain[None].to(device)), dim=1).cpu()
        _wait_for(device)
        yield _FileTime(middle - start, time.perf_counter() - middle, plain)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
