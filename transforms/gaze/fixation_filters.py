"""Fixations from raw gaze samples, by velocity (I-VT) or by dispersion (I-DT); all thresholds in degrees and ms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .samples import GazeSamples, angle_deg

# Sums of sample periods are not exact: nine periods at 120 Hz must be 75 ms wherever they lie in the recording.
_TINY = 1e-6


def ivt_fixations(
    samples: GazeSamples,
    *,
    velocity_deg_per_s: float = 30.0,
    window_ms: float = 20.0,
    median_samples: int = 1,
    merge_gap_ms: float = 75.0,
    merge_angle_deg: float = 0.5,
    min_duration_ms: float = 60.0,
) -> np.ndarray:
    """Filter fixations (m, 3) out of samples by velocity: mean x and y in display pixels and duration in ms.

    A sample belongs to a fixation where the gaze moves slower than the threshold; neighbouring slow samples make one
    fixation. Fixations that are close in time and in angle are then joined, and short ones dropped, in this order. A
    missing sample ends a fixation. A fixation lasts one sample period longer than from its first to its last sample.

    Args:
        samples: gaze of one observer on one display.
        velocity_deg_per_s: a gaze at this angular velocity or above is no fixation, in degrees per second.
        window_ms: width in ms of the window, centred on the sample, between whose ends the velocity is measured; it
            is rounded to an odd number of samples, three at least.
        median_samples: the velocity is measured on a moving median over this odd number of samples; 1 is no median.
            A noisy tracker wants 3 or 5, or its fixations break up. Positions are always means of the raw samples.
        merge_gap_ms: fixations are joined only over a gap shorter than this, in ms.
        merge_angle_deg: and only if their mean positions are no further apart than this, in degrees.
        min_duration_ms: fixations shorter than this are dropped, in ms.

    Source: A. Olsen, "The Tobii I-VT Fixation Filter", 2012 (sections on velocity, merging and short fixations).
    """
    _check_positive(velocity_deg_per_s=velocity_deg_per_s, window_ms=window_ms)
    _check_not_negative(merge_gap_ms=merge_gap_ms, merge_angle_deg=merge_angle_deg, min_duration_ms=min_duration_ms)
    steady = _moving_median(samples, median_samples)
    slow = angular_velocity(steady, window_ms=window_ms, max_gap_ms=merge_gap_ms) < velocity_deg_per_s
    edges = np.flatnonzero(np.diff(np.concatenate([[False], slow, [False]]).astype(np.int8)))
    runs = [np.arange(first, stop) for first, stop in edges.reshape(-1, 2)]
    groups = _merge(runs, samples, gap_ms=merge_gap_ms, angle=merge_angle_deg)
    return _as_fixations(groups, samples, min_duration_ms=min_duration_ms)


def angular_velocity(samples: GazeSamples, *, window_ms: float, max_gap_ms: float) -> np.ndarray:
    """Return the angular velocity (n,) in degrees per second, NaN where the window is not full.

    Args:
        samples: gaze of one observer on one display.
        window_ms: width of the window in ms, see :func:`ivt_fixations`.
        max_gap_ms: no velocity is measured across two samples that are further apart in time than this.
    """
    n = len(samples)
    velocity = np.full(n, np.nan)
    half = max(1, round(window_ms / (2 * samples.period_ms) - _TINY)) if samples.period_ms else 1
    if n <= 2 * half:
        return velocity
    lines, time = samples.gaze_mm(), samples.time_ms
    valid = samples.valid
    gaps = np.concatenate([[0], np.cumsum(np.diff(time) > max_gap_ms + _TINY)])
    first, last = slice(0, n - 2 * half), slice(2 * half, n)
    seconds = (time[last] - time[first]) / 1000
    whole = valid[first] & valid[half : n - half] & valid[last] & (gaps[first] == gaps[last]) & (seconds > 0)
    angles = angle_deg(lines[first][whole], lines[last][whole])
    velocity[half : n - half][whole] = angles / seconds[whole]
    return velocity


def idt_fixations(
    samples: GazeSamples,
    *,
    dispersion_deg: float = 1.0,
    min_duration_ms: float = 100.0,
    max_gap_ms: float = 75.0,
) -> np.ndarray:
    """Filter fixations (m, 3) out of samples by dispersion: mean x and y in display pixels and duration in ms.

    A window of the minimum duration is moved over the samples until its dispersion (range of x plus range of y) is
    within the threshold, and is then widened until it no longer is. Missing samples inside a window are skipped.

    Args:
        samples: gaze of one observer on one display.
        dispersion_deg: largest dispersion of a fixation, in degrees of visual angle.
        min_duration_ms: shortest fixation, in ms.
        max_gap_ms: no fixation goes on over two valid samples further apart than this, in ms.

    Source: D. Salvucci and J. Goldberg, "Identifying Fixations and Saccades in Eye-Tracking Protocols", 2000 (I-DT).
    """
    _check_positive(dispersion_deg=dispersion_deg, min_duration_ms=min_duration_ms)
    _check_not_negative(max_gap_ms=max_gap_ms)
    valid = np.flatnonzero(samples.valid)
    lines, time = samples.gaze_mm()[valid], samples.time_ms[valid]
    angles = np.degrees(np.arctan2(lines[:, :2], lines[:, 2:]))
    # A sample stands for one period, so the last one of a window begins a period before the window ends.
    reach = np.searchsorted(time, time + min_duration_ms - samples.period_ms - _TINY)
    block = np.concatenate([[0], np.cumsum(np.diff(time) > max_gap_ms + _TINY)]) if len(time) else np.empty(0, int)
    windows, first = [], 0
    while first < len(time):
        last = int(reach[first])
        if last >= len(time):
            break
        low, high = angles[first : last + 1].min(axis=0), angles[first : last + 1].max(axis=0)
        if block[first] != block[last] or (high - low).sum() > dispersion_deg:
            first += 1
            continue
        while last + 1 < len(time) and block[last + 1] == block[first]:
            low, high = np.minimum(low, angles[last + 1]), np.maximum(high, angles[last + 1])
            if (high - low).sum() > dispersion_deg:
                break
            last += 1
        windows.append(valid[first : last + 1])
        first = last + 1
    return _as_fixations(windows, samples, min_duration_ms=0.0)


def _moving_median(samples: GazeSamples, width: int) -> GazeSamples:
    if width < 1 or width % 2 == 0:
        raise ValueError(f"median_samples is {width!r}, expected an odd number from 1.")
    if width == 1 or len(samples) < width:
        return samples
    median = np.median(np.lib.stride_tricks.sliding_window_view(samples.xy_px, width, axis=0), axis=-1)
    xy_px = samples.xy_px.copy()
    # A window with a missing sample has no median; its centre stays as it is.
    xy_px[width // 2 : -(width // 2)] = np.where(np.isfinite(median), median, xy_px[width // 2 : -(width // 2)])
    return replace(samples, xy_px=xy_px)


def _merge(runs: list[np.ndarray], samples: GazeSamples, *, gap_ms: float, angle: float) -> list[np.ndarray]:
    lines, time = samples.gaze_mm(), samples.time_ms
    groups: list[np.ndarray] = []
    for run in runs:
        if groups:
            before = groups[-1]
            gap = time[run[0]] - time[before[-1]] - samples.period_ms
            # Means, not the two samples at the gap: one noisy sample must not keep a fixation apart.
            if gap < gap_ms - _TINY and angle_deg(lines[before].mean(axis=0), lines[run].mean(axis=0)) <= angle:
                groups[-1] = np.concatenate([before, run])
                continue
        groups.append(run)
    return groups


def _as_fixations(groups: list[np.ndarray], samples: GazeSamples, *, min_duration_ms: float) -> np.ndarray:
    rows = []
    for group in groups:
        duration = samples.time_ms[group[-1]] - samples.time_ms[group[0]] + samples.period_ms
        if duration >= min_duration_ms - _TINY:
            rows.append([*samples.xy_px[group].mean(axis=0), duration])
    return np.asarray(rows, float).reshape(-1, 3)


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value!r}, expected a positive number.")


def _check_not_negative(**settings: float) -> None:
    for name, value in settings.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value!r}, expected a number not below zero.")
