"""Real slices that a generator is to make again, and the labelled data set that comes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch.utils.data import Dataset

from ...nets.datasetgan.labelled_generator import digest_of
from ...nets.datasetgan.latent_projection import LatentRenderer
from ..outputs.files import check_replaceable, replacing, write_atomically
from ..outputs.sample_grid import as_bytes, tile

GRID_COLUMNS = 10
NAME = "projected slices"


class ProjectionTargets(Dataset):
    """Real slices with label maps, read once: an item is its number as ``image`` and the slice as ``label``.

    Args:
        items: ``image`` and ``label`` each, paths.
        transform: reads them, as (C, H, W, 1) of -1 to 1 and of classes.
        image_size: side in px of the generator's images.

    Raises:
        ValueError: there is no slice, or one has another size.
    """

    def __init__(
        self, items: Sequence[Mapping[str, Any]], transform: Callable[[Mapping[str, Any]], Any], image_size: int
    ) -> None:
        self.items = list(items)
        if not self.items:
            raise ValueError("n_labelled is 0: there is no slice to project.")
        read = [transform(item) for item in self.items]
        self.images = torch.stack([torch.as_tensor(item["image"])[..., 0].float() for item in read])
        self.labels = torch.stack([torch.as_tensor(item["label"])[0, ..., 0].to(torch.uint8) for item in read])
        if self.images.shape[-2:] != (image_size, image_size):
            raise ValueError(f"slices of {tuple(self.images.shape[-2:])} px for a generator of {image_size} px.")

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Give number and slice."""
        return {"image": torch.tensor(index), "label": self.images[index]}


class ProjectedSetWriter:
    """Write the projected slices as a data set that an interpreter learns from, once the latents have been found.

    ``images/<k>.png`` as the generator makes them, ``labels/<k>.png`` the label maps of the real slices,
    ``latents.npy`` (N, n_ws, w_dim), ``datalist.json`` whose items have ``error``, the root mean square difference to
    the real slice, of a grey range of 1, and ``projection.png``: real slices, below each what the generator makes.

    Args:
        output_dir: the folder.
        targets: the real slices.
        renderer: with the latents.
        datalist: of the real slices: classes and labeller are taken over.

    Raises:
        ValueError: the folder has another data set.
    """

    def __init__(
        self, output_dir: str | os.PathLike, targets: ProjectionTargets, renderer: LatentRenderer, datalist: str
    ) -> None:
        self.folder = Path(output_dir)
        self.targets = targets
        self.renderer = renderer
        self.datalist = datalist

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def check(self, engine: Engine) -> None:
        """Refuse a folder with another data set."""
        check_replaceable(self.folder / "datalist.json", NAME)

    @torch.no_grad()
    def write(self, engine: Engine) -> None:
        """Write all of it."""
        device = self.renderer.spread.device
        numbers = torch.arange(len(self.targets), device=device)
        made = torch.cat([self.renderer(part)["image"].cpu() for part in numbers.split(16)]).clamp(-1, 1)
        errors = ((made - self.targets.images) / 2).square().mean(dim=(1, 2, 3)).sqrt().tolist()
        for name in ("images", "labels"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        source = json.loads(Path(self.datalist).read_text(encoding="utf-8"))
        facts = {key: source[key] for key in ("labels", "labeller", "licence", "window_hu") if key in source}
        items = []
        for k, (item, error) in enumerate(zip(self.targets.items, errors, strict=True)):
            names = {"image": f"images/{k:06d}.png", "label": f"labels/{k:06d}.png"}
            self._save(as_bytes(made[k : k + 1])[0].squeeze(-1), names["image"])
            self._save(self.targets.labels[k].numpy(), names["label"])
            real = Path(item["image"]).name
            items.append({**names, "latent": k, "error": round(error, 5), "real": real, "group": item.get("group")})
        with replacing(self.folder / "latents.npy") as partial, partial.open("wb") as stream:
            np.save(stream, self.renderer.ws(numbers).cpu().numpy())
        grid = np.concatenate([as_bytes(self.targets.images), as_bytes(made)], axis=1)
        self._save(tile(grid, GRID_COLUMNS).squeeze(-1), "projection.png")
        content = {
            "name": NAME,
            **facts,
            "tensorImageSize": "2D",
            "generator_sha256": digest_of(self.renderer.generator).hex(),
            "training": items,
        }
        write_atomically(self.folder / "datalist.json", json.dumps(content, indent=1) + "\n")
        print(
            f"{len(items)} slices were projected: root mean square error {np.mean(errors):.4f} of the grey range, "
            f"{max(errors):.4f} at most",
            flush=True,
        )

    def _save(self, pixels: np.ndarray, name: str) -> None:
        with replacing(self.folder / name) as partial:
            Image.fromarray(pixels).save(partial, format="PNG")
