"""The calibration of a classifier's probabilities, and one temperature that corrects them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.calibration import calibration_binning
from scipy.optimize import minimize_scalar

N_BINS = 15
BOUNDS = (0.25, 10.0)  # of the search for a temperature
SMALLEST = 1e-7  # stands for a probability that a table rounded to 0, whose logarithm would rule the fit


@dataclass(frozen=True)
class ReliabilityBins:
    """Images by the probability of their predicted class: M bins of equal width over 0 to 1.

    Attributes:
        edges: (M + 1,) of the bins; a bin has its upper edge.
        counts: (M,) images.
        confidence: (M,) their mean probability of the predicted class, NaN in an empty bin.
        accuracy: (M,) share of them that is predicted right, NaN in an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean over the images of the gap between confidence and accuracy of their bin.

        Source: Guo et al., On Calibration of Modern Neural Networks, eq. 3.
        """
        gaps = np.abs(self.accuracy - self.confidence) * self.counts
        return float(np.nansum(gaps) / self.counts.sum())


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray, *, n_bins: int = N_BINS) -> ReliabilityBins:
    """Sort images into the bins of a reliability diagram by MONAI's ``calibration_binning``, in single precision.

    Args:
        probabilities: (N, K) of each class.
        labels: (N,) class index of each image.
        n_bins: M.

    Raises:
        ValueError: shapes that do not fit, values that are no probabilities, a label that is no class.
    """
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    y_pred, y = (torch.from_numpy(values.astype(float))[None, None] for values in (confidence, right))
    bins = calibration_binning(y_pred, y, num_bins=n_bins)
    mean_confidence, accuracy, counts = (values[0, 0].numpy().astype(float) for values in bins)
    return ReliabilityBins(np.linspace(0, 1, n_bins + 1), counts.astype(int), mean_confidence, accuracy)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, n_bins: int = N_BINS) -> float:
    """Find the mean gap between confidence and accuracy, 0 to 1, as :class:`ReliabilityBins` defines it."""
    return reliability_bins(probabilities, labels, n_bins=n_bins).expected_calibration_error


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray, *, bounds: tuple[float, float] = BOUNDS) -> float:
    """Find the temperature of least negative log likelihood on a validation set.

    Above 1 it lowers the confidence, below 1 it raises it, the predicted class stays. Logarithms of probabilities are
    logits up to a constant that the softmax takes away again, so a table of probabilities is enough to fit on.

    Args:
        probabilities: (N, K) of each class; 0 counts as 1e-7.
        labels: (N,) class index of each image.
        bounds: lowest and highest temperature. A small set without an error has its optimum at 0, where every image
            would be certain; the lower bound stops that.

    Raises:
        ValueError: shapes that do not fit, values that are no probabilities, a label that is no class.

    Source: Guo et al., On Calibration of Modern Neural Networks, eq. 9.
    """
    _check(probabilities, labels)
    positives = np.maximum(probabilities, SMALLEST)
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        # the loss has one minimum over the temperature's logarithm, and the search is as fine at 0.5 as at 5
        of_labels = apply_temperature(positives, float(np.exp(logarithm)))[rows, labels]
        return float(-np.log(np.maximum(of_labels, np.finfo(float).tiny)).mean())

    low, high = np.log(bounds)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x))


def describe_bound(temperature: float, *, bounds: tuple[float, float] = BOUNDS) -> str:
    """Say that a fitted temperature lies at a bound of its search, or nothing where it lies within.

    Args:
        temperature: as :func:`fit_temperature` finds it with the same ``bounds``.
        bounds: lowest and highest temperature.
    """
    for bound, side in zip(bounds, ("lower", "upper"), strict=True):
        if np.isclose(temperature, bound, rtol=1e-3):
            return (
                f"Temperature {temperature:.4g} lies at the {side} bound of its search, {bound:g}: the best may lie "
                "beyond, so this validation set fits none."
            )
    return ""


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Give the probabilities (N, K) of a softmax whose logits are divided by ``temperature``.

    Raises:
        ValueError: ``temperature`` not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a number above 0.")
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def _check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(f"probabilities are {probabilities.shape}, labels {labels.shape}, expected (N, K) and (N,).")
    if not np.isin(labels, np.arange(probabilities.shape[1])).all():
        raise ValueError(f"labels are {np.unique(labels)}, expected class indices 0 to {probabilities.shape[1] - 1}.")
    wrong = ~((probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 0.01))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"probabilities of image {row} are {probabilities[row]}, expected 0 or more and a sum of 1.")
