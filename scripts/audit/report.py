"""From what the parts of an audit of shortcuts found to its report: results, conclusion, Markdown and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from clinbundles.engines.metrics.intervals import describe_intervals, share_interval, with_interval
from clinbundles.scripts.audit.outside import outside_lines, say_outside
from clinbundles.scripts.audit.training_images import mark_seen, say_seen

DISEASE = "covid19"
AUDITED, ANEW = "audited", "trained anew"
INPUTS = {
    "whole": "the whole image",
    "border": "the border alone",
    "lungs_masked": "all but the lung fields",
    "lungs": "the lung fields alone",
    "aspect_ratio": "the file's aspect ratio alone",
    "source": "the source's name alone",
    "chance": "nothing",
}
TRAITS = ("device", "age", "sex")
FEW = 5  # images of a source, below which it is not listed by itself
Row = tuple[str, str, dict[str, Any]]  # model, input, and the metrics of class_report


def compose_audit(
    rows: Sequence[Row],
    *,
    facts: dict[str, Any],
    patients: dict[str, int],
    seen: dict[str, Any],
    disease_calls: dict[str, dict[str, Any]] | None,
    grad_cam: dict[str, Any],
    outside: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Compose an audit of the metrics of every model on every input: what the other functions take, and JSON can hold.

    Args:
        rows: model, input (of INPUTS) and metrics as :func:`.class_report.write_class_report` gives them. The first is
            AUDITED on "whole", whose sources are listed; one has the input "chance".
        facts: data (a name), datalist_sha256, model_sha256, seed, training_images (their number), entries (what
            the datalist says of a test image, by name).
        patients: how many of each class the test images are of; of images whose patients are not known, the images.
        seen: what :func:`.training_images.count_seen` returned.
        disease_calls: by group of images: images and called (numbers), and share, called over images, as
            :func:`~clinbundles.engines.metrics.intervals.with_interval` gives it. None where it was not asked.
        grad_cam: layer, images and empty_maps (numbers), lung_fields (share of the image that the fields cover),
            share (of the mass inside them, as of with_interval) and share_by_label (its mean by name of the class).
        outside: by name of the set what :func:`.outside.summarise` returned, and temperature.
    """
    whole = rows[0][2]
    audit = {
        **facts,
        "test_images": whole["images"],
        "test_patients": whole["groups"] if whole["unit"] == "patients" else None,
        "seen": seen,
        "results": [
            {
                "model": model,
                "input": name,
                "accuracy": metrics["scores"]["val_accuracy"],
                "macro_f1": metrics["scores"]["val_macro_f1"],
                "recall": {
                    label: _share(found["recall"]["value"], patients[label])
                    for label, found in metrics["classes"].items()
                },
            }
            for model, name, metrics in rows
        ],
        "sources": whole["sources"],
        "disease_calls": disease_calls,
        "grad_cam": grad_cam,
        "outside": outside,
        "patients": patients,
    }
    return audit | {"conclusion": conclude(audit), "not_measured": list_gaps(audit)}


def conclude(audit: dict[str, Any]) -> list[str]:
    """Say in sentences what the values of an audit say, and no more.

    Args:
        audit: results, seen, disease_calls, grad_cam and outside of :func:`compose_audit`.
    """
    accuracy = {(row["model"], row["input"]): row["accuracy"] for row in audit["results"]}
    baselines = {row["input"]: row["accuracy"] for row in audit["results"] if row["model"] not in (AUDITED, ANEW)}
    chance, audited = baselines["chance"]["value"], accuracy[AUDITED, "whole"]
    mark = mark_seen(audit["seen"], audited=True)
    said = [f"The audited model has an accuracy of {_figure(audited)}{mark} on whole images; chance is {chance:.3f}."]
    said += say_seen(audit["seen"])
    if not _above(audited, chance):
        said.append("It is not told from chance, so nothing here says what it learned.")
    whole = accuracy.get((ANEW, "whole"), audited)
    for region in ("border", "lungs_masked", "lungs"):
        if (found := accuracy.get((ANEW, region))) is None:
            continue
        sentence = f"Trained anew, {INPUTS[region]} gives {_figure(found)}"
        if not _above(found, chance):
            sentence += ", which is not told from chance"
        elif found["value"] >= whole["value"]:
            sentence += f", no less than the whole image with {whole['value']:.3f}"
        elif _above(whole, chance):
            part = (found["value"] - chance) / (whole["value"] - chance)
            sentence += f" where the whole image gives {whole['value']:.3f}: {part:.0%} of its lead over chance"
        said.append(sentence + ".")
    pixelless = [f"{INPUTS[name]} gives {_figure(found)}" for name, found in baselines.items() if name != "chance"]
    said.append(f"Without a pixel, {' and '.join(pixelless)}.")
    if calls := audit["disease_calls"]:
        parts = [f"{found['called']} of {found['images']} ({group})" for group, found in calls.items()]
        said.append(f"The audited model calls {DISEASE}: {', '.join(parts)}.")
    said += [f"Outside, {sentence}" for sentence in say_outside(audit["outside"], audit["seen"])]
    share, area = audit["grad_cam"]["share"], audit["grad_cam"]["lung_fields"]
    if share["low"] is not None:
        verdict = "more than" if share["low"] > area else "less than" if share["high"] < area else "not told from"
        caveat = "; one that merely keeps off the edges would have more, too" if verdict == "more than" else ""
        said.append(
            f"Of the Grad-CAM mass, {_figure(share)} lies inside the lung fields: {verdict} the {area:.3f} of an "
            f"aimless map{caveat}."
        )
    said.append(
        "What a part of the image gives away a model may use; that this one does, on a given image, is not shown here."
    )
    return said


def list_gaps(audit: dict[str, Any]) -> list[str]:
    """List what an audit did not measure.

    Args:
        audit: of :func:`compose_audit`: all but conclusion and not_measured.
    """
    trained = {row["input"] for row in audit["results"] if row["model"] == ANEW}
    seen = audit["seen"]
    gaps = []
    if not seen["known"]:
        gaps.append(f"whether the weights were trained on test images: {seen['basis']}")
    elif seen.get("before"):
        gaps.append(f"whether {' and '.join(seen['before'])}, which the weights went on from, had test images")
    if missing := [INPUTS[name] for name in ("border", "lungs_masked", "lungs") if name not in trained]:
        gaps.append(f"what {', '.join(missing)} gives away, for nothing was trained anew on it")
    if not audit["test_patients"]:
        gaps.append("the spread over patients, for the datalist has no groups: the intervals are over images")
    if audit["sources"] is None:
        gaps.append("the accuracy by source, for the datalist names none")
    if audit["disease_calls"] is None:
        gaps.append("what images of one source are called, for the datalist has no split same_source")
    if not audit["outside"]:
        gaps.append("images from elsewhere, for no set was given by --outside")
    else:
        gaps.append("how often the outside sets are called rightly, for they have no labels")
    named = [name for name in TRAITS if name in audit["entries"]]
    lacks = [name for name in TRAITS if name not in named]
    if lacks:
        gaps.append(f"differences by {', '.join(lacks)}, of which the datalist says nothing")
    if named:
        gaps.append(f"differences by {', '.join(named)}, which the datalist tells and no audit reads yet")
    return gaps


def as_markdown(audit: dict[str, Any]) -> str:
    """Write an audit's tables and conclusion as Markdown: no file and no patient is named.

    Args:
        audit: as :func:`compose_audit` gives it.
    """
    classes, cam = list(audit["results"][0]["recall"]), audit["grad_cam"]
    by_label = ", ".join(f"{name} {value:.3f}" for name, value in cam["share_by_label"].items())
    mean = "undefined" if cam["share"]["value"] is None else _figure(cam["share"])
    unit = "patients" if audit["test_patients"] else "images, as patients are not known"
    lines = [
        "# Shortcut audit",
        "",
        f"Data: {audit['data']}, datalist sha256 {audit['datalist_sha256'][:12]}; model sha256 "
        f"{audit['model_sha256'][:12]}; {audit['training_images']} training images, {audit['test_images']} test images "
        f"of {audit['test_patients'] or 'unknown'} patients; seed {audit['seed']}. Chance level, always the commonest "
        f"class of training: accuracy {_chance(audit):.3f}. Intervals: 95 %, "
        f"{describe_intervals(audit['test_patients'] or audit['test_images'], unit)}; of a share of 0 or 1 Wilson's.",
        "",
        "| input | model | accuracy [95 % CI] | macro F1 [95 % CI] |",
        "|---|---|---|---|",
    ]
    for row in audit["results"]:
        figures = f"{_figure(row['accuracy'])} | {_figure(row['macro_f1'])}"
        lines.append(f"| {INPUTS[row['input']]} | {_model(audit, row)} | {figures} |")
    lines += _recall_lines(audit, classes)
    lines += [
        "",
        "The border is the frame of a tenth along each edge. The lung fields are two fixed ellipses that hold the "
        "lungs of nearly every frontal X-ray, and no segmentation. The rest of the image is black. The audited model "
        "never saw such images: that it fails on a part does not show that it ignores this part in whole images. The "
        "network trained anew shows what a part gives away.",
    ]
    lines += _source_lines(audit["sources"], classes) if audit["sources"] else []
    if audit["disease_calls"]:
        lines += [
            "",
            "## Same source",
            "",
            f"| images | number | called {DISEASE} | share [95 % CI] |",
            "|---|---|---|---|",
        ]
    for group, found in (audit["disease_calls"] or {}).items():
        share = _figure(found["share"]) if found["images"] else "none"
        lines.append(f"| {group} | {found['images']} | {found['called']} | {share} |")
    lines += [
        "",
        "## Grad-CAM",
        "",
        f"Share of the mass inside the lung fields, mean of {cam['images']} test images at layer {cam['layer']}: "
        f"{mean} ({by_label}). The fields cover {cam['lung_fields']:.3f} of the image, which is what an aimless map "
        f"would have. Empty maps, left out: {cam['empty_maps']}.",
        "",
        *(outside_lines(audit["outside"], audit["seen"]) if audit["outside"] else []),
        "## What the figures say",
        "",
        " ".join(audit["conclusion"]),
        "",
        "## What was not measured",
        "",
        *(f"- {gap}" for gap in audit["not_measured"]),
        "",
    ]
    return "\n".join(lines)


def _recall_lines(audit: dict[str, Any], classes: Sequence[str]) -> list[str]:
    """Table of the recalls of the classes, with their intervals."""
    unit = "patients" if audit["test_patients"] else "images"
    counts = " / ".join(str(audit["patients"][name]) for name in classes)
    lines = ["", f"| input | model |{'|'.join(f' recall {name} [95 % CI] ' for name in classes)}|"]
    lines.append("|---|---|" + "---|" * len(classes))
    for row in audit["results"]:
        recalls = " | ".join(_figure(row["recall"][name]) for name in classes)
        lines.append(f"| {INPUTS[row['input']]} | {_model(audit, row)} | {recalls} |")
    return [*lines, "", f"Intervals of a recall are Wilson's, with n the {counts} {unit} of {' / '.join(classes)}."]


def _source_lines(sources: dict[str, dict[str, Any]], classes: Sequence[str]) -> list[str]:
    """Table of the sources, the large ones first and the small ones together."""
    entries = [(name, found) for name, found in sources.items() if found["images"] >= FEW]
    entries.sort(key=lambda entry: -entry[1]["images"])
    if small := [found for found in sources.values() if found["images"] < FEW]:
        images = sum(found["images"] for found in small)
        labels = {name: sum(found["labels"].get(name, 0) for found in small) for name in classes}
        right = sum(found["scores"]["val_accuracy"]["value"] * found["images"] for found in small)
        scores = {"val_accuracy": {"value": right / images}}
        entries.append((f"{len(small)} with fewer than {FEW}", {"labels": labels, "scores": scores}))
    lines = ["", "## By source", "", f"| source | {' / '.join(classes)} | accuracy, audited |", "|---|---|---|"]
    for name, found in entries:
        counts = " / ".join(str(found["labels"].get(label, 0)) for label in classes)
        lines.append(f"| {name} | {counts} | {found['scores']['val_accuracy']['value']:.3f} |")
    return lines


def draw(audit: dict[str, Any]) -> Figure:
    """Draw an audit: a bar of the accuracy of each row with its interval, and a line for chance.

    Args:
        audit: as :func:`compose_audit` gives it.
    """
    rows, chance = [row for row in audit["results"] if row["input"] != "chance"], _chance(audit)
    figure = Figure(figsize=(9, 1.4 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        found, color = row["accuracy"], {AUDITED: "C0", ANEW: "C1"}.get(row["model"], "C7")
        low, high = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
        axes.barh(place, found["value"], color=color, height=0.7)
        axes.plot([low, high], [place, place], color="black", linewidth=1.2)
        axes.text(max(high, found["value"]) + 0.01, place, f"{found['value']:.3f}", va="center", fontsize=8)
    axes.axvline(chance, color="black", linestyle=":", linewidth=1.2)
    axes.text(chance, -0.7, f" chance {chance:.3f}", fontsize=8)
    axes.set(xlim=(0, 1.1), xticks=np.linspace(0, 1, 6), ylim=(len(rows) - 0.4, -1.1), yticks=range(len(rows)))
    axes.set_xlabel("accuracy on the test images, 95 % interval by patient")
    axes.set_yticklabels([f"{INPUTS[row['input']]}: {_model(audit, row)}" for row in rows])
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _share(value: float, n_units: int) -> dict[str, float | None]:
    """Give a share and Wilson's interval of it over so many patients, which holds the share."""
    low, high = share_interval(round(value * n_units), n_units)
    return with_interval(value, np.array([min(low, value), max(high, value)]))


def _model(audit: dict[str, Any], row: dict[str, Any]) -> str:
    """Name the model of a row, with a mark where it was trained on test images."""
    mark = "" if row["input"] == "chance" else mark_seen(audit["seen"], audited=row["model"] == AUDITED)
    return row["model"] + mark


def _chance(audit: dict[str, Any]) -> float:
    return next(row["accuracy"]["value"] for row in audit["results"] if row["input"] == "chance")


def _above(found: dict[str, float | None], chance: float) -> bool:
    return found["low"] is not None and found["low"] > chance


def _figure(found: dict[str, float | None]) -> str:
    ends = "" if found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found['value']:.3f}{ends}"
