"""Training data of a style interpreter: the features of labelled generated images, pixel by pixel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from ...nets.datasetgan.generator import Generator
from ...nets.datasetgan.labelled_generator import StyleInterpreter, digest_of
from ...transforms.readers.slice_lists import check_n_labelled
from ...transforms.readers.slices import check_datalist, read_datalist, read_label_map


class LabelledFeatures:
    """Features of generated images that somebody has labelled, each map at its own size, and their label maps.

    Args:
        dataset_dir: folder that ``generate`` has written, with ``latents.npy`` and the label maps.
        datalist: its list; the items have ``latent``, the place among the latents, and ``label``.
        generator: made the images, weights loaded.
        class_names: of the classes, the background first.
        split: of the list.
        limit: use the first so many items; None for all.
        window_hu: Hounsfield units that are black and white; a list that says it has others is refused.

    Raises:
        FileNotFoundError: a label map, or ``latents.npy``, is missing.
        ValueError: the list is of another generator or of other classes, or has fewer items, a label map is of another
            size or with a value that is no class, or the latents are not those of the list.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike,
        datalist: str | os.PathLike,
        generator: Generator,
        class_names: Sequence[str],
        *,
        split: str = "training",
        limit: int | None = None,
        window_hu: Sequence[float] | None = None,
    ) -> None:
        check_datalist(datalist, class_names, window_hu)
        content = read_datalist(datalist)
        items = content.get(split, [])
        check_n_labelled(limit, len(items), datalist, split)
        items = items[:limit]
        if not items:
            raise ValueError(f"{datalist}: there is no item to learn from in its split {split!r}.")
        own, digest = digest_of(generator).hex(), content.get("generator_sha256")
        if digest is None:
            raise ValueError(f"{datalist}: does not say which generator made its slices (generator_sha256).")
        if digest != own:
            raise ValueError(
                f"{datalist}: its slices were made by the generator {digest[:12]}, and this is the generator "
                f"{own[:12]}: give the generator_weights that made them."
            )
        self.items = items
        self.labels = self._read_labels(Path(dataset_dir), class_names, generator.image_size)
        self.ws = self._read_latents(Path(dataset_dir) / "latents.npy", generator)
        self.features = self._make_features(generator)
        counts = torch.bincount(self.labels.flatten().long(), minlength=len(class_names)).tolist()
        shares = ", ".join(f"{name} {n / sum(counts):.1%}" for name, n in zip(class_names, counts, strict=True))
        by = content.get("labeller") or "an unknown labeller"
        print(f"{len(items)} images labelled by {by}: {self.labels.numel()} pixels, {shares}", flush=True)

    def _read_labels(self, folder: Path, class_names: Sequence[str], size: int) -> torch.Tensor:
        maps, empty = [], []
        for item in self.items:
            if not item.get("label"):
                raise ValueError(
                    f"{item['image']}: has no label map; clinbundles label-slices writes them into the list."
                )
            path = folder / item["label"]
            values = read_label_map(path, class_names)
            if values.shape != (size, size):
                raise ValueError(f"{path}: is {values.shape[1]}x{values.shape[0]} px, its image {size}x{size}.")
            if not values.any():
                empty.append(path.name)
            maps.append(values)
        if empty:
            print(f"{len(empty)} of {len(maps)} label maps hold background alone, the first is {empty[0]}", flush=True)
        return torch.from_numpy(np.stack(maps))

    def _read_latents(self, path: Path, generator: Generator) -> torch.Tensor:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; generate writes it beside its slices.")
        try:
            latents = np.load(path, mmap_mode="r", allow_pickle=False)
            ws = np.stack([latents[item["latent"]] for item in self.items])
        except (ValueError, OSError, EOFError, IndexError, KeyError) as error:
            raise ValueError(f"{path}: does not hold the latents of the list ({error}).") from error
        expected = (len(self.items), generator.n_ws, generator.w_dim)
        if ws.shape != expected or not np.isfinite(ws).all():
            raise ValueError(f"{path}: latents of shape {ws.shape}, expected finite ones of {expected}.")
        return torch.from_numpy(ws)

    @torch.no_grad()
    def _make_features(self, generator: Generator) -> list[torch.Tensor]:
        device = next(generator.parameters()).device
        parts = [generator.eval().synthesis_features(ws.to(device), noise="const")[1] for ws in self.ws.split(8)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]


class PixelBatches(Dataset):
    """Batches of pixels of labelled images: in an epoch each pixel comes once, in a random order.

    For a ``DataLoader`` without batching, shuffling and workers: the order is drawn with the first batch.

    Args:
        labelled: the images.
        batch_size: pixels in a batch; what does not fill the last one is left out of the epoch.

    Raises:
        ValueError: the images have fewer pixels.
    """

    def __init__(self, labelled: LabelledFeatures, batch_size: int) -> None:
        self.labelled = labelled
        self.batch_size = batch_size
        if batch_size < 2 or batch_size > labelled.labels.numel():
            raise ValueError(
                f"batch_size is {batch_size}, expected 2 to {labelled.labels.numel()}, the pixels there are."
            )

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self.labelled.labels.numel() // self.batch_size

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Give ``image``, number of image and of pixel, counted along the rows, (P, 2), and ``label`` (P,)."""
        if index == 0:
            self.order = torch.randperm(self.labelled.labels.numel())
        pixels = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        size = self.labelled.labels[0].numel()
        places = [pixels // size, pixels % size]
        return {"image": torch.stack(places, dim=1), "label": self.labelled.labels.flatten()[pixels].long()}


class PixelNetwork(nn.Module):
    """An interpreter as a network from pixels of labelled images to their classes.

    Args:
        interpreter: learns; it keeps which generator it learns from.
        labelled: the images.
        generator: made them.
    """

    def __init__(self, interpreter: StyleInterpreter, labelled: LabelledFeatures, generator: Generator) -> None:
        super().__init__()
        self.interpreter = interpreter
        self.labelled = labelled
        interpreter.belongs_to(generator)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Map number of image and of pixel, counted along the rows, (P, 2) to logits (M, P, K) of the M classifiers."""
        image, pixel = places.unbind(dim=1)
        return self.interpreter.classifier.forward_pixels(self.labelled.features, image, pixel)
