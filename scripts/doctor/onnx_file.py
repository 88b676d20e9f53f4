"""Networks in ONNX: what a file would have a runtime do, read without it and without the files that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from clinbundles.nets.optional_packages import needed_by

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")  # of operators that every runtime has, and that compute
EXTERNAL = 1  # onnx.TensorProto.EXTERNAL


def foreign_parts(path: Path, folder: Path) -> Iterator[str]:
    """List the operators of an ONNX file that are not ONNX's, and the files that it names and should not.

    Args:
        path: the file.
        folder: that it may name files of, such as the bundle's.

    Yields:
        "would run strangers::Twice, no operator of ONNX", an operator or a file a line, each once.

    Raises:
        ValueError: it is no such file.
        ModuleNotFoundError: the package onnx is not installed.
    """
    with needed_by(f"a look into {path.name}"):
        import onnx
        from google.protobuf.message import DecodeError
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"is no network in ONNX ({error})") from error
    if not model.graph.node:
        raise ValueError("is no network in ONNX, for it has no operators")
    own = {(each.domain, each.name) for each in model.functions}  # made of operators that are looked at, too
    told = dict.fromkeys(line for part in _parts(model) for line in _foreign(part, own, path, folder))
    yield from told


def _parts(model: Message) -> Iterator[Message]:
    """Yield all messages in a message: graphs in operators, tensors in attributes, bodies of functions."""
    parts = [model]
    while parts:
        part = parts.pop()
        yield part
        for field, value in part.ListFields():
            if field.message_type is not None:
                parts += [value] if hasattr(value, "ListFields") else value


def _foreign(part: Message, own: set[tuple[str, str]], path: Path, folder: Path) -> Iterator[str]:
    kind = part.DESCRIPTOR.name
    if kind == "NodeProto" and part.domain not in DOMAINS and (part.domain, part.op_type) not in own:
        yield f"would run {part.domain}::{part.op_type}, no operator of ONNX"
    elif kind == "TensorProto" and (part.data_location == EXTERNAL or part.external_data):
        locations = [entry.value for entry in part.external_data if entry.key == "location"]
        for location in locations or [""]:
            if not _is_inside(location, path, folder):
                yield f"would read {location!r}, which is no file of the bundle"


def _is_inside(location: str, path: Path, folder: Path) -> bool:
    """Whether a place that a file names is a file of a folder, and no link out of it."""
    parts = PurePosixPath(location).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in location or ":" in location:
        return False
    file = (path.parent / location).resolve()
    return file.is_file() and file.is_relative_to(folder.resolve())
