from typing import Any

import numpy as np
import pandas as pd
import pytest

from clinbundles.engines.metrics.intervals import resample_mean
from clinbundles.scripts.reproduce.comparison import Measured, adjust, caveats, compare, describe, feet

PLAN: dict[str, Any] = {"rows": {"data_set": ["eyes"]}, "columns": {"method": ["whole", "half"]}}
EFFECT = np.array([0.1, 0.2, 0.1, 0.2, 0.15])


def measured(by_seed: dict[int, np.ndarray], images: str = "abcde", **options: Any) -> Measured:
    items = pd.DataFrame({"image": list(images), "patient": range(len(images))})
    return Measured({seed: resample_mean(values, None) for seed, values in by_seed.items()}, items, **options)


def test_a_difference_is_paired_by_seed_and_image() -> None:
    noise = {seed: np.random.default_rng(seed).normal(size=5) for seed in (0, 1)}
    line = compare(
        measured({seed: values + EFFECT for seed, values in noise.items()}),
        measured({seed: noise[seed] for seed in (1, 0)}),
    )
    assert line["difference"] == pytest.approx(0.15)
    assert 0.05 < line["difference_low"] < 0.15 < line["difference_high"] < 0.25
    assert line["p"] == 2 / 2**5
    assert "ratio" not in line


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (measured({0: EFFECT}), "seeds 0, 1 are not 0"),
        (measured({0: EFFECT, 2: EFFECT}), "seeds 0, 1 are not 0, 2"),
        (measured({0: EFFECT, 1: EFFECT}, "abcdx"), "the images are not the same"),
        (measured({0: EFFECT[:4], 1: EFFECT[:4]}, "abcd"), "the images are not the same"),
    ],
)
def test_other_seeds_or_images_are_not_compared(other: Measured, why: str) -> None:
    assert compare(measured({0: EFFECT, 1: EFFECT}), other) == {"not_compared": why}


def test_a_score_without_bounds_has_no_interval_of_its_own() -> None:
    line = describe(measured({0: EFFECT, 1: 3 * EFFECT}))
    assert (line["images"], line["groups"]) == (5, 5)
    assert line["low"] < 0.3 < line["high"]
    assert describe(measured({0: EFFECT}, within_bounds=False)) == {"images": 5, "groups": 5}


def test_the_smallest_difference_knows_of_the_seeds() -> None:
    zeros = {0: np.zeros(5), 1: np.zeros(5)}
    steady = compare(measured({0: EFFECT, 1: EFFECT}), measured(zeros))
    unsteady = compare(measured({0: EFFECT - 0.1, 1: EFFECT + 0.1}), measured(zeros))
    assert unsteady["difference"] == pytest.approx(steady["difference"])
    assert unsteady["smallest_difference"] > 2 * steady["smallest_difference"]


def summary_of(**half: Any) -> pd.DataFrame:
    whole = {
        "table": "1",
        "metric": "Dice",
        "data_set": "eyes",
        "method": "whole",
        "seeds": 3,
        "groups": half["groups"],
    }
    return pd.DataFrame([whole, whole | {"method": "half"} | half])


def test_the_foot_says_what_was_found_out_and_what_was_not() -> None:
    compared = summary_of(groups=1, difference=-0.1, smallest_difference=0.084, p=np.nan)
    assert caveats(PLAN, compared) == [
        "eyes: no interval of a single one of the groups.",
        "eyes: only seeds vary; 3 seeds: all beat all by chance in 1 of 20.",
    ]
    assert feet(PLAN, compared)[2].endswith(
        "could show (2.8 times its standard error, the largest of the columns): Dice 0.084."
    )
    refused = summary_of(groups=20, not_compared="the images are not the same")
    assert feet(PLAN, refused) == ["eyes, half: not compared, as the images are not the same."]


def test_each_table_is_adjusted_by_itself() -> None:
    summary = pd.DataFrame({"table": ["1", "1", "1", "2"], "p": [np.nan, 0.01, 0.02, 0.03]})
    assert adjust(summary)["p_holm"].tolist() == pytest.approx([np.nan, 0.02, 0.02, 0.03], nan_ok=True)
    assert "p_holm" not in adjust(summary[["table"]])
