"""Grids of generated images, written while a generator learns."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Trainer
from PIL import Image

from ...nets.datasetgan.generator import Generator
from .files import replacing


def as_bytes(images: torch.Tensor) -> np.ndarray:
    """Turn images (N, C, H, W) of -1 to 1 into uint8 (N, H, W, C), clipped; 0 is 128 less a half, rounded down."""
    values = (images.detach().float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return values.permute(0, 2, 3, 1).cpu().numpy()


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images (N, H, W, C) out in rows of ``columns``; what is left of the last row stays black."""
    n, height, width, channels = images.shape
    rows = math.ceil(n / columns)
    canvas = np.zeros((rows * columns, height, width, channels), dtype=images.dtype)
    canvas[:n] = images
    grid = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


class SampleGrid:
    """Write a grid of images of the same latents every few epochs, to ``overlays/kimg_<images seen>.png``.

    Args:
        output_dir: folder of the run.
        generator: makes the images, the averaged one of the training.
        interval: in epochs; the last epoch has a grid too.
        rows: of the grid, which is square.
    """

    def __init__(self, output_dir: str | os.PathLike, generator: Generator, *, interval: int, rows: int = 8) -> None:
        self.folder = Path(output_dir) / "overlays"
        self.generator = generator
        self.interval = interval
        self.rows = rows

    def attach(self, engine: Trainer) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    @torch.no_grad()
    def write(self, engine: Trainer) -> None:
        """Write the grid of the epoch, if it is one of those."""
        epoch, last = engine.state.epoch, engine.state.max_epochs
        if epoch % self.interval and epoch != last:
            return
        device = next(self.generator.parameters()).device
        # Of its own generator: the training's random numbers stay as they are.
        z = torch.randn(self.rows**2, self.generator.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
        images = torch.cat([self.generator(part, noise="const") for part in z.split(16)])
        grid = tile(as_bytes(images), self.rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"kimg_{engine.state.metrics['kimg']:08.3f}.png"
        with replacing(path) as partial:
            Image.fromarray(grid.squeeze(-1) if grid.shape[-1] == 1 else grid).save(partial, format="PNG")
