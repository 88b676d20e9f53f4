"""The size of an image's pixels in micrometers, as far as its file tells it.

No torch is needed here.
"""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Any

import pydicom
import tifffile

from .decoding import is_dicom
from .dicom import check_deflated, silent_pydicom

PixelSize = tuple[float, float]  # height and width
UM_PER_UNIT = {"picometer": 1e-6, "pm": 1e-6, "angstrom": 1e-4, "Å": 1e-4, "nanometer": 1e-3, "nm": 1e-3}
UM_PER_UNIT |= {"micrometer": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0}
UM_PER_UNIT |= {"millimeter": 1e3, "mm": 1e3, "centimeter": 1e4, "cm": 1e4, "decimeter": 1e5, "dm": 1e5}
UM_PER_UNIT |= {"meter": 1e6, "m": 1e6, "inch": 25400.0, "inches": 25400.0, "in": 25400.0}
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
        check_deflated(file)
        fields = ["PixelSpacing", "ImagerPixelSpacing"]
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=fields)
        spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        sizes = [float(number) * 1000 for number in spacing or ()]
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def um_per_unit(unit: str) -> float:
    """Return how many micrometers a unit of length is, by its name or symbol; 0 for another word."""
    word = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ").strip()
    return UM_PER_UNIT.get(word, 0.0) or (UM_PER_UNIT.get(word.lower(), 0.0) if len(word) > 2 else 0.0)


def tiff_pixel_size_um(file: tifffile.TiffFile, series: int = 0) -> PixelSize | None:
    """Find the height and the width of a pixel in micrometers at full resolution, of a series of an open TIFF.

    They stand in OME-XML, in an SVS description, in ImageJ's description with its resolution tags, or in these alone.
    """
    page = file.series[series].keyframe
    if file.ome_metadata:
        pixels = _ome_pixels(file, series)
        sizes = [
            float(pixels.get(f"PhysicalSize{axis}", 0)) * um_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "YX"
        ]
        return (sizes[0], sizes[1]) if min(sizes) > 0 else None
    if file.is_svs:  # its thumbnail repeats the slide's value
        slide = series == 0 and tifffile.tifffile.svs_description_metadata(page.description)
        mpp = float(slide.get("MPP", 0)) if slide else 0.0
        return (mpp, mpp) if mpp > 0 else None
    resolution_x, resolution_y = page.resolution
    if min(resolution_x, resolution_y) <= 0:
        return None
    if file.imagej_metadata and (unit := str(file.imagej_metadata.get("unit", ""))):
        um_x, um_y = um_per_unit(unit), um_per_unit(str(file.imagej_metadata.get("yunit", unit)))
        return (um_y / resolution_y, um_x / resolution_x) if um_x and um_y else None
    if getattr(page.resolutionunit, "name", "NONE") == "NONE":
        return None
    per_um_x, per_um_y = page.get_resolution("MICROMETER")
    size = (1 / per_um_y, 1 / per_um_x)
    return size if max(size) < _COARSEST_UM else None


def _ome_pixels(file: tifffile.TiffFile, series: int) -> dict[str, Any]:
    """Return what OME-XML tells of the pixels of a series: its images stand in the order of the series, if all do."""
    images = tifffile.xml2dict(str(file.ome_metadata))["OME"].get("Image", {})
    images = images if isinstance(images, list) else [images]
    if len(images) != len(file.series) and not (len(images) == 1 and series == 0):
        images = [image for image in images if str(image.get("Name")) == file.series[series].name]
        series = 0
        if len(images) != 1:
            return {}
    pixels: dict[str, Any] = images[series].get("Pixels", {})
    return pixels
