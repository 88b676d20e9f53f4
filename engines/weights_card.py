"""The card of weights: a JSON file beside them that says which they are, and what they were trained with and on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .outputs.files import write_atomically

FITTED = {"temperature": 1.0}  # after the training, on its validation set; with the value that changes nothing


def card_path(weights: Path) -> Path:
    """Name the card of a file of weights: model.json for model.pt."""
    return weights.with_suffix(".json")


def write_card(weights: Path, facts: Mapping[str, Any]) -> None:
    """Write the card of weights that lie there.

    Args:
        weights: their file.
        facts: what the card says beside their hash, such as ``options``, by name.
    """
    content = {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), **facts}
    write_atomically(card_path(weights), json.dumps(content, indent=2) + "\n")


def read_card(weights: Path) -> dict[str, Any]:
    """Read the card of weights; of weights without one, or with that of others, it is empty.

    Its values become options of configs, so that none may be what a config runs or refers to.

    Raises:
        ValueError: it is no JSON object, its options are none, or a value would run code or refer to another.
    """
    path = card_path(weights)
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error}).") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path}: is no card of weights, which is a JSON object.")
    if card.get("weights_sha256") != hashlib.sha256(weights.read_bytes()).hexdigest():
        return {}
    if not isinstance(card.get("options", {}), dict):
        raise ValueError(f"{path}: options is {json.dumps(card['options'])}, expected a JSON object.")
    starts = card.get("initial_weights", [])
    if not isinstance(starts, list) or not all(isinstance(each, dict) and "name" in each for each in starts):
        raise ValueError(f"{path}: initial_weights is {json.dumps(starts)}, expected a list of objects with a name.")
    for name, value in {**card.get("options", {}), **card}.items():
        if (part := _no_plain_part(value)) is not None:
            raise ValueError(
                f"{path}: {name} has {part!r}, which a config would run or look up: a card has plain values; take the "
                "card that the training wrote."
            )
    return card


def _no_plain_part(value: Any) -> str | None:
    """Find the part of a value that a config would not take as it stands: an expression, a reference, a class."""
    if isinstance(value, dict):
        return "_target_" if "_target_" in value else _no_plain_part(list(value.values()))
    if isinstance(value, list):
        return next((part for each in value if (part := _no_plain_part(each)) is not None), None)
    return value if isinstance(value, str) and value[:1] in ("$", "@", "%") else None


def weights_sentence(digits: str, card: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> str:
    """Say which weights made a result, and what they are for: their hash and the warning of their card.

    Args:
        digits: the first twelve of their SHA-256.
        card: of them; empty where there is none.
        options: of the run; one that was fitted to other weights is said too, see :func:`describe_unfitted`.
    """
    nothing = (
        "their card does not say what these weights are for." if card else "no card says what these weights are for."
    )
    warning = card.get("warning") or nothing
    return " ".join(filter(None, (f"sha256 {digits}: {warning}", describe_unfitted(card, options or {}))))


def describe_unfitted(card: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Say that a run has a value, such as a temperature, that its card does not know as fitted; else nothing."""
    return " ".join(
        f"{name} {json.dumps(options[name])} was not fitted to these weights, as far as their card says; "
        f"--{name} {json.dumps(neutral)} leaves it out."
        for name, neutral in FITTED.items()
        if name not in card and name in options and options[name] != neutral
    )


def check_options(weights: Path, card: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse to use weights with other options than those of their card; those that the card lacks are not compared.

    The card has the options of the training, and beside them what was fitted afterwards (:data:`FITTED`).

    Raises:
        ValueError: an option differs; the message names both.
    """
    trained = card.get("options") or {}
    fitted = {name: card[name] for name in FITTED if name in card}
    for name, value in json.loads(json.dumps(dict(options))).items():
        if name in fitted and fitted[name] != value:
            raise ValueError(
                f"{weights}: {name} {json.dumps(fitted[name])} was fitted to these weights, and this run has "
                f"{json.dumps(value)}: give --{name} {json.dumps(fitted[name])}."
            )
        if name in trained and trained[name] != value:
            raise ValueError(
                f"{weights}: was trained with {name} {json.dumps(trained[name])}, and this run has "
                f"{json.dumps(value)}: give --{name} as it was trained."
            )
