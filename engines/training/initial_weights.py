"""Weights that a training starts from: of the whole network, and by their card of the same one and the same classes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from torch import nn

from ...nets.weights import is_file_name, load_initial_weights, load_stages
from ..weights_card import check_options, read_card

CLASSES = "class_names"
OF_START = ("data_name", "datalist_sha256", "licence", "warning")  # what a card says of weights, for those after them
STARTS = "initial_weights"
WENT_ON = "These weights went on from weights whose card says: "


def check_initial_weights(
    initial_weights: str | os.PathLike | None,
    options: Mapping[str, Any],
    *,
    leave_out: Sequence[str] = (),
    last_layer: str = "the last layer",
) -> None:
    """Refuse weights to start from whose card names another network, or other classes than a kept last layer is for.

    Args:
        initial_weights: file of a state dict; None, the name of weights to download, and a file without a card pass.
        options: of this training, by name, which those of the card must be: ``class_names`` where no layer is left out.
        leave_out: layers that start anew.
        last_layer: its name, for the message.

    Raises:
        ValueError: an option differs; the message names both values.
    """
    if initial_weights is None or not is_file_name(initial_weights):
        return
    path = Path(initial_weights)
    card = read_card(path) if path.is_file() else {}
    check_options(path, card, {name: value for name, value in options.items() if name != CLASSES})
    classes = (card.get("options") or {}).get(CLASSES)
    if CLASSES in options and classes not in (None, list(options[CLASSES])) and not leave_out:
        is_turned = isinstance(classes, list) and sorted(map(str, classes)) == sorted(options[CLASSES])
        order = f"make the datalist by clinbundles prepare class_folder --{CLASSES} '{json.dumps(classes)}', or "
        raise ValueError(
            f"{path}: was trained with {CLASSES} {json.dumps(classes)}, and this training has "
            f"{json.dumps(list(options[CLASSES]))}: {order if is_turned else ''}give --leave_out {last_layer}, which "
            "then starts anew."
        )


def start_from(
    network: nn.Module,
    initial_weights: str | os.PathLike | None,
    *,
    options: Mapping[str, Any],
    leave_out: Sequence[str] = (),
    of_a_part: str | None = None,
) -> None:
    """Load the weights of a whole network that a training starts from, but for layers that are left out.

    Args:
        network: changed in place.
        initial_weights, leave_out: of :func:`..nets.weights.load_initial_weights`; None changes nothing.
        options: of :func:`check_initial_weights`.
        of_a_part: option that takes the weights of a part of the network alone, for the message.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as these two; the message names the option.
    """
    last = list(network.state_dict())[-1].rpartition(".")[0]
    check_initial_weights(initial_weights, options, leave_out=leave_out, last_layer=last)
    try:
        load_initial_weights(network, initial_weights, leave_out=leave_out)
    except ValueError as error:
        if of_a_part is None:
            raise
        raise ValueError(
            f"--initial_weights {error} It takes those of the whole network; of its encoder alone, --{of_a_part} does."
        ) from error


def start_stages(
    network: nn.Module,
    *,
    coarse_weights: str | os.PathLike | None,
    initial_weights: str | os.PathLike | None,
    options: Mapping[str, Any],
) -> None:
    """Load what a training of two stages starts from, a file for each stage or one of both.

    Args:
        network, coarse_weights, initial_weights: of :func:`..nets.weights.load_stages`.
        options: of :func:`check_initial_weights`, for a file of both.

    Raises:
        FileNotFoundError, ValueError: as these two.
    """
    if load_stages(network, coarse_weights=coarse_weights, initial_weights=initial_weights):
        check_initial_weights(initial_weights, options)


def describe_start(weights: str | os.PathLike) -> list[dict[str, str]]:
    """Say which weights a training goes on from, and which these went on from: names, SHA-256, and what cards say.

    Args:
        weights: their file; of what is none, such as the name of a library's weights, only that name is said.

    Raises:
        ValueError: as :func:`..weights_card.read_card`.
    """
    path, name = Path(weights), PureWindowsPath(weights).name  # no folder, which may name a person
    if not path.is_file():
        return [{"name": name}]
    card, digest = read_card(path), hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"name": name, "sha256": digest} | {each: str(card[each]) for each in OF_START if each in card}
    return [facts, *card.get(STARTS, [])]


def start_facts(starts: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Give what a card says of the weights that those it is of went on from: which, and their warnings as its own.

    Args:
        starts: of :func:`describe_start`; of none nothing is said.
    """
    warnings = dict.fromkeys(start["warning"].removeprefix(WENT_ON) for start in starts if start.get("warning"))
    facts = {STARTS: list(starts), "warning": WENT_ON + " ".join(warnings)}
    return {name: value for name, value in facts.items() if (warnings if name == "warning" else starts)}
