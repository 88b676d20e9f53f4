"""Numbers to track, out of what an engine holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.utils import flatten_dict


def losses_of(output: Any) -> dict[str, float]:
    """From a trainer's output (a dict, or MONAI's list of dicts) to `{"train_<key>": loss}` for keys with "loss"."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    losses = {f"train_{k}": v for k, v in first.items() if "loss" in str(k)} if isinstance(first, Mapping) else {}
    return scalars(losses)


def learning_rates(engine: Engine) -> dict[str, float]:
    """From a trainer to the learning rates of its optimizers: `lr_group_0`, in a GAN `g_lr_group_0`."""
    optimizers = {k: v.param_groups for k, v in vars(engine).items() if isinstance(v, torch.optim.Optimizer)}
    prefixed = [(k.removesuffix("optimizer"), i, g) for k, groups in optimizers.items() for i, g in enumerate(groups)]
    return {f"{prefix}lr_group_{i}": float(group["lr"]) for prefix, i, group in prefixed}


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """From nested metrics (numbers, tensors, arrays) to floats; a vector of up to 64 is numbered, the rest left out."""
    result: dict[str, float] = {}
    for key, value in flatten_dict(dict(values)).items():
        if isinstance(value, int | float | np.number | np.ndarray | torch.Tensor):
            flat = torch.as_tensor(value).detach().double().flatten().tolist()
            names = [key] if len(flat) == 1 else [f"{key}_{i}" for i in range(len(flat))]
            result |= dict(zip(names, flat, strict=True)) if len(flat) <= 64 else {}
    return result
