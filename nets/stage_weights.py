"""Weights of separate trainings brought together in one two-stage network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn


def load_stages(
    network: nn.Module, *, coarse_ckpt: str | os.PathLike | None, initial_ckpt: str | os.PathLike | None
) -> None:
    """Network with ``low_net`` and ``high_net`` in; their weights loaded from two state-dict files, in place.

    Args:
        network: a ``TwoStageSegmenter``.
        coarse_ckpt: trained weights of stage 1; None leaves stage 1 as it is.
        initial_ckpt: weights that stage 2 starts from, such as those of the same network trained at full resolution;
            None leaves it as it is. Where stage 2 has more input channels than the file (a conditioned one sees the
            stage-1 probability too), the weights of the additional ones start at zero.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights that do not fit.
    """
    for name, path in (("low_net", coarse_ckpt), ("high_net", initial_ckpt)):
        if path is None:
            continue
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; weights for {name} were expected there.")
        part = getattr(network, name)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if name == "high_net":
            weights = {key: _widened(value, part.state_dict().get(key)) for key, value in weights.items()}
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{path}: these weights do not fit {name} ({error}).") from error


def _widened(value: torch.Tensor, wanted: Any) -> torch.Tensor:
    """Weights (out, in, ...) with zeros for the input channels that they lack."""
    if wanted is None or value.ndim < 4 or value.shape[1] >= wanted.shape[1]:
        return value
    lacking = wanted.shape[1] - value.shape[1]
    return torch.cat([value, value.new_zeros(value.shape[0], lacking, *value.shape[2:])], dim=1)
