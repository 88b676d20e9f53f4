import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU

from clinbundles.engines.metrics.segmentation import PixelRatioMetric


def image(*pixels: int) -> torch.Tensor:
    return torch.tensor(pixels, dtype=torch.float32).reshape(1, 1, 2, 2)


# prediction, label, dice, iou, precision, recall: counted by hand from TP, FP and FN
CASES = {
    "three found, two right, one missed": (image(1, 1, 1, 0), image(1, 1, 0, 1), 4 / 6, 2 / 4, 2 / 3, 2 / 3),
    "all found, one too many": (image(1, 1, 0, 0), image(1, 0, 0, 0), 2 / 3, 1 / 2, 1 / 2, 1.0),
    "nothing in common": (image(1, 1, 0, 0), image(0, 0, 1, 1), 0.0, 0.0, 0.0, 0.0),
    "nothing predicted": (image(0, 0, 0, 0), image(1, 0, 0, 0), 0.0, 0.0, 0.0, 0.0),
    "nothing there, something predicted": (image(1, 0, 0, 0), image(0, 0, 0, 0), 0.0, 0.0, 0.0, 0.0),
    "nothing there, nothing predicted": (image(0, 0, 0, 0), image(0, 0, 0, 0), 1.0, 1.0, 1.0, 1.0),
}


def four_metrics() -> list:
    return [
        DiceMetric(ignore_empty=False),
        MeanIoU(ignore_empty=False),
        PixelRatioMetric("precision"),
        PixelRatioMetric("recall"),
    ]


@pytest.mark.parametrize("case", CASES)
def test_one_image_scores_as_counted_by_hand(case: str) -> None:
    prediction, label, *expected = CASES[case]
    for metric, value in zip(four_metrics(), expected, strict=True):
        metric(prediction, label)
        assert metric.aggregate().item() == pytest.approx(value), metric


def test_images_are_averaged_and_pixels_never_pooled() -> None:
    cases = list(CASES.values())
    prediction, label = (torch.cat([case[i] for case in cases]) for i in (0, 1))
    for i, metric in enumerate(four_metrics()):
        metric(prediction, label)
        assert metric.aggregate().item() == pytest.approx(sum(case[2 + i] for case in cases) / len(cases))


def test_batches_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, label = (torch.randint(0, 2, (5, 1, 4, 4), generator=generator).float() for _ in range(2))
    whole, parts = PixelRatioMetric("precision"), PixelRatioMetric("precision")
    whole(prediction, label)
    for i in range(5):
        parts(prediction[i : i + 1], label[i : i + 1])
    assert torch.equal(whole.aggregate(), parts.aggregate())


def test_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="prediction holds values other than 0 and 1"):
        PixelRatioMetric("recall")(image(1, 0, 0, 0) * 0.7, image(1, 0, 0, 0))


def test_an_unknown_ratio_is_named() -> None:
    with pytest.raises(ValueError, match="'specificity'"):
        PixelRatioMetric("specificity")  # type: ignore[arg-type]
