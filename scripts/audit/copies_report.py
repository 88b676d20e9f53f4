"""What an audit for copies shows: the similarity of pairs, a picture of the closest ones, and a few sentences."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from monai.metrics import SSIMMetric

from clinbundles.engines.metrics.copies import aligned
from clinbundles.scripts.generated_images import ImageList

N_PAIRS = 10
N_PLANTED = 10  # copies of each kind, the control of an audit


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
        lines.append(f"{name}: a copy is nearer than {each['threshold']:.4f}, {each['meaning']}.")
        kinds = each["control"]["by_degradation"]
        for required, words in ((True, "have to be found"), (False, "need not be found")):
            counts = {kind: values for kind, values in kinds.items() if values["required"] is required}
            parts = ", ".join(f"{values['found']} ({kind})" for kind, values in counts.items())
            least = min(values["auroc"] for values in counts.values())
            lines.append(
                f"  of {summary['planted']} planted copies each that {words} it finds {parts}; AUROC against those "
                f"distances {least:.3f} or more"
            )
        for kind, shares in each["share_nearer_than_reference_quantile"].items():
            parts = ", ".join(f"{float(q):.0%} quantile {share:.1%}" for q, share in shares.items())
            least, median = each[kind]["0"], each[kind]["0.5"]
            lines.append(
                f"  {kind.replace('_', '-')} images: nearest {least:.4f}, median {median:.4f}; nearer than those "
                f"distances' {parts}"
            )
        if each["copies_among_held_out"]:
            counted = _say_share(each["copies_among_held_out"], summary["held_out"])
            lines.append(f"  false alarms: {counted} held-out images, which decide nothing")
    verdict = "passed" if summary["passed"] else f"not passed: {summary['reason']}"
    lines.append(
        f"copies by {summary['verdict_by']}: {_say_share(summary, summary['generated'])} generated images. "
        f"The gate of {summary['gate']:.0%} is {verdict}."
    )
    return "\n".join(lines)


def say_failure(control: dict[str, dict[str, Any]]) -> str:
    """Say which planted copies no distance finds all of, so that nothing is said of the generated images."""
    parts = []
    for name, each in control.items():
        counts = ", ".join(f"{each['by_degradation'][kind]['found']} ({kind})" for kind in each["missed"])
        parts.append(f"{name} {counts}")
    return (
        f"the control failed, so nothing is said of the generated images. Of {N_PLANTED} planted copies each are found "
        f"only: by {'; by '.join(parts)}."
    )


def _say_share(counted: dict[str, Any], total: int) -> str:
    share = counted["share"]
    ends = "" if share["low"] is None else f" [{share['low']:.2%}, {share['high']:.2%}]"
    return f"{counted['copies']} of {total} ({share['value']:.2%}{ends})"
