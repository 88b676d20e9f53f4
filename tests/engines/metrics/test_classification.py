import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from clinbundles.engines.metrics.classification import (
    CLASS_SCORES,
    SCORES,
    class_auc,
    confusion_matrices,
    resample_scores,
    score_intervals,
)
from clinbundles.engines.metrics.intervals import (
    draw_groups,
    interval_of,
    number_groups,
    resample_matrices,
    share_interval,
)


def random_set(n: int = 120, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and probabilities of a classifier that is somewhat right."""
    rng = np.random.default_rng(1)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)).round(1) + 1.2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.argmax(1), probabilities


def test_scores_agree_with_scikit_learn() -> None:
    labels, predictions, _ = random_set()
    matrix = confusion_matrices(labels, predictions, num_classes=3)
    by_class = precision_recall_fscore_support(labels, predictions)[:3]
    macro = precision_recall_fscore_support(labels, predictions, average="macro")[:3]
    assert SCORES["val_accuracy"](matrix) == pytest.approx(accuracy_score(labels, predictions))
    for name, of_classes, mean in zip(("precision", "recall", "f1"), by_class, macro, strict=True):
        assert CLASS_SCORES[name](matrix) == pytest.approx(of_classes)
        assert SCORES[f"val_macro_{name}"](matrix) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("matrix", "published", "within"),
    [
        # two of the matrices on test sets of 108, 100 and 91 images that fit the percentages printed for two models
        ([[101, 7, 0], [6, 94, 0], [8, 2, 81]], (92.32, 93.03, 92.17, 92.46), 0.02),
        ([[108, 0, 0], [3, 88, 9], [0, 1, 90]], (95.65, 95.69, 95.62, 95.49), 0.03),
    ],
)
def test_macro_scores_give_the_published_figures(matrix: list, published: tuple, within: float) -> None:
    percentages = [100 * score(np.array(matrix)) for score in SCORES.values()]
    assert np.abs(np.array(percentages) - published).sum() < within
    _, precision, recall, f1 = percentages
    assert abs(2 * precision * recall / (precision + recall) - f1) > 0.1  # F1 is not the harmonic mean of the two


def test_a_class_never_predicted_or_never_seen_counts_as_zero() -> None:
    matrix = confusion_matrices(np.array([0, 0, 1]), np.array([0, 0, 0]), num_classes=3)
    assert CLASS_SCORES["precision"](matrix) == pytest.approx([2 / 3, 0, 0])
    assert CLASS_SCORES["recall"](matrix) == pytest.approx([1, 0, 0])
    assert CLASS_SCORES["f1"](matrix) == pytest.approx([0.8, 0, 0])


def test_matrices_of_patients_add_up_to_that_of_the_set() -> None:
    labels, predictions, _ = random_set()
    patients = number_groups(np.arange(120) // 7 * 3.0, 120)
    by_patient = confusion_matrices(labels, predictions, num_classes=3, clusters=patients)
    assert by_patient.shape == (18, 3, 3)
    assert (by_patient.sum((1, 2))[:-1] == 7).all()
    assert (by_patient.sum(0) == confusion_matrices(labels, predictions, num_classes=3)).all()


def test_areas_agree_with_scikit_learn_also_where_images_are_drawn_several_times() -> None:
    labels, _, probabilities = random_set()
    probabilities = probabilities.round(1)  # many equal ones
    weights = np.random.default_rng(2).integers(3, size=(4, 120))
    areas = class_auc(labels, probabilities, weights)
    assert areas.shape == (4, 3)
    for k in range(3):
        assert class_auc(labels, probabilities)[k] == pytest.approx(roc_auc_score(labels == k, probabilities[:, k]))
        for row, weight in zip(areas, weights, strict=True):
            assert row[k] == pytest.approx(roc_auc_score(labels == k, probabilities[:, k], sample_weight=weight))


def test_the_area_of_a_class_without_images_is_unknown() -> None:
    areas = class_auc(np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    assert areas[:2] == pytest.approx([1, 1])
    assert np.isnan(areas[2])


def test_an_interval_of_independent_images_is_the_binomial_one() -> None:
    labels, predictions = np.zeros(400, int), (np.arange(400) < 80).astype(int)
    low, high = score_intervals(labels, predictions, np.eye(2)[predictions])["val_accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert low == pytest.approx(0.8 - half, abs=0.006)
    assert high == pytest.approx(0.8 + half, abs=0.006)


def test_images_that_repeat_a_patient_do_not_narrow_the_interval() -> None:
    """Every image four times over: known as the same patient it is worth one image, not four."""
    labels, predictions, probabilities = (np.repeat(values, 4, axis=0) for values in random_set())
    single = score_intervals(*random_set())
    together = score_intervals(labels, predictions, probabilities, patients=np.repeat(np.arange(120), 4))
    apart = score_intervals(labels, predictions, probabilities)
    for name in ("val_accuracy", "val_macro_f1", "recall", "auc"):
        assert together[name] == pytest.approx(single[name])
        ratio = np.ptp(apart[name], axis=-1) / np.ptp(together[name], axis=-1)
        assert ratio == pytest.approx(0.5, abs=0.15)


def test_every_interval_encloses_its_value_and_a_seed_repeats_it() -> None:
    labels, predictions, probabilities = random_set()
    ends = score_intervals(labels, predictions, probabilities, seed=3)
    matrix = confusion_matrices(labels, predictions, num_classes=3)
    values = {name: score(matrix) for name, score in (SCORES | CLASS_SCORES).items()}
    values["auc"] = class_auc(labels, probabilities)
    assert set(ends) == set(values)
    for name, value in values.items():
        assert (ends[name][..., 0] < value).all()
        assert (value < ends[name][..., 1]).all()
    again, other = (score_intervals(labels, predictions, probabilities, seed=seed) for seed in (3, 4))
    assert all((again[name] == ends[name]).all() for name in ends)
    assert any((other[name] != ends[name]).any() for name in ends)


def test_resamples_that_lack_a_class_are_left_out() -> None:
    """A perfect classifier with one image of the third class: without it the recall would be 0/0, counted as 0."""
    labels = np.array([0] * 5 + [1] * 5 + [2])
    draws = draw_groups(11, seed=0)
    resampled = resample_matrices(confusion_matrices(labels, labels, num_classes=3, clusters=np.arange(11)), draws)
    assert (
        np.isnan(resampled[:, 0, 0])
        == ((draws[:, 10] == 0) | (draws[:, :5].sum(1) == 0) | (draws[:, 5:10].sum(1) == 0))
    ).all()
    ends = score_intervals(labels, labels, np.eye(3)[labels])
    # All are 1: Wilson's interval over the patients behind each.
    assert ends["val_macro_f1"] == pytest.approx(share_interval(11, 11))
    assert ends["recall"] == pytest.approx(np.stack([share_interval(n, n) for n in (5, 5, 1)]))
    assert ends["auc"] == pytest.approx(np.stack([share_interval(n, n) for n in (5, 5, 1)]))


def test_a_score_of_0_has_wilsons_interval_over_the_patients_behind_it() -> None:
    labels = np.repeat([0, 1], 40)
    patients = np.arange(80) // 4  # ten of each class
    ends = score_intervals(labels, np.zeros(80, int), np.eye(2)[np.zeros(80, int)], patients=patients)
    assert ends["recall"] == pytest.approx(np.stack([share_interval(10, 10), share_interval(0, 10)]))
    assert np.isnan(ends["precision"][1]).all()  # the second class is never predicted
    assert ends["val_accuracy"][0] < 0.5 < ends["val_accuracy"][1]


def test_a_class_that_the_whole_set_lacks_does_not_void_the_resamples() -> None:
    labels, predictions = np.array([0, 0, 0, 1, 1, 1] * 5), np.array([0, 0, 1, 1, 1, 0] * 5)
    ends = score_intervals(labels, predictions, np.eye(3)[predictions])
    assert 0.4 < ends["val_accuracy"][0] < 2 / 3 < ends["val_accuracy"][1] < 0.9
    assert np.isnan(ends["auc"][2]).all()


def test_fewer_than_ten_patients_give_students_interval_and_one_gives_none() -> None:
    labels, predictions, probabilities = random_set()
    for n_patients in (1, 4, 9):
        patients = np.arange(120) % n_patients
        ends = score_intervals(labels, predictions, probabilities, patients=patients)
        assert all(np.isnan(values).all() == (n_patients == 1) for values in ends.values())
    by_patient = [np.mean((labels == predictions)[patients == k]) for k in range(9)]
    expected = stats.ttest_1samp(by_patient, 0).confidence_interval()
    assert ends["val_accuracy"] == pytest.approx([*expected], abs=0.003)  # the patients have 13 or 14 images
    assert (ends["auc"][:, 0] < class_auc(labels, probabilities)).all()


def test_of_few_patients_one_with_all_of_a_class_leaves_the_accuracy_an_interval_alone() -> None:
    labels = np.repeat([0, 1, 2], [8, 8, 4])
    predictions = np.where(np.arange(20) % 4, labels, 0)
    ends = score_intervals(labels, predictions, np.eye(3)[predictions], patients=np.arange(20) // 4)
    assert np.isnan(ends["val_macro_f1"]).all()
    assert ends["val_accuracy"][0] < np.mean(labels == predictions) < ends["val_accuracy"][1]


def test_intervals_over_four_patients_cover_the_scores_of_all_patients() -> None:
    """Patients differ in how often the classifier is right, so that their images are correlated."""
    rng = np.random.default_rng(0)

    def matrices_of(n_patients: int) -> np.ndarray:
        labels, patients = rng.integers(2, size=8 * n_patients), np.arange(8 * n_patients) // 8
        right = rng.random(8 * n_patients) < np.clip(rng.normal(0.75, 0.12, n_patients), 0, 1)[patients]
        return confusion_matrices(labels, np.where(right, labels, 1 - labels), num_classes=2, clusters=patients)

    population = matrices_of(50_000).sum(0)
    for name in ("val_accuracy", "val_macro_f1"):
        hits = 0
        for _ in range(400):
            low, high = interval_of(resample_scores(matrices_of(4), {name: SCORES[name]})[name], units=4)
            hits += low <= SCORES[name](population) <= high
        assert 0.91 < hits / 400 < 0.99


def test_intervals_stay_those_of_published_results() -> None:
    ends = score_intervals(*random_set(), patients=np.arange(120) // 3)
    assert ends["val_accuracy"] == pytest.approx([0.55, 0.7083333333333334], abs=1e-12)
    assert ends["val_macro_f1"] == pytest.approx([0.5510394984232193, 0.7105626206021795], abs=1e-12)
    assert ends["auc"][2] == pytest.approx([0.711716653051698, 0.8669142585809253], abs=1e-12)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="prediction is 3, expected a class index from 0 to 2"):
        confusion_matrices(np.array([0, 1]), np.array([0, 3]), num_classes=3)
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), predictions \(1,\)"):
        confusion_matrices(np.array([0, 1]), np.array([0]), num_classes=3)
    with pytest.raises(ValueError, match=r"labels have shape \(0,\)"):
        confusion_matrices(np.array([]), np.array([]), num_classes=3)
