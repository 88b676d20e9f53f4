"""Print how long packed bundles take: from nothing to a first result, and the network in each runtime of its zip.

    clinbundles bench packed [dist] [--starts 5] [--rounds 15] [--threads 1]

A start is a process: MONAI's command on a folder of one sample beside a bare script that makes the same network, loads
the same weights and runs it on the same file. The runtimes are timed in one process, by the bundle's own inferer.
Every round runs each contender once; the tables show medians, and the medians of the rounds' ratios.
"""

from __future__ import annotations

import json as json_module
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from clinbundles.scripts.bench.measurements import add_measurements, as_metric
from clinbundles.scripts.bench.rounds import describe_machine, ratios, time_rounds
from clinbundles.scripts.bundle import config_names
from clinbundles.scripts.doctor.bench import RUNTIMES, time_runtimes
from clinbundles.scripts.doctor.run import on_path, opened
from clinbundles.scripts.flags import as_parts

BARE = Path(__file__).with_name("packed_bare.py")
PICTURES = (".jpg", ".jpeg", ".png")


def first_picture(folder: Path) -> Path:
    """Return the first JPEG or PNG among the samples that a bundle's inference reads.

    Raises:
        FileNotFoundError: there is none.
    """
    config = json_module.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))
    inside = config["dataset_dir"].split("'")[1].lstrip("/")  # of "$@bundle_root + '/samples/images'"
    pictures = sorted(path for path in (folder / inside).rglob("*") if path.suffix.lower() in PICTURES)
    if not pictures:
        raise FileNotFoundError(f"{folder.name}/{inside}: no JPEG or PNG to start with.")
    return pictures[0]


def zips_of(path: Path) -> list[Path]:
    """Return the zips of a folder, or the zip itself, or the folder of a bundle.

    Raises:
        FileNotFoundError: the folder has none.
    """
    if not path.is_dir() or (path / "configs").is_dir():
        return [path]
    if not (zips := sorted(path.glob("*.zip"))):
        raise FileNotFoundError(f"{path}: no zip in it; clinbundles pack --all --out {path} writes some.")
    return zips


def run_in_new_process(words: Sequence[str], folder: Path, threads: int) -> None:
    """Run Python in a folder, on a CPU, without what this process has on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{folder.name}: {done.stderr.strip().splitlines()[-1]}")


def time_starts(folder: Path, *, starts: int, threads: int) -> dict[str, list[float]]:
    """Time processes from their start to the result of one sample.

    Args:
        folder: of an unpacked bundle.
        starts: how many of each.
        threads: of the CPU.

    Returns:
        Seconds, one a start, by contender.
    """
    with tempfile.TemporaryDirectory() as place:
        image = Path(shutil.copy(first_picture(folder), _made(Path(place) / "images")))
        ours = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--dataset_dir"]
        ours += [str(image.parent), "--output_dir", str(Path(place) / "out")]
        bare = [str(BARE), str(folder), str(image), str(Path(place) / "result.npy")]
        calls = {
            name: partial(run_in_new_process, words, folder, threads)
            for name, words in (("bare script", bare), ("packed bundle", ours))
        }
        return time_rounds(calls, rounds=starts)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def table(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Turn seconds by contender into milliseconds and the ratio to the first of them, printing a line each."""
    plain = next(iter(seconds.values()))
    rows = {}
    for name, values in seconds.items():
        rows[name] = {"ms": as_metric([1e3 * value for value in values]), "time": as_metric(ratios(values, plain))}
        numbers = rows[name]["time"]
        spread = f"[{numbers['low']:.2f}, {numbers['high']:.2f}]"
        print(f"| {name} | {rows[name]['ms']['value']:.4g} | {numbers['value']:.3f} | {spread} |", flush=True)
    return rows


def main(zips: str = "dist", *, starts: int = 5, rounds: int = 15, threads: int = 1, json: str | None = None) -> None:
    """Print a table of starts, and one of runtimes where a zip has two, for each zip.

    Args:
        zips: packed bundles, or a folder of some: "dist", "a.zip,b.zip".
        starts: processes of each kind; 0 leaves the starts out.
        rounds: how often each runtime is timed; 0 leaves them out.
        threads: of a CPU.
        json: file that the rows are added to, for clinbundles report --merge.
    """
    bundles = [bundle for part in as_parts(zips) for bundle in zips_of(Path(part))]
    torch.set_num_threads(threads)
    print(describe_machine(threads))
    for bundle in bundles:
        with opened(str(bundle)) as folder, on_path(folder):
            tables = {}
            if starts:
                tables["cold start"] = partial(time_starts, folder, starts=starts, threads=threads)
            if rounds and set(RUNTIMES["onnx"]) <= set(config_names(folder)):
                tables["runtimes"] = partial(time_runtimes, folder, rounds=rounds)
            for name, measure in tables.items():
                print(f"\n{folder.name}, {name}\n\n| | ms | time | rounds |\n|---|---|---|---|", flush=True)
                rows = table(measure())
                if json:
                    add_measurements(
                        json,
                        folder.name,
                        name,
                        rows,
                        device="cpu",
                        threads=threads,
                        scale=f"one sample, {starts if name == 'cold start' else rounds} rounds",
                        data="the first sample of the bundle",
                    )
