"""Run the grid behind a paper's tables and set the measured figures beside the published ones.

    clinbundles reproduce gaze_polyp_segmentation --tables 1-4 --scale cpu --dataset_dir DIR --datalist FILE
    clinbundles reproduce two_stage_segmentation --figure 3 --dataset_dirs CHASE_DB1=DIR,BOWL2018=DIR \\
        --datalists CHASE_DB1=FILE,BOWL2018=FILE

What to run and what was published stands in the bundle's ``configs/reproduce.json``. Every cell (row, column, seed) is
one training and one evaluation on the test split, tracked as nested MLflow runs. Finished cells are skipped, a killed
one goes on from its last epoch.

Rows and columns are values of a knob (a list), or entries by name (a dict), which may have

- ``knobs``, and ``scales`` with more of them by scale; a row whose ``dataset_dir`` is null has to be given its data;
- ``configs``: those that train, make data and evaluate, by name, laid one on another with commas between them, "train",
  "make" and "evaluate"; a column without "evaluate" is for others to use;
- ``after``: {knob: column}, that column's cell runs first and the knob is its model.pt, or the folder of what it made;
- ``own``: knobs of a column that an option of the command line leaves as they are, such as the start of one network;
- ``like``: a column from which it takes over all of this; ``weights_of``: the same, but that column's model.pt is
  evaluated with other knobs instead of training again;
- ``not``: columns that a row leaves out.

``scales`` has knobs of all cells by scale, or the name of a config that lies over theirs, such as the paper's.
``sets`` names lists of columns; the first is run if nothing else is asked for. Columns are compared with the first,
where both have the same seeds and scored the same images.
``leave_out`` names the function that finds which knobs asked for a cell's network does not take: it runs without them,
and the tables say so.
``data_tables`` has by the number of a table of the data sets what was published of each row.
``averages`` has by the number of a figure the ``tables`` and ``columns`` that it averages over all rows.
``rank_correlation`` has the ``suffix`` of columns that score the same networks on another test set, and its ``name``.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clinbundles.engines.checkpoint import epochs_done
from clinbundles.engines.outputs.files import read_json_or_set_aside, write_atomically
from clinbundles.engines.tracking.description import command_of, description_tags
from clinbundles.engines.tracking.facts import describe_datalist, git_state
from clinbundles.engines.tracking.store import RunStore, default_tracking_uri
from clinbundles.scripts.bundle import (
    check_options,
    find_bundle,
    options_for,
    options_of_config,
    read_configs,
    run_configs,
    tracking_file,
)
from clinbundles.scripts.flags import as_parts, choose_names, nearest, parse_numbers
from clinbundles.scripts.option_values import check_datalist
from clinbundles.scripts.report.results import as_json, check_results
from clinbundles.scripts.reproduce import averages
from clinbundles.scripts.reproduce.correlation import as_notes, correlate
from clinbundles.scripts.reproduce.correlation import as_results as correlations_as_results
from clinbundles.scripts.reproduce.data_table import write_data_table
from clinbundles.scripts.reproduce.plan import (
    Cell,
    Job,
    choose_tables,
    entries,
    give_data,
    knobs_of_scale,
    leave_out_untaken,
    make_jobs,
    say_left_out,
)
from clinbundles.scripts.reproduce.plots import plot, plot_lines
from clinbundles.scripts.reproduce.results import Sources, as_results, heading, sources_of
from clinbundles.scripts.reproduce.tables import as_markdown, figures_of, summarise, tables_of

PLACES = (
    "dataset_dirs",
    "datalists",
    "output_dir",
    "tracking_uri",
    "initial_weights",
    "encoder_weights",
)  # may name a patient


def run_cell(job: Job, bundle: Path, plan: dict[str, Any], tracking: dict[str, Any]) -> None:
    """Train, make and evaluate one cell in its folder; a cell that is done is left alone."""
    folder, knobs = job.cell.folder, job.knobs
    result = folder / "result.json"
    dataset_dir = str(knobs.get("dataset_dir") or bundle / "samples")
    datalist = str(knobs.get("datalist") or Path(dataset_dir) / "datalist.json")
    data = {
        "dataset_dir": dataset_dir,
        "datalist": datalist,
        "datalist_sha256": describe_datalist(datalist)[0].get("datalist_sha256"),
    }
    if (done := read_json_or_set_aside(result)) is not None:
        if done["knobs"] != json.loads(json.dumps(knobs)):
            raise ValueError(
                f"{result}: was run with {done['knobs']}, now asked for {knobs}. Use another --output_dir."
            )
        if done["data"].get("datalist_sha256") != data["datalist_sha256"]:
            raise ValueError(f"{result}: was run with another content of {datalist}. Use another --output_dir.")
        return
    if missing := [needed.name for needed in job.needs.values() if not (needed / "result.json").is_file()]:
        raise FileNotFoundError(f"{folder.name}: needs the model of {missing[0]}, which has not finished.")
    folder.mkdir(parents=True, exist_ok=True)
    # A method that needs no training has no weights to load.
    trained = folder if "train" in job.configs else next(reversed(job.needs.values()), None)
    if names := job.configs.get("train"):
        options = options_for(bundle, names, knobs) | {"output_dir": str(folder), "ckpt_dir": str(folder)}
        if tracking:
            options |= tracking | {"run_name": folder.name}
        epochs = epochs_done(folder)
        if epochs < knobs.get("max_epochs", read_configs(bundle, names)["max_epochs"]):
            run_configs(bundle, names, **options, resume=epochs > 0)
    if names := job.configs.get("make"):
        options = options_for(bundle, names, knobs | {"ckpt_dir": str(folder)})
        run_configs(bundle, names, **options, output_dir=str(folder / "made"))
    figures = {}
    if names := job.configs.get("evaluate"):
        options = options_for(bundle, names, knobs)
        if trained is not None:
            options = {"ckpt_path": str(trained / "model.pt")} | options
        if tracking:
            options |= tracking | {"run_name": f"evaluation_{folder.name}", "training_dir": str(trained or folder)}
        run_configs(bundle, names, **options, output_dir=str(folder / "test"))
        tables = tables_of(plan).values()
        figures = {t.get("metric") or t["cost"]: float(figures_of(t, folder).mean()) for t in tables}
    code = git_state(Path(__file__))["git_commit"]
    write_atomically(result, json.dumps({"knobs": knobs, "data": data, "code": code, "figures": figures}, indent=4))


class GridRun:
    """The MLflow run that holds a grid together: its cells are nested in it, its tables are its artifacts."""

    def __init__(self, bundle: Path, scale: str, output: Path, tracking_uri: str | None) -> None:
        self.uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(bundle)
        output.mkdir(parents=True, exist_ok=True)
        remembered = output / "grid.json"
        previous = (read_json_or_set_aside(remembered) or {}).get("run_id")
        store = RunStore(self.uri, experiment=bundle.name, name=f"reproduce_{scale}", previous=previous)
        self.client, self.run_id = store.open()
        code = git_state(Path(__file__))
        meta = json.loads((bundle / "configs" / "metadata.json").read_text())
        tags = {"kind": "grid", "scale": scale, "bundle": bundle.name, "bundle_version": meta["version"], **code}
        tags |= description_tags(meta, command_of(sys.argv, untracked=PLACES), git_commit=code["git_commit"])
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)
        write_atomically(remembered, json.dumps({"run_id": self.run_id}))

    def finish(self, tables: list[Path], status: str, folder: str | None) -> None:
        """Keep the tables as artifacts, in a folder of their own if need be, and close the run."""
        self.client.set_terminated(self.run_id, status)
        for path in tables:
            self.client.log_artifact(self.run_id, str(path), folder)


def reproduce(
    bundle: str,
    *,
    tables: Any = None,
    figure: Any = None,
    figures: Any = None,
    rows: Any = None,
    networks: Any = None,
    columns: Any = None,
    seeds: Any = "0,1",
    scale: str = "cpu",
    dataset_dir: str | None = None,
    datalist: str | None = None,
    dataset_dirs: str | None = None,
    datalists: str | None = None,
    output_dir: str | None = None,
    tracking: str | bool = True,
    tracking_uri: str | None = None,
    cluster: str | None = None,
    **knobs: Any,
) -> None:
    """Run every missing cell of the grid, then write tables.md, tables.csv, tables.png and results.json.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, or a folder.
        tables: which of the paper's tables to write, "1-4" or "1,3" or "3a"; all if not given.
        figure, figures: the same, for what the paper calls a figure.
        rows: names to keep of the rows, comma separated; if not given those in ``dataset_dirs``, else all.
        networks: the same, for what is a network in the paper.
        columns: names to keep of the columns, or the name of a set, whose tables go to a folder of that name.
        seeds: "0,1,2" or "0-4".
        scale: one of the scales in reproduce.json.
        dataset_dir: data set folder; the bundle's samples if not given.
        datalist: JSON datalist; ``dataset_dir``/datalist.json if not given. "{seed}" in it becomes the cell's seed:
            with --seeds 0-4, folds/fold_{seed}.json are what clinbundles folds writes, and their test images count as
            one set.
        dataset_dirs, datalists: the same row by row, "ROW=PATH,ROW=PATH".
        output_dir: where cells and tables go; ``runs/reproduce/<bundle>_<scale>`` if not given.
        tracking: settings for MLflow; the project's mlflow/tracking.json if not given, false for no tracking.
        tracking_uri: MLflow database or server instead of the default one.
        cluster: None runs cell after cell here; "local" or "slurm" hands them to submitit, one job a cell.
        knobs: any other value of the configs, for all cells.
    """
    bundle_dir = find_bundle(bundle)
    plan_file = bundle_dir / "configs" / "reproduce.json"
    plan = json.loads(plan_file.read_text())
    if scale not in plan["scales"]:
        raise ValueError(f"scale is {scale!r}, expected one of {', '.join(plan['scales'])}.")
    wanted = next((w for w in (tables, figure, figures) if w is not None), None)
    of_data = [number for number in as_parts(tables) if number in plan.get("data_tables", {})]
    if of_data and of_data != as_parts(wanted):
        raise ValueError(f"--tables {tables}: table {of_data[0]} is of the data alone, ask for it by itself.")
    numbers = [] if of_data else choose_tables(plan, wanted)
    all_columns, sets = entries(plan, "columns", scale), plan.get("sets", {})
    if columns is None and sets:
        columns = next(iter(sets))
    part = columns if isinstance(columns, str) and columns in sets else None
    chosen = sets[part] if part else choose_names(columns, list(all_columns), "columns")
    all_rows = give_data(
        entries(plan, "rows", scale),
        rows if rows is not None else networks,
        dataset_dir=(dataset_dir, dataset_dirs),
        datalist=(datalist, datalists),
    )
    output = Path(output_dir or Path("runs") / "reproduce" / f"{bundle_dir.name}_{scale}").resolve()
    if of_data:
        written = write_data_table(plan, of_data[0], all_rows, bundle_dir / "samples", output)
        print(f"{written[0].read_text()}\n{', '.join(path.name for path in written)}: {output}")
        return
    defaults = knobs_of_scale(plan, scale)
    jobs = make_jobs(all_rows, all_columns, chosen, parse_numbers(seeds), output, defaults=defaults, overrides=knobs)
    if not jobs:
        raise ValueError(f"{', '.join(all_rows)} without {', '.join(chosen)}: left out by {plan_file}, nothing to run.")
    jobs = leave_out_untaken(plan, jobs, knobs)
    check_knobs(bundle_dir, jobs)

    grid = None if tracking is False else GridRun(bundle_dir, scale, output, tracking_uri)
    arguments: dict[str, Any] = {}
    if grid is not None:
        arguments = {"tracking": str(tracking_file(tracking)), "tracking_uri": grid.uri, "parent_run_id": grid.run_id}
        arguments["run_tags"] = {"scale": scale}
    context = (bundle_dir, plan, arguments)
    if cluster is None:
        failed = _run_here(jobs, *context)
    else:
        failed = _run_on_cluster(jobs, *context, cluster=cluster, folder=output / "jobs")
    shown = [job for job in jobs if job.cell.column in chosen and "evaluate" in job.configs]
    finished = [job for job in shown if (job.cell.folder / "result.json").is_file()]
    finished.sort(key=lambda job: chosen.index(job.cell.column))  # the first of them is what is compared with
    if not shown and not failed:  # as those that others start from
        if grid is not None:
            grid.finish([], "FINISHED", None)
        made = ", ".join(str(job.result) for job in jobs if job.cell.column in chosen)
        print(f"no comparison: {', '.join(chosen)} has no evaluation of its own; it made {made}")
        return
    if not finished:
        raise SystemExit(f"no cell finished; see {output}.")
    cells = [job.cell for job in finished]
    summary = summarise(plan, numbers, cells, chosen[0])
    plan = plan | {"notes": [*plan.get("notes", []), *say_left_out(finished), *cautions(scale, cells)]}
    folder = part if part != next(iter(sets), None) else None
    apart = [
        folder or "",
        "" if scale == "cpu" else f"{scale} scale",
        *(f"{name} {Path(value).name if isinstance(value, str) else value}" for name, value in knobs.items()),
    ]
    sources = sources_of(bundle_dir, scale, plan, finished, part=" ".join(filter(None, apart)))
    written = write_tables(plan, summary, sources, output / (folder or ""), correlate(plan, numbers, cells))
    if grid is not None:
        grid.finish(written, "FAILED" if failed else "FINISHED", folder)
    print(written[0].read_text())
    print(f"{', '.join(path.name for path in written)}: {written[0].parent}")
    print(f"{len(jobs)} cells in, {len(jobs) - len(failed)} used, {len(failed)} left out as failed")
    if failed:
        names = ", ".join(failed)
        raise SystemExit(f"{len(failed)} of {len(jobs)} cells failed: {names}. The same command retries them.")


def cautions(scale: str, cells: Sequence[Cell]) -> list[str]:
    """Say what the values must not be taken for."""
    versions = {json.loads((cell.folder / "result.json").read_text()).get("code") for cell in cells}
    smoke = ["The smoke scale shows that everything runs: its values mean nothing."] if scale == "smoke" else []
    mixed = [f"The cells were run by {len(versions)} versions of the code."] if len(versions) > 1 else []
    return smoke + mixed


def check_knobs(bundle_dir: Path, jobs: Sequence[Job]) -> None:
    """Refuse a knob that no config of these jobs has, a value that one cannot take, or a datalist that is not there."""
    for datalist in dict.fromkeys(job.knobs["datalist"] for job in jobs if "datalist" in job.knobs):
        check_datalist(datalist)
    stages = list(dict.fromkeys(tuple(names) for job in jobs for names in job.configs.values()))
    known = {stage: options_of_config(read_configs(bundle_dir, stage)) for stage in stages}
    everywhere = {name for options in known.values() for name in options}
    for job in jobs:
        if unknown := [name for name in job.knobs if name.replace("::", "#") not in everywhere]:
            files = sorted({f"{name}.json" for stage in stages for name in stage})
            near = nearest(unknown[0], [name for name in everywhere if "#" not in name], prefix="--")
            raise ValueError(f"--{unknown[0]} is no value of {' and '.join(files)}{near}")
        for names in job.configs.values():
            options = known[tuple(names)]
            check_options(bundle_dir, names, {k: v for k, v in job.knobs.items() if k.replace("::", "#") in options})


def write_tables(
    plan: dict[str, Any],
    summary: pd.DataFrame,
    sources: Sources,
    output: Path,
    correlations: Sequence[dict[str, Any]] = (),
) -> list[Path]:
    """Write tables.md, tables.csv, tables.png and results.json (for clinbundles report --merge); return the paths."""
    plan = plan | {"notes": [*plan.get("notes", []), *as_notes(correlations)]}
    title = heading(sources)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "tables.csv", summary.to_csv(index=False))
    text, pictures = [as_markdown(plan, summary, title)], []
    columns = summary[next(iter(plan["columns"]))].unique()
    for number, figure in averages.averaged_figures(plan, summary["table"].unique(), columns).items():
        means = averages.average(plan, figure, summary)
        if means["mean"].isna().any():
            text.append(f"- Figure {number}: no row has all of {', '.join(figure['columns'])}.\n")
            continue
        text += ["\n".join(averages.describe(plan, number, means)) + "\n"]
        pictures.append(f"figure_{number}.png")
        averages.draw(plan, number, means, title, output / pictures[-1])
    write_atomically(output / "tables.md", "".join(text))
    draw = plot_lines if plan.get("plot") == "lines" else plot
    draw(plan, summary, title, output / "tables.png")
    results = as_results(plan, summary, sources)
    runs = {result["row"]: result["run"] for result in results["results"]}
    results["results"] += correlations_as_results(correlations, runs)
    check_results(results, str(output / "results.json"))
    write_atomically(output / "results.json", as_json(results) + "\n")
    return [output / name for name in ("tables.md", "tables.csv", "tables.png", *pictures, "results.json")]


def _run_here(jobs: Sequence[Job], *context: Any) -> list[str]:
    failed = []
    for done, job in enumerate(jobs):
        name = job.cell.folder.name
        print(f"cell {done + 1} of {len(jobs)}: {name}", flush=True)
        try:
            run_cell(job, *context)
        except Exception:  # one broken cell must not cost the others
            traceback.print_exc()
            failed.append(name)
    return failed


def _run_on_cluster(jobs: Sequence[Job], *context: Any, cluster: str, folder: Path) -> list[str]:
    import submitit  # only needed here

    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(timeout_min=24 * 60, name="reproduce")
    failed = []
    for wave in sorted({job.wave for job in jobs}):  # what a cell needs has to be finished before it starts
        cells = [job for job in jobs if job.wave == wave]
        submitted = executor.map_array(run_cell, cells, *([value] * len(cells) for value in context))
        for handle, job in zip(submitted, cells, strict=True):
            if (error := handle.exception()) is not None:
                print(error)
                failed.append(job.cell.folder.name)
    return failed
