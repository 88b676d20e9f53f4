import gzip
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from clinbundles.transforms.readers.decoding import read_nifti


def test_files_are_decoded_and_listed_without_torch() -> None:
    modules = ", ".join(
        f"clinbundles.transforms.readers.{name}"
        for name in ("decoding", "dicom_display", "folder", "masks", "plausibility", "raster")
    )
    code = f"import sys, {modules}; print([n for n in ('torch', 'monai') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_packed_nifti_broken_by_its_own_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(600, dtype=np.int16).reshape(20, 30), np.eye(4)), path)
    assert read_nifti(path).shape == (30, 20)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: not a readable NIfTI file \(CRC check failed"):
        read_nifti(path)


def test_a_header_that_contradicts_itself_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    content = bytearray(nibabel.Nifti1Image(np.arange(600, dtype=np.int16).reshape(20, 30), np.eye(4)).to_bytes())
    content[108:112] = np.float32(100).tobytes()  # the voxels would begin within the header
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.nii: not a readable NIfTI file \(vox offset 100 too low"):
        read_nifti(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_tells_of_more_voxels_than_there_are_takes_no_memory_for_them(tmp_path: Path, name: str) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((1710, 1710, 855))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + bytes(104)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"{name}: .*header tells of 5000211352 bytes, and it holds 452"):
        read_nifti(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()
