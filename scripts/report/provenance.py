"""Where numbers come from, as a run of a results.json: command, data, split, gaze, hardware; folders are left out."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinbundles.engines.tracking.facts import describe_datalist, environment, scrub


def run_of(datalist: str | Path, *, verb: str, seeds: Sequence[int], scale: str) -> dict[str, Any]:
    """Describe a run that has just measured something on the test split of a datalist.

    Args:
        datalist: JSON file with "training", "validation" and "test" lists.
        verb: of the command, such as reproduce; its options are those of this process.
        seeds: of the trainings.
        scale: what was trained, and how small.
    """
    params, tags = describe_datalist(datalist)
    seed = params.get("data_seed", "None")  # of a list that was not split at random there is none
    sizes = "/".join(params.get(f"n_{name}", "0") for name in ("training", "validation", "test"))
    return {
        "command": command_of(verb),
        "data": params.get("data_name", "unknown"),
        "data_sha256": params.get("data_sha256", "not recorded"),
        "split": f"{sizes} images{f', seed {seed}' if seed != 'None' else ''}, values on test",
        "split_sha256": params.get("split_sha256", "not recorded"),
        "gaze": tags.get("gaze_source", "none"),
        "gaze_sha256": params.get("gaze_sha256", "none"),
        "seeds": list(seeds),
        "hardware": hardware(),
        "scale": scale,
    }


def command_of(verb: str) -> str:
    """Write what was typed, with the last part of each path."""
    typed = sys.argv[2:] if sys.argv[1:2] == [verb] else sys.argv[1:]
    words = ["".join(str(scrub(piece)) for piece in re.split("([,=])", word)) for word in typed]
    return shlex.join(["clinbundles", verb, *words])


def hardware() -> str:
    """Name the GPU, or the CPU and the number of threads."""
    facts = environment()
    if facts["env.gpu"] != "none":
        return facts["env.gpu"]
    threads = int(facts["env.threads"])
    return f"{facts['env.cpu']}, {threads} thread{'s'[: threads - 1]}"
