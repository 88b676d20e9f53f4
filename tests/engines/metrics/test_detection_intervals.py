import time
import tracemalloc

import numpy as np
import pytest

from clinbundles.engines.metrics import detection_intervals
from clinbundles.engines.metrics.detection import Detections, average_precision
from clinbundles.engines.metrics.detection_intervals import (
    HIT,
    ImageMatches,
    match_image,
    resampled_average_precision,
)
from clinbundles.transforms.readers.coco import Instances, encode_mask

SIDE = 96


def disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def box_of(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def image(number: int, generator: np.random.Generator, *, count: int = 14) -> tuple[Instances, Detections]:
    """Discs of all sizes, and detections that are a little off, missing, twice or of nothing."""
    places = np.column_stack([generator.uniform(8, 88, (count, 2)), generator.uniform(3, 20, count)])
    moved = np.concatenate([places[2:], places[:4]]) + generator.normal(0, 1.2, (count + 2, 3))
    moved = np.concatenate([moved, np.column_stack([generator.uniform(8, 88, (3, 2)), generator.uniform(3, 20, 3)])])
    true, found = ([disc(*row) for row in rows] for rows in (places, moved))
    found = [mask for mask in found if mask.any()]
    return (
        Instances(number, SIDE, SIDE, np.array([box_of(m) for m in true]), [encode_mask(m) for m in true]),
        Detections(np.array([box_of(m) for m in found]), generator.random(len(found)), [encode_mask(m) for m in found]),
    )


@pytest.fixture(scope="module")
def images() -> list[tuple[Instances, Detections]]:
    generator = np.random.default_rng(1)
    empty = (
        Instances(9, SIDE, SIDE, np.zeros((0, 4)), []),
        Detections(np.array([[5.0, 5, 20, 20]]), np.array([0.4]), [encode_mask(disc(12, 12, 7))]),
    )
    nothing = (image(8, generator)[0], Detections(np.zeros((0, 4)), np.zeros(0), []))
    return [*(image(number, generator) for number in range(6)), empty, nothing]


@pytest.mark.parametrize("of", ["bbox", "segm"])
def test_each_resample_has_the_average_precision_of_its_images(images: list, of: str) -> None:
    matches = [match_image(*one, of=of) for one in images]
    draws = np.array([[1] * 8, [0, 2, 1, 0, 1, 3, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0], [2, 1, 0, 1, 0, 0, 2, 2]])
    result = resampled_average_precision(matches, draws)
    for row, counts in enumerate(draws):
        drawn = [one for one, count in zip(images, counts, strict=True) for _ in range(count)]
        expected = average_precision([t for t, _ in drawn], [d for _, d in drawn], of=of)
        assert {name: values[row] for name, values in result.items()} == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert 0.2 < result["AP"][0] < 0.9
    assert len({round(value, 6) for value in result["AP"]}) == 4


def test_a_resample_without_instances_has_no_precision(images: list) -> None:
    matches = [match_image(*one, of="segm") for one in images]
    draws = np.zeros((1, 8), dtype=int)
    draws[0, 6] = 2
    assert np.isnan(resampled_average_precision(matches, draws)["AP"]).all()


def test_no_more_than_the_highest_scores_count(images: list) -> None:
    truth, found = images[0]
    matches = match_image(truth, found, of="segm", max_detections=5)
    assert len(matches.scores) == 5
    few = average_precision([truth], [found], of="segm", max_detections=(5,))
    assert resampled_average_precision([matches], np.ones((1, 1), dtype=int))["AP"][0] == pytest.approx(few["AP"])


def test_masks_are_not_compared_where_there_are_none(images: list) -> None:
    truth, found = images[0]
    truth = truth._replace(masks=[None] * len(truth.masks))
    assert match_image(truth, found, of="bbox").n_truth[0] == 14
    with pytest.raises(ValueError, match="image 0: an instance has no mask"):
        match_image(truth, found, of="segm")


def test_resamples_in_parts_are_those_of_one_go(images: list, monkeypatch: pytest.MonkeyPatch) -> None:
    matches = [match_image(*one, of="segm") for one in images]
    draws = np.random.default_rng(0).multinomial(len(matches), np.full(len(matches), 1 / len(matches)), size=7)
    whole = resampled_average_precision(matches, draws)["AP"]
    monkeypatch.setattr(detection_intervals, "AT_A_TIME", 2 * sum(len(one.scores) for one in matches))
    assert resampled_average_precision(matches, draws)["AP"].tolist() == whole.tolist()


def test_memory_does_not_grow_with_resamples_times_detections(images: list) -> None:
    matches = [match_image(*one, of="segm") for one in images] * 200
    tracemalloc.start()
    resampled_average_precision(matches, np.ones((200, len(matches)), dtype=int))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20


def test_hundreds_of_resamples_take_a_moment(images: list) -> None:
    matches = [match_image(*one, of="segm") for one in images] * 6
    start = time.perf_counter()
    draws = np.random.default_rng(0).multinomial(len(matches), np.full(len(matches), 1 / len(matches)), size=300)
    assert np.isfinite(resampled_average_precision(matches, draws)["AP"]).all()
    assert time.perf_counter() - start < 5


def test_detections_of_one_score_are_one_point_of_the_curve() -> None:
    outcomes = np.zeros((4, 10, 4), np.int8)
    outcomes[:, :, :3] = HIT
    tied = ImageMatches(np.array([0.5, 0.5, 0.5, 0.5]), outcomes, np.array([6, 6, 6, 6]))
    value = resampled_average_precision([tied], np.ones((1, 1), int))["AP"]
    # A precision of 3 of 4 up to a recall of 3 of 6: 51 of the 101 recalls.
    assert value == pytest.approx(0.75 * 51 / 101)
    hits_last = ImageMatches(tied.scores, outcomes[:, :, ::-1], tied.n_truth)
    assert resampled_average_precision([hits_last], np.ones((1, 1), int))["AP"] == pytest.approx(value)
    falling = ImageMatches(np.array([0.9, 0.8, 0.7, 0.6]), outcomes, tied.n_truth)
    assert resampled_average_precision([falling], np.ones((1, 1), int))["AP"] == pytest.approx(51 / 101)
