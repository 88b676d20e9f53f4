"""``clinbundles prepare``: from a data set in its official layout to one JSON datalist with seeded splits.

A data set is one function in one file of this room, from a folder and flags of its own to what its annotation says:
a DataSet (images with masks), a ClassSet (images of classes), an InstanceSet (images with instances) or a CellSet
(instances, or one mask an image). It is found by that annotation; nothing else names it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from clinbundles.scripts.flags import Option, nearest, options_of, outlines, takes_more

ROOM = Path(__file__).parent
# What writes the datalist, by the kind of data set that a function is annotated to return.
WRITERS = {
    "DataSet": ("masks", "write_masks"),
    "ClassSet": ("classes", "write_classes"),
    "InstanceSet": ("instances", "write_instances"),
    "CellSet": ("instances", "write_cells"),
    "SliceSet": ("slices", "write_slices"),
}


class DataSetFunction(NamedTuple):
    """Where the function of a data set is, and its outline: signature and docstring, read without an import."""

    module: str
    outline: Callable[..., Any]

    @property
    def writer(self) -> tuple[str, str]:
        """Module and name of the function that writes its datalist."""
        return WRITERS[self.outline.__annotations__["return"]]


def prepare(data_set: str, dataset_dir: str, output: str, **flags: Any) -> None:
    """Write the datalist of a data set: its images with masks, classes or instances, checked and split by groups.

    Args:
        data_set: its name.
        dataset_dir: folder of the data set; the paths of the datalist start from it.
        output: JSON file to write.
        flags: what the function of the data set takes, and the writer of its kind.
    """
    function = find_data_set(data_set)
    root = Path(str(dataset_dir))
    if not root.is_dir():
        raise FileNotFoundError(f"--dataset_dir {root}: no such folder")
    target = load("datalist", "check_output")(output)
    own = {name: value for name, value in flags.items() if name in flags_of(function.outline)}
    common = {name: value for name, value in flags.items() if name not in own}
    convert, write = load(function.module, data_set), load(*function.writer)
    write(convert(root, **own), root=root, target=target, **common)


def describe_flags(data_set: str = "", **_: Any) -> dict[str, Option]:
    """Describe the flags of a data set, and the data set itself; without its name, the names there are."""
    if not data_set:
        names = f"one of {', '.join(find_data_sets())}; clinbundles prepare DATA_SET --help says more of one"
        return {"data_set": Option("data_set", str, meaning=names, positional=True)}
    function = find_data_set(data_set)
    module, writer = function.writer
    about = " ".join((inspect.getdoc(function.outline) or "").partition("\n\nArgs:")[0].split())
    option = Option("data_set", str, meaning=f"{data_set}: {about}", positional=True)
    write = outlines(ROOM / f"{module}.py")[writer]
    return {"data_set": option, **flags_of(function.outline), **flags_of(write)}


def flags_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Describe what a person can tell a data set or a writer: all but what the command hands over.

    A function that takes more than it names hands it on to :func:`clinbundles.scripts.prepare.recordings.gaze_files`.
    """
    options = options_of(function, without=("data", "root", "target"))
    return {**options, **describe_reading()} if takes_more(function) else options


def describe_reading(**_: Any) -> dict[str, Option]:
    """Describe how a person can say to read files of recorded gaze."""
    return options_of(outlines(ROOM / "recordings.py")["gaze_files"], without=("pattern",))


def find_data_set(name: str) -> DataSetFunction:
    """Find the function of a data set.

    Raises:
        ValueError: there is no such data set.
    """
    functions = find_data_sets()
    if name not in functions:
        raise ValueError(f"there is no data set {name!r}{nearest(name, functions)} There are {', '.join(functions)}.")
    return functions[name]


def find_data_sets() -> dict[str, DataSetFunction]:
    """Find the functions of this room that are annotated to return a data set, by name."""
    functions = {
        name: DataSetFunction(path.stem, outline)
        for path in sorted(ROOM.glob("[!_]*.py"))
        for name, outline in outlines(path).items()
        if outline.__annotations__.get("return") in WRITERS
    }
    return dict(sorted(functions.items()))


def load(module: str, function: str) -> Callable[..., Any]:
    """Import a function of this room."""
    return getattr(import_module(f"{__package__}.{module}"), function)
