"""Commands that are killed at any moment, and given again until they end: the result is that of an undisturbed one."""

import csv
import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from clinbundles.scripts.bundle import config_names, open_configs, options_for

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))
GAZE = ROOT / "bundles" / "gaze_polyp_segmentation"
N_KILLS, ENOUGH_SECONDS = 8, 10.0
# What tracking adds, with the hour in its names and its lines.
TRACKED = re.compile(r"mlruns|mlflow\.db|config_\d|run\.json|run_record")
# Of these, and of folders, a kill may leave no hidden half; of tables and single pictures of a few kilobytes it may.
WEIGHTS = (".pt", ".ckpt")
# What a second run of the same command measures otherwise.
MEASURED = re.compile(r"seconds|peak")


def as_words(options: dict[str, Any]) -> list[str]:
    return [
        word
        for name, value in options.items()
        for word in (f"--{name}", value if isinstance(value, str) else f"${value}")
    ]


def smoke(bundle: Path, names: list[str], **more: Any) -> dict[str, Any]:
    """The options of the smallest scale, as far as the configs have them."""
    plan = json.loads((bundle / "configs" / "reproduce.json").read_text())
    rows = next(iter(plan["rows"].values()))
    sizes = plan["scales"]["smoke"] | (rows["samples"].get("knobs", {}) if "samples" in rows else {})
    sizes |= {"cache_rate": 0.0, "seed": 1, "coarse_weights": None, "initial_weights": None}
    return options_for(bundle, names, sizes | more)


def trainings() -> Iterator[tuple[Path, str]]:
    for bundle in BUNDLES:
        for name in config_names(bundle):
            if (name == "train" or name.startswith("train_")) and "trainer.run()" in str(
                open_configs(bundle, [name])["run"]
            ):
                yield bundle, name


def training(bundle: Path, name: str, _: Path) -> list[str]:
    options = smoke(bundle, [name], max_epochs=3, resume=True)
    if "classifier_widths" in options:  # whose batches are of pixels
        options["batch_size"] = 4096
    return ["run", bundle.name, name, *as_words(options)]


def evaluation(bundle: Path, name: str, _: Path) -> list[str]:
    return ["run", bundle.name, name, "--ckpt_path", str(bundle / "models" / "model.pt"), "--output_dir", "out"]


def prediction(inputs: Path) -> list[str]:
    inputs.mkdir()
    frames = sorted((GAZE / "samples").rglob("*.jpg"))[:4]
    for number, frame in enumerate(frames):
        (inputs / f"study_{number}.jpg").symlink_to(frame)
    (inputs / "broken.jpg").write_bytes(b"none")
    return ["predict", GAZE.name, str(inputs), "out"]


def large_image(inputs: Path) -> list[str]:
    inputs.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (600, 700, 3), np.uint8)
    tifffile.imwrite(inputs / "large.tif", pixels, tile=(128, 128), photometric="rgb")
    return ["segment-large", GAZE.name, str(inputs / "large.tif"), "out.zarr", "--window", "256", "--overlap", "32"]


def grid(_: Path) -> list[str]:
    words = ["reproduce", GAZE.name, "--scale", "smoke", "--rows", "UNet", "--columns", "original", "--seeds", "0"]
    return [*words, "--tables", "1", "--tracking", "false", "--output_dir", "out", "--max_epochs", "2"]


def slices(_: Path) -> list[str]:
    samples = ROOT / "bundles" / "ct_datasetgan" / "samples"
    words = ["prepare", "ct_nifti", "--dataset_dir", str(samples), "--output", "datalist.json"]
    return [*words, "--ratios", "1,0,0", "--image_size", "64"]


def datalist(_: Path) -> list[str]:
    return ["prepare", "polypgen", "--dataset_dir", str(GAZE / "samples"), "--output", "datalist.json"]


def tracked(_: Path) -> list[str]:
    words = training(GAZE, "train", _)
    return [*words, "--tracking", "--tracking_uri", "sqlite:///runs/mlflow.db"]


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "predict": prediction,
    "segment-large": large_image,
    "reproduce": grid,
    "prepare slices": slices,
    "prepare a datalist": datalist,
    "a tracked training": tracked,
}


def every_command() -> Iterator[Any]:
    quick = "training ct_datasetgan train"
    for bundle, name in trainings():
        id_ = f"training {bundle.name} {name}"
        marks = () if id_ == quick else (pytest.mark.attack,)
        yield pytest.param(lambda inputs, b=bundle, n=name: training(b, n, inputs), id=id_, marks=marks)
    for bundle in BUNDLES:
        for name in ("evaluate", "inference"):
            make = lambda inputs, b=bundle, n=name: evaluation(b, n, inputs)  # noqa: E731
            yield pytest.param(make, id=f"{bundle.name} {name}", marks=pytest.mark.attack)
    for name, make in COMMANDS.items():
        yield pytest.param(make, id=name, marks=pytest.mark.attack)


def outputs(folder: Path) -> dict[str, Path]:
    """The files of a folder that are there under their final names: not hidden, and in no folder for work."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        str(name): path
        for name, path in files.items()
        if not any(part.startswith(".") or part == "work" or TRACKED.match(part) for part in name.parts)
    }


def content_of(path: Path) -> Any:
    """What a file holds, read to its end: a file that is half written raises."""
    raw = path.read_bytes()
    if path.suffix == ".json":
        return without_measured(json.loads(raw))
    if path.suffix in (".pt", ".ckpt"):
        return as_plain(torch.load(path, map_location="cpu", weights_only=True))
    if path.suffix == ".csv":
        assert raw.endswith(b"\n"), path
        first, *rows = csv.reader(raw.decode().splitlines())
        assert {len(row) for row in rows} <= {len(first)}, path
        kept = [at for at, name in enumerate(first) if not MEASURED.search(name)]
        return [[row[at] for at in kept] for row in (first, *rows)]
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            return (image.size, image.tobytes())
    return raw


def without_measured(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: without_measured(value) for name, value in content.items() if not MEASURED.search(name)}
    return [without_measured(each) for each in content] if isinstance(content, list) else content


def as_plain(content: Any) -> Any:
    """Tensors as their bytes, which can be compared."""
    if isinstance(content, torch.Tensor):
        return (str(content.dtype), tuple(content.shape), content.contiguous().numpy().tobytes())
    if isinstance(content, dict):
        return {name: as_plain(value) for name, value in content.items()}
    return [as_plain(each) for each in content] if isinstance(content, list | tuple) else content


def left_of(folder: Path) -> set[str]:
    """What half-written files and folders were to be called, without a suffix."""
    return {path.name[1:].rsplit(".", 2)[0] for path in folder.rglob(".*.part")}


def moments(first: Any, random_numbers: random.Random) -> Iterator[dict[str, Any]]:
    """Limits of calls that are killed just before something is written, and at any time, in turn."""
    while True:
        yield {"die_at": random_numbers.randint(1, first.writes)}
        yield {"seconds": random_numbers.uniform(0.02, first.seconds)}


@pytest.mark.parametrize("make", list(every_command()))
def test_a_command_killed_again_and_again_ends_with_what_an_undisturbed_one_makes(
    make: Callable[[Path], list[str]], copies: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = make(tmp_path / "inputs")
    undisturbed, killed = tmp_path / "undisturbed" / "here", tmp_path / "killed" / "here"
    undisturbed.mkdir(parents=True)
    first = copies.command(words, undisturbed)
    assert first.code == 0, first.said
    expected = {name: content_of(path) for name, path in outputs(undisturbed).items()}
    assert expected
    names = {part for name in expected for part in Path(name).parent.parts}
    names |= {Path(name).stem for name in expected if name.endswith(WEIGHTS)}

    limits = moments(first, random.Random(request.node.name))
    n_kills, began = 0, time.monotonic()
    while n_kills < (2 if time.monotonic() - began > ENOUGH_SECONDS else N_KILLS):
        killed.mkdir(parents=True)
        for limit in (next(limits), next(limits), next(limits), {}):
            ending = copies.command(words, killed, **limit)
            if ending.code != -signal.SIGKILL:
                break
            n_kills += 1
            for path in outputs(killed).values():
                content_of(path)
        assert ending.code == 0, ending.said
        result = {name: content_of(path) for name, path in outputs(killed).items()}
        assert result.keys() == expected.keys()
        for name, content in expected.items():
            assert result[name] == content, name
        assert not left_of(killed) & names, "what was half written stays for ever"
        shutil.rmtree(killed)
