"""The facts of a run: knobs, data, code and machine, without anything private, and the numbers of an engine."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

import ignite
import mlflow
import monai
import numpy as np
import torch
from ignite.engine import Engine
from monai.utils import flatten_dict

from ..data_hash import hash_in


def knobs(config: Mapping[str, Any], *, untracked: Sequence[str] = ()) -> dict[str, str]:
    """Give the knobs of an executed config: its top-level scalars and plain lists, as text without private paths.

    Args:
        config: the config as MONAI saves it, with expressions unevaluated.
        untracked: keys that are no knobs, such as where a run is stored and how it is started.
    """

    def plain(value: Any) -> bool:
        if isinstance(value, str):  # neither a reference nor an expression that makes a component
            return value[:1] not in ("@", "%") and not (value[:1] == "$" and ("@" in value or "import" in value))
        return isinstance(value, int | float | None)

    result = {}
    for key, value in scrub(config).items():
        if key in untracked or key.startswith("_"):
            continue
        if plain(value):
            result[key] = str(value)
        elif isinstance(value, list) and value and all(plain(x) and not str(x).startswith("$") for x in value):
            result[key] = json.dumps(value)
    return result


def used_by(config: Mapping[str, Any], name: str) -> set[str]:
    """Find the top-level keys of a config that one of its values needs, by the references from there on.

    Args:
        config: the config as MONAI saves it, with expressions unevaluated.
        name: id of the value, such as "run".
    """
    ids, rest = {name}, [name]
    while rest:
        value: Any = config
        for key in re.split("#|::", rest.pop()):
            if isinstance(value, list):
                value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
            else:
                value = value.get(key) if isinstance(value, Mapping) else None
        references = set(re.findall(r"@(\w+(?:(?:#|::)\w+)*)", json.dumps(value, default=str))) - ids
        ids |= references
        rest += references
    return {re.split("#|::", each)[0] for each in ids}


def scrub(config: Any, *, key: str = "") -> Any:
    """Copy a config without private paths: absolute ones keep their last part, lists of data are counted.

    Args:
        config: a config, or a part of it.
        key: the part's name in the config.
    """
    if isinstance(config, Mapping):
        return {k: scrub(v, key=str(k)) for k, v in config.items()}
    if isinstance(config, list):
        is_data = key in ("data", "datalist") and config
        return f"{len(config)} items left out" if is_data else [scrub(item, key=key) for item in config]
    if not isinstance(config, str) or not config:
        return config
    if re.fullmatch(r"\$(['\"]).*\1", config):  # an expression that is a text, or several
        with contextlib.suppress(ValueError, SyntaxError):
            config = ast.literal_eval(config[1:])
    scheme, separator, rest = config.partition("://")
    if separator:  # a database or a file by its name, a server without its password
        return f"{scheme}:///{PurePosixPath(rest).name}" if rest.startswith("/") else without_credentials(config)
    absolute = PurePosixPath(config).is_absolute() or PureWindowsPath(config).is_absolute() or config.startswith("~")
    if absolute or (key in ("dataset_dir", "datalist") and not config.startswith("$")):
        return PureWindowsPath(config).name or config
    return config.replace(str(Path.home()) + os.sep, "~" + os.sep)


def without_credentials(uri: str) -> str:
    """Take user name and password out of a URI such as `https://user:secret@host:5000`."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def describe_datalist(path: str | Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Describe a datalist, without an item of it, by name, seed, ratios, hashes, split sizes and source of the gaze.

    Args:
        path: JSON file with "training", "validation" and "test" lists; None or a missing file gives nothing.

    Returns:
        parameters and tags.

    Raises:
        ValueError: the file is not JSON.
    """
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return {}, {}  # MONAI Label hands the items over itself
    raw = Path(path).read_bytes()
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"The datalist {path} is not JSON: {error}.") from error
    names = {"name": "data_name", "seed": "data_seed", "ratios": "data_ratios"}
    params = {"datalist_sha256": hashlib.sha256(raw).hexdigest()}
    params |= {name: str(content[key]) for key, name in names.items() if key in content}
    params |= hash_in(content, Path(path))
    params |= {f"n_{key}": str(len(content[key])) for key in ("training", "validation", "test") if key in content}
    params |= _split_and_gaze(content)
    tags = {"split_sha256": params["split_sha256"], "labeller": content.get("labeller")}
    if gaze := content.get("gaze"):
        tags["gaze_source"] = str(gaze.get("source", "unknown"))
    return params, {key: str(value) for key, value in tags.items() if value}


def _split_and_gaze(content: Mapping[str, Any]) -> dict[str, str]:
    """Hash which image stands in which list, whatever its order and the folder of all, and the gaze on each image."""
    lists = {
        key: items
        for key, items in content.items()
        if isinstance(items, list) and items and all(isinstance(item, dict) and "image" in item for item in items)
    }
    folders = [PurePosixPath(str(item["image"])).parts[:-1] for items in lists.values() for item in items]
    depth = 0
    while folders and len({path[: depth + 1] for path in folders}) == 1 and len(min(folders, key=len)) > depth:
        depth += 1

    def name(item: Mapping[str, Any]) -> str:
        return "/".join(PurePosixPath(str(item["image"])).parts[depth:])

    split = {key: sorted(map(name, items)) for key, items in lists.items()}
    gaze = {name(item): item["fixations"] for items in lists.values() for item in items if "fixations" in item}
    parts = {"split_sha256": split} | ({"gaze_sha256": gaze} if gaze else {})
    return {key: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for key, part in parts.items()}


def git_state(*files: Path) -> dict[str, str]:
    """Find the commit of the first file that git tracks, and whether it was changed; "unknown" if it tracks none.

    Args:
        files: a bundle's metadata, a module: what the run is made of.
    """
    for file in files:
        git = ["git", "-C", str(file.parent)]
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10, "check": True}
        try:
            subprocess.run([*git, "ls-files", "--error-unmatch", file.name], **options)
            options["args"] = [*git, "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
            commit, _, dirty = subprocess.run(**options).stdout.strip().partition("-")
        except (OSError, subprocess.SubprocessError):  # no git here, no commit, or a very slow disk
            continue
        return {"git_commit": commit, "git_dirty": str(bool(dirty)).lower()}
    return {"git_commit": "unknown", "git_dirty": "unknown"}


def environment() -> dict[str, str]:
    """Give the versions and the hardware that a result depends on, as tags `env.<name>`."""
    gpu, cpuinfo = torch.cuda.is_available(), Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.is_file() else None
    values = {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        **{module.__name__: module.__version__ for module in (torch, monai, ignite, np, mlflow)},
        "cpu": cpu.group(1) if cpu else platform.processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if gpu else "none",
        "cuda": torch.version.cuda if gpu else "none",
        "world_size": os.environ.get("WORLD_SIZE", "1"),
    }
    return {f"env.{key}": str(value) for key, value in values.items()}


def packages() -> str:
    """Give the installed packages, one `name==version` a line."""
    names = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "\n".join(sorted(names, key=str.lower)) + "\n"


def losses_of(output: Any) -> dict[str, float]:
    """Find the losses, `{"train_<key>": loss}`, in a trainer's output: a dict, or MONAI's list of dicts."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    losses = {f"train_{k}": v for k, v in first.items() if "loss" in str(k)} if isinstance(first, Mapping) else {}
    return scalars(losses)


def learning_rates(engine: Engine) -> dict[str, float]:
    """Give the learning rates of a trainer's optimizers: `lr_group_0`, in a GAN `g_lr_group_0`."""
    optimizers = {k: v.param_groups for k, v in vars(engine).items() if isinstance(v, torch.optim.Optimizer)}
    groups = [(k.removesuffix("optimizer"), i, g) for k, many in optimizers.items() for i, g in enumerate(many)]
    return {f"{prefix}lr_group_{i}": float(group["lr"]) for prefix, i, group in groups}


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Flatten metrics (numbers, tensors, arrays) to floats; a vector of up to 64 is numbered, the rest left out."""
    result: dict[str, float] = {}
    for key, value in flatten_dict(dict(values)).items():
        if isinstance(value, int | float | np.number | np.ndarray | torch.Tensor):
            flat = torch.as_tensor(value).detach().double().flatten().tolist()
            names = [key] if len(flat) == 1 else [f"{key}_{i}" for i in range(len(flat))]
            result |= dict(zip(names, flat, strict=True)) if len(flat) <= 64 else {}
    return result
