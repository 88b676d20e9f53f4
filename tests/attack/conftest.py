"""A process that runs calls in copies of itself, for all attacks, and how long each kind of attack took."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ending:
    """What became of a call: exit status (below 0 that of a signal), whether its time was up, and what it said."""

    code: int
    stopped: bool
    seconds: float
    peak_bytes: int
    answer: Any
    writes: int | None
    said: str


class Copies:
    """Calls in copies of a process that has everything imported already."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        self._stream = errors.open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stream,
            text=True,
            bufsize=1,
        )
        self._answer()

    def close(self) -> None:
        self.process.communicate(timeout=20)
        self._stream.close()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        return json.loads(line)

    def call(
        self,
        function: str,
        *arguments: Any,
        cwd: Path,
        seconds: float = 120.0,
        die_at: int | None = None,
        more_bytes: int | None = None,
    ) -> Ending:
        """Call a "module:function" in a folder; kill it after some seconds, or before its change of a number there."""
        log = cwd.with_name(f"{cwd.name}.log")
        log.unlink(missing_ok=True)
        call = {"function": function, "arguments": arguments, "cwd": str(cwd), "log": str(log), "path": [str(HERE)]}
        call |= {"seconds": seconds, "die_at": die_at, "more_bytes": more_bytes}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        return Ending(**self._answer(), said=log.read_text(errors="replace"))

    def command(self, words: list[str], cwd: Path, **limits: Any) -> Ending:
        """Run ``clinbundles`` with these words in a folder."""
        return self.call("clinbundles.scripts.cli:main", words, cwd=cwd, **limits)


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    server = Copies(tmp_path_factory.mktemp("copies") / "errors.txt")
    yield server
    server.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.markexpr == "not attack":
        return
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and "attack/" in report.nodeid:
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("seconds by kind of attack")
    for name, duration in seconds.items():
        terminalreporter.line(f"{duration:8.1f}  {name}")
