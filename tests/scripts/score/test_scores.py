from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist

from clinbundles.engines.metrics.detection import add_matches, average_precision
from clinbundles.engines.metrics.instance_sets import TITLES, ImageSet, ScoredImage
from clinbundles.scripts.score.predictions import read_predictions


@pytest.fixture
def images(data: Path, save_maps: Callable) -> list[ScoredImage]:
    items = load_decathlon_datalist(str(data / "datalist.json"), True, "test", str(data))
    return read_predictions(save_maps("maps", shift=1, missing=1), items)[0]


def test_the_scores_of_the_set_are_those_of_its_parts(images: list[ScoredImage]) -> None:
    # COCO takes detections of one score one by one, and here they are one point: so each has a score of its own.
    ranks = iter(np.linspace(1, 0.1, sum(len(image.detections.scores) for image in images)))
    for image in images:
        image.detections.scores[:] = [next(ranks) for _ in image.detections.scores]
    scores = ImageSet(images).scores()
    assert scores.keys() == TITLES.keys()
    truth, found = [image.truth for image in images], [image.detections for image in images]
    for kind, of in (("mask", "segm"), ("box", "bbox")):
        expected = average_precision(truth, found, of=of)
        values = {name: float(scores[f"{kind}_{name.lower()}"][0]) for name in expected}
        assert values == pytest.approx(expected, abs=1e-6, nan_ok=True)
    total = add_matches(image.matches for image in images if image.matches is not None)
    assert scores["f1"][0] == pytest.approx(total.f1)
    assert scores["panoptic_quality"][0] == pytest.approx(total.panoptic_quality)
    assert 0 < scores["mask_ap"][0] < scores["f1"][0] < 1


def test_the_order_of_images_without_scores_does_not_matter(images: list[ScoredImage]) -> None:
    assert {score for image in images for score in image.detections.scores} == {1.0}
    forwards, backwards = ImageSet(images).scores(), ImageSet(images[::-1]).scores()
    assert float(forwards["mask_ap"][0]) == pytest.approx(float(backwards["mask_ap"][0]), abs=1e-12)


def test_images_of_one_group_are_resampled_together(images: list[ScoredImage]) -> None:
    paired = ImageSet([image._replace(group=number // 2) for number, image in enumerate(images)])
    alone = ImageSet(images)
    assert (paired.n_groups, alone.n_groups) == (len(images) // 2, len(images))
    assert len(paired.resample()["f1"].group_values) == len(images) // 2


def test_resamples_lie_around_the_set(images: list[ScoredImage]) -> None:
    scored = ImageSet(images)
    values, resampled = scored.scores(), scored.resample()
    for name in ("mask_ap", "f1"):
        assert resampled[name].value == values[name][0]
        low, high = np.quantile(resampled[name].drawn, [0.025, 0.975])
        assert low < values[name][0] < high


def test_without_masks_boxes_are_scored_alone(images: list[ScoredImage]) -> None:
    truth = images[0].truth._replace(masks=[None] * len(images[0].truth.masks))
    scores = ImageSet([images[0]._replace(truth=truth, matches=None), *images[1:]]).scores()
    assert {name.partition("_")[0] for name in scores} == {"box"}
