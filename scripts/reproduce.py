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
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mlflow
import numpy as np
import pandas as pd
from monai.bundle import run as run_bundle
from scipy import stats

from clinbundles.engines.tracking import default_tracking_uri

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation."""

    row: str
    column: str
    seed: int
    folder: Path


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


def write_text_atomically(text: str, path: Path) -> None:
    """Write ``text`` to ``path``, complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


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
    trained = folder / "trained"
    if not trained.is_file():
        resume = (folder / "last.pt").is_file()
        run_bundle(config_file=configs["train"], output_dir=str(folder), resume=resume, **common)
        trained.touch()
    run_bundle(config_file=configs["evaluate"], output_dir=str(folder / "test"), **common)
    table = pd.read_csv(folder / "test" / "per_image.csv")
    metrics = {t["metric"]: float(table[t["metric"]].mean()) for t in plan["tables"].values()}
    write_text_atomically(json.dumps({"knobs": knobs, "metrics": metrics}, indent=4), result)


class GridRun:
    """The MLflow run that holds a grid together: its cells are nested in it, its tables are its artifacts."""

    def __init__(self, bundle: str, scale: str, output: Path, tracking_uri: str | None) -> None:
        self.uri = (
            tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(ROOT / "bundles" / bundle)
        )
        output.mkdir(parents=True, exist_ok=True)
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self.client = mlflow.MlflowClient(self.uri)
        remembered = output / "grid.json"
        if remembered.is_file():
            self.run_id = json.loads(remembered.read_text())["run_id"]
            self.client.update_run(self.run_id, "RUNNING")
            return
        experiment = self.client.get_experiment_by_name(bundle)
        experiment_id = experiment.experiment_id if experiment else self._create_experiment(bundle)
        run = self.client.create_run(experiment_id, run_name=f"reproduce_{scale}_{output.name}", tags={"kind": "grid"})
        self.run_id = run.info.run_id
        write_text_atomically(json.dumps({"run_id": self.run_id, "tracking_uri": self.uri}), remembered)

    def _create_experiment(self, name: str) -> str:
        place = None
        if self.uri.startswith("sqlite:///"):
            place = (Path(self.uri.removeprefix("sqlite:///")).parent / "mlruns").as_uri()
        return self.client.create_experiment(name, artifact_location=place)

    def finish(self, tables: list[Path], status: str) -> None:
        """Keep the tables as artifacts and close the run."""
        for path in tables:
            self.client.log_artifact(self.run_id, str(path))
        self.client.set_terminated(self.run_id, status)


def summarise(plan: dict, tables: list[str], cells: list[Cell], paired_with: str) -> pd.DataFrame:
    """One line a table, row and column: mean, spread over seeds, difference to the first column with its interval.

    The difference is taken image by image (each image's metric averaged over the seeds first); the interval is the 95 %
    percentile bootstrap over the images. It covers the choice of test images, not of seeds: those are the std column.
    """
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    lines = []
    for number in tables:
        table = plan["tables"][number]
        images: dict[tuple, pd.DataFrame] = {}
        for cell in cells:
            values = pd.read_csv(cell.folder / "test" / "per_image.csv").set_index("image")[table["metric"]]
            key = (cell.row, cell.column)
            images[key] = pd.concat([images.get(key), values.rename(cell.seed)], axis=1)
        for (row, column), per_image in images.items():
            over_seeds = per_image.mean()
            published = table["published"].get(row, [None] * 9)[plan["columns"][column_name].index(column)]
            line = {
                "table": number,
                "metric": table["title"],
                row_name: row,
                column_name: column,
                "published": published,
                "mean": over_seeds.mean(),
                "std": over_seeds.std(ddof=1) if len(over_seeds) > 1 else None,
                "seeds": len(over_seeds),
                "images": len(per_image),
            }
            if column != paired_with and (row, paired_with) in images:
                difference = (per_image.mean(axis=1) - images[row, paired_with].mean(axis=1)).to_numpy()
                interval = stats.bootstrap(
                    (difference,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
                ).confidence_interval
                line |= {"difference": difference.mean(), "low": interval.low, "high": interval.high}
            lines.append(line)
    return pd.DataFrame(lines)


def as_markdown(plan: dict, summary: pd.DataFrame, heading: str) -> str:
    """The summary as one Markdown table a published table."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    columns = list(dict.fromkeys(summary[column_name]))
    text = [heading, ""]
    for number, table in summary.groupby("table", sort=False):
        text += [f"### Table {number}: {table['metric'].iloc[0]}", ""]
        head = [row_name]
        for column in columns:
            head += [f"{column} (paper)", f"{column} (here)"]
        head += [f"{c} − {columns[0]} [95 % CI]" for c in columns[1:]]
        text += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row, group in table.groupby(row_name, sort=False):
            cells = {c: values.iloc[0] for c, values in group.groupby(column_name)}
            line = [str(row)]
            for column in columns:
                line += [_published(cells.get(column)), _mean_and_spread(cells.get(column))]
            line += [_difference(cells.get(column)) for column in columns[1:]]
            text.append("| " + " | ".join(line) + " |")
        text.append("")
    return "\n".join(text + [f"- {note}" for note in plan.get("notes", [])]) + "\n"


def _published(cell: pd.Series | None) -> str:
    return "–" if cell is None or pd.isna(cell["published"]) else f"{cell['published']:.4f}"


def _mean_and_spread(cell: pd.Series | None) -> str:
    if cell is None:
        return "–"
    return f"{cell['mean']:.4f}" + ("" if pd.isna(cell["std"]) else f" ± {cell['std']:.4f}")


def _difference(cell: pd.Series | None) -> str:
    if cell is None or pd.isna(cell.get("difference")):
        return "–"
    return f"{cell['difference']:+.4f} [{cell['low']:+.4f}, {cell['high']:+.4f}]"


def plot(plan: dict, summary: pd.DataFrame, heading: str, path: Path) -> None:
    """Bars of the measured means (spread over seeds as whiskers) and the published figures as diamonds."""
    row_name, column_name = next(iter(plan["rows"])), next(iter(plan["columns"]))
    tables = list(summary.groupby("table", sort=False))
    rows, columns = list(dict.fromkeys(summary[row_name])), list(dict.fromkeys(summary[column_name]))
    figure, axes = plt.subplots(1, len(tables), figsize=(max(4, 1.2 + len(rows)) * len(tables), 4.4), squeeze=False)
    width = 0.8 / len(columns)
    for axis, (number, table) in zip(axes[0], tables, strict=True):
        for k, column in enumerate(columns):
            part = table[table[column_name] == column].set_index(row_name).reindex(rows)
            place = np.arange(len(rows)) + (k - (len(columns) - 1) / 2) * width
            spread = part["std"].astype(float).fillna(0)
            axis.bar(
                place, part["mean"].astype(float), width * 0.92, yerr=spread, label=column, color=f"C{k}", capsize=2
            )
            axis.plot(
                place,
                part["published"].astype(float),
                "D",
                color="black",
                markersize=3.5,
                label="paper" if k == 0 else None,
            )
        axis.set(title=f"Table {number}: {table['metric'].iloc[0]}", xticks=range(len(rows)), ylim=(0, 1))
        axis.set_xticklabels(rows, rotation=30, ha="right")
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.93), ncol=len(labels), frameon=False)
    figure.suptitle(heading, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.88))
    figure.savefig(path, dpi=130)
    plt.close(figure)


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
        (
            bundle_dir,
            plan,
            {row_name: c.row, column_name: c.column, "seed": c.seed, **settings},
            c.folder,
            arguments,
        )
        for c in cells
    ]
    failed = _run_here(jobs) if cluster is None else _run_on_cluster(jobs, cluster, output / "jobs")
    finished = [c for c in cells if (c.folder / "result.json").is_file()]
    if not finished:
        raise SystemExit(f"no cell finished; see {output}.")

    shown = {k: Path(v).name if isinstance(v, str) else v for k, v in settings.items()}
    heading = f"{bundle}, scale {scale}: " + ", ".join(f"{k} {v}" for k, v in shown.items())
    summary = summarise(plan, numbers, finished, chosen_columns[0])
    summary.to_csv(output / "tables.csv", index=False)
    markdown = as_markdown(plan, summary, heading)
    write_text_atomically(markdown, output / "tables.md")
    plot(plan, summary, heading, output / "tables.png")
    if grid is not None:
        grid.finish([output / f"tables.{kind}" for kind in ("md", "csv", "png")], "FAILED" if failed else "FINISHED")
    print(markdown)
    print(f"tables.md, tables.csv and tables.png: {output}")
    if failed:
        raise SystemExit(
            f"{len(failed)} of {len(cells)} cells failed: {', '.join(failed)}. The same command retries them."
        )


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
    fire.Fire(reproduce)
