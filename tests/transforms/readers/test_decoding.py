import subprocess
import sys


def test_files_are_decoded_and_listed_without_torch() -> None:
    modules = ", ".join(
        f"clinbundles.transforms.readers.{name}"
        for name in ("decoding", "dicom_display", "folder", "masks", "plausibility")
    )
    code = f"import sys, {modules}; print([n for n in ('torch', 'monai') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
