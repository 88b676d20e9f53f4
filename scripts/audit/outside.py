"""What an audited model calls the images of outside sets, which have no labels: shares of the classes, confidence."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinbundles.engines.metrics.intervals import rounded, share_interval, with_interval
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.engines.outputs.per_image import read_per_image
from clinbundles.scripts.flags import as_parts
from clinbundles.transforms.readers.folder import find_images

REASONS = 5  # of images that are left out, which are listed one by one


def parse_sets(outside: Any) -> dict[str, Path]:
    """Read "NAME=FOLDER,NAME=FOLDER" as folders by name; None is none.

    Raises:
        ValueError: a part has another form, or a name is given twice.
        FileNotFoundError: no such folder, or no image in it.
    """
    folders: dict[str, Path] = {}
    for part in as_parts(outside) if outside is not None else ():
        name, _, folder = part.partition("=")
        if not re.fullmatch(r"[\w][\w.-]*", name) or not folder:
            raise ValueError(f"--outside: {part!r} is not NAME=FOLDER, with a name in one word.")
        if name in folders:
            raise ValueError(f"--outside: {name} is given twice.")
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"--outside {name}={folder}: no such folder.")
        folders[name] = Path(folder).resolve()
        find_images(str(folders[name]))
    return folders


def keep_images(folder: Path, output: Path) -> None:
    """Note in ``output`` which images a folder has, and refuse results that are of other ones.

    Raises:
        ValueError: names or sizes of the files differ from those noted.
    """
    paths = [Path(item["image"]) for item in find_images(str(folder))]
    listed = [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in paths]
    digest, note = hashlib.sha256(json.dumps(listed).encode()).hexdigest(), output / "images.sha256"
    if note.is_file() and note.read_text() != digest:
        raise ValueError(f"{output}: was made of other images than {folder} has now. Use another --output_dir.")
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(note, digest)


def summarise(table: Path, class_names: Sequence[str]) -> dict[str, Any]:
    """Summarise the table of an inference.

    Args:
        table: per_image.csv, with image, prediction, probability_<class> and failure.
        class_names: by class index.

    Returns:
        in, used and left_out (numbers of images); reasons, how often by sentence, without a file's name;
        mean_confidence, the mean of the highest probability; classes, by name: called (a number), share with Wilson's
        interval over images, as nothing tells their patients, and mean_confidence of those. What has no image is None.
    """
    used, left_out = read_per_image(table, columns=("prediction", *(f"probability_{name}" for name in class_names)))
    confidence = used[[f"probability_{name}" for name in class_names]].to_numpy(dtype=float).max(1, initial=0)
    classes = {}
    for name in class_names:
        called = (used["prediction"] == name).to_numpy()
        count = int(called.sum())
        share = count / len(used) if len(used) else np.nan
        classes[name] = {
            "called": count,
            "share": with_interval(share, share_interval(count, len(used))),
            "mean_confidence": _mean(confidence[called]),
        }
    return {
        "in": len(used) + left_out,
        "used": len(used),
        "left_out": left_out,
        "reasons": _reasons(table) if left_out else {},
        "mean_confidence": _mean(confidence),
        "classes": classes,
    }


def outside_lines(outside: Mapping[str, Mapping[str, Any]], seen: Mapping[str, Any]) -> list[str]:
    """Write outside sets as Markdown.

    Args:
        outside: by name of the set what :func:`summarise` returned, and temperature.
        seen: what :func:`.training_images.count_seen` returned.
    """
    header = ["| set | called | images | share [95 % CI] | mean confidence |", "|---|---|---|---|---|"]
    lines = ["## Outside sets", "", *header]
    for name, found in outside.items():
        for label, each in found["classes"].items():
            share, confidence = each["share"], each["mean_confidence"]
            ends = "none"
            if share["value"] is not None:
                ends = f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}]"
            shown = "none" if confidence is None else f"{confidence:.3f}"
            lines.append(f"| {name} | {label} | {each['called']} | {ends} | {shown} |")
    temperatures = " and ".join(sorted({f"{found['temperature']:g}" for found in outside.values()}))
    lines += [
        "",
        "Wilson's intervals over images, as nothing tells their patients. The confidence is the highest probability, "
        f"at a temperature of {temperatures}.",
        "",
    ]
    return [*lines, *(f"- {sentence}" for sentence in say_outside(outside, seen)), ""]


def say_outside(outside: Mapping[str, Mapping[str, Any]], seen: Mapping[str, Any]) -> list[str]:
    """Say of each set how many images were used and left out, and what they are called."""
    said = []
    for name, found in outside.items():
        sentence = f"{name}: {found['in']} images in, {found['used']} used, {found['left_out']} left out"
        if found["reasons"]:
            sentence += f" ({'; '.join(f'{n} {reason}' for reason, n in found['reasons'].items())})"
        if found["used"]:
            calls = ", ".join(f"{each['called']} {label}" for label, each in found["classes"].items())
            sentence += f"; called {calls}; mean confidence {found['mean_confidence']:.3f}"
        if seen["known"] and (count := seen["audited"][f"outside {name}"]["trained_on"]):
            sentence += f"; {count} of them the weights were trained on"
        said.append(sentence + ".")
    return said


def _reasons(table: Path) -> dict[str, int]:
    """Count why images were left out, the commonest reasons first and the rare ones together."""
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows = rows[rows["failure"] != ""]
    sentences = [
        failure.removeprefix(f"{image}: ").replace(image, "the file").rstrip(".")
        for image, failure in zip(rows["image"], rows["failure"], strict=True)
    ]
    ordered = Counter(sentences).most_common()
    rest = sum(count for _, count in ordered[REASONS:])
    return dict(ordered[:REASONS]) | ({"for other reasons": rest} if rest else {})


def _mean(values: np.ndarray) -> float | None:
    return rounded(values.mean()) if len(values) else None
