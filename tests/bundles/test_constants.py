"""The constants of every bundle's configs, against tables that say where each comes from: constants/<bundle>.json.

A table has a list for each config file, of groups with a source and values, and lies over the tables of the files
that its config extends, as the config does; inference.json repeats what it shares with train.json, and its table need
not. A key is the id of a value, such as "optimizer#lr"; "list[Name]" stands for all parts of a list whose class is
called Name, without that name, and "list[Name]#keys" for an argument of theirs. A value "@key" is that of another key,
so that an overlay's table names what it changes and no more. What refers to another value stands resolved; when a part
is disabled, and an expression that makes an object, stand as their text.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from clinbundles.scripts.bundle import config_files, config_names, open_configs, read_configs

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(p.parents[1] for p in ROOT.glob("bundles/*/configs/metadata.json"))
TABLES = Path(__file__).parent / "constants"


def names_to_run(bundle: Path) -> list[str]:
    """Every config alone, and with those that its first line runs it with, such as "train_gan,paper"."""
    files = [bundle / "configs" / f"{name}.json" for name in config_names(bundle)]
    first_lines = [json.loads(file.read_text())["_desc_"] for file in files]
    commands = [line.split()[3] for line in first_lines if line.startswith("clinbundles run")]
    return sorted({*config_names(bundle), *commands})


CONFIGS = [(bundle, name) for bundle in BUNDLES for name in names_to_run(bundle)]
# paper: stated there, with the section. decision: the paper leaves it open or errs. departure: stated there and done
# otherwise, as the page of the bundle says. choice: of this project, for what is no part of the paper. open: differs
# from paper or decision, and the page has no reason yet.
KINDS = ("paper", "decision", "departure", "choice", "open")
# Decides how fast or where a run goes, and nothing of what it computes.
OF_THE_MACHINE = {
    "num_workers",
    "persistent_workers",
    "cache_rate",
    "copy_cache",
    "print_lr",
    "iteration_log",
    "n_timed_files",
}


def groups(bundle: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((TABLES / f"{bundle.name}.json").read_text())


def constants(bundle: Path, name: str) -> dict[str, tuple[Any, str]]:
    """Value and source of every constant of a config with what it extends."""
    table: dict[str, tuple[Any, str]] = {}
    files = config_files(bundle, name.split(","))
    if files[0].stem == "inference":
        shared = json.loads(files[0].read_text())
        train = constants(bundle, "train")
        table = {key: entry for key, entry in train.items() if re.split(r"[#\[]", key)[0] in shared}
    for part in dict.fromkeys([*(file.stem for file in files), name]):
        if "," not in part and files[0].stem != part:
            own = json.loads((bundle / "configs" / f"{part}.json").read_text())
            table = {key: entry for key, entry in table.items() if not is_below(key, own)}
        for group in groups(bundle).get(part, []):
            table |= {key: (value, group["source"]) for key, value in group["values"].items()}
    return {key: (referred(value, table), source) for key, (value, source) in table.items()}


def is_below(key: str, ids: Iterable[str]) -> bool:
    return any(key == id_ or key.startswith((f"{id_}#", f"{id_}[")) for id_ in ids)


def referred(value: Any, table: dict[str, tuple[Any, str]]) -> Any:
    """A value of a table in which "@key" is the value of another key."""
    if isinstance(value, dict):
        return {k: referred(v, table) for k, v in value.items()}
    if isinstance(value, list):
        return [referred(v, table) for v in value]
    other, _ = table.get(value[1:], ({}, "")) if isinstance(value, str) and value.startswith("@") else ({}, "")
    return value if isinstance(other, dict) else other


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" not in value and all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, str | float | int | None)


def resolved(parser: ConfigParser, value: Any, key: str) -> Any:
    """What a config's value comes to, as data; the text of an expression that makes an object."""
    if isinstance(value, dict):
        return {
            k: v if k == "_disabled_" else resolved(parser, v, f"{key}#{k}") for k, v in value.items() if k != "_desc_"
        }
    if isinstance(value, list):
        return [resolved(parser, v, f"{key}#{k}") for k, v in enumerate(value)]
    if not isinstance(value, str) or value[:1] not in ("@", "$"):
        return value
    value = value.replace("::", "#")
    others = {name: parser.get(name) for name in re.findall(r"@([\w#]+)", value)}
    contents = [resolved(parser, other, name) if is_plain(other) else "$" for name, other in others.items()]
    if any(isinstance(content, str) and content.startswith(("@", "$")) for content in contents):
        return value
    content = contents[0] if value.startswith("@") else parser.get_parsed_content(key)
    return content if is_plain(content) else value


def short(part: Any) -> str:
    return part.get("_target_", "").rpartition(".")[2] if isinstance(part, dict) else ""


def value_of(parser: ConfigParser, key: str) -> Any:
    """The resolved value of a key of a table, "no such value" where there is none; of "list[Name]" a list."""
    where, _, rest = key.partition("[")
    name, _, argument = rest.partition("]")
    if where not in parser:
        return "no such value"
    parts = parser.get(where)
    if not name:
        return resolved(parser, parts, where)
    values = [resolved(parser, part, f"{where}#{k}") for k, part in enumerate(parts) if short(part) == name]
    if argument:
        return [value.get(argument[1:], "no such value") for value in values]
    return [{k: v for k, v in value.items() if k != "_target_"} for value in values]


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config under the key by which a table would call it."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield from leaves(v, f"{key}#{k}" if key else k)
    elif isinstance(value, list) and any(short(v) for v in value):
        for v in value:
            yield from leaves(v, f"{key}[{short(v)}]")
    elif isinstance(value, list):
        for v in value:
            yield from leaves(v, key)
    else:
        yield key, value


def is_constant(key: str, value: Any) -> bool:
    if set(re.split(r"[#\[\]]+", key)) & OF_THE_MACHINE or key.endswith(("_desc_", "_mode_", "_disabled_")):
        return False
    if isinstance(value, str):
        return value.startswith("$") and bool(re.search(r"(?<![\w.])\d|lambda", value))
    return value is not None


def test_every_bundle_has_its_table_and_every_table_its_bundle() -> None:
    """A folder without metadata.json would be passed over by all tests that find bundles by it."""
    folders = {path.name for path in (ROOT / "bundles").iterdir() if path.is_dir()}
    assert folders == {bundle.name for bundle in BUNDLES} == {path.stem for path in TABLES.glob("*.json")}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_every_constant_says_where_it_comes_from_and_a_departure_is_on_the_page(bundle: Path) -> None:
    page = " ".join((bundle / "docs" / "README.md").read_text().split())
    assert set(groups(bundle)) <= set(names_to_run(bundle))
    for name, parts in groups(bundle).items():
        for group in parts:
            kind = group["source"].replace(":", " ").split()[0]
            assert kind in KINDS, group["source"]
            assert len(group["source"].partition(": ")[2]) > 8, f"{name}: {group['source']}"
            if kind == "departure":
                assert group["page"] in page, f"{name}: {group['page']}"


@pytest.mark.parametrize(("bundle", "name"), CONFIGS, ids=lambda v: v.name if isinstance(v, Path) else v)
def test_the_constants_of_a_config_are_those_of_the_table(bundle: Path, name: str) -> None:
    parser = open_configs(bundle, name.split(","))
    wrong = {}
    for key, (expected, source) in constants(bundle, name).items():
        value = value_of(parser, key)
        if value != expected:
            wrong[key] = f"is {value!r}, expected {expected!r} ({source})"
    assert not wrong


@pytest.mark.parametrize(("bundle", "name"), CONFIGS, ids=lambda v: v.name if isinstance(v, Path) else v)
def test_no_constant_of_a_config_is_missing_in_the_table(bundle: Path, name: str) -> None:
    table = constants(bundle, name)
    content = read_configs(bundle, name.split(","))
    missing = {
        key: value
        for key, value in leaves({k: v for k, v in content.items() if k not in ("imports", "initialize", "finalize")})
        if is_constant(key, value) and not is_below(key, table)
    }
    assert not missing
