"""Pictures of where in an image a classifier sees its class, written while an evaluator runs."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib import colormaps
from matplotlib.figure import Figure
from monai.data import ImageReader
from monai.utils import CommonKeys, convert_to_tensor
from torch import nn
from torch.nn import functional as F

from .claim import claim_folder, claim_run
from .files import distinct_stems, input_file, input_files, replacing

COLOR_MAP = "jet"
STRENGTH = 0.5


def blend_heat(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map in colour over a grey image, the more opaque the higher it is: where it is 0 the image stays.

    Args:
        grey: uint8 (H, W).
        heat: (h, w) from 0 to 1, stretched to the image.

    Returns:
        RGB uint8 (H, W, 3).
    """
    heat_tensor = torch.from_numpy(np.ascontiguousarray(heat, dtype=np.float32))[None, None]
    large = F.interpolate(heat_tensor, size=grey.shape, mode="bilinear", align_corners=False)[0, 0].clamp(0, 1).numpy()
    opacity = STRENGTH * large[..., None]
    blend = (1 - opacity) * grey[..., None] + opacity * 255 * colormaps[COLOR_MAP](large)[..., :3]
    return np.rint(blend).astype(np.uint8)


class GradCamWriter:
    """Write a picture ``overlays/<stem>.png`` of what speaks for the predicted class of every image.

    It shows the image, and beside it the map in colour from blue (little) to red (most); class and
    probability stand above. A file that could not be read has none.

    The map is scaled by its own highest value. It is computed on a copy of the network, which has the network's weights
    at the beginning of the epoch: the hooks, gradients and switches that it needs are not left on the network itself.
    Of images with the same stem each picture is named by more of the path, as :func:`.files.distinct_stems` does.

    Args:
        output_dir: folder of ``overlays``.
        network: gives logits (B, num_classes) of images (B, C, H, W), as the evaluator calls it.
        target_layer: name of the layer whose activations (B, C, h, w) are weighted, as ``named_modules`` has it; as a
            rule the last with height and width.
        class_names: names of the classes, by index.
        reader: reads an image file again, uint8 (H, W), for the picture.
        pred_key: key of the probabilities (num_classes,) of an item.

    Raises:
        ValueError: ``network`` has no ``target_layer``; while running, a layer without height and width or
            called more than once (as a ReLU may be), or a prediction of another number of classes.

    Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, eq. 1-2.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        network: nn.Module,
        target_layer: str,
        class_names: Sequence[str],
        reader: ImageReader,
        *,
        pred_key: str = "pred",
    ) -> None:
        if not target_layer or target_layer not in dict(network.named_modules()):
            layers = ", ".join(name for name, _ in network.named_children())
            raise ValueError(
                f"target_layer is {target_layer!r}, which the network does not have; it has {layers}: name one by "
                "--cam_layer, or draw none by --overlays false."
            )
        self.folder = Path(output_dir) / "overlays"
        self.network = network
        self.target_layer = target_layer
        self.class_names = list(class_names)
        self.reader = reader
        self.pred_key = pred_key
        # Copied now, before handlers hang their hooks on it.
        self._copy = copy.deepcopy(network).requires_grad_(False).eval()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_batch)

    def start(self, engine: Engine) -> None:
        """Take over the network's weights."""
        self._copy.load_state_dict(self.network.state_dict())
        files = input_files(engine)
        claim_run(self.folder.parent, engine)
        self._stems = distinct_stems(files)
        claim_folder(self.folder, [f"{stem}.png" for stem in self._stems.values()])

    def write_batch(self, engine: Engine) -> None:
        """Write the pictures of the batch just done."""
        batch: Any = engine.state.batch  # lists of items: MONAI evaluators decollate
        output: Any = engine.state.output
        for entries, results in zip(batch, output, strict=True):
            item = {**entries, **results}
            if not item.get("failure"):
                self._write_one(item)

    def _write_one(self, item: dict[str, Any]) -> None:
        path = input_file(item)
        probabilities = item[self.pred_key]
        if probabilities.numel() != len(self.class_names):
            raise ValueError(f"{path}: {probabilities.numel()} probabilities for {len(self.class_names)} classes.")
        best = int(probabilities.argmax())
        heat = self.heat_map(item[CommonKeys.IMAGE], best)
        title = f"{self.class_names[best]}: {float(probabilities[best]):.1%}"
        self._draw(np.asarray(self.reader.read(path)), heat, title, self.folder / f"{self._stems[path]}.png")

    def heat_map(self, image: torch.Tensor, class_index: int) -> np.ndarray:
        """Map what speaks for a class in an image (C, H, W): (h, w) as the layer has it, from 0 to 1.

        Raises:
            ValueError: the layer's output has no height and width, or the layer is not called once an image.
        """
        outputs: list[torch.Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            outputs.append(output)
            return output.clone()  # the next layer may overwrite what it is given, as DenseNet's does

        handle = self._copy.get_submodule(self.target_layer).register_forward_hook(keep)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                plain = convert_to_tensor(image, track_meta=False)[None].to(next(self._copy.parameters()).device)
                # A clone, because the image may be one of inference mode; its gradient, because no weight has any.
                score = self._copy(plain.detach().clone().requires_grad_())[0, class_index]
                features = self._only(outputs)
                (gradient,) = torch.autograd.grad(score, features)
        finally:
            handle.remove()
        features, gradient = (_channels_first(x[0].detach(), image.shape[-2:]) for x in (features, gradient))
        values = (gradient.mean(dim=(1, 2), keepdim=True) * features).sum(dim=0).relu().float().cpu().numpy()
        return values / values.max() if values.max() > 0 else values

    def _only(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the one output of the layer (1, C, h, w), or with its channels last."""
        if len(outputs) != 1:
            raise ValueError(f"target_layer {self.target_layer!r} is called {len(outputs)} times an image, not once.")
        if getattr(outputs[0], "ndim", 0) != 4:
            raise ValueError(f"target_layer {self.target_layer!r} has no height and width: take an earlier one.")
        return outputs[0]

    def _draw(self, grey: np.ndarray, heat: np.ndarray, title: str, path: Path) -> None:
        height = 5.0 * min(2.0, max(0.5, grey.shape[0] / grey.shape[1]))
        figure = Figure(figsize=(10, height + 0.5), layout="constrained")
        figure.suptitle(title)
        for axes, pixels in zip(figure.subplots(1, 2), (grey, blend_heat(grey, heat)), strict=True):
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=100)


def _channels_first(features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bring features of an image of a size (H, W) to (C, h, w), also those that lie as (h, w, C), as Swin's do."""
    first, second, third = features.shape
    height, width = size
    is_first = round(second * width / height) == third  # the sides of a map are as those of its image
    is_last = round(first * width / height) == second
    return features.permute(2, 0, 1) if is_last and not is_first else features
