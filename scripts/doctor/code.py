"""Code in configs: a config runs what its expressions, imports and classes say."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

# Packages whose classes a config may name, and whose functions an expression may call.
PACKAGES = ("monai", "torch", "torchvision", "ignite", "numpy", "np", "math", "clinbundles", "dist")
NETWORKS = ("segmentation_models_pytorch", "timm")
BUILTINS = {
    "bool",
    "float",
    "int",
    "isinstance",
    "len",
    "list",
    "max",
    "min",
    "print",
    "range",
    "round",
    "set",
    "sorted",
}
BUILTINS |= {"str", "sum", "tuple", "zip", "None", "True", "False"}
IMPORTS = {"import sys", "import os", "import torch.distributed as dist", "import math", "import glob", "import json"}
TARGETS = {"copy.deepcopy"}
# What hosts and several processes need; another use of these modules is listed.
STATEMENTS = {
    "sys.path.insert(0, @bundle_root)",
    "os._exit(0)",
    "int(os.environ['RANK'])",
    "min(8, len(os.sched_getaffinity(0)))",
    "[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/' + @pattern))]",
}
ENVIRONMENT = re.compile(r"os\.environ\['(RANK|LOCAL_RANK|WORLD_SIZE)'\]")
REFERENCE = re.compile(r"@@?[A-Za-z_][\w#:]*|@#[\w#]+")
# What reads, writes or runs what a file or a text holds; and packages have Python's own modules as attributes.
DANGEROUS = {
    "load",
    "hub",
    "save",
    "open",
    "system",
    "popen",
    "eval",
    "exec",
    "fromfile",
    "run",
    *sys.stdlib_module_names,
}
DANGEROUS -= {"math", "random"}


def foreign_code(content: Any, own: str) -> Iterator[str]:
    """List what a config would run beside MONAI, torch, ignite and the bundle's own code.

    Args:
        content: of the config.
        own: name of the package that holds the bundle's code, such as ``scripts.NAME``.

    Yields:
        "id: text", an expression, an import or a class a line.
    """
    for key, value in _texts(content):
        if key.endswith("_target_"):
            parts = value.split(".")
            is_known = parts[0] in (*PACKAGES, *NETWORKS) and not DANGEROUS & set(parts[1:])
            if (
                "." in value
                and value not in TARGETS
                and not is_known
                and not value.startswith((f"{own}.", "clinbundles."))
            ):
                yield f"{key}: {value}"
        elif value.startswith("$") and not is_plain(value[1:].strip(), own):
            yield f"{key}: {value}"


def is_plain(expression: str, own: str) -> bool:
    """Say whether an expression stays within references, arithmetic, and functions of the packages above."""
    if expression in IMPORTS or expression in STATEMENTS:
        return True
    text = ENVIRONMENT.sub("'0'", expression)
    text = REFERENCE.sub("reference_", text)
    text = text.replace(f"{own}.", "clinbundles.")
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    bound = {"reference_"}
    for node in ast.walk(tree):
        if isinstance(node, ast.comprehension):
            bound |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
        if isinstance(node, ast.Lambda):
            every = (*node.args.args, *node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg)))
            bound |= {argument.arg for argument in every}
    return all(_is_plain_node(node, bound) for node in ast.walk(tree))


def _is_plain_node(node: ast.AST, bound: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in bound or node.id in BUILTINS or node.id in PACKAGES or node.id in ("getattr", "type")
    if isinstance(node, ast.Attribute):
        return (not node.attr.startswith("__") or node.attr == "__name__") and not _loads(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        name = node.args[1] if len(node.args) > 1 else None
        return isinstance(name, ast.Constant) and not str(name.value).startswith("_")
    return True


def _loads(node: ast.Attribute) -> bool:
    """Whether an attribute of a package is one that reads, writes or runs what a file holds."""
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in set(PACKAGES) - {"clinbundles"} and node.attr in DANGEROUS


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            if name != "_desc_":
                yield from _texts(value, f"{key}#{name}" if key else str(name))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _texts(value, f"{key}#{number}")
    elif isinstance(content, str):
        yield key, content
