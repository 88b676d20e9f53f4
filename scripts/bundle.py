"""A bundle by its name or folder: its configs with what they extend, opened with options, run, its weights loaded.

Importing this file imports nothing heavy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinbundles.scripts.flags import (
    Bracketed,
    Expression,
    Option,
    as_parts,
    code_in,
    nearest,
    options_of,
    outlines,
)
from clinbundles.scripts.next_command import called_by_project, configs_of, with_options
from clinbundles.scripts.option_values import check_datalist, check_value

if TYPE_CHECKING:
    from monai.bundle import ConfigParser
    from torch import nn

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = ("metadata", "reproduce")
# What monai.bundle.run takes beside the values of a config.
IDS = ("run_id", "init_id", "final_id")
OF_MONAI = (*IDS, "meta_file", "logging_file")
PATH_ENDINGS = ("_dir", "_path", "datalist")


def describe_run(bundle: str = "", config: str = "", tracking: Any = None, **_: Any) -> dict[str, Option]:
    """Describe what else ``run`` takes: the values of the config, of the tracking settings, and MONAI's own options."""
    if not bundle:
        return {}
    folder = find_bundle(bundle)
    names = f"one of {', '.join(config_names(folder))}; several with commas between them."
    options = {"config": Option("config", str, meaning=names, positional=True)}
    if config:
        options |= {name: Option(name, str, None, listed=False) for name in OF_MONAI}
        if tracking:
            options |= options_of_config(json.loads(tracking_file(tracking).read_text())["configs"])
        options |= options_of_config(read_configs(folder, as_parts(config)))
    return options


def describe_network(bundle: str = "", **_: Any) -> dict[str, Option]:
    """Describe what ``segment-large`` takes beside its own options: the values of the bundle's inference.json that its
    network and its preprocessing are made of.
    """
    if not bundle:
        return {}
    content = read_configs(find_bundle(bundle), ["inference"])
    names = names_behind(content, ("network_def", "preprocessing"))
    own = options_of(outlines(Path(__file__).parent / "large_image" / "run.py")["segment"])
    options = options_of_config(content)
    return {n: option for n, option in options.items() if n.partition("#")[0] in names and n not in own}


def names_behind(content: Mapping[str, Any], parts: Iterable[str]) -> set[str]:
    """Name the values of a config that some parts of it are made of, and those parts, where it has them."""
    names = {name for name in parts if name in content}
    rest = list(names)
    while rest:
        references = set(re.findall(r"@(\w+)", json.dumps(content[rest.pop()]))) & content.keys() - names
        names |= references
        rest += references
    return names


def find_bundle(name: str | Path) -> Path:
    """Find the folder of a bundle by its name, in ./bundles or in the checkout, or by its path.

    Raises:
        FileNotFoundError: there is no such bundle.
    """
    places = [Path("bundles"), ROOT / "bundles"]
    for folder in (*(place / name for place in places), Path(name)):
        if (folder / "configs").is_dir():
            return folder.resolve()
    names = sorted({path.parents[1].name for place in places for path in place.glob("*/configs/metadata.json")})
    there_are = f" There are {', '.join(names)}." if names else " There are none in ./bundles."
    raise FileNotFoundError(
        f"{str(name)!r} is no bundle and no folder with configs{nearest(str(name), names)}{there_are}"
    )


def config_names(folder: Path) -> list[str]:
    """List the configs of a bundle that can be run, by name."""
    return sorted(path.stem for path in (folder / "configs").glob("*.json") if path.stem not in NOT_RUN)


def config_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """List the files of configs, each once and behind those that it extends.

    Raises:
        FileNotFoundError: there is no such config.
    """
    files: list[Path] = []
    for name in (name.removesuffix(".json") for name in names):
        file = folder / "configs" / f"{name}.json"
        if not file.is_file():
            known = config_names(folder)
            raise FileNotFoundError(
                f"{folder.name} has no config {name!r}{nearest(name, known)} There are {', '.join(known)}."
            )
        below = _read_object(file).get("extends", [])
        files += [*config_files(folder, below), file]
    return list(dict.fromkeys(files))


def read_configs(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Merge configs with what they extend, as MONAI does."""
    whole: dict[str, Any] = {}
    for file in config_files(folder, names):
        for key, value in _read_object(file).items():
            *path, last = key.removeprefix("+").replace("::", "#").split("#")
            place: Any = whole
            for part in path:
                place = place[int(part) if isinstance(place, list) else part]
            if key.startswith("+"):
                place[last] = place[last] | value if isinstance(value, dict) else place[last] + value
            else:
                place[int(last) if isinstance(place, list) else last] = value
    return whole


def _read_object(file: Path) -> dict[str, Any]:
    """Read a config or a metadata.json, and refuse what is no JSON object, by the name of its file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: is no JSON object, which begins with {{.")
    return content


def options_of_config(content: Mapping[str, Any]) -> dict[str, Option]:
    """Describe the values of a config as options: those at the top, and those below them by their ids."""
    return {
        name: Option(name, _kind(name, value), value, listed=_is_plain(name, value))
        for name, value in _values(content)
        if not name.startswith("_") and name != "extends"
    }


def check_options(folder: Path, names: Sequence[str], options: Mapping[str, Any], *, more: Sequence[str] = ()) -> None:
    """Refuse options that the configs do not have, but for some ``more``, and values that theirs cannot take.

    Raises:
        ValueError: the message names the option; or a config or metadata.json is no JSON object.
    """
    if (metadata := folder / "configs" / "metadata.json").is_file():
        _read_object(metadata)
    known = options_of_config(read_configs(folder, names))
    no_value = f"is no value of {' and '.join(f'{config}.json' for config in names)}"
    for name, value in options.items():
        name = name.replace("::", "#")
        if name in IDS and str(value).replace("::", "#") not in known:
            raise ValueError(f"--{name}: {value!r} {no_value}{nearest(str(value), known)}")
        if name in more:
            continue
        if name not in known:
            tops = [*more, *(option for option in known if "#" not in option)]
            raise ValueError(f"--{name} {no_value}{nearest(name, tops, prefix='--')}")
        known[name].check(value)
        check_value(name, value, known[name].default)


def options_for(folder: Path, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the options that the configs do not have, of those for several runs."""
    known = options_of_config(read_configs(folder, names))
    return {name: value for name, value in options.items() if name.replace("::", "#") in known}


def open_configs(folder: Path, names: Sequence[str], /, **options: Any) -> ConfigParser:
    """Open configs with options, to take parts of them.

    Raises:
        ValueError: as :func:`check_options`.
    """
    from monai.bundle import ConfigParser

    check_options(folder, names, options)
    parser = ConfigParser()
    parser.read_config([str(file) for file in config_files(folder, names)])
    parser.update(as_overrides({"bundle_root": str(folder), **options}))
    return parser


def run_configs(folder: Path, names: Sequence[str], opening: str = "", /, **options: Any) -> None:
    """Run configs with options in this process, as ``python -m monai.bundle run`` does, with a line an epoch.

    Args:
        folder: of the bundle.
        names: of the configs.
        opening: a line to print once a training begins.
        options: of the run.

    Raises:
        ValueError: as :func:`check_options`.
    """
    check_run(folder, names, options)

    from clinbundles.scripts.progress import run_watched

    files = [str(file) for file in config_files(folder, names)]
    following = next_command(folder, names, options)
    run_watched(files, as_overrides({"bundle_root": str(folder), **options}), opening=opening, following=following)


def next_command(folder: Path, names: Sequence[str], options: Mapping[str, Any]) -> str | None:
    """Make the command that follows a run, with its options; None where the configs end with none."""
    if "@next_command" not in json.dumps(read_configs(folder, names).get("finalize")):
        return None
    parser = open_configs(folder, names, **options_for(folder, names, options))
    command = called_by_project(parser.get_parsed_content("next_command"))
    added = options_for(folder, configs_of(command), options)
    if options.get("tracking"):
        added["tracking"] = options["tracking"]
    if code_in(added) is not None:
        added["allow_expressions"] = True
    places = (place / "bundles" / folder.name for place in (Path(), ROOT))
    named = next((place.resolve() for place in places if place.is_dir()), None)
    return with_options(command, added, bundle=folder.name if named == folder else str(folder))


def check_run(folder: Path, names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse what a run cannot take, before anything is made."""
    more = [*OF_MONAI, "tracking"]
    if options.get("tracking") is not None:
        more += json.loads(Path(options["tracking"]).read_text())["configs"]
    check_options(folder, names, options, more=more)
    check_datalist(options.get("datalist"))


def load_network(parser: ConfigParser) -> nn.Module:
    """Make the network of an opened config, with the weights of ``ckpt_path``, to evaluate; their card is printed.

    Raises:
        FileNotFoundError, ValueError: the weights are missing, do not fit, or were trained with other options than
            those that the config's loader of weights compares.
    """
    from clinbundles.engines.checkpoint import WeightsLoader

    network = parser.get_parsed_content("network_def")
    compared = "weights_loader#options"
    options = parser.get_parsed_content(compared) if compared in parser else None
    WeightsLoader(parser.get_parsed_content("ckpt_path"), network, options).load()
    return network.eval()


def as_overrides(options: Mapping[str, Any]) -> dict[str, Any]:
    """Write options as MONAI takes them.

    It drops one that is None, a config holds lists, and of a # in any text MONAI makes the :: of its ids: such text
    becomes an expression that spells it otherwise.
    """
    return {
        name: "$None" if value is None else value if name in (*OF_MONAI, "tracking") else _spelt(value)
        for name, value in options.items()
    }


def _spelt(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _spelt(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(each) for each in value]
    if not isinstance(value, str) or "#" not in value or value[:1] in ("$", "@", "%"):
        return value
    return "$" + ascii(value).replace("#", r"\x23").replace("@", r"\x40")


def tracking_file(tracking: Any = True) -> Path:
    """Find the settings for MLflow: a file, or for True the project's.

    Raises:
        FileNotFoundError: there is no such file.
    """
    files = (
        [place / "mlflow" / "tracking.json" for place in (Path.cwd(), ROOT)] if tracking is True else [Path(tracking)]
    )
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(f"--tracking {files[0]}: no such file.")


def _values(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
    for key, value in pairs:
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping | list):
            yield from _values(value, f"{prefix}{key}#")


def _is_plain(name: str, value: Any) -> bool:
    """Tell what a person would change from what the config is made of."""
    if "#" in name or isinstance(value, Mapping):
        return False
    if isinstance(value, list):
        return not any(isinstance(each, Mapping) or str(each).startswith("$") for each in value)
    return name.endswith(PATH_ENDINGS) or not str(value).startswith("$")


def _kind(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return Expression | bool | None
    if isinstance(value, int) and "#" not in name:
        return Expression | int | None
    if isinstance(value, int | float):
        return Expression | int | float | None
    if isinstance(value, list) and "#" not in name and not any(isinstance(each, Mapping) for each in value):
        return Expression | list | None
    if name.endswith(PATH_ENDINGS):
        return str | None
    if isinstance(value, str) and value[:1] not in "$@%" and "#" not in name:
        return Bracketed | str | None
    return Any
