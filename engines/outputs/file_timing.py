"""How long a classifier takes for one file, from the file to its probabilities."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import CommonKeys, convert_to_tensor
from torch import nn

from ...transforms.readers.loading import reading_error
from .files import write_atomically


def time_files(
    items: Sequence[dict[str, Any]],
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    network: nn.Module,
    *,
    output_dir: str | os.PathLike,
    device: str | torch.device,
    n_files: int = 50,
    warm_up: int = 5,
) -> dict[str, Any]:
    """Items with an ``image`` file in; seconds a file out, and in ``cost.json``: one file at a time, one process.

    From the file's name to its probabilities in the memory of the processor: reading and preprocessing, then transfer,
    network and softmax. Files that cannot be read are left out. The first files are read twice, so that they are in the
    system's cache, as a file is that has just arrived.

    seconds_per_file: median; with seconds_per_file_mean (the paper's figure), _p5 and _p95 (percentiles).
    preprocessing_seconds, network_seconds: medians of the two parts.
    Beside them what the figures depend on: n_files, image_shape (of the network's input), device, threads, parameters.

    Args:
        items: files to take in this order.
        preprocessing: item in, item with ``image`` (C, H, W) out.
        network: images (1, C, H, W) in, logits (1, num_classes) out; on ``device``. Its mode is as before afterwards.
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
        for _ in islice(_timed(items, preprocessing, network, device), warm_up):
            pass
        timed = list(islice(_timed(items, preprocessing, network, device), n_files))
    finally:
        network.train(was_training)
    if not timed:
        raise ValueError(f"none of the {len(items)} files can be read: nothing to time.")
    cost = _summary(timed)
    cost |= {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    path = Path(output_dir) / "cost.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(cost, indent=4) + "\n")
    return cost


def _timed(
    items: Sequence[dict[str, Any]],
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    network: nn.Module,
    device: torch.device,
) -> Iterator[tuple[float, float, tuple[int, ...]]]:
    """Yield seconds of the preprocessing, seconds of the network and the image's shape of every readable file."""
    for item in items:
        started = time.perf_counter()
        try:
            image = preprocessing(item)[CommonKeys.IMAGE]
        except (RuntimeError, ValueError, OSError) as error:
            if reading_error(error) is None:
                raise
            continue
        _wait_for(device)
        prepared = time.perf_counter()
        with torch.no_grad():
            plain = convert_to_tensor(image, track_meta=False)
            torch.softmax(network(plain[None].to(device)), dim=1).cpu()
        _wait_for(device)
        yield prepared - started, time.perf_counter() - prepared, tuple(image.shape)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(timed: list[tuple[float, float, tuple[int, ...]]]) -> dict[str, Any]:
    """Seconds of the parts and shape of every file in, the figures of them out."""
    preprocessing, network, shapes = zip(*timed, strict=True)
    seconds = [a + b for a, b in zip(preprocessing, network, strict=True)]
    return {
        "seconds_per_file": statistics.median(seconds),
        "seconds_per_file_mean": statistics.fmean(seconds),
        "seconds_per_file_p5": float(np.percentile(seconds, 5)),
        "seconds_per_file_p95": float(np.percentile(seconds, 95)),
        "preprocessing_seconds": statistics.median(preprocessing),
        "network_seconds": statistics.median(network),
        "n_files": len(timed),
        "image_shape": list(shapes[0]),
    }
