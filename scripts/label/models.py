"""A bundle as a server uses it: its network with the newest weights, applied to one image after the other.

Nothing here knows MONAI Label. What a bundle's result is, its writer of results says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from monai.data import decollate_batch, list_data_collate

from clinbundles.engines.metrics.instances import detections_of
from clinbundles.engines.outputs.colors import CELLS, PREDICTION, class_colors
from clinbundles.engines.outputs.instances import as_geojson, measure_cells
from clinbundles.engines.outputs.label_maps import as_pictures
from clinbundles.scripts.bundle import load_network, open_configs, read_configs
from clinbundles.transforms.readers.slices import is_volume

from .uncertainty import committee_uncertainty, uncertainty_of

# What a bundle's result is, by the class that writes it.
KINDS = {
    "PredictionWriter": "mask",
    "LabelMapWriter": "label map",
    "InstanceWriter": "instances",
    "ClassTableWriter": "classes",
}
SHIPPED, TRAINED = "model.pt", "trained.pt"


@dataclass
class Result:
    """What a bundle makes of one image.

    Attributes:
        uncertainty: from 0, sure, to 1; of a committee in nats.
        pixels: values, uint8 or uint16, rows before columns (H, W), or of a volume (x, y, z); None of classes.
        affine: (4, 4) of a volume, else None.
        scores: probability of each class, by name, of a classification.
        outlines: GeoJSON of cells.
    """

    uncertainty: float
    pixels: np.ndarray | None = None
    affine: np.ndarray | None = None
    scores: dict[str, float] = field(default_factory=dict)
    outlines: dict[str, Any] | None = None


class ServedBundle:
    """A bundle whose network is made when the first image comes, and anew when other weights are asked for.

    Args:
        folder: of the bundle; its ``models`` has the shipped weights, and trained ones beside them.

    Raises:
        ValueError: its results are of a kind that no server shows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        config = read_configs(folder, ["inference"])
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        writer = str(config.get("writer", {}).get("_target_", "")).rpartition(".")[2]
        if writer not in KINDS:
            raise ValueError(f"{self.name}: its results are written by {writer or 'nothing'}, which is not served.")
        self.kind = KINDS[writer]
        self.description = str(metadata.get("description", ""))
        self.version = str(metadata.get("version", ""))
        channels = next(iter(metadata["network_data_format"]["outputs"].values()))["channel_def"]
        self.class_names = config.get("class_names") or [channels[key] for key in sorted(channels, key=int)]
        self._opened: dict[tuple[str, int], _Opened] = {}
        self._lock = Lock()  # a network keeps the detections of one call at a time

    @property
    def labels(self) -> dict[str, int]:
        """The values of a mask by the names of what they stand for, without the background, which is 0."""
        if self.kind == "instances":
            return {"cell": 1}
        first = 0 if self.kind == "classes" else 1
        names = self.class_names if self.kind != "label map" else self.class_names[1:]
        return {name: number for number, name in enumerate(names, start=first)}

    @property
    def label_colors(self) -> dict[str, list[int]]:
        """The colour that each name of a mask has in the bundle's overlays; classes of whole images have none."""
        if self.kind == "classes":
            return {}
        masks = {"mask": (PREDICTION,), "instances": CELLS[:1]}
        colors = masks.get(self.kind) or class_colors(len(self.labels))
        return {name: list(color) for name, color in zip(self.labels, colors, strict=True)}

    def weights_names(self) -> list[str]:
        """List the weights that can be asked for, the newest first: trained here, then shipped."""
        return [name for name in (TRAINED, SHIPPED) if (self.folder / "models" / name).is_file()]

    def weights(self, name: str | None = None) -> Path:
        """Return the file of weights by name, for None the newest.

        Raises:
            ValueError: there are no such weights.
        """
        names = self.weights_names()
        if name is not None and name not in names:
            raise ValueError(f"{self.name} has no weights {name!r}: there are {', '.join(names)}.")
        return self.folder / "models" / (name or names[0])

    def infer(self, path: str | Path, weights: str | None = None) -> Result:
        """Apply the bundle to an image file, or to the folder of a DICOM series.

        Raises:
            FileNotFoundError, ValueError: the image or the weights cannot be read.
        """
        with self._lock:
            opened = self._open(self.weights(weights))
            item, uncertainty = opened.apply(Path(path))
            result = self._result(item, opened, Path(path))
        result.uncertainty = uncertainty
        return result

    def uncertainty(self, path: str | Path) -> float:
        """Return how unsure the bundle is of an image: for label maps, how far its weights differ, if there are two."""
        names = self.weights_names()
        with self._lock:
            if self.kind != "label map" or len(names) == 1:
                return self._open(self.weights()).apply(Path(path))[1]
            maps = [self._open(self.weights(name)).probabilities(Path(path)) for name in names]
        return committee_uncertainty(maps)

    def _open(self, weights: Path) -> _Opened:
        key = (weights.name, weights.stat().st_mtime_ns)
        if key not in self._opened:
            self._opened = {other: opened for other, opened in self._opened.items() if other[0] != weights.name}
            self._opened[key] = _Opened(self.folder, weights)
        return self._opened[key]

    def _result(self, item: dict[str, Any], opened: _Opened, path: Path) -> Result:
        pred = torch.as_tensor(item["pred"]).detach().cpu().numpy()
        if self.kind == "classes":
            return Result(0, scores=dict(zip(self.class_names, map(float, pred), strict=True)))
        if self.kind == "instances":
            labels = pred[0].astype(np.int64)
            if labels.max(initial=0) >= 2**16:
                raise ValueError(f"{path}: {labels.max()} cells are more than the numbers of a label map.")
            scores, _ = detections_of(labels, opened.network.detections[0])
            cells = list(measure_cells(labels, scores, None))
            return Result(0, pixels=labels.astype(np.uint16), outlines=as_geojson(labels, cells, path.name))
        if self.kind == "mask":
            return Result(0, pixels=(pred[0] > 0.5).astype(np.uint8))
        affine = np.asarray(getattr(item["pred"], "affine", np.eye(4)), dtype=np.float64)
        classes = pred[0].astype(np.uint8)
        if is_volume(path):
            return Result(0, pixels=classes, affine=affine)
        return Result(0, pixels=as_pictures(classes, affine)[0])


class _Opened:
    """The parts of a bundle's inference with one file of weights."""

    def __init__(self, folder: Path, weights: Path) -> None:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))  # where a packed bundle has its code, below its own name
        parser = open_configs(folder, ["inference"], ckpt_path=str(weights))
        self.device = torch.device(parser.get_parsed_content("device"))
        self.network: Any = load_network(parser).to(self.device)
        self.preprocessing: Callable = parser.get_parsed_content("preprocessing")
        self.inferer: Callable = parser.get_parsed_content("inferer")
        has_more = "postprocessing" in parser
        self.postprocessing: Callable = parser.get_parsed_content("postprocessing") if has_more else dict

    def logits(self, path: Path) -> tuple[dict[str, Any], torch.Tensor]:
        """Give the image of a file, as a batch of one, and what the network says of it."""
        batch = list_data_collate([self.preprocessing({"image": str(path)})])
        batch["image"] = batch["image"].to(self.device)
        with torch.no_grad():
            return batch, self.inferer(batch["image"], self.network)

    def probabilities(self, path: Path) -> torch.Tensor:
        """Give the probabilities of all classes (1, K, ...) that the network sees in an image."""
        return torch.softmax(torch.as_tensor(self.logits(path)[1]).float(), dim=1)

    def apply(self, path: Path) -> tuple[dict[str, Any], float]:
        """Give the item of an image with its postprocessed prediction, and how unsure the network is."""
        batch, pred = self.logits(path)
        uncertainty = uncertainty_of(self.network, batch["image"], pred)
        (item,) = decollate_batch({"image": batch["image"], "pred": pred})
        return self.postprocessing(item), uncertainty


def open_bundles(folders: Sequence[str | Path]) -> dict[str, ServedBundle]:
    """Open bundles, by their names."""
    return {(folder := Path(path)).name: ServedBundle(folder) for path in folders}


def annotation_of(outlines: Mapping[str, Any]) -> dict[str, Any]:
    """Give GeoJSON of cells as the annotation that clients of MONAI Label draw: outer rings in px, (x, y)."""
    contours = []
    for feature in outlines["features"]:
        shape = feature["geometry"]
        parts = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        contours += [part[0] for part in parts]
    return {"elements": [{"label": "cell", "contours": contours}], "labels": {"cell": list(CELLS[0])}}
