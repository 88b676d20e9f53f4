"""The network of a bundle as an ONNX file, compared with the network itself on the bundle's samples."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from clinbundles.nets.cascade_mask_rcnn.network import CascadeMaskRCNN
from clinbundles.nets.cascade_mask_rcnn.onnx_cascade import OnnxCascade
from clinbundles.nets.onnx_network import OnnxNetwork
from clinbundles.scripts.bars import say
from clinbundles.scripts.bundle import load_network, open_configs, read_configs
from clinbundles.scripts.pack.cascade import cascade_as_onnx, largest_difference, network_entry

# The overlay of a zip: the same inference, with the exported network.
CONFIG = "inference_onnx"
FILE = "models/exported.onnx"
TOLERANCE = 1e-4  # of a probability
N_SAMPLES = 4
Network = TypeVar("Network", bound=OnnxNetwork)


def overlay(folder: Path) -> dict[str, Any]:
    """Return the config that runs the exported network of a bundle."""
    definition = read_configs(folder, ["inference"])["network_def"]
    is_cascade = definition["_target_"].endswith(".cascade_mask_rcnn")
    return {
        "_desc_": f"clinbundles predict ZIP INPUTS OUTPUT --config {CONFIG}: inference by ONNX Runtime, on a CPU.",
        "extends": ["inference.json"],
        "ckpt_path": f"$@bundle_root + '/{FILE}'",
        "device": "$torch.device('cpu')",
        "network": network_entry(definition) if is_cascade else {"_target_": OnnxNetwork.__module__ + ".OnnxNetwork"},
    }


def export_onnx(folder: Path) -> tuple[bytes, float]:
    """Export the network of a bundle's inference.json, with its weights, for batches of any number of images.

    The size of the images is fixed: that of the samples behind the preprocessing of the config. A network that finds
    instances is exported for one image of any size.

    Returns:
        The file, and the largest difference of a probability from those of the network itself, on some samples.

    Raises:
        ValueError: the exported network differs by more than ``TOLERANCE``, or draws another label map.
    """
    name = folder.resolve().name
    say(f"{name}: running the network on samples")
    parser = open_configs(folder, ["inference"], device="cpu")
    with contextlib.redirect_stdout(io.StringIO()):  # the sentences of the weights
        network = load_network(parser)
    dataset, inferer = parser.get_parsed_content("dataset"), parser.get_parsed_content("inferer")
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = network.register_forward_hook(lambda _, images, result: calls.append((plain(images[0]), plain(result))))
    with torch.inference_mode():
        for number in range(min(N_SAMPLES, len(dataset))):
            inferer(dataset[number]["image"][None], network)
    hook.remove()
    say(f"{name}: exporting to ONNX, which takes seconds, or more on a busy machine")
    if isinstance(network, CascadeMaskRCNN):
        images = [image for image, _ in calls]
        options = {
            name: parser.get_parsed_content(f"network_def::{name}")
            for name in parser["network_def"]
            if name != "_target_"
        }
        content = cascade_as_onnx(network, images[0], options)
        say(f"{name}: comparing what was exported with the network itself")
        difference = largest_difference(opened(content, OnnxCascade()), network, images)
    else:
        content = as_onnx(network, calls[0][0][:1].clone())
        say(f"{name}: comparing what was exported with the network itself")
        exported = opened(content, OnnxNetwork())
        difference = max(float((probabilities(exported(x)) - probabilities(y)).abs().max()) for x, y in calls)
    if difference == float("inf"):
        raise ValueError(f"{folder.name}: the exported network draws another label map than the network itself.")
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{folder.name}: a probability of the exported network differs by {difference:.1e}, more than {TOLERANCE}."
        )
    return content, difference


def opened(content: bytes, network: Network) -> Network:
    """Have a network read an ONNX file from its bytes, and return it."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / Path(FILE).name
        path.write_bytes(content)
        network.load_file(path)
    return network


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Turn logits (B, C, ...) into probabilities: of the foreground for one channel, of classes for more."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def plain(image: torch.Tensor) -> torch.Tensor:
    """Drop meta data."""
    return image.as_subclass(torch.Tensor)


def as_onnx(network: nn.Module, image: torch.Tensor) -> bytes:
    """Write a network as an ONNX file for batches of images (B, C, *S) of the size of one (1, C, *S)."""
    # Two images, for a dimension of one would be taken for fixed.
    pair = torch.cat([image, image.flip(-1)])
    shapes = ({0: torch.export.Dim("batch")},)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of what it deprecates in itself
        program = torch.onnx.export(
            network.eval(), (pair,), dynamo=True, verbose=False, dynamic_shapes=shapes,
            input_names=["image"], output_names=["pred"],
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, model.graph, model):
        part.ClearField("metadata_props")  # lines of code with their folders on this machine
    return model.SerializeToString(deterministic=True)
