"""The modules that a bundle's configs name, with all that these import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from clinbundles.scripts.bundle import ROOT

PACKAGE = "clinbundles"
NAME = re.compile(rf"\b{PACKAGE}((?:\.\w+)+)")
# The module at the top of a zip by which Python finds the code below scripts/. To import it from a package called
# scripts would fail wherever another scripts, which has an __init__.py, is installed.
FINDER = '''"""The code of this bundle, which lies below scripts/."""

from pathlib import Path

__path__ = [str(Path(__file__).parent / "scripts" / __name__)]
'''


def carried_modules(texts: Iterable[str], root: Path = ROOT) -> dict[str, Path]:
    """Find what configs need of this project.

    Args:
        texts: of the configs.
        root: folder of transforms, nets and engines.

    Returns:
        The files by their dotted names, such as ``nets.weights``, sorted; those of packages among them.

    Raises:
        ValueError: a config names what is no module of the project, or a module imports what a zip cannot carry.
    """
    names = {match[1:] for text in texts for match in NAME.findall(text)}
    ahead: list[str] = []
    for name in sorted(names):
        module = _module_of(name, root)
        if module is None:
            raise ValueError(f"a config names {PACKAGE}.{name}, which is no module of this project.")
        ahead.append(module)
    carried: dict[str, Path] = {}
    while ahead:
        module = ahead.pop()
        if module in carried:
            continue
        path = _file_of(module, root)
        assert path is not None
        carried[module] = path
        package, _, _ = module.rpartition(".")
        ahead += [package] if package else []
        ahead += _imports(module, path, root)
    return dict(sorted(carried.items()))


def package_stem(name: str) -> str:
    """Make of a bundle's name what the name of a package may begin with."""
    return re.sub(r"\W|^(?=\d)", "_", name)


def packed_package(folder: Path) -> str | None:
    """Name the package that has the code of a packed bundle; None of a bundle without."""
    names = (folder / "scripts").glob(f"{package_stem(folder.resolve().name)}_{'[0-9a-f]' * 8}")
    return next((path.name for path in sorted(names) if path.is_dir()), None)


def imported_packages(sources: Iterable[str]) -> set[str]:
    """Return the top-level names of other packages that Python code imports, wherever in it."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found


def _imports(module: str, path: Path, root: Path) -> Iterator[str]:
    """The modules of the project that one imports, by relative imports anywhere in its file."""
    parts = module.split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            absolute = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            absolute = [node.module or ""]
        else:
            absolute = []
        if any(name.split(".")[0] == PACKAGE for name in absolute):
            raise ValueError(f"{path}: imports {PACKAGE} by its absolute name, which a zip cannot follow.")
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if node.level > len(package) + 1:
            raise ValueError(f"{path}: a relative import leads out of the project.")
        base = [*package[: len(package) + 1 - node.level], *([node.module] if node.module else [])]
        for alias in node.names:
            name = ".".join([*base, alias.name])
            found = _module_of(name, root)
            if found is None:
                raise ValueError(f"{path}: imports {name}, which is no module of this project.")
            yield found


def _module_of(name: str, root: Path) -> str | None:
    """The module that a dotted name is, or lies in: of a package, whose file is a docstring alone, nothing is taken."""
    parts = name.split(".")
    while parts:
        file = _file_of(".".join(parts), root)
        if file is not None:
            return ".".join(parts) if file.name != "__init__.py" or ".".join(parts) == name else None
        parts.pop()
    return None


def _file_of(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None
