"""Run the grid behind a paper's tables and set the measured figures beside the published ones.

    python scripts/reproduce.py gaze_polyp_segmentation --tables 1-4 --scale cpu --dataset_dir DIR --datalist FILE

What to run and what was published stands in the bundle's ``configs/reproduce.json``. Every cell (row, column, seed) is
one training and one evaluation on the test section, tracked as nested MLflow runs. Finished cells are skipped, a killed
one goes on from its last epoch.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import fire
import matplotlib
import pandas as pd
import torch
from monai.bundle import run as run_bundle

from clinbundles.engines.grid_tables import Cell, as_markdown, as_results, plot, summarise
from clinbundles.engines.run_facts import describe_datalist, environment, scrub
from clinbundles.engines.run_store import RunStore, default_tracking_uri
from clinbundles.transforms.datalist import write_atomically

ROOT = Path(__file__).resolve().parents[1]
_PLACES = ("dataset_dir", "datalist")


def parse_numbers(text: Any) -> list[str]:
    """ "1-4" or "1,3" or (1, 3) or 2 in, ["1", "2", "3", "4"] and so on out."""
    parts = [str(p).strip() for p in text] if isinstance(text, list | tuple) else str(text).split(",")
    numbers: list[str] = []
    for part in parts:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise ValueError(f"{text!r}: expected numbers such as 0,1 or 1-4.")
        first, last = int(match[1]), int(match[2] or match[1])
        numbers += [str(n) for n in range(first, last + 1)]
    return numbers


def run_cell(bundle: Path, plan: dict, knobs: dict[str, Any], folder: Path, tracking: dict[str, str]) -> None:
    """Train and evaluate one cell in ``folder``; a cell that is done is left alone."""
    result = folder / "result.json"
    if result.is_file():
        done = json.loads(result.read_text())["knobs"]
        if done != json.loads(json.dumps(knobs)):
            raise ValueError(f"{result}: was run with {done}, now asked for {knobs}. Use another --output_dir.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    common = {"bundle_root": str(bundle), "ckpt_dir": str(folder), **knobs, **tracking}
    configs = {stage: [str(bundle / "configs" / f) for f in files] for stage, files in plan["configs"].items()}
    last = folder / "last.pt"
    epochs_done = torch.load(last, map_location="cpu", weights_only=True)["progress"]["epoch"] if last.is_file() else 0
    if epochs_done < knobs["max_epochs"]:
        run_bundle(config_file=configs["train"], output_dir=str(folder), resume=epochs_done > 0, **common)
    run_bundle(config_file=configs["evaluate"], output_dir=str(folder / "test"), **common)
    table = pd.read_csv(folder / "test" / "per_image.csv")
    metrics = {t["metric"]: float(table[t["metric"]].mean()) for t in plan["tables"].values()}
    write_atomically(result, json.dumps({"knobs": knobs, "metrics": metrics}, indent=4))


class GridRun:
    """The MLflow run that holds a grid together: its cells are nested in it, its tables are its artifacts."""

    def __init__(self, bundle: str, scale: str, output: Path, tracking_uri: str | None) -> None:
        default = os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(ROOT / "bundles" / bundle)
        self.uri = tracking_uri or default
        output.mkdir(parents=True, exist_ok=True)
        remembered = output / "grid.json"
        previous = json.loads(remembered.read_text())["run_id"] if remembered.is_file() else None
        store = RunStore(self.uri, experiment=bundle, name=f"reproduce_{scale}", previous=previous)
        self.client, self.run_id = store.open()
        self.client.set_tag(self.run_id, "kind", "grid")
        write_atomically(remembered, json.dumps({"run_id": self.run_id}))

    def finish(self, tables: list[Path], status: str) -> None:
        """Keep the tables as artifacts and close the run."""
        self.client.set_terminated(self.run_id, status)
        for path in tables:
            self.client.log_artifact(self.run_id, str(path))


def reproduce(
    bundle: str,
    *,
    tables: Any = "1-4",
    networks: Any = None,
    columns: Any = None,
    seeds: Any = "0,1",
    scale: str = "cpu",
    dataset_dir: str | None = None,
    datalist: str | None = None,
    output_dir: str | None = None,
    tracking: str | None = None,
    tracking_uri: str | None = None,
    cluster: str | None = None,
    **knobs: Any,
) -> None:
    """Run every missing cell of the grid, then write tables.md, tables.csv and tables.png.

    Args:
        bundle: folder name below ``bundles/``.
        tables: which of the paper's tables to write, "1-4" or "1,3".
        networks: names to keep of the rows, comma separated; all if not given.
        columns: names to keep of the columns.
        seeds: "0,1,2" or "0-4".
        scale: one of the scales in reproduce.json.
        dataset_dir: data set folder; the bundle's samples if not given.
        datalist: JSON datalist; ``dataset_dir``/datalist.json if not given.
        output_dir: where cells and tables go; ``runs/reproduce/<bundle>_<scale>`` if not given.
        tracking: tracking settings; the project's if not given, "none" for no tracking.
        tracking_uri: MLflow database or server instead of the default one.
        cluster: None runs cell after cell here; "local" or "slurm" hands them to submitit, one job a cell.
        knobs: any other top-level value of the configs, for all cells.
    """
    bundle_dir = ROOT / "bundles" / bundle
    plan_file = bundle_dir / "configs" / "reproduce.json"
    if not plan_file.is_file():
        raise FileNotFoundError(f"{plan_file}: no such file; bundle is {bundle!r}.")
    plan = json.loads(plan_file.read_text())
    if scale not in plan["scales"]:
        raise ValueError(f"scale is {scale!r}, expected one of {', '.join(plan['scales'])}.")
    numbers = parse_numbers(tables)
    if unknown := [n for n in numbers if n not in plan["tables"]]:
        raise ValueError(f"table {unknown[0]} is not in {plan_file.name}, which has {', '.join(plan['tables'])}.")
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    chosen_rows = _choose(networks, plan["rows"][row_name], "networks")
    chosen_columns = _choose(columns, plan["columns"][column_name], "columns")
    output = Path(output_dir or ROOT / "runs" / "reproduce" / f"{bundle}_{scale}").resolve()

    settings = {**plan["scales"][scale], **knobs}
    if dataset_dir is not None:
        settings["dataset_dir"] = str(Path(dataset_dir).resolve())
    if datalist is not None:
        settings["datalist"] = str(Path(datalist).resolve())
    cells = [
        Cell(row, column, int(seed), output / f"{row}_{column}_seed{seed}")
        for seed, row, column in itertools.product(parse_numbers(seeds), chosen_rows, chosen_columns)
    ]
    knobs_known = json.loads((bundle_dir / "configs" / plan["configs"]["train"][0]).read_text())
    if unknown := [k for k in settings if k not in knobs_known]:
        raise ValueError(f"--{unknown[0]} is no top-level value of {plan['configs']['train'][0]}.")
    grid = None if tracking == "none" else GridRun(bundle, scale, output, tracking_uri)
    arguments = {}
    if grid is not None:
        settings_file = tracking or str(ROOT / "mlflow" / "tracking.json")
        arguments = {"tracking": settings_file, "tracking_uri": grid.uri, "parent_run_id": grid.run_id}
    jobs = [
        (bundle_dir, plan, {row_name: c.row, column_name: c.column, "seed": c.seed, **settings}, c.folder, arguments)
        for c in cells
    ]
    failed = _run_here(jobs) if cluster is None else _run_on_cluster(jobs, cluster, output / "jobs")
    finished = [c for c in cells if (c.folder / "result.json").is_file()]
    if not finished:
        raise SystemExit(f"no cell finished; see {output}.")
    summary = summarise(plan, numbers, finished, chosen_columns[0])
    source = provenance(bundle_dir, scale, settings) | {"seeds": sorted({c.seed for c in finished})}
    written = write_tables(plan, summary, source, output)
    if grid is not None:
        grid.finish(written, "FAILED" if failed else "FINISHED")
    print((output / "tables.md").read_text())
    print(f"{', '.join(path.name for path in written)}: {output}")
    if failed:
        names = ", ".join(failed)
        raise SystemExit(f"{len(failed)} of {len(cells)} cells failed: {names}. The same command retries them.")


def provenance(bundle_dir: Path, scale: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Where figures come from: command, data with its hash, split, gaze, hardware, scale. No folder names."""
    dataset_dir = settings.get("dataset_dir", bundle_dir / "samples")
    params, tags = describe_datalist(settings.get("datalist", Path(dataset_dir) / "datalist.json"))
    facts = environment()
    gpu, cpu = facts["env.gpu"], f"{facts['env.cpu']}, {facts['env.threads']} threads"
    words = [str(scrub(word)) for word in sys.argv[1:]]
    return {
        "command": shlex.join(["python", "scripts/reproduce.py", *words]),
        "data": f"{params.get('data_name', 'unknown')}, sha256 {params.get('data_sha256', 'unknown')[:12]}",
        "split": "/".join(params.get(f"n_{part}", "0") for part in ("training", "validation", "test"))
        + f" images, seed {params.get('data_seed', 'unknown')}, figures on test",
        "gaze": tags.get("gaze_source", "none"),
        "hardware": cpu if gpu == "none" else gpu,
        "scale": scale + ": " + ", ".join(f"{k} {_short(v)}" for k, v in settings.items() if k not in _PLACES),
    }


def write_tables(plan: dict, summary: pd.DataFrame, source: dict[str, Any], output: Path) -> list[Path]:
    """Write tables.md, tables.csv, tables.png and results.json (entries for the metadata); return the paths."""
    heading = f"{source['data']}; {source['split']}; gaze: {source['gaze']}; {source['hardware']}; {source['scale']}"
    summary.to_csv(output / "tables.csv", index=False)
    write_atomically(output / "tables.md", as_markdown(plan, summary, heading))
    plot(plan, summary, heading, output / "tables.png")
    results = as_results(plan, summary, source)
    write_atomically(output / "results.json", json.dumps(results, indent=4, ensure_ascii=False))
    return [output / name for name in ("tables.md", "tables.csv", "tables.png", "results.json")]


def _short(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) else value


def _choose(wanted: Any, known: list[str], name: str) -> list[str]:
    if wanted is None:
        return known
    chosen = [str(w) for w in wanted] if isinstance(wanted, list | tuple) else str(wanted).split(",")
    if unknown := [c for c in chosen if c not in known]:
        raise ValueError(f"{name}: {unknown[0]!r} is not one of {', '.join(known)}.")
    return [k for k in known if k in chosen]


def _run_here(jobs: list[tuple]) -> list[str]:
    failed = []
    for done, job in enumerate(jobs):
        print(f"cell {done + 1} of {len(jobs)}: {job[3].name}", flush=True)
        try:
            run_cell(*job)
        except Exception:  # one broken cell must not cost the others
            traceback.print_exc()
            failed.append(job[3].name)
    return failed


def _run_on_cluster(jobs: list[tuple], cluster: str, folder: Path) -> list[str]:
    import submitit  # only needed here

    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(timeout_min=24 * 60, name="reproduce")
    submitted = executor.map_array(run_cell, *zip(*jobs, strict=True))
    failed = []
    for job, cell in zip(submitted, jobs, strict=True):
        if (error := job.exception()) is not None:
            print(error)
            failed.append(cell[3].name)
    return failed


if __name__ == "__main__":
    matplotlib.use("Agg")
    fire.Fire(reproduce)
