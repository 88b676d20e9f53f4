"""Runtimes of a packed bundle, timed in one process, each once a round."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch import nn

from clinbundles.scripts.bars import in_words, say
from clinbundles.scripts.bench.rounds import ratio, time_rounds
from clinbundles.scripts.bundle import config_names, open_configs
from clinbundles.scripts.pack.pure import is_pure

RUNTIMES = {"eager": ["inference"], "onnx": ["inference_onnx"]}
ROUNDS = 15
MEDIANS = "medians over the rounds, of the times and of their ratios"
CLEARLY = 0.95  # a share of eager's time that is no accident of the machine


def time_runtimes(folder: Path, *, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Time the network of a bundle on a CPU, by its inferer, on the first sample, in each runtime that its zip has.

    Args:
        folder: the bundle's, on Python's path, as its configs name its code.
        rounds: how often each is timed.

    Returns:
        Seconds, one a round, by runtime.

    Raises:
        ValueError: the bundle has one runtime alone.
    """
    names = [name for name, configs in RUNTIMES.items() if set(configs) <= set(config_names(folder))]
    if len(names) < 2:
        if is_pure(folder):
            raise ValueError(f"{folder.name}: has one runtime alone, as every pure zip.")
        version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
        own = f" --ckpt_path FILE --version {version}.onnx" if "+" in version else ""  # of a user's own weights
        raise ValueError(
            f"{folder.name}: has one runtime alone; clinbundles pack {folder.name}{own} --runtime onnx adds another"
            f"{', where FILE are its weights' if own else ''}."
        )
    logging.disable(logging.INFO)
    say(f"loading the network as {' and '.join(names)}")
    with torch.inference_mode(), contextlib.redirect_stdout(io.StringIO()):
        parsers = {name: open_configs(folder, RUNTIMES[name], device="cpu") for name in names}
        image = parsers["eager"].get_parsed_content("dataset")[0]["image"][None]
        calls = {
            name: partial(parser.get_parsed_content("inferer"), image, network_of(parser))
            for name, parser in parsers.items()
        }
        first = time_rounds(calls, rounds=1, warm_up=2)
        left = in_words(sum(sum(each) for each in first.values()) * rounds)
        say(f"timing each {rounds} times, which takes {left}")
        seconds = time_rounds(calls, rounds=rounds, warm_up=0)
    logging.disable(logging.NOTSET)
    return seconds


def network_of(parser: ConfigParser) -> nn.Module:
    """Make the network that a config runs, with its weights, to evaluate."""
    parser.get_parsed_content("weights_loader").load()
    return parser.get_parsed_content("network").eval()


def advice(bundle: str, seconds: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Say how long each runtime takes, and which to use."""
    shares = {runtime: ratio(values, seconds["eager"]) for runtime, values in seconds.items()}
    for runtime, values in seconds.items():
        note = "" if runtime == "eager" else f" ({MEDIANS})"
        yield f"{runtime}: {statistics.median(values) * 1e3:.1f} ms an image, {shares[runtime]:.2f} of eager{note}"
    best = min(shares, key=shares.__getitem__)
    number = torch.get_num_threads()
    threads = f"with {number} thread{'s' if number > 1 else ''} on this machine"
    if shares[best] < CLEARLY:
        yield f"use {best}, {threads}: clinbundles predict {bundle} INPUTS OUTPUT --config {RUNTIMES[best][0]}"
    else:
        yield f"use eager, {threads}: no other runtime is clearly faster."
