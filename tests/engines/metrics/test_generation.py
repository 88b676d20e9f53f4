import numpy as np
import pytest
import torch
from monai.metrics.fid import get_fid_score

from clinbundles.engines.metrics.generation import (
    _frechet_distances,
    _kernel_distances,
    _manifold_scores,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    remarks,
    score_generated,
)
from clinbundles.engines.metrics.intervals import share_interval


def exact_gaussian(mean: np.ndarray, covariance: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Samples whose own mean and population covariance are exactly these."""
    draws = np.random.default_rng(seed).normal(size=(n, len(mean)))
    draws -= draws.mean(0)
    white = draws @ np.linalg.inv(np.linalg.cholesky(draws.T @ draws / n)).T
    return white @ np.linalg.cholesky(covariance).T + mean


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(14, 6)), rng.normal(0.4, 1.3, size=(19, 6))


def test_kid_is_the_double_sum_of_its_formula(sets: tuple[np.ndarray, np.ndarray]) -> None:
    real, generated = sets

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(np.dot(x, y)) / 6 + 1) ** 3

    total = 0.0
    for features in sets:
        n = len(features)
        total += sum(kernel(features[i], features[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    total -= 2 * sum(kernel(x, y) for x in real for y in generated) / (14 * 19)
    assert kernel_distance(real, generated) == pytest.approx(total, rel=1e-10)
    assert kernel_distance(generated, real) == pytest.approx(total, rel=1e-10)


def test_kid_is_unbiased_and_fid_is_not_with_few_images() -> None:
    rng = np.random.default_rng(1)
    pairs = [(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(300)]
    kids = np.array([kernel_distance(real, generated) for real, generated in pairs])
    fids = np.array([frechet_distance(real, generated) for real, generated in pairs])
    assert abs(kids.mean()) < 3 * kids.std() / np.sqrt(300)
    assert fids.min() > 0


def test_kid_of_subsets_is_the_mean_over_draws(sets: tuple[np.ndarray, np.ndarray]) -> None:
    real, generated = sets
    assert kernel_distance(real, generated[:14], subsets=3, subset_size=50) == pytest.approx(
        kernel_distance(real, generated[:14])
    )
    many = kernel_distance(real, generated, subsets=400, subset_size=8)
    assert many == pytest.approx(kernel_distance(real, generated), rel=0.25)
    assert many == kernel_distance(real, generated, subsets=400, subset_size=8)


def test_fid_of_gaussians_with_commuting_covariances_is_known() -> None:
    mean, widths, others = np.array([0.0, 1.0, -2.0]), np.array([1.0, 2.0, 0.5]), np.array([2.0, 2.0, 3.0])
    real = exact_gaussian(np.zeros(3), np.diag(widths**2), 50, seed=0)
    generated = exact_gaussian(mean, np.diag(others**2), 70, seed=1)
    expected = (mean**2).sum() + ((widths - others) ** 2).sum()
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(generated, real) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(40, 50), (5, 50), (40, 4), (5, 4)], ids=str)
def test_fid_is_the_trace_of_its_formula_with_more_and_with_fewer_images_than_features(n: int, m: int) -> None:
    rng = np.random.default_rng(2)
    real, generated = rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8)), rng.normal(1, 2, size=(m, 8))
    first, second = (np.cov(features.T, ddof=0) for features in (real, generated))
    roots = np.sqrt(np.clip(np.linalg.eigvals(first @ second).real, 0, None)).sum()
    gap = ((real.mean(0) - generated.mean(0)) ** 2).sum()
    expected = gap + np.trace(first) + np.trace(second) - 2 * roots
    # The roots of eigenvalues that are 0 but for rounding are not.
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")  # MONAI's own call
def test_monai_divides_by_one_less_and_differs_by_that_factor(sets: tuple[np.ndarray, np.ndarray]) -> None:
    real, generated = sets[0], sets[1][:14]
    gap = ((real.mean(0) - generated.mean(0)) ** 2).sum()
    ours = frechet_distance(real, generated)
    theirs = float(get_fid_score(torch.from_numpy(generated), torch.from_numpy(real)))
    assert theirs == pytest.approx(gap + (ours - gap) * 14 / 13, rel=1e-4)
    assert theirs != pytest.approx(ours, rel=1e-3)


def test_precision_recall_density_and_coverage_are_counts_of_balls(sets: tuple[np.ndarray, np.ndarray]) -> None:
    real, generated = sets
    k = 3

    def radius(features: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(features[i] - other)) for other in features)[k]  # the first is itself

    inside = [[np.linalg.norm(x - y) < radius(real, i) for i, x in enumerate(real)] for y in generated]
    covers = [[np.linalg.norm(x - y) < radius(generated, j) for j, y in enumerate(generated)] for x in real]
    scores = manifold_scores(real, generated, k=k)
    assert scores["precision"] == pytest.approx(np.mean([any(row) for row in inside]))
    assert scores["density"] == pytest.approx(np.sum(inside) / (k * len(generated)))
    assert scores["coverage"] == pytest.approx(np.mean([any(column) for column in zip(*inside, strict=True)]))
    assert scores["recall"] == pytest.approx(np.mean([any(row) for row in covers]))


def test_generated_images_that_repeat_one_real_image_are_precise_and_cover_nothing_else() -> None:
    real = np.random.default_rng(3).normal(size=(40, 5))
    generated = real[:1] + 1e-3 * np.random.default_rng(4).normal(size=(30, 5))
    scores = manifold_scores(real, generated)
    assert scores["precision"] == 1
    assert scores["coverage"] < 0.5
    assert scores["recall"] < 0.1


def test_a_resample_is_scored_as_the_set_with_repeated_images(sets: tuple[np.ndarray, np.ndarray]) -> None:
    real, generated = sets
    counts = np.random.default_rng(5).multinomial(19, np.full(19, 1 / 19), size=1).astype(float)
    repeated = np.repeat(generated, counts[0].astype(int), axis=0)
    assert next(_frechet_distances(real, generated, counts)) == pytest.approx(frechet_distance(real, repeated))
    balls = _manifold_scores(real, generated, counts, 5)
    explicit = manifold_scores(real, repeated)
    for name in ("precision", "density", "coverage"):
        assert balls[name][0] == pytest.approx(explicit[name])
    # Pairs of an image with itself, which a resample holds, would make KID larger.
    assert _kernel_distances(real, generated, counts)[0] < kernel_distance(real, repeated)


def test_intervals_hold_the_value_and_narrow_with_the_number_of_images() -> None:
    rng = np.random.default_rng(6)
    real, generated = rng.normal(size=(60, 4)), rng.normal(0.3, 1, size=(400, 4))
    few, many = (score_generated(real, some, name="MobileNetV2") for some in (generated[:50], generated))
    assert list(few) == [f"{name}-MobileNetV2" for name in ("KID", "FID", "precision", "recall", "density", "coverage")]
    for scores in (few, many):
        assert all(each["low"] <= each["value"] <= each["high"] for each in scores.values())
    for name in ("KID-MobileNetV2", "FID-MobileNetV2"):
        assert many[name]["high"] - many[name]["low"] < 0.6 * (few[name]["high"] - few[name]["low"])
    assert few["FID-MobileNetV2"]["value"] == pytest.approx(frechet_distance(real, generated[:50]))
    assert few == score_generated(real, generated[:50], name="MobileNetV2")


def test_nine_generated_images_are_too_few_for_an_interval_and_a_share_of_0_has_wilsons() -> None:
    real, generated = np.random.default_rng(0).normal(size=(30, 3)), np.random.default_rng(1).normal(9, 1, (40, 3))
    assert all(each["low"] is each["high"] is None for each in score_generated(real, generated[:9], name="x").values())
    scores = score_generated(real, generated, name="x")
    for name in ("precision", "recall", "coverage"):
        ends = share_interval(0, 40)
        assert scores[f"{name}-x"] == {"value": 0, "low": 0, "high": pytest.approx(ends[1])}
    assert scores["density-x"] == {"value": 0, "low": None, "high": None}


def test_intervals_of_kid_hold_the_distance_of_the_two_populations_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    real = rng.normal(size=(40, 3))
    truth = kernel_distance(real, rng.normal(0.5, 1, size=(4000, 3)))
    hits = 0
    for _ in range(40):
        score = score_generated(real, rng.normal(0.5, 1, size=(40, 3)), name="x")["KID-x"]
        hits += score["low"] <= truth <= score["high"]
    assert hits >= 32


def test_fewer_images_than_features_are_remarked() -> None:
    lines = remarks(np.zeros((5, 8)), np.zeros((9, 8)))
    assert "real images are 5, fewer than the 8 features" in lines[0]
    assert not any("generated images are" in line for line in lines)
    assert any("intervals are over generated images" in line for line in lines)


def test_wrong_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(4, 2\) and \(4, 3\)"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="5 generated images are too few, expected at least 6"):
        manifold_scores(np.zeros((9, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="real images are not finite"):
        kernel_distance(np.full((4, 2), np.nan), np.zeros((4, 2)))
