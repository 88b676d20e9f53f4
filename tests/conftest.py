"""Fixtures that several test files share, and the rule that continuous integration has all that the tests need."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

REPOSITORY = Path(__file__).resolve().parents[1]
# A machine may lack a GPU, development data (always below shared/), a kernel that tells how much memory was used, and a
# browser, which is no Python package.
# Whatever else is missing, such as a package, a program or the package index, is a fault of the environment.
MAY_BE_MISSING = re.compile(r"\bGPU\b|\bCUDA device\b|\bshared/|\bpeak memory\b|\bchromium\b")

NO_INDEX = re.compile(r"error sending request|failed to fetch|dns error|request failed", re.IGNORECASE)


class Skips:
    """Make a run fail that skipped a test for something that should have been there."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if not MAY_BE_MISSING.search(reason):
                self.lines.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.lines:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.lines:
            terminalreporter.section("skipped for what continuous integration has to have", red=True)
            terminalreporter.write("\n".join(self.lines) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(Skips())


@pytest.fixture(autouse=True)
def root_log() -> Iterator[None]:
    """Take back the level and the handlers that a bundle's logging.conf sets: these write to a stream pytest closes."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.setLevel(level)
    for handler in [h for h in logging.root.handlers if h not in handlers]:
        logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def polyp_samples() -> Path:
    """The sample data set of the gaze bundle: frames, masks and datalist.json, to be read only."""
    return REPOSITORY / "bundles" / "gaze_polyp_segmentation" / "samples"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of development data beside the repository; without it the test is skipped."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no development data: {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def uv() -> Callable[..., str]:
    """Run uv and return what it printed; without the package index, skip the test."""
    unreachable: list[str] = []

    def run(*arguments: str) -> str:
        if not unreachable:
            done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return done.stdout
            assert NO_INDEX.search(done.stderr), done.stderr
            unreachable.append(" ".join(done.stderr.split()))
        pytest.skip(f"the package index cannot be reached: {unreachable[0]}")

    return run


@pytest.fixture(scope="session")
def chest_slice() -> Callable[..., np.ndarray]:
    """Maker of a chest in HU, float32 (size, size), and where its parts are.

    The view is the radiological one; the patient's left lung is the smaller one, and below lies a hollow table.
    """

    def ellipse(size: int, x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
        rows, columns = (np.mgrid[:size, :size] + 0.5) / size
        return ((columns - x) / half_width) ** 2 + ((rows - y) / half_height) ** 2 <= 1

    def chest(size: int = 128, *, left: bool = True, right: bool = True, shift: float = 0.0) -> np.ndarray:
        hu = np.full((size, size), -1000, np.float32)
        hu[ellipse(size, 0.5, 0.86, 0.4, 0.07)] = 60
        hu[ellipse(size, 0.5, 0.86, 0.36, 0.04)] = -1000
        hu[ellipse(size, 0.5 + shift, 0.45, 0.42, 0.3)] = 40
        if left:
            hu[ellipse(size, 0.68 + shift, 0.45, 0.11, 0.17)] = -850
            hu[ellipse(size, 0.68 + shift, 0.45, 0.012, 0.012)] = 30
        if right:
            hu[ellipse(size, 0.32 + shift, 0.45, 0.14, 0.2)] = -850
        hu[ellipse(size, 0.5 + shift, 0.42, 0.025, 0.025)] = -1000
        return hu

    return chest


@pytest.fixture(scope="session")
def write_ct_series() -> Callable[..., Path]:
    """Writer of a DICOM series from HU (slice, row, column), a file a slice, with ``fields`` of all or by number."""

    def write(
        folder: Path,
        hu: np.ndarray,
        *,
        spacing: tuple[float, float, float] = (5.0, 2.0, 2.0),
        without: Collection[int] = (),
        changes: Mapping[int, Mapping[str, object]] | None = None,
        **fields: object,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for k, values in enumerate(hu):
            if k in without:
                continue
            one = pydicom.Dataset()
            one.file_meta = pydicom.dataset.FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, f"1.2.3.{k + 1}"
            one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = (
                one.SOPClassUID,
                one.SOPInstanceUID,
            )
            one.SeriesInstanceUID, one.Modality, one.PatientID, one.PatientName = "1.2.3", "CT", "ID-4711", "Doe^Jane"
            one.Rows, one.Columns = values.shape
            one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
            one.BitsAllocated = one.BitsStored = 16
            one.HighBit, one.PixelRepresentation = 15, 0
            one.RescaleSlope, one.RescaleIntercept = 1, -1024
            one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            one.ImagePositionPatient = [-100, -90, -300 + k * spacing[0]]
            one.PixelSpacing = list(spacing[1:])
            one.PixelData = (np.asarray(values) + 1024).astype("<u2").tobytes()
            for name, value in {**fields, **(changes or {}).get(k, {})}.items():
                if value is None:
                    delattr(one, name)
                else:
                    setattr(one, name, value)
            # Names run against the order of the slices, which is that of their positions.
            one.save_as(folder / f"{len(hu) - k:03d}.dcm", enforce_file_format=True)
        return folder

    return write
