"""What a grid measured as runs and results, ready to join a bundle's docs/results.json."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clinbundles.scripts.report.provenance import run_of
from clinbundles.scripts.report.results import NUMBERS

from .comparison import caveats
from .plan import Job
from .tables import tables_of

# Where numbers come from, by row and column: the fields of a run, and the settings of its cells.
Sources = dict[tuple[str, str], dict[str, Any]]


def sources_of(
    bundle_dir: Path, scale: str, plan: Mapping[str, Any], jobs: Sequence[Job], *, part: str = ""
) -> Sources:
    """Gather where the numbers of each row and column come from; folders are left out.

    Args:
        bundle_dir: the bundle's folder.
        scale: of the grid.
        plan: the content of reproduce.json.
        jobs: the finished cells.
        part: what tells this grid's runs from others of the same row: a set of columns, options of the command line.
    """
    sources: Sources = {}
    splits: dict[tuple[str, str], dict[str, str]] = {}
    for job in jobs:
        dataset_dir = job.knobs.get("dataset_dir", bundle_dir / "samples")
        datalist = job.knobs.get("datalist", Path(dataset_dir) / "datalist.json")
        source = run_of(datalist, verb="reproduce", seeds=[], scale=scale)
        source |= {"name": f"{job.cell.row} {part}".strip(), "settings": _settings(plan, job)}
        splits.setdefault((job.cell.row, job.cell.column), {})[source["split_sha256"]] = source["split"]
        sources.setdefault((job.cell.row, job.cell.column), source)["seeds"].append(job.cell.seed)
    for key, of_seeds in splits.items():
        if len(of_seeds) > 1:
            text = f"{len(of_seeds)} folds: {'; '.join(dict.fromkeys(of_seeds.values()))}"
            sources[key] |= {"split": text, "split_sha256": hashlib.sha256("".join(of_seeds).encode()).hexdigest()}
    return sources


def _settings(plan: Mapping[str, Any], job: Job) -> dict[str, Any]:
    named = {next(iter(plan["rows"])), next(iter(plan["columns"])), "seed", "dataset_dir", "datalist", *job.needs}
    plain = {knob: Path(value).name if isinstance(value, str) else value for knob, value in job.knobs.items()}
    return {knob: value for knob, value in plain.items() if knob not in named} | dict.fromkeys(
        job.left_out, "not taken"
    )


def heading(sources: Sources) -> str:
    """Compose one line on the data, of each row if they differ, the hardware, and the settings that all cells share."""
    rows: dict[str, list[str]] = {}
    for (row, _), source in sources.items():
        data = f"{source['data']}, sha256 {source['data_sha256'][:12]}; {source['split']}"
        rows.setdefault(data if source["gaze"] == "none" else f"{data}; gaze: {source['gaze']}", []).append(row)
    several = len(rows) > 1
    data = "; ".join(f"{', '.join(dict.fromkeys(names))}: {text}" if several else text for text, names in rows.items())
    first = next(iter(sources.values()))
    return f"{data}; {first['hardware']}; {_scale_text(first['scale'], _shared(list(sources.values())))}"


def _shared(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = (source["settings"] for source in sources)
    return {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}


def _scale_text(scale: str, settings: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"{scale}: {text}" if text else scale


def as_results(plan: Mapping[str, Any], summary: pd.DataFrame, sources: Sources) -> dict[str, Any]:
    """Write the summary as runs, each once, and one result a row and column with all that was measured there.

    Args:
        plan: the content of reproduce.json.
        summary: what :func:`.tables.summarise` returned.
        sources: what :func:`sources_of` returned.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    runs, settings, names = _runs(sources)
    results = []
    for row, column in itertools.product(dict.fromkeys(summary[row_name]), dict.fromkeys(summary[column_name])):
        group = summary[(summary[row_name] == row) & (summary[column_name] == column)]
        if group.empty:
            continue
        result = {"run": names[row, column], "row": row, "column": column, **_measured(plan, group)}
        result |= {"settings": settings[row, column]} if settings[row, column] else {}
        notes = caveats(plan, group)
        results.append(result | ({"note": " ".join(notes)} if notes else {}))
    return {"runs": runs, "results": results}


def _runs(sources: Sources) -> tuple[dict[str, Any], dict[tuple, dict[str, Any]], dict[tuple, str]]:
    """Runs by name; settings that a row and column has of its own, and its run's name, by both."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, source in sources.items():
        seeds = ",".join(map(str, source["seeds"]))
        first = groups.get(source["name"], [key])[0]
        # A column whose cells failed for some seeds is a run of its own.
        same = sources[first]["seeds"] == source["seeds"]
        groups.setdefault(source["name"] if same else f"{source['name']} seeds {seeds}", []).append(key)
    runs, settings, names = {}, {}, {}
    for name, keys in groups.items():
        shared = _shared([sources[key] for key in keys])
        run = {field: value for field, value in sources[keys[0]].items() if field not in ("name", "settings")}
        runs[name] = run | {"scale": _scale_text(run["scale"], shared)}
        for key in keys:
            own = sources[key]["settings"]
            settings[key], names[key] = {k: v for k, v in own.items() if k not in shared}, name
    return runs, settings, names


def _measured(plan: Mapping[str, Any], group: pd.DataFrame) -> dict[str, Any]:
    """The metrics, and the costs if there are any, of one row and column."""
    metrics, costs = {}, {}
    for line in group.to_dict("records"):
        table = tables_of(plan)[line["table"]]
        if "metric" in table:
            numbers = {name: line.get(name) for name in NUMBERS}
            metrics[table["metric"]] = {k: round(float(v), 4) for k, v in numbers.items() if not pd.isna(v)}
        elif not pd.isna(line["mean"]):
            costs[table["name"]] = float(f"{line['mean']:.4g}")
            if not pd.isna(line.get("ratio")):
                costs[f"{table['name']}_ratio"] = float(f"{line['ratio']:.4g}")
    return {"metrics": metrics} | ({"cost": costs} if costs else {})
