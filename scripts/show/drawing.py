"""What several pictures share: masks as hits, misses and false alarms, and a figure written whole."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from clinbundles.engines.outputs.colors import OUTCOMES, PREDICTION
from clinbundles.engines.outputs.files import replacing
from clinbundles.engines.outputs.masks import color_outcomes, draw_contour


def draw_outcomes(
    axis: Axes, image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None, *, name: str, legend: bool = True
) -> float:
    """Colour an image's hits, misses and false alarms, and put the Dice into the title.

    Args:
        axis: where to draw.
        image: uint8 (H, W, 3).
        mask: bool (H, W), the prediction.
        truth: bool (H, W); None draws the prediction alone.
        name: what the picture shows.
        legend: name the colours.

    Returns:
        The Dice; 1 where both masks are empty, NaN without a truth.
    """
    if truth is None:
        axis.imshow(draw_contour(image, mask, PREDICTION))
        axis.set_title(f"{name}: the mask")
        return math.nan
    axis.imshow(color_outcomes(image, mask, truth))
    total = int(mask.sum() + truth.sum())
    dice = 2 * int((mask & truth).sum()) / total if total else 1.0
    axis.set_title(f"{name}: Dice {dice:.3f}")
    if legend:
        axis.legend(handles=legend_of_outcomes(), loc="lower right", fontsize=8)
    return dice


def legend_of_outcomes() -> list[Patch]:
    """Name the colours."""
    return [Patch(color=(r / 255, g / 255, b / 255), label=name) for name, (r, g, b) in OUTCOMES.items()]


def save(figure: Figure, output: str) -> None:
    """Write a figure whole or not at all, in the format of its file's suffix, and say where."""
    with replacing(Path(output)) as partial:
        figure.savefig(partial, format=Path(output).suffix[1:] or "png", dpi=80)
    plt.close(figure)
    print(output)
