"""What a host would stumble on in a bundle or a packed zip, a line each.

clinbundles doctor gaze_polyp_segmentation
clinbundles doctor dist/covid_xray_transfer_v0.1.0.zip --bench

"""

from __future__ import annotations

import hashlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path

from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import find_bundle
from clinbundles.scripts.doctor.checks import CHECKS, FAULT, LOOK, LOOKING, OK, RUNNING, Finding, read_json
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.closure import packed_package
from clinbundles.scripts.pack.pure import is_pure
from clinbundles.scripts.pack.run import load_call


def doctor(bundle: str, *, run: bool = False, bench: bool = False) -> None:
    """Check a bundle or a packed zip for what MONAI, MONAI Label and MONAI Deploy would stumble on.

    One line a finding, ``FAULT`` where it would fail or be wrong and ``look`` where a person should decide; the command
    ends with an error if there is a fault. A config is code: what it, or a zip, would run beside this project's code,
    MONAI, torch and ignite is listed. So is an exported network: what it would run beside what computes is listed, from
    its file, which is not loaded. The checks that make parts of the configs (MONAI's properties, the network for
    its weights) run only if nothing of that kind is found, or if asked for.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, a folder, or a zip.
        run: make parts of the configs also where they would run code that was listed.
        bench: time the runtimes of a sound bundle, and say which to use on this machine.
    """
    findings: list[Finding] = []
    with opened(bundle) as folder:
        for finding in chain(check_checksum(Path(bundle)), examine(folder, run=run)):
            print(f"{finding.status:5}  {finding.check:10}  {finding.sentence}", flush=True)
            findings.append(finding)
        is_sound = not any(each.status == FAULT or (each.check in RUNNING and each.sentence) for each in findings)
        if is_sound and (is_pure(folder) or packed_package(folder) is not None):
            print(f"its network, unzipped in DIR: monai.bundle.{load_call(folder.name)}")
        faults = sum(finding.status == FAULT for finding in findings)
        looks = sum(finding.status == LOOK for finding in findings)
        if faults:
            raise SystemExit(f"{bundle}: {faults} faults, {looks} to look at.")
        print(f"{bundle}: no fault, {looks} to look at.", flush=True)
        if bench and not is_sound:
            raise SystemExit(f"{bundle}: not timed, as its code was not run; --run runs it.")
        for line in _bench(bundle, folder) if bench else ():
            print(line)


def _bench(bundle: str, folder: Path) -> Iterator[str]:
    from clinbundles.scripts.doctor.bench import advice, time_runtimes

    with on_path(folder):
        yield from advice(bundle, time_runtimes(folder))


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Let the configs of a folder find their code, behind every installed package, and leave the path as it was."""
    before = list(sys.path)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path[:] = before
        # Of a zip the folder goes: who unzips it again in this process imports from there.
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
                del sys.modules[name]


@contextmanager
def quietly(folder: Path) -> Iterator[None]:
    """Let configs find their code, without MONAI's word on a file of logging and torch's on TorchScript."""
    log = logging.getLogger("monai.bundle.workflows")
    with on_path(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.load.* is deprecated")
        log.addFilter(_says_more)
        try:
            yield
        finally:
            log.removeFilter(_says_more)


def _says_more(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Logging file is set to")


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def opened(bundle: str) -> Iterator[Path]:
    """Give the folder of a bundle, of a zip a temporary one."""
    path = Path(bundle)
    if path.suffix != ".zip":
        yield find_bundle(bundle)
        return
    if not path.is_file():
        raise FileNotFoundError(f"{bundle}: there is no such zip.")
    with tempfile.TemporaryDirectory() as folder:
        yield unzip(path, Path(folder))


def examine(folder: Path, *, run: bool) -> Iterator[Finding]:
    """Run all checks of a bundle's folder, each to its end or its error; only those that run its code import it."""
    has_foreign_code = False
    for name, check in CHECKS.items():
        if name in RUNNING and has_foreign_code and not run:
            yield Finding(LOOK, name, "not checked, as the code above would run; --run checks it.")
            continue
        found = []
        try:
            with quietly(folder) if name in RUNNING else nullcontext():
                found = list(check(folder))
        except Exception as error:
            found.append(Finding(FAULT, name, sentence_of(error) or _innermost(error)))
        has_foreign_code |= name in LOOKING and bool(found)
        yield from found or [Finding(OK, name, "")]


def check_checksum(path: Path) -> Iterator[Finding]:
    """Compare a zip with the checksum that model_info.json beside it has."""
    info = path.with_name("model_info.json")
    if path.suffix != ".zip" or not info.is_file():
        return
    try:
        entry = read_json(info).get(path.stem)
    except ValueError as error:
        yield Finding(FAULT, "checksum", str(error))
        return
    if entry is None:
        yield Finding(LOOK, "checksum", f"model_info.json does not know {path.name}.")
    elif not isinstance(entry, dict):
        yield Finding(FAULT, "checksum", f"model_info.json has {entry!r} for {path.name}, and no checksum.")
    elif entry.get("sha256") != (digest := hashlib.sha256(path.read_bytes()).hexdigest()):
        sentence = (
            f"{path.name} has sha256 {digest[:12]}, model_info.json {str(entry.get('sha256'))[:12]}: it was changed."
        )
        yield Finding(FAULT, "checksum", sentence)
    else:
        yield Finding(OK, "checksum", "")
