"""What the readers take from pydicom 3, or from the 2.4 that MONAI Label needs: the same functions, the same pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

try:
    from pydicom.encaps import generate_frames
    from pydicom.pixels import apply_windowing, convert_color_space, pixel_array

    IS_OLDER = False
except ImportError:
    from pydicom.encaps import generate_pixel_data_frame as generate_frames  # type: ignore[no-redef]
    from pydicom.pixel_data_handlers.util import (  # type: ignore[no-redef]
        apply_windowing,
        convert_color_space,
    )

    IS_OLDER = True

__all__ = ["apply_windowing", "deflated_part", "encoding_of", "first_frame", "stored_values"]


def stored_values(dataset: pydicom.Dataset) -> np.ndarray:
    """Decode the stored values of a DICOM image: (H, W), or in colour (H, W, 3) as RGB."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not IS_OLDER:
        # The plug-in for RLE that pydicom prefers does not survive a damaged stream.
        return pixel_array(dataset, raw=False, decoding_plugin="pydicom" if syntax == RLELossless else "")
    handler = "pylibjpeg" if syntax.is_encapsulated else "numpy"
    dataset.convert_pixel_data("rle" if syntax == RLELossless else handler)
    is_ybr = dataset.PhotometricInterpretation in ("YBR_FULL", "YBR_FULL_422")
    return convert_color_space(dataset.pixel_array, "YBR_FULL", "RGB") if is_ybr else dataset.pixel_array


def first_frame(pixel_data: bytes) -> bytes:
    """Put the fragments of the one frame of encapsulated pixel data together.

    Raises:
        Whatever pydicom makes of damaged fragments.
    """
    frames: Callable[..., Iterator[bytes]] = generate_frames
    return next(iter(frames(pixel_data, **{"nr_frames" if IS_OLDER else "number_of_frames": 1})))


def deflated_part(path: Path) -> bytes:
    """Return what stands behind the file meta information of a deflated file; nothing for any other file."""
    with path.open("rb") as stream:
        try:
            read_preamble(stream, force=True)
            meta = _read_file_meta_info(stream)
        except Exception:  # damage of any kind, which the reader of the whole file tells
            return b""
        return stream.read() if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian else b""


def encoding_of(dataset: pydicom.FileDataset) -> tuple[bool, bool]:
    """Tell as what a file was read: with implicit value representations, and little endian."""
    pair = getattr(dataset, "original_encoding", None) or (dataset.read_implicit_vr, dataset.read_little_endian)
    return bool(pair[0]), bool(pair[1])
