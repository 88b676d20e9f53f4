"""What a grid of runs is made of: the plan of a bundle's reproduce.json laid out as jobs, each behind what it needs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from clinbundles.scripts.flags import as_parts, choose_names, parse_numbers

from .tables import Cell, tables_of


def choose_tables(plan: dict[str, Any], wanted: Any) -> list[str]:
    """Keys of the wanted tables: one by its key, all that begin with a number ("3" is 3a and 3b), or all for None.

    The number of one of the plan's averages stands for the tables that it is over.
    """
    known, chosen, averages = list(tables_of(plan)), [], plan.get("averages", {})
    for part in known if wanted is None else as_parts(wanted):
        if part in averages:
            chosen += averages[part]["tables"]
            continue
        for name in [part] if part in known else parse_numbers(part):
            found = [key for key in known if key == name or re.match(rf"{name}(?!\d)", key)]
            if not found:
                raise ValueError(f"table {name} is not in reproduce.json, which has {', '.join(known)}.")
            chosen += found
    return list(dict.fromkeys(chosen))


def entries(plan: dict[str, Any], axis: str, scale: str) -> dict[str, dict[str, Any]]:
    """What each of the plan's "rows" or "columns" stands for at a scale: configs, knobs, after, own and not."""
    name, listed = next(iter(plan[axis].items()))
    if isinstance(listed, list):
        listed = {item: {"knobs": {name: item}} for item in listed}

    def resolved(item: str) -> dict[str, Any]:
        entry = listed[item]
        parent, after = entry.get("weights_of", entry.get("like")), entry.get("after", {})
        if "weights_of" in entry:
            after = after | {"ckpt_path": parent}
        if unknown := [n for n in (parent, *after.values()) if n is not None and n not in listed]:
            raise ValueError(f"reproduce.json: {item!r} needs {unknown[0]!r}, which is not one of the {axis}.")
        base = {"configs": plan["configs"], "knobs": {}, "after": {}, "own": []} if parent is None else resolved(parent)
        configs = {stage: as_parts(names) for stage, names in entry.get("configs", base["configs"]).items()}
        return {
            "configs": {"evaluate": configs["evaluate"]} if "weights_of" in entry else configs,
            "knobs": base["knobs"] | entry.get("knobs", {}) | entry.get("scales", {}).get(scale, {}),
            "after": base["after"] | after,
            "own": [*base["own"], *entry.get("own", [])],
            "not": entry.get("not", []),
        }

    found = {item: resolved(item) for item in listed}
    if isinstance(overlay := plan.get("scales", {}).get(scale), str):
        for entry in found.values():
            entry["configs"] = {stage: overlaid(names, stage, overlay) for stage, names in entry["configs"].items()}
    return found


def overlaid(names: Sequence[str], stage: str, overlay: str) -> list[str]:
    """Lay a config over those of a stage, under the one that evaluates: train,paper but paper,evaluate."""
    return [*names[:-1], overlay, names[-1]] if stage == "evaluate" else [*names, overlay]


def knobs_of_scale(plan: dict[str, Any], scale: str) -> dict[str, Any]:
    """The knobs that a scale sets for all cells: none where it is a config."""
    knobs = plan["scales"][scale]
    return {} if isinstance(knobs, str) else knobs


@dataclass(frozen=True)
class Job:
    """All that the run of a cell takes: configs by stage, knobs, and by knob the folder of the cell that it is from."""

    cell: Cell
    configs: dict[str, list[str]]
    knobs: dict[str, Any]
    needs: dict[str, Path]
    wave: int  # one more than that of the cells it needs
    left_out: tuple[str, ...] = ()  # knobs asked for, of which its network takes none

    @property
    def result(self) -> Path:
        """What others take from it: a folder of data if it makes one, else weights."""
        return self.cell.folder / ("made" if "make" in self.configs else "model.pt")


def make_jobs(
    rows: dict[str, dict[str, Any]],
    columns: dict[str, dict[str, Any]],
    chosen: Sequence[str],
    seeds: Sequence[str],
    output: Path,
    *,
    defaults: dict[str, Any],
    overrides: dict[str, Any],
) -> list[Job]:
    """The cells of the chosen columns, each behind those it is after.

    Knobs go from defaults to overrides, which leave a column's own as they are.
    """
    jobs: dict[Path, Job] = {}

    def left_out(row: str, column: str) -> bool:
        return column in rows[row]["not"] or any(left_out(row, other) for other in columns[column]["after"].values())

    def add(seed: str, row: str, column: str) -> Job:
        needed = {knob: add(seed, row, other) for knob, other in columns[column]["after"].items()}
        given = {knob: value for knob, value in overrides.items() if knob not in columns[column]["own"]}
        knobs = defaults | rows[row]["knobs"] | columns[column]["knobs"] | {"seed": int(seed)} | given
        if "dataset_dir" in needed:
            knobs.pop("datalist", None)  # what was made has a list of its own
        if "datalist" in knobs:
            knobs["datalist"] = knobs["datalist"].replace("{seed}", seed)
        knobs |= {knob: str(job.result) for knob, job in needed.items()}
        folder = output / re.sub(r"[^\w.+-]+", "", f"{row}_{column}_seed{seed}")
        job = Job(
            Cell(row, column, int(seed), folder),
            columns[column]["configs"],
            knobs,
            {knob: job.cell.folder for knob, job in needed.items()},
            max((job.wave + 1 for job in needed.values()), default=0),
        )
        return jobs.setdefault(folder, job)

    for seed, row, column in itertools.product(seeds, rows, chosen):
        if not left_out(row, column):
            add(seed, row, column)
    return list(jobs.values())


def leave_out_untaken(plan: dict[str, Any], jobs: Sequence[Job], overrides: dict[str, Any]) -> list[Job]:
    """Take from each cell the knobs asked for that its network does not take, as the plan's ``leave_out`` finds them.

    Raises:
        ValueError: there is one that no network of the grid takes.
    """
    if not overrides or (path := plan.get("leave_out")) is None:
        return list(jobs)
    module, _, function = path.rpartition(".")
    untaken = getattr(import_module(module), function)
    fitted = []
    for job in jobs:
        names = tuple(name for name in untaken(job.knobs) if name in overrides)
        knobs = {name: value for name, value in job.knobs.items() if name not in names}
        fitted.append(replace(job, knobs=knobs, left_out=names))
    for name in overrides:
        if all(name in job.left_out for job in fitted):
            raise ValueError(f"--{name}: none of {', '.join(dict.fromkeys(job.cell.row for job in jobs))} takes it.")
    return fitted


def say_left_out(jobs: Sequence[Job]) -> list[str]:
    """Say which rows were run without a knob that others had."""
    rows = {job.cell.row: job.left_out for job in jobs if job.left_out}
    return [f"{row}: does not take {' and '.join(names)}: trained from random weights." for row, names in rows.items()]


def give_data(
    rows: dict[str, dict[str, Any]], wanted: Any, **places: tuple[str | None, str | None]
) -> dict[str, dict[str, Any]]:
    """The wanted rows with their ``dataset_dir`` and ``datalist``, each given as (for all, "ROW=PATH,ROW=PATH")."""
    own: dict[str, dict[str, str]] = {name: {} for name in rows}
    for knob, (_, listed) in places.items():
        for pair in as_parts(listed or ()):
            name, _, path = pair.partition("=")
            if name not in rows or not path:
                raise ValueError(f"--{knob}s: {pair!r} is not ROW=PATH with a row of {', '.join(rows)}.")
            own[name][knob] = path
    chosen = (
        choose_names(wanted, list(rows), "rows") if wanted is not None else [n for n in rows if own[n]] or list(rows)
    )
    common, given = {knob: path for knob, (path, _) in places.items() if path is not None}, {}
    for name in chosen:
        knobs = rows[name]["knobs"]
        needs_own = len(chosen) > 1 and knobs.get("dataset_dir", "") is None
        paths = own[name] if needs_own else common | own[name]
        knobs = knobs | {knob: str(Path(path).resolve()) for knob, path in paths.items()}
        if knobs.get("dataset_dir", "") is None:
            raise ValueError(f"row {name!r} has no data: give --dataset_dirs {name}=FOLDER, or choose among --rows.")
        given[name] = rows[name] | {"knobs": knobs}
    return given
