"""A reader of CT volumes for MONAI's ``LoadImaged``: one NIfTI file or one DICOM series, in HU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from .ct_volume import CTVolume, read_ct


class CTReader(ImageReader):
    """Read a CT volume as float32 (x, y, z) in HU with its affine, both as the file has them.

    A file name is that of a NIfTI file or of the folder of one DICOM series; a list of names is one series. The axes
    are those of the file, so that what is written with this affine lies on it voxel by voxel. ``Orientationd`` with
    ``axcodes="PLS"`` turns them into rows towards posterior, columns towards the patient's left and slices towards the
    head, the pictures of :mod:`.ct_volume`, and ``Invertd`` turns them back.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is no CT volume, or what it says about itself is not so.
    """

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Accept every name: the content decides, and what is refused is reported by name."""
        return True

    def read(self, data: Sequence[Any] | Any, **_: Any) -> CTVolume:
        """Read the volume named by ``data``, a file, a folder or a list of files."""
        return read_ct([str(name) for name in ensure_tuple(data)])

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return the array of a volume as its file has it, with the meta data that MONAI expects."""
        array = img.as_in_file(img.values, dtype=np.float32)
        meta = {
            MetaKeys.AFFINE: img.file_affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: img.file_affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
        return array, meta
