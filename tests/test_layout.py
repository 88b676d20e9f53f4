"""The rules of the house that no other tool checks, and for each a made-up house that breaks it."""

import ast
import functools
import re
import subprocess
import tomllib
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each wing may import, itself included. A bundle runs the first three, a person the last.
MAY_IMPORT = {
    "transforms": {"transforms"},
    "nets": {"nets"},
    "engines": {"engines", "transforms", "nets"},
    "scripts": {"scripts", "engines", "transforms", "nets"},
}
CARRIED = ("transforms", "nets", "engines")
# demo.py is the README's first command and the benchmarks only print; all are run by `make`. The application of MONAI
# Deploy needs its SDK, and that of MONAI Label its environment: tests/hosts runs both.
UNTESTED_SCRIPTS = (
    "scripts/demo.py",
    "scripts/bench/cells.py",
    "scripts/bench/classifier.py",
    "scripts/deploy/application.py",
    "scripts/label/app.py",
)
MOST_LINES = 400


@functools.cache
def modules(root: Path) -> dict[str, Path]:
    """Files of the wings by their names within ``clinbundles``, such as "transforms.blur"."""
    files = [path for wing in MAY_IMPORT for path in sorted((root / wing).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@functools.cache
def imports(path: Path) -> list[tuple[int, str]]:
    """(level, dotted name) of whatever a file imports; level 0 is absolute, 1 the file's own folder."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [(node.level, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names]
    return names


def module_of(dotted: str, root: Path) -> str | None:
    """The module that ``transforms.blur.GaussianBlur`` lies in; None where there is none of ours."""
    parts = dotted.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in modules(root)), None)


def imported_modules(module: str, root: Path) -> set[str]:
    """Modules of the house that a module imports, wherever in its file."""
    folder = modules(root)[module].relative_to(root).parts[:-1]
    targets = set()
    for level, name in imports(modules(root)[module]):
        if level:
            targets.add(module_of(".".join([*folder[: len(folder) + 1 - level], name]), root))
        elif name.startswith("clinbundles."):
            targets.add(module_of(name.removeprefix("clinbundles."), root))
    return {target for target in targets if target is not None}


def config_names(folder: Path) -> set[str]:
    """Dotted names within ``clinbundles`` that the configs of a bundle, or of MLflow, hold."""
    texts = [path.read_text() for pattern in ("*.json", "configs/*.json") for path in folder.glob(pattern)]
    return {name for text in texts for name in re.findall(r"\bclinbundles\.([\w.]+\w)", text)}


def named_modules(bundle: Path, root: Path) -> set[str]:
    """Modules that a bundle's configs name."""
    return {module for name in config_names(bundle) if (module := module_of(name, root)) is not None}


def closure(bundle: Path, root: Path) -> set[str]:
    """Modules that a bundle's configs name, and all that these import: what a packed zip carries."""
    carried: set[str] = set()
    ahead = named_modules(bundle, root)
    while ahead:
        carried |= ahead
        ahead = {target for module in ahead for target in imported_modules(module, root)} - carried
    return carried


def room_of(module: str) -> str:
    """A method has at most one room in each wing, a file or a folder: the first two parts of a module's name."""
    return ".".join(module.split(".")[:2])


def bundles(root: Path) -> list[Path]:
    """All bundles, the ones that are only begun included."""
    return sorted(path.parent for path in root.glob("bundles/*/configs"))


def wrong_directions(root: Path) -> list[str]:
    """Imports that lead out of the house, back up, or across to a wing that is not below."""
    faults = []
    for module, path in modules(root).items():
        folder = path.relative_to(root).parts[:-1]
        for level, name in imports(path):
            parts = name.split(".")
            if level > len(folder) + 1:
                faults.append(f"{module}: {name} lies outside the package")
            elif level:
                parts = [*folder[: len(folder) + 1 - level], *parts]
            elif parts[0] == "clinbundles":
                parts = parts[1:]
                if folder[0] != "scripts":
                    faults.append(f"{module}: imports {name} by its absolute name, which a zip cannot follow")
            elif parts[0] in ("bundles", "tests", *MAY_IMPORT):
                faults.append(f"{module}: imports {name} without clinbundles")
                continue
            else:
                continue
            if parts[0] not in MAY_IMPORT[folder[0]]:
                faults.append(f"{module}: imports {'.'.join(parts)}")
    return faults


def circles(root: Path) -> list[str]:
    """The first circle of imports, within a wing too."""
    graph = {module: imported_modules(module, root) - {module} for module in modules(root)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" < ".join(error.args[1])]
    return []


def foreign_rooms(root: Path) -> list[str]:
    """Rooms that a single bundle's configs name, and that lie in the closure of another one."""
    homes: dict[str, set[str]] = {}
    for bundle in bundles(root):
        for module in named_modules(bundle, root):
            homes.setdefault(room_of(module), set()).add(bundle.name)
    faults = []
    for bundle in bundles(root):
        for module in sorted(closure(bundle, root)):
            home = homes.get(room_of(module), {bundle.name})
            if len(home) == 1 and bundle.name not in home:
                faults.append(f"{bundle.name} carries {module} of {min(home)}")
    return faults


def uncarried_names(root: Path) -> list[str]:
    """Names in configs, of a bundle or of MLflow, that are none of what a zip carries: of scripts, or of nothing."""
    faults = []
    for folder in [*bundles(root), root / "mlflow"]:
        for name in sorted(config_names(folder)):
            module = module_of(name, root)
            is_file = module is not None and modules(root)[module].name != "__init__.py"
            if name.split(".")[0] not in CARRIED or not is_file:
                faults.append(f"{folder.name}: {name}")
    return faults


def scripts_in_closures(root: Path) -> list[str]:
    """Modules of scripts/ that a bundle would carry."""
    carried = [(bundle.name, module) for bundle in bundles(root) for module in sorted(closure(bundle, root))]
    return [f"{name} carries {module}" for name, module in carried if module.split(".")[0] not in CARRIED]


def long_files(root: Path) -> list[str]:
    """Python files that do not fit on a few screens."""
    files = [path for folder in (*MAY_IMPORT, "tests") for path in sorted((root / folder).rglob("*.py"))]
    lengths = {path.relative_to(root).as_posix(): len(path.read_text().splitlines()) for path in files}
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MOST_LINES]


def readers_of_state_dicts(root: Path) -> list[str]:
    """Modules beside the weights and the checkpoints that open a file of torch's."""
    homes = ("nets.weights", "engines.checkpoint")
    return [name for name, path in modules(root).items() if name not in homes and "torch.load(" in path.read_text()]


def telegrams(root: Path) -> list[str]:
    """Docstrings that begin like "mask in, fixations out" and not with a sentence."""
    faults = []
    for module, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                first = (ast.get_docstring(node) or "").partition("\n")[0]
                if re.search(r"\b(in|given)[;,:] .*\bout\b", first):
                    faults.append(f"{module}: {first}")
    return faults


def test_the_house_has_its_wings_and_bundles_and_its_closures_are_found() -> None:
    assert len(modules(ROOT)) > 80
    assert len(bundles(ROOT)) >= 3
    for bundle in bundles(ROOT):
        assert len(closure(bundle, ROOT)) >= 8, bundle.name
    assert "transforms.gaze.readers" in closure(ROOT / "bundles" / "gaze_polyp_segmentation", ROOT)


@pytest.mark.parametrize(
    "rule",
    [
        wrong_directions,
        circles,
        foreign_rooms,
        uncarried_names,
        scripts_in_closures,
        long_files,
        readers_of_state_dicts,
        telegrams,
    ],
    ids=lambda rule: rule.__name__,
)
def test_the_house_keeps(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


CONFIGS = {
    "bundles/gaze/configs/train.json": '{"a": "clinbundles.transforms.gaze.maps.Map", "b": "$clinbundles.nets.a.f(1)"}',
    "bundles/xray/configs/train.json": '{"a": "clinbundles.engines.run.Run", "b": "clinbundles.nets.a.A"}',
}
SOUND = {
    **CONFIGS,
    "transforms/files.py": "import os\n",
    "transforms/gaze/__init__.py": '"""Gaze."""\n',
    "transforms/gaze/maps.py": "from ..files import read\n",
    "nets/__init__.py": '"""Networks."""\n',
    "nets/a.py": "from torch import nn\n",
    "engines/run.py": "def run():\n    from ..transforms.files import read\n    from .. import nets\n",
    "scripts/tool.py": "from clinbundles.engines import run\n",
}
GAZE = "bundles/gaze/configs/train.json"
FAULTS = [
    (wrong_directions, {"nets/a.py": "from ..transforms import files\n"}, "nets.a: imports transforms.files"),
    (wrong_directions, {"transforms/files.py": "from ..engines.run import Run\n"}, "transforms.files: imports engines"),
    (wrong_directions, {"engines/run.py": "from ..scripts import tool\n"}, "engines.run: imports scripts.tool"),
    (wrong_directions, {"engines/run.py": "from ...x import y\n"}, "engines.run: x.y lies outside the package"),
    (wrong_directions, {"nets/a.py": "import clinbundles.nets.b\n"}, "by its absolute name"),
    (wrong_directions, {"scripts/tool.py": "from engines.run import Run\n"}, "imports engines.run.Run without"),
    (wrong_directions, {"scripts/tool.py": "from tests.conftest import ROOT\n"}, "imports tests.conftest.ROOT without"),
    (circles, {"nets/a.py": "from .b import B\n", "nets/b.py": "def f():\n    from . import a\n"}, "nets.a < nets.b"),
    (circles, {"scripts/tool.py": "import clinbundles.scripts.x\n", "scripts/x.py": "from . import tool\n"}, "tool"),
    (foreign_rooms, {"engines/run.py": "from ..transforms.gaze import maps\n"}, "xray carries transforms.gaze.maps"),
    (foreign_rooms, {"nets/a.py": "from ..engines.run import f\n"}, "gaze carries engines.run of xray"),
    (uncarried_names, {GAZE: '{"a": "$clinbundles.scripts.tool.f()"}'}, "gaze: scripts.tool.f"),
    (uncarried_names, {GAZE: '{"a": "clinbundles.nets.gone.A"}'}, "gaze: nets.gone.A"),
    (uncarried_names, {"mlflow/tracking.json": '{"a": "clinbundles.scripts.tool"}'}, "mlflow: scripts.tool"),
    (scripts_in_closures, {"nets/a.py": "from ..scripts.tool import f\n"}, "gaze carries scripts.tool"),
    (long_files, {"tests/test_a.py": "pass\n" * 401}, "tests/test_a.py: 401 lines"),
    (telegrams, {"nets/a.py": 'def f():\n    """Image in, logits (B, O) out."""\n'}, "nets.a: Image in"),
    (readers_of_state_dicts, {"engines/run.py": "torch.load(path)\n"}, "engines.run"),
]


@pytest.mark.parametrize(("rule", "changes", "fault"), FAULTS)
def test_a_house_that_breaks_a_rule_is_told_where(
    rule: Callable[[Path], list[str]], changes: dict[str, str], fault: str, tmp_path: Path
) -> None:
    for folder, files in (("sound", SOUND), ("broken", SOUND | changes)):
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    assert rule(tmp_path / "sound") == []
    assert any(fault in sentence for sentence in rule(tmp_path / "broken")), rule(tmp_path / "broken")


def rooms(root: Path) -> list[Path]:
    """Folders within the wings."""
    return sorted(p for wing in MAY_IMPORT for p in (root / wing).iterdir() if p.is_dir() and p.name != "__pycache__")


def test_mlflow_and_scripts_shadow_no_real_package() -> None:
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    assert not (ROOT / "scripts" / "__init__.py").exists()
    assert not list((ROOT / "mlflow").glob("*.py"))


def test_rooms_are_one_level_deep_and_an_init_is_one_docstring() -> None:
    assert rooms(ROOT)
    for folder in [*(ROOT / wing for wing in CARRIED), *rooms(ROOT)]:
        if folder in rooms(ROOT):
            assert not [p for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"], folder
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert len(body) == 1, folder
        assert isinstance(body[0], ast.Expr), folder


def test_every_module_has_its_mirrored_test() -> None:
    missing = []
    for path in modules(ROOT).values():
        name = path.relative_to(ROOT).as_posix()
        if path.name == "__init__.py" or name in UNTESTED_SCRIPTS:
            continue
        # blur_numba.py may be tested together with blur.py, whose kernel it is.
        stems = {path.stem, path.stem.partition("_")[0]}
        folder = ROOT / "tests" / path.parent.relative_to(ROOT)
        if not any((folder / f"test_{stem}.py").is_file() for stem in stems):
            missing.append(name)
    assert not missing


def test_the_package_mapping_names_every_folder() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == {f"clinbundles.{folder}": folder for folder in (*MAY_IMPORT, "mlflow")}
    folders = [*MAY_IMPORT, "mlflow", *(room.relative_to(ROOT).as_posix().replace("/", ".") for room in rooms(ROOT))]
    assert sorted(settings["packages"]) == sorted(f"clinbundles.{folder}" for folder in folders)


def test_weights_and_the_whole_tree_stay_small() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listing.split("\0") if (ROOT / name).is_file()]
    sizes = {name: (ROOT / name).stat().st_size / 1e6 for name in names}
    weights: dict[str, float] = {}
    for name, size in sizes.items():
        if re.fullmatch(r"bundles/[^/]+/models/.+", name):
            weights[name.split("/")[1]] = weights.get(name.split("/")[1], 0) + size
    assert weights
    assert {bundle: size for bundle, size in weights.items() if size > 5} == {}, "MB of weights in a bundle"
    assert sum(weights.values()) <= 25
    assert sum(sizes.values()) <= 35
