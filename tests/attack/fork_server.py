"""A process that has imported the project and forks a copy of itself for each call, which so begins at once.

It reads calls from its standard input, a JSON object a line, and answers each with a line that says what became of the
copy: it may crash, hang or be killed, and the next call knows nothing of it. ``conftest.py`` has the other end.
"""

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("transforms", "nets", "engines", "scripts")
FAULT = 70  # exit status of a copy that ended by an exception
WRITING = os.O_WRONLY | os.O_RDWR


def import_all() -> None:
    """Import every module of the project, and what these import only when they run."""
    root = Path(__file__).resolve().parents[2]
    for path in sorted(file for part in PARTS for file in (root / part).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(f"clinbundles.{name}")
        except ModuleNotFoundError as error:  # of a host's application, which needs packages of the host
            if error.name and error.name.startswith("clinbundles"):
                raise
    for name in ("monai.bundle", "monai.data", "monai.transforms", "matplotlib.pyplot", "mlflow", "torch.optim"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def count_writes(folder: str, *, die_at: int | None) -> Callable[[], int]:
    """Count what this process changes below a folder, and kill it just before the change of a number.

    A change is a file opened to be written, a name that is moved or removed, or a new folder.
    """
    own, count = os.getpid(), 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            _, mode, flags = arguments
            writes = bool(flags & WRITING) if isinstance(flags, int) else any(c in (mode or "") for c in "wax+")
        else:
            writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if writes and os.getpid() == own and str(arguments[0]).startswith(folder):
            count += 1
            if count == die_at:
                os.kill(own, signal.SIGKILL)

    sys.addaudithook(watch)
    return lambda: count


def in_copy(call: dict[str, Any], pipe: int) -> None:
    """Do a call in this process, which is a copy, and end the process."""
    code, answer = FAULT, None
    try:
        os.setsid()
        log = os.open(call["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(call["cwd"])
        writes = count_writes(call["cwd"], die_at=call["die_at"])
        if call["more_bytes"]:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + call["more_bytes"],) * 2)
        sys.path[:0] = call["path"]
        module, _, function = call["function"].partition(":")
        answer = getattr(importlib.import_module(module), function)(*call["arguments"])
        code = 0
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os.write(pipe, json.dumps({"answer": answer, "writes": writes()}).encode())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float) -> tuple[int, Any, bool]:
    """Wait for a copy, and kill it after some time: status, usage, and whether it was killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage, False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return status, usage, True


def serve() -> None:
    """Answer one call after the other until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import_all()
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        call = json.loads(line)
        began = time.monotonic()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            in_copy(call, write)
        os.close(write)
        status, usage, stopped = wait(pid, call["seconds"])
        os.set_blocking(read, False)
        try:
            told = os.read(read, 1 << 16)
        except BlockingIOError:  # a process of the copy's own has the pipe, too
            told = b""
        os.close(read)
        ended = {
            "code": os.waitstatus_to_exitcode(status),  # of a signal below 0
            "stopped": stopped,
            "seconds": time.monotonic() - began,
            "peak_bytes": usage.ru_maxrss * 1024,
        }
        print(json.dumps(ended | (json.loads(told) if told else {"answer": None, "writes": None})), file=answers)


if __name__ == "__main__":
    serve()
