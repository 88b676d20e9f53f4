import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.transforms.readers.decoding import read_mask

MASK = np.tile(np.arange(6) < 2, (4, 1))


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_mask_is_the_same_whatever_its_white_and_its_mode(tmp_path: Path, white: int, mode: str) -> None:
    image = Image.fromarray(MASK) if mode == "1" else Image.fromarray(MASK * np.uint8(white)).convert(mode)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), MASK)


def test_a_mask_in_grey_counts_from_half_of_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [[False, False, True, True]])


def test_files_are_decoded_and_listed_without_torch() -> None:
    modules = "clinbundles.transforms.readers.decoding, clinbundles.transforms.readers.folder"
    code = f"import sys, {modules}; print([n for n in ('torch', 'monai') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
