"""Tests of values that no run can take, and of the sentence that names the option."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts.bundle import check_options, config_names, read_configs
from clinbundles.scripts.option_values import MAY_BE_NEGATIVE, MAY_BE_ZERO, check_datalist, check_value

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("image_size", 0, "--image_size is 0, expected 1 or more."),
        ("scale", 0, "--scale is 0, expected 1 or more."),
        ("batch_size", -4, "--batch_size is -4, expected 1 or more."),
        ("num_workers", -1, "--num_workers is -1, expected 0 or more."),
        ("learning_rate", 0, "--learning_rate is 0, expected a number above 0."),
        ("learning_rate", float("nan"), "--learning_rate is nan, expected a number above 0."),
        ("temperature", -1.5, "--temperature is -1.5, expected a number above 0."),
        ("detections", 0, "--detections is 0, expected 1 or more."),
        ("score_threshold", 7, "--score_threshold is 7, expected a share from 0 to 1."),
        ("cache_rate", 7, "--cache_rate is 7, expected a share from 0 to 1."),
        ("intensity_mean", 1, "--intensity_mean is 1, expected three numbers, one of each channel"),
        ("intensity_mean", [1, 2], "--intensity_mean is [1, 2], expected three numbers, one of each channel"),
        ("mean", ["a", 1, 2], "--mean is ['a', 1, 2], expected three numbers, one of each channel"),
        ("intensity_std", [1, 0, 1], "--intensity_std is [1, 0, 1], expected three numbers above 0, one of each"),
        ("channels", [8, 0], "--channels is [8, 0], expected numbers of 1 or more."),
        ("aspect_ratios", [1, "a"], "--aspect_ratios is [1, 'a'], expected numbers above 0."),
        ("phases", [], "--phases is [], expected a list such as [{"),
        ("phases", 5, "--phases is 5, expected a list such as [{"),
        ("seed", -1, "--seed is -1, expected a whole number from 0 to 4294967295."),
        ("first_seed", 2**32, "--first_seed is 4294967296, expected a whole number from 0 to 4294967295."),
        ("train#trainer#max_epochs", 0, "--train#trainer#max_epochs is 0, expected 1 or more."),
        ("max_gradient_norm", 0, "--max_gradient_norm is 0, expected a number above 0."),
        ("n_points", -1, "--n_points is -1, expected 0 or more."),
        ("budget_macs", float("nan"), "--budget_macs is nan, expected a finite number."),
        ("short_sides", [-64, 64], "--short_sides is [-64, 64], expected numbers of 0 or more."),
        ("device", "foo", "--device is 'foo', and this machine has cpu"),
        ("device", "meta", "--device is 'meta', and this machine has cpu"),
        ("device", 999, "--device is 999, and this machine has cpu"),
        ("device", [1], "--device is [1], and this machine has cpu"),
    ],
)
def test_a_value_that_no_run_can_take_is_refused_by_the_name_of_the_option(
    name: str, value: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        check_value(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cpu"),
        ("device", "$torch.device('cpu')"),
        ("device", None),
        ("image_size", None),
        ("image_size", "@side"),
        ("intensity_mean", [0, 0.5, 1]),
        ("intensity_mean", "$[0.5] * 3"),
        ("learning_rate", 1e-9),
        ("num_workers", 0),
        ("channels", 64),
        ("phases", [{"layers": "all", "learning_rate": 0.001}]),
        ("seed", 2**32 - 1),
        ("mean", [-0.1, 0.5, 1]),
        ("train#loss#ignore_index", -1),
    ],
)
def test_what_a_run_can_take_or_works_out_is_let_pass(name: str, value: Any) -> None:
    check_value(name, value)


def test_no_number_of_any_config_may_be_what_its_default_says_it_cannot() -> None:
    counts = 0
    for folder in sorted((ROOT / "bundles").glob("*/")):
        for config in config_names(folder):
            for name, default in read_configs(folder, [config]).items():
                if isinstance(default, bool) or not isinstance(default, int | float):
                    continue
                counts += 1
                worst = [math.nan, math.inf, *([-1] if name not in MAY_BE_NEGATIVE else [])]
                worst += [0] if isinstance(default, int) and default and name not in MAY_BE_ZERO else []
                for value in worst:
                    with pytest.raises(ValueError, match=f"^--{name} is {value}, expected "):
                        check_value(name, value, default)
                check_value(name, default, default)
    assert counts > 100


def test_what_is_a_default_in_one_config_of_a_bundle_can_be_given_to_another() -> None:
    for folder in sorted((ROOT / "bundles").glob("*/")):
        contents = [read_configs(folder, [config]) for config in config_names(folder)]
        for content in contents:
            for name, value in content.items():
                for other in contents if name != "device" else []:
                    check_value(name, value, other.get(name))


def test_a_run_takes_its_defaults_for_what_a_number_can_be() -> None:
    for name, value in (("seed", -1), ("box_units", 0), ("warmup_steps", -1)):
        with pytest.raises(ValueError, match=f"^--{name} is {value}, expected "):
            check_options(ROOT / "bundles" / "pace_cell_segmentation", ["train"], {name: value})


def test_a_list_that_is_not_there_or_no_json_is_refused_by_the_name_of_its_option(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    with pytest.raises(FileNotFoundError, match=re.escape(f"--trained_on {path}: no such file.")):
        check_datalist(str(path), option="--trained_on")
    path.write_text("{")
    with pytest.raises(ValueError, match=re.escape(f"--datalist {path}: is not JSON (")):
        check_datalist(str(path))
    path.write_text("{}")
    check_datalist(str(path))
    check_datalist("$@dataset_dir + '/datalist.json'")
