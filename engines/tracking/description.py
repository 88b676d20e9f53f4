"""What a person reads of a run first: its name, the command that began it, what it is for."""

from __future__ import annotations

import copy
import getpass
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import mlflow
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)
from monai.bundle import ConfigParser
from torch import nn

from ..weights_card import read_card
from .facts import scrub
from .logged_model import sha256_of

INITIAL_WEIGHTS = "initial_weights"
NOT_SHOWN = "..."
PATH_ENDINGS = ("_dir", "_dirs", "_path", "_paths", "_file", "_files", "datalist", "datalists")  # of options


def network_name(config: Mapping[str, Any], network: nn.Module | None) -> str | None:
    """Give the config's `network_name`, else the class of the network, whatever it is wrapped in to share it.

    An engine of several networks, such as a GAN's, has the one that the config defines.
    """
    if isinstance(name := config.get("network_name"), str):
        return name
    while isinstance(inner := getattr(network, "module", None), nn.Module):
        network = inner
    if network is not None:
        return type(network).__name__
    definition = config.get("network_def")
    return str(definition["_target_"]).rpartition(".")[2] if isinstance(definition, Mapping) else None


@dataclass(frozen=True)
class Start:
    """Weights that a training starts from.

    Attributes:
        text: name of their file, without folders, and the first digits of its SHA-256; or the name of a library's.
        word: for the name of the run.
    """

    text: str
    word: str


def start_of(config: Mapping[str, Any]) -> Start | None:
    """Describe the weights that a training starts from, by its ``initial_weights``; None where there are none.

    Args:
        config: the executed config, with expressions unevaluated.
    """
    if config.get(INITIAL_WEIGHTS) is None:
        return None
    weights = ConfigParser(copy.deepcopy(dict(config))).get_parsed_content(INITIAL_WEIGHTS)
    if weights is None:
        return None
    return _start(PureWindowsPath(weights).name, sha256_of(Path(weights)) if Path(weights).is_file() else None)


def start_of_card(weights: Path | None) -> Start | None:
    """Describe the weights that the training of others started from, by the card of these; None where it names none.

    Args:
        weights: their file.
    """
    starts = read_card(weights).get(INITIAL_WEIGHTS) if weights is not None and weights.is_file() else None
    if not starts:
        return None
    return _start(starts[0]["name"], starts[0].get("sha256"))


def untold_starts(config: Mapping[str, Any]) -> set[str]:
    """Name the options of weights to start from that a resumed training, which has no need of them, was not told."""
    return {name for name in (INITIAL_WEIGHTS, "encoder_weights") if config.get(name, "") is None}


def _start(name: str, digits: str | None) -> Start:
    if digits is None:  # a name of torchvision's, such as ResNet50_Weights.IMAGENET1K_V1
        return Start(name, f"from-{name.rpartition('.')[2]}")
    return Start(f"{name}, sha256 {digits[:12]}", f"from-{digits[:6]}")


def readable_name(
    config: Mapping[str, Any],
    network: nn.Module | None,
    *,
    kind: str,
    name_knobs: Sequence[str],
    bundle: str,
    start: Start | None = None,
) -> str:
    """Make a run's name of its kind, unless it trains, its stage, its network, the values of its knobs, the weights
    that it starts from, and the time.

    Args:
        config: the executed config.
        network: of the engine, or None.
        kind: training, evaluation or inference.
        name_knobs: keys of the config; a number stands behind its key.
        bundle: stands in where there is neither stage, network nor knob.
        start: see :func:`start_of`.
    """
    stage = config.get("stage")
    words = [word for word in (stage, network_name(config, network)) if isinstance(word, str)]
    for key in name_knobs:
        if key not in ("stage", "network_name") and isinstance(value := config.get(key), str | int | float):
            words.append(value if isinstance(value, str) else f"{key}{value}")
    words = [Path(word).name for word in words or [bundle]] + ([start.word] if start else [])
    return "_".join([kind] * (kind != "training") + words + [time.strftime("%Y%m%d-%H%M%S")])


def is_path(option: str, value: str) -> bool:
    """Tell whether a value in a command is a path, or has one, which may name a patient.

    Args:
        option: its name, or "" for a value without one.
        value: as it was typed; what stands between commas is a value, too.
    """
    is_named = any(mark in value for mark in "/\\") or any(os.path.exists(part.strip()) for part in value.split(","))
    return is_named or option.endswith(PATH_ENDINGS)


def command_of(arguments: Sequence[str], *, untracked: Sequence[str] = ()) -> str:
    """Give the command of this process without paths, or its program alone where that is not one of ours.

    Args:
        arguments: as in `sys.argv`.
        untracked: options whose values are not shown, such as folders, but for true and false.
    """
    program = Path(arguments[0] if arguments and arguments[0] else "python")
    if program.parts[-2:] == ("bundle", "__main__.py"):
        words = ["python", "-m", "monai.bundle"]
    elif program.name == "clinbundles" or program.parts[-2:] == ("scripts", "cli.py"):
        words = ["clinbundles"]
    else:
        return program.name

    def shown(key: str, value: str) -> str:
        hidden = (key in untracked and value not in ("true", "false")) or is_path(key, value)
        return NOT_SHOWN if hidden else str(scrub(value, key=key))

    option = ""
    for place, word in enumerate(arguments[1:]):
        if word.startswith("--"):
            option, sign, value = word[2:].partition("=")
            words.append(f"--{option}{sign}{shown(option, value) if sign else ''}")
            option = "" if sign else option
        else:
            words.append(word if place == 0 else shown(option, word))  # the first is the verb
            option = ""
    return shlex.join(words)


def description_tags(meta: Mapping[str, Any], command: str, *, git_commit: str) -> dict[str, str]:
    """Give the tags that MLflow's own columns show: source, version, user and description.

    Args:
        meta: the bundle's metadata.
        command: see :func:`command_of`.
        git_commit: "unknown" where there is none.
    """
    tags = {MLFLOW_SOURCE_NAME: command, MLFLOW_SOURCE_TYPE: "LOCAL"}
    tags[MLFLOW_RUN_NOTE] = "\n\n".join([*([str(meta["task"])] if "task" in meta else []), f"    {command}"])
    if git_commit != "unknown":
        tags[MLFLOW_GIT_COMMIT] = git_commit
    try:
        tags[MLFLOW_USER] = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        tags[MLFLOW_USER] = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return tags


def describe_experiment(client: mlflow.MlflowClient, run_id: str, *, meta: Mapping[str, Any]) -> None:
    """Describe the experiment of a run by its bundle's task, description and use, unless somebody has done so.

    Args:
        client, run_id: the store and the run.
        meta: the bundle's metadata.
    """
    texts = [str(meta[key]) for key in ("task", "description", "intended_use") if key in meta]
    number = client.get_run(run_id).info.experiment_id
    if texts and MLFLOW_RUN_NOTE not in client.get_experiment(number).tags:
        client.set_experiment_tag(number, MLFLOW_RUN_NOTE, "\n\n".join(texts))
