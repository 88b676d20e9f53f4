import numpy as np
import pytest

from clinbundles.engines.metrics.calibration import (
    apply_temperature,
    describe_bound,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)


def calibrated_set(n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from them, so that each probability is true."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=(n, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((n, 1)) > probabilities.cumsum(1)).sum(1).clip(max=2)
    return probabilities, labels


def test_the_error_is_the_one_counted_by_hand() -> None:
    """Two bins: three images at 0.92, two of them right; one at 0.55, right."""
    probabilities = np.array([[0.92, 0.08]] * 3 + [[0.45, 0.55]])
    labels = np.array([0, 0, 1, 1])
    expected = 3 / 4 * (0.92 - 2 / 3) + 1 / 4 * (1 - 0.55)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)
    bins = reliability_bins(probabilities, labels)
    assert len(bins.counts) == 15
    assert bins.counts[[8, 13]].tolist() == [1, 3]
    assert bins.counts.sum() == 4
    assert bins.confidence[13] == pytest.approx(0.92)
    assert bins.accuracy[13] == pytest.approx(2 / 3)
    assert np.isnan(bins.accuracy[0])


def test_the_bins_stay_those_of_published_results() -> None:
    probabilities, labels = calibrated_set(500)
    bins = reliability_bins(apply_temperature(probabilities, 0.5), labels)
    assert bins.counts.tolist() == [0, 0, 0, 0, 0, 5, 11, 24, 39, 42, 38, 43, 48, 83, 167]
    assert bins.confidence[[5, 9, 14]] == pytest.approx(
        [0.37711285272551415, 0.640080585695977, 0.976534811004137], abs=1e-6
    )
    assert bins.accuracy[[5, 9, 14]] == pytest.approx([0.8, 0.38095238095238093, 0.8682634730538922], abs=1e-7)
    assert bins.expected_calibration_error == pytest.approx(0.1694629836261015, abs=1e-6)
    probabilities, labels = calibrated_set(20_000)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.005306625333189279, abs=1e-6)


def test_an_edge_belongs_to_the_lower_bin() -> None:
    bins = reliability_bins(np.array([[0.75, 0.25], [0.0, 1.0]]), np.array([0, 1]), n_bins=4)
    assert bins.counts.tolist() == [0, 0, 1, 1]


def test_true_probabilities_have_no_error_and_need_no_temperature() -> None:
    probabilities, labels = calibrated_set()
    assert expected_calibration_error(probabilities, labels) < 0.015
    assert fit_temperature(probabilities, labels) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_is_found_again_and_takes_the_error_away(temperature: float) -> None:
    probabilities, labels = calibrated_set()
    distorted = apply_temperature(probabilities, 1 / temperature)
    fit = fit_temperature(distorted, labels)
    assert fit == pytest.approx(temperature, rel=0.03)
    before, after = (expected_calibration_error(p, labels) for p in (distorted, apply_temperature(distorted, fit)))
    assert before > 0.08
    assert after < 0.015


def test_a_temperature_keeps_the_order_and_can_be_taken_back() -> None:
    probabilities, _ = calibrated_set(100)
    softer = apply_temperature(probabilities, 2.5)
    assert softer.sum(1) == pytest.approx(1)
    assert (softer.argsort(1) == probabilities.argsort(1)).all()
    assert (softer.max(1) < probabilities.max(1)).all()
    assert apply_temperature(softer, 0.4) == pytest.approx(probabilities)
    assert apply_temperature(probabilities, 1) == pytest.approx(probabilities)


def test_it_is_the_softmax_of_the_divided_logits() -> None:
    logits = np.array([[2.0, -1.0, 0.5]])
    softmax = [np.exp(z) / np.exp(z).sum() for z in (logits, logits / 3)]
    assert apply_temperature(softmax[0], 3) == pytest.approx(softmax[1])


def test_a_label_rounded_to_probability_zero_does_not_break_the_fit() -> None:
    probabilities, labels = calibrated_set(2000)
    wrong = np.eye(3)[(labels[:5] + 1) % 3]
    both = np.concatenate([probabilities, wrong])
    temperature = fit_temperature(both, np.concatenate([labels, labels[:5]]))
    assert 1 < temperature < 1.5
    assert np.isfinite(apply_temperature(both, temperature)).all()


def test_a_set_without_an_error_stops_at_the_lower_bound() -> None:
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7]] * 10)
    assert fit_temperature(probabilities, probabilities.argmax(1)) == pytest.approx(0.25, rel=1e-3)
    assert fit_temperature(probabilities, probabilities.argmin(1)) == pytest.approx(10, rel=1e-3)


def test_a_temperature_at_a_bound_of_its_search_is_said_and_one_within_is_not() -> None:
    probabilities = np.array([[0.6, 0.4], [0.3, 0.7]] * 10)
    low, high = (fit_temperature(probabilities, labels(1)) for labels in (probabilities.argmax, probabilities.argmin))
    assert describe_bound(low).startswith("Temperature 0.25 lies at the lower bound of its search, 0.25:")
    assert describe_bound(high).startswith("Temperature 10 lies at the upper bound of its search, 10:")
    assert describe_bound(low, bounds=(0.1, 10)) == describe_bound(1.0) == describe_bound(0.26) == ""


def test_wrong_input_is_named() -> None:
    good, labels = np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([0, 1])
    with pytest.raises(ValueError, match=r"probabilities are \(2, 2\), labels \(3,\)"):
        reliability_bins(good, np.array([0, 1, 1]))
    with pytest.raises(ValueError, match=r"probabilities of image 1 are \[2\. 3\.\]"):
        fit_temperature(np.array([[0.5, 0.5], [2.0, 3.0]]), labels)
    with pytest.raises(ValueError, match="probabilities of image 0"):
        fit_temperature(np.array([[np.nan, 0.5], [0.1, 0.9]]), labels)
    with pytest.raises(ValueError, match=r"labels are \[0 2\], expected class indices 0 to 1"):
        reliability_bins(good, np.array([0, 2]))
    with pytest.raises(ValueError, match=r"temperature is 0, expected a number above 0"):
        apply_temperature(good, 0)
