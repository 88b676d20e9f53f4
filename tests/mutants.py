"""Mutants of the configs: each changes one constant of a bundle, and the fast tests of configs have to turn red.

``make mutants`` runs all and prints which tests noticed; ``python tests/mutants.py WORD`` those with the word in their
name. A mutant lives in a copy of the configs in a temporary folder; nothing of the checkout is touched.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_constants.py", "test_trainings.py")
# Bundle, config: what is changed: ids, "list[Class]#argument" as in tests/bundles/constants, and their new values.
MUTANTS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("gaze_polyp_segmentation", "train"): {
        "the label is not flipped with the image": {"random_transforms[RandFlipd]#keys": "image"},
        "hue times 40": {"random_transforms[RandTorchVisiond]#hue": [0.04, 0.4]},
        "learning rate times 10": {"learning_rate": 0.001},
        "Dice of the whole batch": {"loss#batch": True},
        "masks from 0.3 on": {"validate#postprocessing#transforms[AsDiscreted]#threshold": 0.3},
        "the blur has no gaze": {"random_transforms[RandAttentionGaussianBlurd]#weight": 0.0},
    },
    ("gaze_polyp_segmentation", "inference"): {
        "inference normalises otherwise": {"input_transforms[NormalizeIntensityd]#subtrahend": 0.4},
    },
    ("gaze_polyp_segmentation", "paper"): {"half the paper's image size": {"image_size": 256}},
    ("two_stage_segmentation", "train"): {
        "focal alpha 0.75": {"loss#alpha": 0.75},
        "the image is turned alone": {"random_transforms[RandRotated]#keys": ["image"]},
        "brightness by 0.5": {"random_transforms[RandShiftIntensityd]#offsets": 0.5},
        "model.pt is the last epoch": {"train#handlers[TrainingCheckpoint]#evaluator": None},
        "windows of the image alone": {"after_random[RandWindowsd]#keys": ["image", "stage_1"]},
    },
    ("two_stage_segmentation", "paper"): {
        "stage 1 at a quarter": {"scale": 4},
        "eight windows an image": {"windows_per_image": 8},
    },
    ("covid_xray_transfer", "train"): {
        "model.pt is the worst validation loss": {"validate#evaluator#metric_cmp_fn": "$lambda now, best: now > best"},
        "early stopping after 100": {"patience": 100},
        "images of the network are not scaled": {"image_transforms[TorchVisiond]#std": [1, 1, 1]},
    },
    ("covid_xray_transfer", "train_transfer"): {
        "all layers learn as fast as the head": {
            "phases": [
                {"name": "head", "layers": ["head"], "learning_rate": 0.001},
                {"name": "all layers", "layers": "all", "learning_rate": 0.001},
            ]
        },
    },
    ("covid_xray_transfer", "train_resnet50"): {
        "the whole last stage is thawed": {
            "phases": [
                {"name": "head", "layers": ["fc"], "learning_rate": 0.001},
                {"name": "last bottleneck", "layers": ["layer4", "fc"], "learning_rate": 0.0001},
            ]
        },
    },
    ("covid_xray_transfer", "evaluate"): {
        "the temperature is fitted on the test set": {"report#validation_table": "$@output_dir + '/per_image.csv'"},
    },
    ("covid_xray_transfer", "inference"): {"no temperature": {"temperature": 1.0}},
    ("pace_cell_segmentation", "train"): {
        "masks are not flipped with the image": {"random_transforms[RandFlipd]#keys": "image"},
        "masks are interpolated": {"random_transforms[RandZoomd]#mode": "bilinear"},
        "boxes and points do not follow": {"random_transforms[InstancesFollowd]#_disabled_": True},
        "other aspect ratios": {"aspect_ratios": [0.25, 0.5, 1.0, 2.0, 4.0]},
        "AP of boxes is the key metric": {"validate#key_metric": {"val_ap": "$@validate#scores['box_ap']"}},
    },
    ("pace_cell_segmentation", "paper"): {
        "momentum 0.09": {"optimizer#momentum": 0.09},
        "decay 1,000 steps late": {"decay_steps": [6700, 7800]},
    },
    ("ct_datasetgan", "train"): {
        "the label map is not moved with the slice": {
            "random_transforms[RandAffined]#keys": "image",
            "random_transforms[RandAffined]#mode": "bilinear",
        },
        "label maps are interpolated": {"label_transforms[Resized]#mode": "trilinear"},
        "another window of Hounsfield units": {"window_hu": [-1000, 400]},
    },
    ("ct_datasetgan", "train_gan"): {
        "ADA's target 0.06": {"augment_target": 0.06},
        "no style mixing": {"style_mixing": 0.0},
    },
    ("ct_datasetgan", "paper"): {"R1's gamma times 10": {"r1_gamma": 10.0}},
    ("ct_datasetgan", "train_interpreter"): {"one pixel classifier": {"n_classifiers": 1}},
}


def mutants() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield bundle, config, name and changes of each mutant."""
    for (bundle, config), named in MUTANTS.items():
        for name, changes in named.items():
            yield bundle, config, name, changes


def change(config: dict[str, Any], id_: str, value: Any) -> None:
    """Change a value of a config's file in place, in a list the argument of every part of that class.

    Raises:
        ValueError: there is no such value, or it is the new one already: the mutant is out of date.
    """
    where, _, rest = id_.partition("[")
    place: Any = config
    # An overlay has keys with "#" of its own.
    *path, last = [where] if where in config else where.split("#")
    for part in path:
        place = place.get(part, {})
    places = [place]
    if rest:
        name, _, last = rest.partition("]#")
        places = [part for part in place.get(where.split("#")[-1], []) if part["_target_"].endswith(name)]
    if not places or all(part.get(last, "none") in ("none", value) and last != "_disabled_" for part in places):
        raise ValueError(f"{id_} is not there, or {value} already.")
    for part in places:
        part[last] = value


class Red:
    """Notes the tests that fail."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that failed."""
        if report.failed:
            self.tests.append(report.nodeid.rpartition("::")[2].partition("[")[0])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot even be read."""
        if report.failed:
            self.tests.append(f"reading {report.nodeid}")


def red_tests(bundle: str, config: str, changes: dict[str, Any]) -> list[str]:
    """Name the tests that fail on a copy of the house with these changes of one bundle's config."""
    with tempfile.TemporaryDirectory() as temporary:
        house = Path(temporary)
        for folder in sorted((ROOT / "bundles").iterdir()):
            for part in folder.iterdir():
                copy = house / "bundles" / folder.name / part.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(part, copy) if part.name == "configs" else copy.symlink_to(part)
        (house / "tests").mkdir()
        shutil.copytree(ROOT / "tests" / "bundles", house / "tests" / "bundles")
        for name in ("tests/conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, house / name)
        if changes:
            file = house / "bundles" / bundle / "configs" / f"{config}.json"
            content = json.loads(file.read_text())
            for id_, value in changes.items():
                change(content, id_, value)
            file.write_text(json.dumps(content))
        os.chdir(house)
        red = Red()
        # Else pytest looks after the temporary folders of all runs of this machine, which takes longer than the tests.
        options = ["-q", "--assert=plain", "-p", "no:cacheprovider", f"--basetemp={house / 'temporary'}", "-k", bundle]
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            pytest.main([*(f"tests/bundles/{name}" for name in TESTS), *options], plugins=[red])
        os.chdir(ROOT)
    return list(dict.fromkeys(red.tests))


def main(word: str = "") -> int:
    """Run the mutants whose name has ``word``, and print a line for each; 1 where one survives."""
    # Loaded once; each mutant then has a process of its own, which has not yet read any test.
    import monai.bundle
    import monai.engines
    import monai.handlers
    import monai.transforms  # noqa: F401

    gc.freeze()  # what is loaded here is no garbage there
    begin = time.monotonic()
    chosen = [mutant for mutant in mutants() if word in mutant[2]]
    survivors = 0
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        unchanged = pool.apply_async(red_tests, ("", "", {}))
        results = [pool.apply_async(red_tests, (bundle, config, changes)) for bundle, config, _, changes in chosen]
        if tests := unchanged.get():
            print(f"the configs are not changed, and red are: {', '.join(tests)}")
            return 1
        for (bundle, config, name, _), result in zip(chosen, results, strict=True):
            tests = result.get()
            survivors += not tests
            print(f"{bundle} {config}.json: {name}", *(tests or ["SURVIVES"]), sep="\n    ", flush=True)
    gc.unfreeze()
    print(f"{len(chosen)} mutants, {survivors} survive, {time.monotonic() - begin:.0f} s")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
