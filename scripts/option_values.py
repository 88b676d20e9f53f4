"""The values that an option of a run cannot have, whatever the bundle, by the name of the option."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AT_LEAST_ONE = (
    *("batch_size", "steps_per_epoch", "max_epochs", "val_interval", "grid_interval"),
    *("image_size", "max_size", "scale", "detections"),
)
AT_LEAST = {**dict.fromkeys(AT_LEAST_ONE, 1), **dict.fromkeys(("num_workers", "n_timed_files"), 0)}
SHARES = ("cache_rate", "score_threshold", "label_score_threshold")
ABOVE_ZERO = ("learning_rate", "temperature")
OF_CHANNELS = ("intensity_mean", "intensity_std", "mean", "std")


def check_value(name: str, value: Any) -> None:
    """Refuse a value that no run can take; one that a config works out is let pass.

    Args:
        name: of the option, without dashes.
        value: read already.

    Raises:
        ValueError: the message names the option.
    """
    if value is None or (isinstance(value, str) and value[:1] in ("$", "@", "%")):
        return
    is_number = isinstance(value, int | float)
    if name in AT_LEAST and is_number and value < AT_LEAST[name]:
        raise ValueError(f"--{name} is {value}, expected {AT_LEAST[name]} or more.")
    if name in ABOVE_ZERO and is_number and not 0 < value < math.inf:
        raise ValueError(f"--{name} is {value}, expected a number above 0.")
    if name in SHARES and is_number and not 0 <= value <= 1:
        raise ValueError(f"--{name} is {value}, expected a share from 0 to 1.")
    if name in OF_CHANNELS:
        numbers = [each for each in value if _is_finite(each)] if isinstance(value, list | tuple) else []
        if len(numbers) != 3 or len(value) != 3 or (name.endswith("std") and min(numbers) <= 0):
            kind = "three numbers above 0" if name.endswith("std") else "three numbers"
            raise ValueError(f"--{name} is {value!r}, expected {kind}, one of each channel, such as 0.5,0.5,0.5.")
    if name == "channels" and any(isinstance(each, int) and each < 1 for each in _parts(value)):
        raise ValueError(f"--channels is {value}, expected numbers of 1 or more.")
    if name == "aspect_ratios" and not all(_is_finite(each) and each > 0 for each in _parts(value)):
        raise ValueError(f"--aspect_ratios is {value!r}, expected numbers above 0.")
    if name == "phases" and not (_parts(value) and all(isinstance(each, Mapping) for each in _parts(value))):
        example = '[{"layers": "all", "learning_rate": 0.001}]'
        raise ValueError(f"--phases is {value!r}, expected a list such as {example}.")
    if name == "device":
        _check_device(value)


def check_datalist(path: Any, *, option: str = "--datalist") -> None:
    """Refuse a datalist that is given, by an option, and is not there or no JSON.

    Raises:
        FileNotFoundError, ValueError: the message names the file.
    """
    if not isinstance(path, str) or path[:1] in ("$", "@", "%"):
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option} {path}: no such file.")
    try:
        json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{option} {path}: is not JSON ({error}).") from error


def _parts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_device(value: Any) -> None:
    """Refuse a device that this machine does not have."""
    import torch

    try:
        torch.zeros(1, device=value).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:  # NotImplementedError of a device without memory too
        raise ValueError(f"--device is {value!r}, and this machine has {', '.join(devices())}.") from error


def devices() -> list[str]:
    """List the devices that torch can use on this machine."""
    import torch

    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *names, *(["mps"] if torch.backends.mps.is_available() else [])]
