from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file

from clinbundles.transforms.readers.pixel_size import pixel_size_um

PIXELS = np.zeros((8, 12), dtype=np.uint8)


def tiff(folder: Path, **options: object) -> Path:
    path = folder / ("a.ome.tif" if options.get("ome") else "a.tif")
    tifffile.imwrite(path, PIXELS, **options)  # type: ignore[arg-type]
    return path


def test_ome_xml_tells_it_in_any_unit(tmp_path: Path) -> None:
    for unit, factor in (("µm", 1), ("nm", 1e-3), ("mm", 1e3)):
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": unit, "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": unit}
        path = tiff(tmp_path, ome=True, metadata={"axes": "YX", **size})
        assert pixel_size_um(path) == pytest.approx((0.25 * factor, 0.5 * factor))
    assert pixel_size_um(tiff(tmp_path, ome=True, metadata={"axes": "YX"})) is None


def test_imagej_writes_micrometers_beside_its_resolution(tmp_path: Path) -> None:
    path = tiff(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    assert pixel_size_um(path) == pytest.approx((0.5, 0.25))
    for unit in ("\\u00B5m", "micron", "Microns", "\\u00b5m"):
        assert pixel_size_um(tiff(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": unit})) == (0.5, 0.25)
    for unit in ("pixel", "Mm"):
        assert pixel_size_um(tiff(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": unit})) is None
    for unit, um in (("inch", 25400), ("cm", 1e4), ("nm", 1e-3)):
        path = tiff(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": unit})
        assert pixel_size_um(path) == pytest.approx((um / 2, um / 4))
    path = tiff(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": "um", "yunit": "nm"})
    assert pixel_size_um(path) == pytest.approx((0.5e-3, 0.25))


def test_resolution_tags_tell_it_and_those_of_screens_and_printers_do_not(tmp_path: Path) -> None:
    path = tiff(tmp_path, resolution=(20_000, 10_000), resolutionunit="CENTIMETER", metadata=None)
    assert pixel_size_um(path) == pytest.approx((1.0, 0.5))
    for dpi in (1, 72, 96, 300, 600, 1200):
        for unit, number in (("INCH", dpi), ("CENTIMETER", dpi / 2.54)):
            path = tiff(tmp_path, resolution=(number, number), resolutionunit=unit, metadata=None)
            assert pixel_size_um(path) is None, (dpi, unit)
    assert pixel_size_um(tiff(tmp_path, metadata=None)) is None


def test_dicom_tells_it_row_by_row(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.save_as(tmp_path / "a.dcm")
    assert pixel_size_um(tmp_path / "a.dcm") == pytest.approx((500, 250))
    del dataset.PixelSpacing
    dataset.save_as(tmp_path / "a.dcm")
    assert pixel_size_um(tmp_path / "a.dcm") is None


def test_other_files_know_dots_per_inch_at_most(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png", dpi=(25_400, 25_400))
    assert pixel_size_um(tmp_path / "a.png") is None


def test_the_content_decides_what_file_it_is(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.tif", format="PNG")
    assert pixel_size_um(tmp_path / "a.tif") is None
    path = tiff(tmp_path, resolution=(20_000, 10_000), resolutionunit="CENTIMETER", metadata=None)
    assert pixel_size_um(path.rename(tmp_path / "no_suffix")) == pytest.approx((1.0, 0.5))


def test_what_is_no_size_tells_nothing(tmp_path: Path) -> None:
    path = tiff(tmp_path, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    content = path.read_bytes()
    for word in (b"abc", b"inf", b"nan", b"0.0", b"-.5"):
        path.write_bytes(content.replace(b'PhysicalSizeX="0.5"', b'PhysicalSizeX="' + word + b'"'))
        assert pixel_size_um(path) is None, word
    dataset = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    (tmp_path / "a.dcm").write_bytes(dataset.replace(b"0.661468\\0.661468", b"half a mm\\quarter"[:17]))
    assert pixel_size_um(tmp_path / "a.dcm") is None
