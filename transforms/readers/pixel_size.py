"""The size of an image's pixels in micrometers, as far as its file tells it.

No torch is needed here.
"""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path

import pydicom
import tifffile

from .decoding import is_dicom
from .dicom import silent_pydicom

PixelSize = tuple[float, float]  # height and width
UM_PER_UNIT = {"nanometer": 1e-3, "nm": 1e-3, "micrometer": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0}
UM_PER_UNIT |= {"micron": 1.0, "microns": 1.0, "millimeter": 1e3, "mm": 1e3}
UM_PER_UNIT |= {"centimeter": 1e4, "cm": 1e4, "meter": 1e6, "m": 1e6}
# 1270 dots per inch, more than screens, scanners and printers have. What programs write that know no pixel size, such
# as 1, 72, 96 or 300 dots per inch, is coarser; a microscope is finer.
_COARSEST_UM = 20.0
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def pixel_size_um(path: str | PathLike[str]) -> PixelSize | None:
    """Find the height and the width of a pixel in micrometers, of a TIFF or DICOM file; None where it does not tell.

    The content decides what file it is. Other formats, and a TIFF without other words than its resolution, know dots
    per inch at most; these count in a TIFF if a pixel is then finer than 20 um, which those of screens, scanners and
    printers are not.
    """
    file = Path(path)
    try:
        if is_dicom(file):
            size = _dicom_pixel_size_um(file)
        elif _is_tiff(file):
            with tifffile.TiffFile(file) as tiff:
                size = tiff_pixel_size_um(tiff)
        else:
            size = None
    except (ValueError, TypeError, KeyError, SyntaxError):  # a fault of what is said about the pixels, not of these
        size = None
    return size if size is not None and all(0 < side < math.inf for side in size) else None


def _is_tiff(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) in _TIFF_STARTS


def _dicom_pixel_size_um(file: Path) -> PixelSize | None:
    with silent_pydicom():
        fields = ["PixelSpacing", "ImagerPixelSpacing"]
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=fields)
        spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        sizes = [float(number) * 1000 for number in spacing or ()]
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def tiff_pixel_size_um(file: tifffile.TiffFile) -> PixelSize | None:
    """Find the height and the width of a pixel in micrometers at full resolution, of an open TIFF.

    They stand in OME-XML, in an SVS description, in ImageJ's description with its resolution tags, or in these alone.
    """
    page = file.series[0].keyframe
    if file.ome_metadata:
        image = tifffile.xml2dict(file.ome_metadata)["OME"].get("Image", {})
        pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
        sizes = [
            float(pixels.get(f"PhysicalSize{axis}", 0))
            * UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"), 0)
            for axis in "YX"
        ]
        return (sizes[0], sizes[1]) if min(sizes) > 0 else None
    if page.is_svs:
        mpp = float(tifffile.tifffile.svs_description_metadata(page.description).get("MPP", 0))
        return (mpp, mpp) if mpp > 0 else None
    resolution_x, resolution_y = page.resolution
    if min(resolution_x, resolution_y) <= 0:
        return None
    if file.imagej_metadata and (unit := str(file.imagej_metadata.get("unit", ""))):
        per_unit = UM_PER_UNIT.get(unit.replace("\\u00B5", "µ"), 0)
        return (per_unit / resolution_y, per_unit / resolution_x) if per_unit else None
    if getattr(page.resolutionunit, "name", "NONE") == "NONE":
        return None
    per_um_x, per_um_y = page.get_resolution("MICROMETER")
    size = (1 / per_um_y, 1 / per_um_x)
    return size if max(size) < _COARSEST_UM else None
