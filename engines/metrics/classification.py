"""Scores of a classifier from its confusion matrix, and their intervals by resampling patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .intervals import Resampled, interval_of, number_groups, resample, resample_matrices

AT_A_TIME = 200  # resamples: all of them times all images may not fit in memory


def confusion_matrices(
    labels: np.ndarray, predictions: np.ndarray, *, num_classes: int, clusters: np.ndarray | None = None
) -> np.ndarray:
    """Count how often each pair of label and prediction occurs.

    Args:
        labels: (N,) class index of each image, 0 .. K - 1.
        predictions: (N,) the same, as predicted.
        num_classes: K.
        clusters: number 0 .. P - 1 of the patient of each image, as :func:`.intervals.number_groups` gives it.

    Returns:
        (K, K), rows are labels; with clusters (P, K, K).

    Raises:
        ValueError: no images, lengths that differ, an index that is no class.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            f"labels have shape {labels.shape}, predictions {predictions.shape}, expected (N,) with N > 0."
        )
    for name, values in (("label", labels), ("prediction", predictions)):
        wrong = ~np.isin(values, np.arange(num_classes))
        if wrong.any():
            raise ValueError(f"{name} is {values[wrong][0]}, expected a class index from 0 to {num_classes - 1}.")
    owner = np.zeros(len(labels), dtype=int) if clusters is None else clusters
    shape = (int(owner.max()) + 1, num_classes, num_classes)
    cells = np.ravel_multi_index((owner, labels.astype(int), predictions.astype(int)), shape)
    counts = np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)
    return counts[0] if clusters is None else counts


def class_precision(matrices: np.ndarray) -> np.ndarray:
    """Find each class's TP / (TP + FP), (..., K), from confusion matrices (..., K, K); 0/0, never predicted, is 0."""
    return _ratio(_hits(matrices), matrices.sum(-2))


def class_recall(matrices: np.ndarray) -> np.ndarray:
    """Find each class's TP / (TP + FN), (..., K), from confusion matrices (..., K, K); 0/0, without an image, is 0."""
    return _ratio(_hits(matrices), matrices.sum(-1))


def class_f1(matrices: np.ndarray) -> np.ndarray:
    """Find each class's 2 TP / (2 TP + FP + FN), (..., K), from confusion matrices (..., K, K); 0/0 is 0."""
    return _ratio(2 * _hits(matrices), matrices.sum(-1) + matrices.sum(-2))


def accuracy(matrices: np.ndarray) -> np.ndarray:
    """Find the share of the images on the diagonal, (...), of confusion matrices (..., K, K); 0/0 is 0."""
    return _ratio(_hits(matrices).sum(-1), matrices.sum((-2, -1)))


# Macro: the plain mean over the classes. F1 is the mean of the classes' F1, not the harmonic mean of the two others.
SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "val_accuracy": accuracy,
    "val_macro_precision": lambda matrices: class_precision(matrices).mean(-1),
    "val_macro_recall": lambda matrices: class_recall(matrices).mean(-1),
    "val_macro_f1": lambda matrices: class_f1(matrices).mean(-1),
}
CLASS_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "precision": class_precision,
    "recall": class_recall,
    "f1": class_f1,
}


def class_auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Find the area under the ROC curve of each class against the rest, (..., K).

    It is the chance that an image of the class gets a higher probability of it than an image of another class, equal
    ones counted by half. NaN where there is no image of the class, or none of another.

    Args:
        labels: (N,) class index of each image.
        probabilities: (N, K) of each class.
        weights: (..., N) how often each image counts; once if not given.

    Source: Hanley and McNeil, The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve.
    """
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=float)
    areas = []
    for index, column in enumerate(np.asarray(probabilities, dtype=float).T):
        order = np.argsort(column, kind="stable")
        starts = np.flatnonzero(np.diff(column[order], prepend=-np.inf) > 0)  # of images with equal probability
        sorted_weights, inside = weights[..., order], np.asarray(labels)[order] == index
        positives = np.add.reduceat(sorted_weights * inside, starts, axis=-1)
        negatives = np.add.reduceat(sorted_weights * ~inside, starts, axis=-1)
        below = negatives.cumsum(-1) - negatives / 2
        pairs = positives.sum(-1) * negatives.sum(-1)
        areas.append(np.where(pairs > 0, _ratio((positives * below).sum(-1), pairs), np.nan))
    return np.stack(areas, axis=-1)


def score_intervals(
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    *,
    patients: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Find the 95 % intervals of all scores of a labelled set of N images, as :func:`.intervals.interval_of`.

    Patients are resampled, and the images of one are drawn together: they resemble each other, so that resampling
    images would give intervals that are too narrow. Resamples that lack a class are left out. Of fewer than ten
    patients the accuracy alone has an interval where one patient has all images of a class.

    Args:
        labels: (N,) class index of each image.
        predictions: (N,) the same, as predicted.
        probabilities: (N, K) of each class.
        patients: number of each image's patient; None takes every image as a patient of its own.
        seed: of the draw.

    Returns:
        by name (2,) of each of SCORES, and (K, 2) of each of CLASS_SCORES and of "auc".
    """
    clusters = number_groups(patients, len(labels))
    matrices = confusion_matrices(labels, predictions, num_classes=probabilities.shape[1], clusters=clusters)

    def areas(draws: np.ndarray) -> dict[str, np.ndarray]:
        complete = np.flatnonzero(~np.isnan(resample_matrices(matrices, draws)[:, 0, 0]))
        values = np.full((len(draws), probabilities.shape[1]), np.nan)
        for block in np.split(complete, range(AT_A_TIME, len(complete), AT_A_TIME)):
            values[block] = class_auc(labels, probabilities, draws[block][:, clusters])
        return {"auc": values}

    resampled = resample_scores(matrices, SCORES | CLASS_SCORES, seed=seed)
    resampled |= resample(areas, len(matrices), seed=seed)
    units = _patients_behind(matrices)
    return {name: interval_of(each, units=units.get(name, len(matrices))) for name, each in resampled.items()}


def resample_scores(
    matrices: np.ndarray, scores: Mapping[str, Callable[[np.ndarray], np.ndarray]], *, seed: int = 0
) -> dict[str, Resampled]:
    """Resample scores, such as SCORES, of the matrices of P patients (P, K, K), as :func:`.intervals.resample`."""

    def values(draws: np.ndarray) -> dict[str, np.ndarray]:
        sums = resample_matrices(matrices, draws)
        return {name: score(sums) for name, score in scores.items()}

    found = resample(values, len(matrices), seed=seed)
    if "val_accuracy" in found:  # is a mean, which a patient has even where no other has images of a class
        found["val_accuracy"] = found["val_accuracy"]._replace(group_values=accuracy(matrices))
    return found


def _patients_behind(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """Count the patients (K,) that the scores of each class rest on, from their matrices (P, K, K)."""
    labels, predictions = matrices.sum(-1), matrices.sum(-2)
    others = labels.sum(-1, keepdims=True) - labels
    return {
        "recall": (labels > 0).sum(0),
        "precision": (predictions > 0).sum(0),
        "f1": (labels + predictions > 0).sum(0),
        "auc": np.minimum((labels > 0).sum(0), (others > 0).sum(0)),
    }


def _hits(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=-2, axis2=-1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole != 0)
