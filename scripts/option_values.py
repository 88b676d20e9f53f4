"""The values that an option of a run cannot have, whatever the bundle, by the name of the option."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What is 1 at least where its default does not say so, as one that is None or worked out.
AT_LEAST_ONE = (
    *("batch_size", "steps_per_epoch", "max_epochs", "val_interval", "grid_interval"),
    *("image_size", "max_size", "patch_size", "patch_batch_size", "scale", "detections"),
)
# Whole numbers whose default is 1 or more, and that may be 0.
MAY_BE_ZERO = ("box_conv_layers", "n_select", "n_timed_files", "ramp_steps", "warmup_steps", "tile_overlap")
MAY_BE_NEGATIVE = ("augment_target", "mean", "intensity_mean")
SHARES = (
    *("cache_rate", "score_threshold", "label_score_threshold"),
    *("dropout", "drop_uncertain", "style_mixing"),
)
ABOVE_ZERO = ("learning_rate", "temperature", "gaze_sigma_px", "max_gradient_norm")
OF_CHANNELS = ("intensity_mean", "intensity_std", "mean", "std")
LARGEST_SEED = 2**32 - 1  # that NumPy takes


def check_value(name: str, value: Any, default: Any = None) -> None:
    """Refuse a value that no run can take; one that a config works out is let pass.

    A number at the top of a config is finite and not below 0, unless its default is; where the default is a whole
    number from 1 on, it is 1 or more, but for a few.

    Args:
        name: of the option, without dashes.
        value: read already.
        default: that the config has.

    Raises:
        ValueError: the message names the option.
    """
    if value is None or (isinstance(value, str) and value[:1] in ("$", "@", "%")):
        return
    is_number, last = _is_number(value), name.rpartition("#")[2]
    if last.endswith("seed") and is_number and not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"--{name} is {value}, expected a whole number from 0 to {LARGEST_SEED}.")
    if last in ABOVE_ZERO and is_number and not 0 < value < math.inf:
        raise ValueError(f"--{name} is {value}, expected a number above 0.")
    if last in SHARES and is_number and not 0 <= value <= 1:
        raise ValueError(f"--{name} is {value}, expected a share from 0 to 1.")
    if is_number and value < (least := _least(name, default)):
        raise ValueError(f"--{name} is {value}, expected {least} or more.")
    if any(_is_number(each) and not math.isfinite(each) for each in _parts(value)):
        raise ValueError(f"--{name} is {value}, expected {'a finite number' if is_number else 'finite numbers'}.")
    if name in OF_CHANNELS:
        numbers = [each for each in value if _is_number(each)] if isinstance(value, list | tuple) else []
        if len(numbers) != 3 or len(value) != 3 or (name.endswith("std") and min(numbers) <= 0):
            kind = "three numbers above 0" if name.endswith("std") else "three numbers"
            raise ValueError(f"--{name} is {value!r}, expected {kind}, one of each channel, such as 0.5,0.5,0.5.")
    if name == "channels" and any(isinstance(each, int) and each < 1 for each in _parts(value)):
        raise ValueError(f"--channels is {value}, expected numbers of 1 or more.")
    if name == "aspect_ratios" and not all(_is_number(each) and each > 0 for each in _parts(value)):
        raise ValueError(f"--aspect_ratios is {value!r}, expected numbers above 0.")
    if any(_is_number(each) and each < _least(name, default) for each in _parts(value)):
        raise ValueError(f"--{name} is {value}, expected numbers of 0 or more.")
    if name == "phases" and not (_parts(value) and all(isinstance(each, Mapping) for each in _parts(value))):
        example = '[{"layers": "all", "learning_rate": 0.001}]'
        raise ValueError(f"--phases is {value!r}, expected a list such as {example}.")
    if name == "device":
        _check_device(value)


def _least(name: str, default: Any) -> float:
    """Give the least number that an option may have, or that a list of it may hold."""
    if name.rpartition("#")[2] in AT_LEAST_ONE:
        return 1
    if "#" in name or name in MAY_BE_NEGATIVE or any(_is_number(each) and each < 0 for each in _parts(default)):
        return -math.inf
    is_count = isinstance(default, int) and not isinstance(default, bool) and default >= 1
    return 1 if is_count and name not in MAY_BE_ZERO else 0


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
