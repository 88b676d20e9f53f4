"""Fixtures that several test files share, and the rule that continuous integration has all that the tests need."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
