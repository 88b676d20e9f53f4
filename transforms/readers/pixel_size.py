"""The size of an image's pixels in micrometers, as far as its file tells it.

No torch is needed here.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import pydicom
import tifffile

from .decoding import is_dicom
from .folder import image_suffix

PixelSize = tuple[float, float]  # height and width
UM_PER_UNIT = {"nanometer": 1e-3, "nm": 1e-3, "micrometer": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0}
UM_PER_UNIT |= {"millimeter": 1e3, "mm": 1e3, "centimeter": 1e4, "cm": 1e4, "meter": 1e6, "m": 1e6}
_SCREEN_DPI = (72.0, 96.0)  # what programs write that know no pixel size


def pixel_size_um(path: str | PathLike[str]) -> PixelSize | None:
    """Find the height and the width of a pixel in micrometers, of a TIFF or DICOM file; None where it does not tell.

    Other formats know no more than dots per inch, which is a matter of screens and printers.
    """
    file = Path(path)
    if is_dicom(file):
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        sizes = [float(number) * 1000 for number in spacing or ()]
        return (sizes[0], sizes[1]) if len(sizes) == 2 and min(sizes) > 0 else None
    if image_suffix(file) in (".tif", ".tiff"):
        with tifffile.TiffFile(file) as tiff:
            return tiff_pixel_size_um(tiff)
    return None


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
        per_unit = UM_PER_UNIT.get(unit.replace("\\u00B5", "µ").replace("micron", "um"), 0)
        return (per_unit / resolution_y, per_unit / resolution_x) if per_unit else None
    unit_tag = getattr(page.resolutionunit, "name", "NONE")
    if unit_tag == "NONE" or (unit_tag == "INCH" and resolution_x in _SCREEN_DPI):
        return None
    per_um_x, per_um_y = page.get_resolution("MICROMETER")
    return (1 / per_um_y, 1 / per_um_x)
