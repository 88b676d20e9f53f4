"""What an audit for copies shows: the similarity of pairs, a picture of the closest ones, and a few sentences."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from monai.metrics import SSIMMetric

from clinbundles.engines.metrics.copies import aligned
from clinbundles.scripts.generated_images import ImageList

N_PAIRS = 10


def similarity(
    image: torch.Tensor, training: torch.Tensor, indices: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Compute the SSIM of an image (C, H, H) with some training images (M, C, H, H) that it is laid over.

    Args:
        image: in -1 to 1.
        training: in -1 to 1.
        indices: (K,) of the training images.
        places: (K,) in which orientation and shift.

    Returns:
        (K,) of MONAI's SSIM, a Gaussian window of 11 px.
    """
    pairs = [aligned(image, training[i], place) for i, place in zip(indices.tolist(), places.tolist(), strict=True)]
    images, others = (torch.stack(list(side)) for side in zip(*pairs, strict=True))
    values: Any = SSIMMetric(spatial_dims=2, data_range=2.0)(images, others)
    return values.reshape(-1)


def order_closest(rows: list[dict[str, Any]], name: str, *, count: int = N_PAIRS) -> list[tuple[int, dict[str, Any]]]:
    """The rows with the smallest distances, with their numbers."""
    return sorted(enumerate(rows), key=lambda pair: pair[1][f"{name}_distance"])[:count]


def draw_pairs(
    pairs: list[tuple[int, dict[str, Any]]], made: ImageList, training: torch.Tensor, names: list[str], verdict: str
) -> Figure:
    """Draw pairs of a generated image and its nearest training image, the generated one turned as it was compared."""
    figure = Figure(figsize=(1.5 * len(pairs), 3.7), layout="constrained")
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for column, (number, row) in enumerate(pairs):
        image, index = made.read(number, number + 1)[0], row[f"{verdict}_index"]
        place = row["place"] if verdict == "pixels" else 0
        shown = aligned(image, training[index], place)
        for axis, picture in zip(axes[:, column], shown, strict=True):
            grey = picture.shape[0] == 1
            values = (picture[0] if grey else picture.permute(1, 2, 0)) / 2 + 0.5
            axis.imshow(values.clamp(0, 1).numpy(), cmap="gray" if grey else None, vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        mark = "COPY" if row["copy"] else "no copy"
        axes[0, column].set_title(f"{mark}\n{row[f'{verdict}_distance']:.3f}", fontsize=8)
        axes[1, column].set_xlabel(f"SSIM {row['ssim']:.2f}", fontsize=8)
    axes[0, 0].set_ylabel("generated", fontsize=8)
    axes[1, 0].set_ylabel("nearest training image", fontsize=8)
    return figure


def say(summary: dict[str, Any]) -> str:
    """Say in lines what an audit found."""
    lines = []
    for name, each in summary["distances"].items():
        when = ", ".join(f"{found} ({words})" for words, found in each["control"]["found_when"].items())
        lines.append(
            f"{name}: a copy is nearer than {each['threshold']:.4f}, {each['meaning']}.\n"
            f"  of {summary['planted']} planted copies it finds {when}; "
            f"AUROC {each['control']['auroc']:.3f} against those distances"
        )
        for kind, shares in each["share_nearer_than_reference_quantile"].items():
            parts = ", ".join(f"{float(q):.0%} quantile {share:.1%}" for q, share in shares.items())
            least, median = each[kind]["0"], each[kind]["0.5"]
            lines.append(
                f"  {kind.replace('_', '-')} images: nearest {least:.4f}, median {median:.4f}; nearer than those "
                f"distances' {parts}"
            )
    share = summary["share"]
    verdict = "passed" if summary["passed"] else "not passed"
    few = summary["generated"] < summary["gate_images"]
    reason = f", which takes {summary['gate_images']} images" if few else ""
    lines.append(
        f"{summary['copies']} copies of {summary['generated']} by {summary['verdict_by']}: {share['value']:.2%} "
        f"[{share['low']:.2%}, {share['high']:.2%}]. The gate of {summary['gate']:.0%} is {verdict}{reason}."
    )
    return "\n".join(lines)
