"""One DICOM series of axial CT slices as one array, or a sentence on why it is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_series(paths: list[Path]) -> tuple[np.ndarray, np.ndarray, str]:
    raise NotImplementedError
