"""A bundle with weights that a user trained, in place of those it came with: its zip says so wherever one looks."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinbundles.engines.sentences import innermost
from clinbundles.engines.weights_card import FITTED, card_path, read_card
from clinbundles.nets.weights import read_weights
from clinbundles.scripts.bundle import (
    PATH_ENDINGS,
    load_network,
    names_behind,
    open_configs,
    options_of_config,
    read_configs,
)
from clinbundles.scripts.pack.archive import as_json

# What a run's result is made of, in inference.json: the options behind it have to be those of the training.
PARTS = ("network_def", "preprocessing", "postprocessing", "weights_loader", "writer")
CONFIGS = ("inference", "train", "evaluate")
# What `clinbundles report` has measured with the project's weights.
MEASURED = re.compile(r"(<!-- (table|value) [\w-]+ -->).*?(<!-- end -->)", re.DOTALL)
LEFT_OUT = {"table": "\n*Left out: measured with other weights.*\n", "value": "(left out)"}
OF_RESULTS = ("docs/results.json", "docs/results.md")
NOTE = "The weights here are not the project's: a user has trained them ({data}, sha256 {digits}), and nobody but that "
NOTE += "user can say what they are for and how well they do."
PAGE_NOTE = "**{note}** What this page measures, shows and says of shipped weights is of others."
RESULTS = "# Results\n\n{note} What the project measured is of other weights, and left out.\n"


def with_own_weights(
    folder: Path, files: Mapping[str, bytes], weights: Path, own_version: str | None = None
) -> dict[str, bytes]:
    """Put weights and their card among the files of a bundle, and the options that they were trained with.

    Args:
        folder: of the bundle.
        files: what its zip takes, by path.
        weights: file with its card beside it, as a training writes both.
        own_version: of the zip; None adds hexadecimal digits of weights and card to the bundle's.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, they are damaged, have no card of their own or one
            that lacks what a run shares with the training, or are of another network; the version is none, or could be
            one of the bundle's.
    """
    read_weights(weights)
    card = read_card(weights)
    if not card:
        raise ValueError(
            f"{weights}: has no card of its own ({card_path(weights).name} beside it, which its training wrote), so "
            "that nothing says what it was trained with."
        )
    content = read_configs(folder, ["inference"])
    options = options_of_card(content, card)
    if missing := sorted(compared(content) - options.keys()):
        raise ValueError(
            f"{card_path(weights)}: its options lack {', '.join(missing)}, which {folder.name} has to share with the "
            "training: add them there as the weights were trained, or train anew."
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # which weights they are, is said elsewhere
            load_network(open_configs(folder, ["inference"], ckpt_path=str(weights), device="cpu", **options))
    except RuntimeError as error:  # what MONAI makes of any fault in a network's arguments
        raise ValueError(
            f"{card_path(weights)}: no network of {folder.name} can be made with its options: {innermost(error)}"
        ) from error
    data, said = weights.read_bytes(), card_path(weights).read_bytes()
    metadata = json.loads(files["configs/metadata.json"])
    version = checked_version(own_version, metadata["version"], hashlib.sha256(data + said).hexdigest()[:8])
    digest = hashlib.sha256(data).hexdigest()
    note = NOTE.format(data=card.get("data_name", "their card names no data"), digits=digest[:12])
    note = " ".join([note, *([card["warning"]] if card.get("warning") else [])])
    result = {path: each for path, each in files.items() if path not in OF_RESULTS}
    result |= {"models/model.pt": data, "models/model.json": said}
    before = json.loads(files["configs/inference.json"])
    for path in (f"configs/{name}.json" for name in CONFIGS):
        if path in files and (shared := options.keys() & (config := json.loads(files[path])).keys()):
            result[path] = as_json(config | {name: options[name] for name in sorted(shared)})
    result["configs/metadata.json"] = as_json(_described(metadata, before | options, before, card, note, version))
    result["docs/README.md"] = marked(files["docs/README.md"].decode(), note).encode()
    result["docs/results.md"] = RESULTS.format(note=note).encode()
    return result


def options_of_card(content: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """Choose of a card what an inference has to share with the training; what was fitted to other weights is undone.

    Args:
        content: of inference.json.
        card: of the weights.
    """
    plain = {name for name, option in options_of_config(content).items() if option.listed}
    plain = {name for name in plain if not name.endswith((*PATH_ENDINGS, "bundle_root"))}
    names = (names_behind(content, PARTS) & plain) | compared(content)
    trained = {name: value for name, value in (card.get("options") or {}).items() if name in names}
    fitted = {name: card.get(name, neutral) for name, neutral in FITTED.items() if name in content}
    return trained | fitted


def compared(content: Mapping[str, Any]) -> set[str]:
    """Name the options that a config's loader of weights compares with their card."""
    return set(content.get("weights_loader", {}).get("options", {}))


def checked_version(version: str | None, bundle_version: str, digits: str) -> str:
    """Return the version of a zip with own weights: one with a part of the user's own, behind a plus.

    Raises:
        ValueError: it is no version in its plain form, or has no such part, so that the bundle could have it, too.
    """
    from packaging.version import InvalidVersion, Version

    if version is None:
        return f"{bundle_version}+{digits}"
    try:
        is_own = str(Version(version)) == version and Version(version).local is not None
    except InvalidVersion:
        is_own = False
    if not is_own:
        raise ValueError(
            f"--version is {version!r}, expected one with a part of your own behind a plus, such as {bundle_version}"
            "+mine, in small letters, digits and dots."
        )
    return version


def _with_starts(own: str, card: Mapping[str, Any], name: str) -> str:
    """Give a fact of weights, and behind it that of those that they went on from, as their card has it."""
    starts = card.get("initial_weights", [])
    return "; ".join([own, *(f"{start.get(name, 'not said')}, of {start['name']} before them" for start in starts)])


def marked(page: str, note: str) -> str:
    """Say on a bundle's page, below its title, whose weights they are, and leave out what was measured with others."""
    title, _, rest = page.partition("\n")
    rest = MEASURED.sub(lambda match: match[1] + LEFT_OUT[match[2]] + match[3], rest)
    return f"{title}\n\n{PAGE_NOTE.format(note=note)}\n{rest}"


def _described(
    metadata: Mapping[str, Any],
    content: Mapping[str, Any],
    before: Mapping[str, Any],
    card: Mapping[str, Any],
    note: str,
    version: str,
) -> dict[str, Any]:
    """Say in metadata.json what the own weights are, without a headline, and how classes, window and size differ."""
    result = json.loads(json.dumps({name: value for name, value in metadata.items() if name != "headline"}))
    result["version"] = version
    result["changelog"] = {**result.get("changelog", {}), version: note}
    result["description"] = f"{result['description']} {note}"
    data = _with_starts(f"{card.get('data_name', 'not said')}, of the weights", card, "data_name")
    result["data_source"] = f"{data}; samples: docs/data_license.txt"
    network = ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted((card.get("options") or {}).items()))
    result["weights"] = {
        "file": "models/model.pt",
        "sha256": card["weights_sha256"],
        "network": network,
        "licence": _with_starts("not said: that of a user's own training and its data", card, "licence"),
        "note": note,
    }
    formats = result["network_data_format"]
    names, old_names = (list(each.get("class_names", [])) for each in (content, before))
    if names != old_names:
        channels = {str(number): name for number, name in enumerate(names)}
        for output in (formats[side]["pred"] for side in ("outputs", "post_processed_outputs") if side in formats):
            if list(output["channel_def"].values()) == old_names:
                output |= {"num_channels": len(names), "channel_def": channels}
        listed = ", ".join(f"{number} {name}" for number, name in channels.items())
        result |= {"label_classes": listed, "pred_classes": listed}
    image = formats["inputs"]["image"]
    image["spatial_shape"] = [
        content["image_size"] if side == before.get("image_size") else side for side in image["spatial_shape"]
    ]
    if content.get("window_hu") != before.get("window_hu"):
        old, new = ("{} to {} HU".format(*each["window_hu"]) for each in (before, content))
        result["image_classes"] = result["image_classes"].replace(old, new)
    return result
