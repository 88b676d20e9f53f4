"""A Cascade Mask R-CNN that was exported to ONNX, in the place of the network that it was made of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from ..onnx_network import OnnxNetwork
from .instances import label_map


class OnnxCascade(OnnxNetwork):
    """Find instances by an ONNX file on a CPU, and draw their label map, as :class:`.network.CascadeMaskRCNN` does.

    The file finds the boxes, scores and masks of one image of any size. It carries the options of the network that it
    was made of, and the least score in the label map that the weights had chosen.

    Args:
        label_score_threshold: least score in the label map; None for that of the file.
        options: the other options of the network, which have to be those of the file.
    """

    outputs = ("boxes", "scores", "masks")

    def __init__(self, label_score_threshold: float | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.fixed_threshold = label_score_threshold
        self.options = dict(options or {})
        self.min_size: int | None = self.options.get("min_size")
        self.chosen_threshold = 0.5
        self.detections: list[dict[str, torch.Tensor]] = []

    @property
    def label_score_threshold(self) -> float:
        """The least score in the label map."""
        return self.chosen_threshold if self.fixed_threshold is None else self.fixed_threshold

    def load_file(self, path: str | os.PathLike) -> None:
        """Read the network from an ONNX file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no ONNX file of such a network, or was exported with another option.
        """
        super().load_file(path)
        assert self.session is not None
        content = json.loads(self.session.get_modelmeta().custom_metadata_map.get("cascade", "{}"))
        if not content:
            self.session = None
            raise ValueError(f"{path}: no exported network that finds instances: it does not carry its options.")
        for name, value in self.options.items():
            if content["options"].get(name) != json.loads(json.dumps(value)):
                self.session = None
                raise ValueError(
                    f"{path}: was exported with {name} {json.dumps(content['options'].get(name))}, which cannot become "
                    f"{json.dumps(value)}: leave the option out, or take the config inference."
                )
        self.chosen_threshold = content["label_score_threshold"]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the label maps int32 (B, 1, H, W) of images (B, 3, H, W), and keep ``detections``.

        Raises:
            ValueError: as :meth:`..onnx_network.OnnxNetwork.forward`.
        """
        found = [self.run(one) for one in image.split(1)]
        self.detections = [dict(zip(self.outputs, values, strict=True)) for values in found]
        size = (image.shape[2], image.shape[3])
        maps = [label_map(one, size, score_threshold=self.label_score_threshold) for one in self.detections]
        return torch.stack(maps)[:, None].to(image.device)
