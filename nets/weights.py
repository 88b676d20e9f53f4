"""Weights of a network: read from a file, checked against the network, loaded."""

from __future__ import annotations

import copy
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_weight

_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
_FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def is_file_name(weights: str | os.PathLike) -> bool:
    """Tell the path of a file of weights from a name such as "imagenet" under which a library downloads them."""
    text = os.fspath(weights)
    return Path(text).suffix in _FILE_SUFFIXES or "/" in text or "\\" in text or Path(text).is_file()


def read_weights(path: str | os.PathLike, *, purpose: str = "weights") -> dict[str, torch.Tensor]:
    """Read a state dict from a file of ``torch.save`` or a .safetensors file; no code in it is run.

    Args:
        path: the file.
        purpose: what it is wanted for, said where it is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else than names of tensors, or is damaged; a Git LFS pointer, a web page and an
            empty or truncated file are called so.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {purpose} were expected there.")
    if instead := _what_it_is(path):
        raise ValueError(f"{path}: {instead}.")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # bytes that are no such file can raise anything, an IndexError for instance
        # Without torch's own words, which advise to run the code in the file.
        raise ValueError(f"{path}: not a file of weights that torch.load(…, weights_only=True) opens.") from None
    if part := _damaged_part(path):  # which torch reads all the same
        raise ValueError(f"{path}: is damaged, the checksum of {part} is not that of its bytes.")
    tensors = content.items() if isinstance(content, Mapping) else ()
    if not tensors or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors):
        raise ValueError(f"{path}: no plain state dict, which is tensors by their names.")
    return _with_present_names(content)


def load_weights(network: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load all weights of a network from a file, and return the network, which is changed in place.

    One that was exported, such as :class:`.onnx_network.OnnxNetwork`, has ``load_file`` and reads its file itself.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_weights` and :func:`fit_weights`.
    """
    if (load_file := getattr(network, "load_file", None)) is not None:
        load_file(path)
        return network
    return fit_weights(network, read_weights(path), source=path)


def load_initial_weights(
    network: nn.Module, weights: str | os.PathLike | None, *, leave_out: Sequence[str] = ()
) -> nn.Module:
    """Load the weights that a training starts from, but for some layers, and return the network, changed in place.

    Args:
        network: the network.
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
    content = read_weights(weights, purpose="initial weights") if is_file_name(weights) else _download(str(weights))
    return fit_weights(network, content, source=weights, leave_out=leave_out)


def load_stages(
    network: nn.Module, *, coarse_weights: str | os.PathLike | None, initial_weights: str | os.PathLike | None
) -> bool:
    """Load the two networks of a two-stage one, ``low_net`` and ``high_net``, from a file each, or from one of both.

    Args:
        network: a ``TwoStageSegmenter``; changed in place.
        coarse_weights: trained weights of stage 1; None leaves stage 1 as it is.
        initial_weights: weights of both stages; or those that stage 2 starts from, such as those of the same network
            trained at full resolution; None leaves it as it is. Where stage 2 has more input channels than the file (a
            conditioned one sees the stage-1 probability too), the weights of the additional ones start at zero.

    Returns:
        Whether ``initial_weights`` were of both stages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no plain state dict, or weights that do not fit; both files have a stage 1.
    """
    if initial_weights is not None and Path(initial_weights).is_file():
        content = read_weights(initial_weights)
        if any(key.startswith("high_net.") for key in content):
            if coarse_weights is not None:
                raise ValueError(
                    f"{initial_weights}: has both stages, and coarse_weights {coarse_weights} stage 1, too: give "
                    "--coarse_weights none to take both from the first."
                )
            fit_weights(network, content, source=initial_weights)
            return True
    for name, path in (("low_net", coarse_weights), ("high_net", initial_weights)):
        if path is None:
            continue
        part = network.get_submodule(name)
        weights = read_weights(path, purpose=f"weights for {name}")
        if name == "high_net":
            present = part.state_dict()
            weights = {key: _widened(value, present.get(key)) for key, value in weights.items()}
        fit_weights(part, weights, source=path, part=name)
    return False


def fit_weights(
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    *,
    source: str | os.PathLike,
    part: str = "the network",
    leave_out: Sequence[str] = (),
) -> nn.Module:
    """Put weights into a network that has the same names and shapes, and return it; change nothing if they differ.

    Args:
        network: changed in place.
        weights: state dict.
        source: file or name that they came from, for the message.
        part: what the network is, for the message.
        leave_out: names of layers that keep their own weights.

    Raises:
        ValueError: a name is missing or unknown, or a shape differs; the message counts them and names the first. A
            weight that learns is not finite, or another one is NaN. Or the network refuses them.
    """
    content = {name: value for name, value in weights.items() if not belongs_to(name, leave_out)}
    shapes = {name: value.shape for name, value in content.items()}
    expected = {name: value.shape for name, value in network.state_dict().items() if not belongs_to(name, leave_out)}
    misfits = sorted(name for name in expected.keys() | shapes.keys() if shapes.get(name) != expected.get(name))
    # Older files lack the counter of batches, and torch starts it at 0.
    misfits = [name for name in misfits if name in shapes or not name.endswith(".num_batches_tracked")]
    if misfits and (misfits := _not_adapted(network, content, misfits)):
        name = misfits[0]
        present = _text(shapes[name]) if name in shapes else "missing"
        wish = f"expected {_text(expected[name])}" if name in expected else "not expected"
        raise ValueError(
            f"{os.fspath(source)}: {len(misfits)} of {len(expected.keys() | shapes.keys())} weights do not fit {part}, "
            f"the first is {name} ({present}, {wish})."
        )
    learned = dict(network.named_parameters())
    for name, value in content.items():  # buffers may hold infinity on purpose, and NaN never
        if (~torch.isfinite(value) if name in learned else torch.isnan(value)).any():
            raise ValueError(f"{os.fspath(source)}: {name} is not finite, as after a training that diverged.")
    try:
        # What is not strict about it was checked above. The encoders of smp override load_state_dict.
        nn.Module.load_state_dict(network, content, strict=False)
    except ValueError as error:  # a network may refuse weights of other settings
        raise ValueError(f"{os.fspath(source)}: {error}") from error
    return network


def belongs_to(name: str, layers: Sequence[str]) -> bool:
    """Whether the parameter or layer ``name`` is one of ``layers`` or inside one of them."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def _not_adapted(network: nn.Module, weights: Mapping[str, torch.Tensor], misfits: list[str]) -> list[str]:
    """Return the misfits that the network does not mend at loading, as TransUNet mends its position embedding."""
    trial = copy.deepcopy(network).to("meta")  # so that the network itself is not half loaded
    refused = ""
    try:
        with warnings.catch_warnings():
            # Of a counter that an older file lacks, which torch fills in.
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
            nn.Module.load_state_dict(trial, {name: value.to("meta") for name, value in weights.items()}, strict=False)
    except RuntimeError as error:
        refused = str(error)
    names = network.state_dict().keys() & weights.keys()
    return [name for name in misfits if name not in names or f"size mismatch for {name}:" in refused]


def _what_it_is(path: Path) -> str | None:
    """Say what a file is that is no file of weights at first sight; None for all others."""
    with path.open("rb") as stream:
        start = stream.read(64)
    size = path.stat().st_size
    if not size:
        return "is empty; copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the weights, which git lfs pull brings"
    if start.lstrip().lower().startswith(_WEB_PAGES):
        return "is a web page and not the weights, as a download that asks for a log-in leaves it"
    is_zip = start.startswith(b"PK\x03\x04")
    is_cut = is_zip and not zipfile.is_zipfile(path)
    if is_zip and not is_cut and _unpacked_size(path) > 2 * size:
        return "is a compressed archive, as torch.save writes none: unpacked it is more than twice as large"
    if path.suffix == ".safetensors":
        is_cut = size < _size_of_safetensors(path)
    return "is truncated: its end is missing; copy or download it again" if is_cut else None


def _unpacked_size(path: Path) -> int:
    """Sum up in bytes the parts of a zip archive as they are unpacked; 0 where it has no table of them."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        return 0  # what is wrong with it, its reader says


def _size_of_safetensors(path: Path) -> int:
    """Read the size in bytes that a .safetensors file ought to have: of its length, its header and its tensors."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length >= path.stat().st_size:
            return 8 + length
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return 0  # what else is wrong with it, its reader says
    return 8 + length + max(ends, default=0)


def _damaged_part(path: Path) -> str | None:
    """Name the first part of an archive of ``torch.save`` whose checksum is wrong; None for another kind of file."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _download(weights: str) -> dict[str, torch.Tensor]:
    try:
        published = get_weight(weights)
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"initial_weights is {weights!r}: neither a file nor weights of torchvision.") from error
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


def _widened(value: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Widen weights (out, in, ...) by zeros for the input channels that those of the network have beyond them."""
    if present is None or value.ndim < 4 or value.shape[1] >= present.shape[1]:
        return value
    more = present.shape[1] - value.shape[1]
    return torch.cat([value, value.new_zeros(value.shape[0], more, *value.shape[2:])], dim=1)


def _text(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "a number"
