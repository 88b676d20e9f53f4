"""A Cascade Mask R-CNN as an ONNX file: what it finds, for one image of any size; the label map is drawn outside."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import onnx
import torch
from torch import nn
from torchvision.ops import poolers

from clinbundles.nets.cascade_mask_rcnn.detector import CascadeDetector
from clinbundles.nets.cascade_mask_rcnn.network import CascadeMaskRCNN
from clinbundles.nets.cascade_mask_rcnn.onnx_cascade import OnnxCascade


class Finder(nn.Module):
    """Boxes (K, 4), scores (K,) and masks (K, S, S) of one image (1, 3, H, W)."""

    def __init__(self, detector: CascadeDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what the detector finds."""
        (found,) = self.detector.detect(image)
        return tuple(found[name] for name in OnnxCascade.outputs)


def network_entry(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a config that runs the exported network, from the ``network_def`` of what it is made of."""
    options = {name: value for name, value in definition.items() if name != "_target_"}
    return {
        "_target_": f"{OnnxCascade.__module__}.{OnnxCascade.__name__}",
        "label_score_threshold": options.pop("label_score_threshold"),
        "options": options,
    }


def cascade_as_onnx(network: CascadeMaskRCNN, image: torch.Tensor, options: Mapping[str, Any]) -> bytes:
    """Write a network as an ONNX file for one image (1, 3, H, W), by tracing it on one in which it finds something.

    Args:
        network: with its weights, to evaluate.
        image: (1, 3, H, W).
        options: that the network was made with, which the file keeps.
    """
    stream = io.BytesIO()
    names = OnnxCascade.outputs
    axes = {"image": {2: "height", 3: "width"}, **{name: {0: "found"} for name in names}}
    with warnings.catch_warnings(), mock.patch.object(poolers, "_onnx_merge_levels", _in_order), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, of what it deprecates in itself
        # By torch.export the number of boxes would have to be known.
        torch.onnx.export(
            Finder(network.__prepare_scriptable__()).eval(), (image,),
            stream,  # type: ignore[arg-type]
            dynamo=False, opset_version=18,
            input_names=["image"], output_names=list(names), dynamic_axes=axes,
        )  # fmt: skip
    model = onnx.load_from_string(stream.getvalue())
    content = {"options": dict(options), "label_score_threshold": network.label_score_threshold}
    onnx.helper.set_model_props(model, {"cascade": json.dumps(content)})
    return model.SerializeToString(deterministic=True)


def largest_difference(exported: OnnxCascade, network: CascadeMaskRCNN, images: Sequence[torch.Tensor]) -> float:
    """Return the largest difference of a score on images (1, 3, H, W), or infinity where a label map is another one."""
    differences = []
    for image in images:
        same = torch.equal(exported(image), network(image))
        mine, other = exported.detections[0]["scores"], network.detections[0]["scores"]
        differences.append(float((mine - other).abs().max()) if same and len(mine) == len(other) > 0 else float("inf"))
    return max(differences)


def _in_order(levels: torch.Tensor, results: list[torch.Tensor]) -> torch.Tensor:
    """Bring the pooled boxes of each level of the pyramid back in the order of the boxes, by one gather.

    torchvision scatters them when it is traced, which takes ONNX Runtime longer than all else of the network.
    """
    order = torch.cat([torch.where(levels == level)[0] for level in range(len(results))])
    return torch.cat(results)[order.argsort()]
