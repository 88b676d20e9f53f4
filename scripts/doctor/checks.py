"""Checks of a bundle's folder, one a function, as its hosts would meet them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import ROOT, names_behind
from clinbundles.scripts.doctor.code import foreign_code
from clinbundles.scripts.doctor.files import exported_networks, files_of, strange_links
from clinbundles.scripts.doctor.onnx_file import foreign_parts
from clinbundles.scripts.doctor.torchscript import foreign_operators, is_torchscript
from clinbundles.scripts.pack.closure import FINDER, imported_packages, packed_package
from clinbundles.scripts.pack.pure import is_pure
from clinbundles.scripts.pack.run import own_package

OF_RUNNER = ("fire",)  # what python -m monai.bundle imports, and MONAI does not bring
OK, LOOK, FAULT = "ok", "look", "FAULT"
# What each host takes by name (MONAI Label and MONAI Deploy read inference.json alone).
HOST_KEYS = ("bundle_root", "device", "network_def", "preprocessing", "inferer", "evaluator", "dataset")
METADATA: tuple[str, ...] = (
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
)
METADATA += ("task", "description", "authors", "copyright", "network_data_format")
# What Python would import, or take for a folder to import from; and git, which a tracked run asks, runs what .git says.
IMPORTABLE = (".py", ".pyc", ".pyd", ".pyw", ".so", ".dll", ".dylib", ".pth", ".zip", ".whl", ".egg")
IMPORT = re.compile(r'"\$\s*((?:import|from)\s[^"\\]+)"')  # in the text of a config
NO_PACKAGE = "none_00000000"  # of a bundle that brings no code
# What of inference.json the card has to agree with: hosts read that file alone. The pure form has no loader of weights.
OF_RESULT = ("network_def", "preprocessing", "postprocessing", "weights_loader")


@dataclass(frozen=True)
class Finding:
    """One line: how serious, of which check, and the sentence."""

    status: str
    check: str
    sentence: str


def weights_of(folder: Path) -> Path:
    """Name the file of a bundle's weights."""
    return folder / "models" / ("model.ts" if is_pure(folder) else "model.pt")


def check_files(folder: Path) -> Iterator[Finding]:
    """The files that MONAI, Label and Deploy look for."""
    names = ["LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md"]
    for name in names if is_pure(folder) else [*names, "configs/train.json"]:
        if not (folder / name).is_file():
            yield Finding(FAULT, "files", f"{name} is missing.")
    if not weights_of(folder).is_file():
        yield Finding(FAULT, "files", "models/model.pt is missing: no weights.")
    if (folder / "scripts" / "__init__.py").exists():
        yield Finding(FAULT, "files", "scripts/__init__.py makes a second bundle in one process run this one's code.")


def check_metadata(folder: Path) -> Iterator[Finding]:
    """The entries of metadata.json that its schema, Label and Deploy want."""
    metadata = read_json(folder / "configs" / "metadata.json")
    missing = [name for name in METADATA if name not in metadata]
    if missing:
        yield Finding(FAULT, "metadata", f"configs/metadata.json has no {', '.join(missing)}.")
    changelog = metadata.get("changelog", {})
    if metadata.get("version") not in changelog:
        yield Finding(FAULT, "metadata", f"the changelog does not know version {metadata.get('version')!r}.")
    formats = metadata.get("network_data_format", {})
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        if name not in formats.get(side, {}):
            yield Finding(FAULT, "metadata", f"network_data_format has no {side[:-1]} called {name!r}.")


def check_versions(folder: Path) -> Iterator[Finding]:
    """Packages that are not installed here, or older than those that the bundle was made with, and MONAI's runner's."""
    from packaging.version import InvalidVersion, Version

    metadata = read_json(folder / "configs" / "metadata.json")
    needed = {
        "monai": metadata.get("monai_version"),
        "torch": metadata.get("pytorch_version"),
        "numpy": metadata.get("numpy_version"),
        **metadata.get("required_packages_version", {}),
    }
    for name in OF_RUNNER:
        if name not in needed:
            sentence = f"metadata.json does not name {name}, without which python -m monai.bundle ends in an error."
            yield Finding(FAULT, "versions", sentence)
    optional = metadata.get("packages_of_options", {})
    for name, made_with in (needed | optional).items():
        try:
            here = version(name)
        except PackageNotFoundError:
            status, what = (LOOK, "some of its options were") if name in optional else (FAULT, "the bundle was")
            yield Finding(status, "versions", f"{name} is not installed; {what} made with {made_with}.")
            continue
        try:
            older = Version(here) < Version(str(made_with))
        except InvalidVersion:
            yield Finding(FAULT, "versions", f"{name}: {made_with!r} is no version.")
            continue
        if older:
            yield Finding(LOOK, "versions", f"{name} {here} is older than {made_with}, with which the bundle was made.")
    for package, config in sorted(_not_installed(folder).items()):
        yield Finding(FAULT, "versions", f"configs/{config} needs the package {package}, which is not installed.")


def _not_installed(folder: Path) -> dict[str, str]:
    """Find the packages that configs import and Python does not find, without importing one; with the first config."""
    missing: dict[str, str] = {}
    for path in sorted((folder / "configs").glob("*.json")):
        for statement in IMPORT.findall(path.read_text(encoding="utf-8", errors="replace")):
            with suppress(SyntaxError, ValueError):  # which are listed as code
                for package in imported_packages([statement]):
                    is_inside = (folder / package).is_dir() or (folder / f"{package}.py").is_file()
                    if not is_inside and find_spec(package) is None:
                        missing.setdefault(package, path.name)
    return missing


def check_keys(folder: Path) -> Iterator[Finding]:
    """What hosts take of inference.json by name."""
    content = read_json(folder / "configs" / "inference.json")
    missing = [name for name in HOST_KEYS if name not in content]
    if missing:
        yield Finding(FAULT, "keys", f"configs/inference.json has no {', '.join(missing)}, which hosts read.")
    if "postprocessing" not in content:
        sentence = "configs/inference.json has no postprocessing: Label and Deploy pass on what the network returns."
        yield Finding(LOOK, "keys", sentence)


def check_code(folder: Path) -> Iterator[Finding]:
    """Expressions, imports and classes that run other code than this project's, MONAI's, torch's and ignite's.

    The code that a zip brings is compared with this project's, byte by byte: of another release, or of a stranger, it
    is listed, and so is what Python could import from elsewhere in the folder; it is a fault where that would be taken
    for an installed package, and where it would lie behind a link.
    """
    for link in strange_links(folder):
        yield Finding(FAULT, "code", f"{link}, behind which nothing is looked at: put a copy there.")
    own = packed_package(folder)
    shadows = set()
    for file in files_of(folder):
        top, *inside = parts = file.relative_to(folder).parts
        here = ROOT.joinpath(*inside[1:])
        is_carried = (top, inside[:1]) == ("scripts", [own]) and here.is_file()
        ours = here.read_bytes() if is_carried else FINDER.encode() if parts == (f"{own}.py",) else None
        is_ours = file.read_bytes() == ours
        could_run = top == "scripts" or file.name.lower().endswith(IMPORTABLE) or ".git" in parts
        if is_ours or not could_run:
            continue
        yield Finding(LOOK, "code", f"{file.relative_to(folder)} is not the code of this project, and could run.")
        shadows |= {top.partition(".")[0]} - {own, "scripts", "__main__"}
    for package in sorted(shadows):
        is_loaded = package in {*sys.stdlib_module_names, *sys.modules}
        if is_loaded or getattr(PathFinder.find_spec(package), "origin", None):
            sentence = f"{package}: the folder has a module of this name, which would be taken for the installed one."
            yield Finding(FAULT, "code", sentence)
    if own is not None:
        code = folder / "scripts" / own
        carried = {path.relative_to(code).as_posix(): path.read_bytes() for path in code.rglob("*.py")}
        if own_package(folder.resolve().name, carried) != own:
            sentence = (
                f"scripts/{own} holds other code than that which its name was made of: it was changed after packing."
            )
            yield Finding(FAULT, "code", sentence)
    configs = {path.relative_to(folder).as_posix(): path for path in sorted((folder / "configs").rglob("*.json"))}
    for config, path in configs.items():
        for line in foreign_code(read_json(path), own or NO_PACKAGE, files=configs):
            yield Finding(LOOK, "code", f"{config} would run {line}")
    for path in sorted(each for each in (folder / "configs").rglob("*") if each.suffix.lower() in (".yaml", ".yml")):
        yield Finding(LOOK, "code", f"{path.relative_to(folder)} is a config that was not looked at.")


def check_networks(folder: Path) -> Iterator[Finding]:
    """Programs in exported networks, TorchScript under whatever name and ONNX, which are read and not loaded.

    Of TorchScript that is listed which does more than compute, as parts of it would run where it is loaded; operators
    that are not ONNX's, a place outside of the folder, and a file that cannot be read are faults. A file that is both,
    or that a config loads as TorchScript, is read as such whatever its name.
    """
    try:
        loaded = set(exported_networks(folder))
    except ValueError as error:
        loaded = set()
        yield Finding(FAULT, "networks", f"{str(error).rstrip('.')}.")
    for file in files_of(folder):
        place = file.relative_to(folder).as_posix()
        try:
            if file in loaded or is_torchscript(file):
                yield from (Finding(LOOK, "networks", f"{place} {each}.") for each in foreign_operators(file))
        except ValueError as error:
            yield Finding(FAULT, "networks", f"{place} {error}.")
        try:
            if file.suffix.lower() == ".onnx":
                yield from (Finding(FAULT, "networks", f"{place} {each}.") for each in foreign_parts(file, folder))
        except ValueError as error:
            yield Finding(FAULT, "networks", f"{place} {error}.")
        except ModuleNotFoundError as error:
            yield Finding(LOOK, "networks", f"{place} was not looked at: {error}.")


def check_properties(folder: Path) -> Iterator[Finding]:
    """MONAI's own check of the properties of a training and an inference."""
    from monai.bundle import ConfigWorkflow

    for name, kind in [("inference", "infer")] if is_pure(folder) else [("train", "train"), ("inference", "infer")]:
        file = folder / "configs" / f"{name}.json"
        options: dict[str, Any] = {"cache_rate": 0.0} if "cache_rate" in read_json(file) else {}
        workflow = ConfigWorkflow(
            config_file=str(file),
            meta_file=str(folder / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
            bundle_root=str(folder),
            **options,
        )
        try:
            workflow.initialize()
            missing = workflow.check_properties() or []
        except Exception as error:
            sentence = sentence_of(error) or ""
            if not sentence.startswith(str(folder / "samples")):
                raise
            # As where the weights are of other classes than those that were shipped.
            yield Finding(LOOK, "samples", f"{name}.json does not take them: {sentence.replace(f'{folder}/', '')}")
            continue
        for wrong in missing:
            yield Finding(FAULT, "properties", f"configs/{name}.json: MONAI misses {wrong}.")


def check_weights(folder: Path) -> Iterator[Finding]:
    """The weights: whole, of the network in inference.json, and those of their card."""
    from monai.bundle import ConfigParser

    from clinbundles.nets.weights import read_weights

    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"] = str(folder)
    path = weights_of(folder)
    network = parser.get_parsed_content("network_def")
    state = network.state_dict() if is_pure(folder) else read_weights(path)
    result = network.load_state_dict(state, strict=False)
    wrong = [*result.missing_keys, *result.unexpected_keys]
    if wrong:
        sentence = f"models/{path.name} does not fit the network: {len(wrong)} names, as {wrong[0]}."
        yield Finding(FAULT, "weights", sentence)
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        yield Finding(FAULT, "weights", f"models/{path.name}: {broken[0]} is not finite.")


def check_card(folder: Path) -> Iterator[Finding]:
    """The card of the weights, against the file and against what inference.json repeats."""
    path = folder / "models" / "model.json"
    if not path.is_file():
        yield Finding(LOOK, "card", "models/model.json is missing: nothing says what these weights are of.")
        return
    card = read_json(path)
    weights = weights_of(folder)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if card.get("weights_sha256") != digest:
        yield Finding(FAULT, "card", f"models/model.json is of other weights: {weights.name} has sha256 {digest[:12]}.")
    exported = folder / "models" / "exported.onnx"
    if exported.is_file():
        of_export = read_json(exported.with_suffix(".json"))
        hashes = (of_export.get("weights_sha256"), of_export.get("exported_from_sha256"))
        if hashes != (hashlib.sha256(exported.read_bytes()).hexdigest(), digest):
            yield Finding(FAULT, "card", "models/exported.onnx is not the export of model.pt that its card is of.")
    content = read_json(folder / "configs" / "inference.json")
    options = {**card, **card.get("options", {})}
    for name in sorted(names_behind(content, OF_RESULT) & options.keys()):
        if not str(content[name]).startswith("$") and content[name] != options[name]:
            told = f"{json.dumps(options[name])} on the card, {json.dumps(content[name])} in inference.json"
            yield Finding(FAULT, "card", f"{name} is {told}.")


CHECKS: Mapping[str, Callable[[Path], Iterator[Finding]]] = {
    "files": check_files,
    "metadata": check_metadata,
    "versions": check_versions,
    "keys": check_keys,
    "code": check_code,
    "networks": check_networks,
    "properties": check_properties,
    "weights": check_weights,
    "card": check_card,
}
# Those that run what configs and zips say, after the code was looked at.
LOOKING, RUNNING = ("code", "networks"), ("properties", "weights")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.parent.name}/{path.name} is no JSON object.")
    return content
