"""What a triage shows: tables of the verdicts, and a picture of one pair of each beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from clinbundles.engines.outputs.colors import WRONG, class_colors
from clinbundles.engines.outputs.label_maps import color_classes
from clinbundles.scripts.generated_images import ImageList
from clinbundles.scripts.report.tables import as_markdown
from clinbundles.transforms.readers.slices import read_label_map

# Greys, since colours are of the classes.
SHADES = {"good": "#dcdcdc", "partial": "#8c8c8c", "bad": "#1a1a1a"}


def say(summary: dict[str, Any]) -> str:
    """Say in lines what a triage found."""
    pairs, limits = summary["pairs"], summary["limits"]
    ranges = {
        "good": f"at most {limits['good']:.0%}",
        "partial": f"{limits['good']:.0%} to {limits['bad']:.0%}",
        "bad": f"{limits['bad']:.0%} or more",
    }
    rows = []
    for name, each in summary["verdicts"].items():
        share = each["share"]
        ends = f"{share['low']:.1%} to {share['high']:.1%}"
        rows.append([name, ranges[name], str(each["count"]), f"{share['value']:.1%}", ends, f"{each['paper']:.0%}"])
    left_out = pairs["left_out_as_uncertain"]
    lines = [
        f"judge: {summary['judge']['name']}; it takes the place of a reference, which generated images have not",
        f"{pairs['came_in']} pairs came in, {pairs['judged']} are judged, {left_out} are left out "
        "(as uncertain, by generate)",
        "",
        as_markdown(["verdict", "wrong pixels", "pairs", "share", "95 %", "paper, judged by people"], rows),
    ]
    if summary["deciles"] is not None:
        rows = [
            [str(number), f"{each['from']:.4f} to {each['to']:.4f}", str(each["pairs"])]
            + [f"{each[name] / each['pairs']:.0%}" for name in SHADES]
            for number, each in enumerate(summary["deciles"], start=1)
        ]
        lines.append(as_markdown(["decile", "uncertainty", "pairs", *SHADES], rows))
    lines += [
        f"AUROC of the uncertainty for {name} pairs: {area_text(each)}" for name, each in summary["auroc"].items()
    ]
    return "\n".join([*lines, *summary["remarks"]])


def area_text(each: dict[str, Any]) -> str:
    """Write an AUROC with its interval, where there are any, and the numbers it rests on."""
    value = "none" if each["value"] is None else f"{each['value']:.2f}"
    ends = "" if each["low"] is None else f" [{each['low']:.2f}, {each['high']:.2f}]"
    return f"{value}{ends} ({each['pairs']} such, {each['others']} others)"


def median_pair(rows: Sequence[dict[str, Any]], verdict: str) -> tuple[int, dict[str, Any]] | None:
    """Find the pair with the median share of wrong pixels of a verdict, and its number; None where there is none.

    Of an even number it is the lower of both in the middle, of equal ones the first by name.
    """
    pairs = [(number, row) for number, row in enumerate(rows) if row["verdict"] == verdict]
    pairs.sort(key=lambda pair: (pair[1]["wrong_share"], pair[1]["image"]))
    return pairs[(len(pairs) - 1) // 2] if pairs else None


def draw_triage(
    rows: Sequence[dict[str, Any]],
    made: ImageList,
    names: Sequence[str],
    draw: Callable[[Path], np.ndarray],
    summary: dict[str, Any],
) -> Figure:
    """Draw one pair of each verdict, with the label map of the set and the judge's, and the shares by decile.

    Args:
        rows: of the pairs, in the order of the list.
        made: the generated set.
        names: of the classes.
        draw: the judge's label map of an image file.
        summary: of the triage.
    """
    figure = Figure(figsize=(11.5, 8.4), layout="constrained")
    figure.suptitle(textwrap.fill(caption(summary), 150), fontsize=9)
    panels: Any = figure.subfigures(1, 2, width_ratios=[1.35, 1])
    left, right = panels
    axes = left.subplots(4, len(SHADES), squeeze=False).T
    for verdict, column in zip(SHADES, axes, strict=True):
        each = summary["verdicts"][verdict]
        title = f"{verdict}: {each['count']} of {len(rows)}\npaper, by people: {100 * each['paper']:.0f} of 100"
        column[0].set_title(title, fontsize=9)
        draw_pair(column, median_pair(rows, verdict), made, names, draw)
    for axis, text in zip(axes[0], ("image", "label of the set", "label of the judge", "wrong pixels"), strict=True):
        axis.set_ylabel(text, fontsize=9)
    colors = [*zip(names[1:], class_colors(len(names) - 1), strict=True), ("wrong pixels", WRONG)]
    patches = [Patch(color=(red / 255, green / 255, blue / 255), label=name) for name, (red, green, blue) in colors]
    left.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8, frameon=False)
    draw_deciles(right, summary)
    return figure


def caption(summary: dict[str, Any]) -> str:
    """Say what the picture shows, by which rule, and who judged."""
    limits = summary["limits"]
    return (
        f"{summary['pairs']['judged']} generated pairs of image and label map, judged by: {summary['judge']['name']}. "
        f"Good: at most {limits['good']:.0%} of all pixels are labelled otherwise than by the judge; bad: "
        f"{limits['bad']:.0%} or more; partial: between. Shown is, of each verdict, the pair with the median share of "
        "wrong pixels; red is where both label maps differ, whichever of them errs."
    )


def draw_pair(
    column: Sequence[Axes],
    pair: tuple[int, dict[str, Any]] | None,
    made: ImageList,
    names: Sequence[str],
    draw: Callable[[Path], np.ndarray],
) -> None:
    """Draw one pair into four axes: the image, both label maps over it, and where they differ."""
    for axis in column:
        axis.set(xticks=[], yticks=[])
    if pair is None:
        for axis in column:
            axis.set_frame_on(False)
        column[0].text(0.5, 0.5, "there is none", ha="center", va="center", transform=column[0].transAxes)
        return
    number, row = pair
    pixels = (made.read(number, number + 1)[0].permute(1, 2, 0).numpy() * 127.5 + 127.5).round().astype(np.uint8)
    grey = pixels.mean(axis=-1).round().astype(np.uint8)
    labels = read_label_map(made.root / row["label"], names)
    reference = draw(made.root / row["image"])
    wrong = np.repeat(grey[..., None] // 2, 3, axis=-1)
    wrong[labels != reference] = WRONG
    pictures = (
        np.broadcast_to(pixels, (*grey.shape, 3)), color_classes(grey, labels), color_classes(grey, reference), wrong
    )  # fmt: skip
    for axis, picture in zip(column, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
    column[-1].set_xlabel(f"{row['wrong_share']:.2%} wrong, uncertainty {row['uncertainty']:.4f}", fontsize=8)


def draw_deciles(figure: SubFigure, summary: dict[str, Any]) -> None:
    """Draw the shares of the verdicts by decile of uncertainty as stacked bars."""
    axis = figure.subplots()
    deciles = summary["deciles"]
    if deciles is None:
        axis.set_axis_off()
        axis.text(0.5, 0.5, "too few pairs for deciles", ha="center", va="center", transform=axis.transAxes)
        return
    places = np.arange(1, len(deciles) + 1)
    bottom = np.zeros(len(deciles))
    for verdict, shade in SHADES.items():
        shares = np.array([each[verdict] / each["pairs"] for each in deciles])
        axis.bar(places, shares, 0.85, bottom=bottom, color=shade, edgecolor="black", linewidth=0.5, label=verdict)
        bottom += shares
    sizes = sorted({each["pairs"] for each in deciles})
    count = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} or {sizes[-1]}"
    axis.set(xlabel=f"decile of uncertainty, the least uncertain first\n({count} pairs each)", ylabel="share of pairs")
    axis.set(xticks=places, ylim=(0, 1))
    areas = "\n".join(f"AUROC for {name}: {area_text(each)}" for name, each in summary["auroc"].items())
    axis.set_title(f"Does the uncertainty tell them apart?\n{areas}", fontsize=9)
    figure.legend(loc="outside lower center", ncols=len(SHADES), fontsize=8, frameon=False)
