"""Weights that a training starts from: those of another training, or published ones."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torchvision.models import get_weight


def load_initial_weights(
    network: nn.Module, weights: str | os.PathLike | None, *, leave_out: Sequence[str] = ()
) -> nn.Module:
    """Network in; the same out, its weights read from ``weights`` apart from the layers that are left out.

    Args:
        network: the network; changed in place.
        weights: file with a state dict, or a name of torchvision's such as "ResNet50_Weights.IMAGENET1K_V1", which is
            downloaded; None changes nothing.
        leave_out: names of layers that keep their own weights, as the last one must where the classes differ.

    Raises:
        FileNotFoundError: ``weights`` looks like a file and there is none.
        ConnectionError: it is a name and cannot be downloaded.
        ValueError: it is neither, the file holds no plain state dict, a layer to leave out is not in the network, or
            the weights do not fit.
    """
    if weights is None:
        return network
    for layer in leave_out:
        if layer not in dict(network.named_modules()) or not layer:
            top = ", ".join(name for name, _ in network.named_children())
            raise ValueError(f"leave_out: the network has no layer {layer!r}; its layers are {top}.")
    given = {name: value for name, value in _read(weights).items() if not belongs_to(name, leave_out)}
    wanted = {name: value.shape for name, value in network.state_dict().items() if not belongs_to(name, leave_out)}
    found = {name: value.shape for name, value in given.items()}
    for name in wanted.keys() - found.keys():
        if name.endswith(".num_batches_tracked"):  # older files lack this counter, and torch starts it at 0
            del wanted[name]
    if wanted != found:
        differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        name = differing[0]
        raise ValueError(
            f"{weights}: {len(differing)} of {len(wanted)} weights do not fit the network, the first is {name} "
            f"({_shape(found.get(name))}, expected {_shape(wanted.get(name))})."
        )
    network.load_state_dict(given, strict=False)  # what is not strict about it was checked above
    return network


def belongs_to(name: str, layers: Sequence[str]) -> bool:
    """Whether the parameter or layer ``name`` is one of ``layers`` or inside one of them."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def _read(weights: str | os.PathLike) -> dict[str, torch.Tensor]:
    path = Path(weights)
    if path.suffix in (".pt", ".pth", ".bin") or path.exists():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; initial weights were expected there.")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path}: not a file of weights that torch.load(…, weights_only=True) opens.") from error
        if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
            raise ValueError(f"{path}: no plain state dict.")
        return _with_present_names(content)
    try:
        published = get_weight(str(weights))
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"initial_weights is {str(weights)!r}: neither a file nor weights of torchvision.") from error
    try:
        return _with_present_names(published.get_state_dict(progress=False, check_hash=True))
    except OSError as error:
        raise ConnectionError(
            f"{weights}: cannot be downloaded ({type(error).__name__}); give the path of a file instead."
        ) from error


def _with_present_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename what torchvision's published DenseNets still call ``norm.1``, and its networks ``norm1``."""
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
    return {old.sub(r"\1\2.", name): value for name, value in weights.items()}


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"
