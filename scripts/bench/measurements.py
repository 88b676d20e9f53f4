"""What benches measured, in a file that ``clinbundles report --merge`` takes into the bundles' results."""

from __future__ import annotations

import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bench.rounds import chip, versions
from clinbundles.scripts.report.results import as_json, check_results, merge_results, read_measurements

EMPTY: dict[str, Any] = {"runs": {}, "results": []}


def as_metric(values: Sequence[float]) -> dict[str, float]:
    """Return the median of the rounds, and the smallest and the largest of them, to four digits."""
    numbers = {"value": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{number:.4g}") for name, number in numbers.items()}


def add_measurements(
    file: str | Path,
    bundle: str,
    name: str,
    rows: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    device: str,
    threads: int,
    scale: str,
    data: str = "random images",
) -> None:
    """Add one run of a bench to a file, which other benches may have begun.

    Args:
        file: JSON, for each bundle runs and results as in its docs/results.json; made if it is not there.
        bundle: folder name of the bundle that the bench belongs to.
        name: of what was measured; the run is called so and by its device, and takes the place of one of that name.
        rows: by contender, the metrics by their names, each as :func:`as_metric` gives it.
        device: cpu or cuda.
        threads: of a CPU.
        scale: what the times depend on beside the machine: sizes, precision, rounds.
        data: what was measured on.

    Raises:
        ValueError: the file is there and holds something else.
    """
    path = Path(file)
    content: dict[str, Any] = {}
    if path.is_file():
        content = read_measurements(path)
    gpu = device.startswith("cuda")
    run = f"{name}, {torch.cuda.get_device_name() if gpu else f'{threads} CPU thread' + 's' * (threads > 1)}"
    nothing = dict.fromkeys(("split", "data_sha256", "split_sha256", "gaze", "gaze_sha256"), "none")
    more = {
        "runs": {
            run: {
                "command": _command(),
                "data": data,
                **nothing,
                "seeds": [0],
                "hardware": torch.cuda.get_device_name() if gpu else f"{chip()}, {threads} of {os.cpu_count()} cores",
                "scale": f"bench: {scale}",
                "note": f"{versions()}; medians of interleaved rounds; rounds: the smallest and the largest ratio",
            }
        },
        "results": [
            {"run": run, "row": "speed", "column": column, "metrics": {k: dict(v) for k, v in metrics.items()}}
            for column, metrics in rows.items()
        ],
    }
    before = content.get(bundle, EMPTY)
    before = {
        "runs": {key: value for key, value in before["runs"].items() if key != run},
        "results": [result for result in before["results"] if result["run"] != run],
    }
    content[bundle] = merge_results(before, more, file=str(path))
    check_results(content[bundle], f"{path}: {bundle}")
    write_atomically(path, as_json(content) + "\n")


def _command() -> str:
    """The command that runs, without the file that it writes to."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word == "--json":
            next(words, None)
        elif not word.startswith("--json="):
            kept.append(word)
    return shlex.join(["clinbundles", *kept])
