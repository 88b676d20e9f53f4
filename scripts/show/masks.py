"""Where masks are right and wrong: those of one evaluation, or of several side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from monai.data import load_decathlon_datalist

from clinbundles.engines.outputs.files import distinct_stems
from clinbundles.engines.outputs.masks import stretched
from clinbundles.scripts.flags import as_parts, choose_names
from clinbundles.transforms.readers.images import BinaryMaskReader, RGBImageReader

from .drawing import draw_outcomes, legend_of_outcomes, save


def show_masks(
    masks: str,
    *,
    datalist: str,
    dataset_dir: str | None = None,
    split: str = "test",
    images: Any = None,
    names: Any = None,
    limit: int = 6,
    output: str = "masks.png",
) -> None:
    """Draw the masks of evaluations as hits, misses and false alarms, with the Dice of each image.

    Args:
        masks: folder of the masks of an evaluation; several, comma separated, stand side by side, a row an image,
            between the image and its label (figure 6 of the gaze paper).
        datalist: JSON datalist that was evaluated.
        dataset_dir: folder that its paths start from; the datalist's own if not given.
        split: which of its images.
        images: names of those to draw, without suffix, comma separated; the first ``limit`` if not given.
        names: what the folders are called in the picture, comma separated; their own names if not given.
        limit: how many images, in their order.
        output: picture to write.
    """
    folders = [Path(folder) for folder in as_parts(masks)]
    titles = as_parts(names) if names is not None else _names_of(folders)
    if len(titles) != len(folders):
        raise ValueError(f"names: {', '.join(titles)} are not as many as the {len(folders)} folders of masks.")
    root = Path(dataset_dir or Path(datalist).parent)
    items = load_decathlon_datalist(datalist, True, split, root)
    stems = distinct_stems([Path(item["image"]) for item in items])
    chosen = set(choose_names(images, [stems[Path(item["image"])] for item in items], "images"))
    shown = [item for item in items if stems[Path(item["image"])] in chosen][: len(items) if images else limit]
    for folder in folders:
        for item in shown:
            if not (file := folder / f"{stems[Path(item['image'])]}.png").is_file():
                raise FileNotFoundError(f"{file}: no such mask of {Path(item['image']).name}.")
    alone = len(folders) == 1
    columns = min(3, len(shown)) if alone else len(folders) + 2
    rows = math.ceil(len(shown) / columns) if alone else len(shown)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 3.6 * rows + 0.8), squeeze=False, layout="constrained"
    )
    scores: list[list[float]] = [[] for _ in folders]
    for k, item in enumerate(shown):
        path = Path(item["image"])
        pixels = np.asarray(RGBImageReader().read(path))
        truth = stretched(BinaryMaskReader().read(item["label"]), pixels.shape[:2])
        places = [axes.flat[k]] if alone else axes[k, 1:-1]
        for axis, folder, title, of_folder in zip(places, folders, titles, scores, strict=True):
            mask = stretched(BinaryMaskReader().read(folder / f"{stems[path]}.png"), pixels.shape[:2])
            name = path.stem if alone else title
            of_folder.append(draw_outcomes(axis, pixels, mask, truth, name=name, legend=False))
        if not alone:
            axes[k, 0].imshow(pixels)
            axes[k, 0].set_title(path.stem)
            axes[k, -1].imshow(truth, cmap="gray", vmin=0, vmax=1)
            axes[k, -1].set_title("label")
    for axis in axes.flat:
        axis.axis("off")
    figure.legend(handles=legend_of_outcomes(), loc="outside lower center", ncol=3, frameon=False)
    means = [f"{np.mean(of_folder):.3f}" for of_folder in scores]
    dice = means[0] if alone else ", ".join(f"{title} {mean}" for title, mean in zip(titles, means, strict=True))
    figure.suptitle(f"{len(shown)} of {len(items)} {split} images, mean Dice at their own size {dice}")
    save(figure, output)


def _names_of(folders: Sequence[Path]) -> list[str]:
    """The part of each path that tells it from the others, such as the cell of a grid."""
    parts = [folder.resolve().parts for folder in folders]
    for k in range(1, min(map(len, parts)) + 1):
        if len({part[-k] for part in parts}) == len(parts):
            return [part[-k] for part in parts]
    return [str(folder) for folder in folders]
