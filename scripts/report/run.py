"""Fill the pages' tables from docs/results.json of the bundles, or say which pages differ.

clinbundles report
clinbundles report covid_xray_transfer --write

"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.engines.weights_card import read_card

from .pages import fill, loose_decimals
from .results import KEYS, as_json, check_results, merge_results, read_json, read_measurements, read_results
from .tables import as_markdown, cell_text, markdown_table, measurement_table, result_of

ROOT = Path(__file__).resolve().parents[2]
HEADLINE = re.compile(r'^(\s*"headline": )\{.*\}(,?)$', re.MULTILINE)


def report(bundle: str | None = None, *, write: bool = False, merge: str | None = None) -> None:
    """Compare the pages with the bundles' docs/results.json, or write them anew.

    Pages are a bundle's docs/README.md, its docs/results.md, the headline in its configs/metadata.json, and the table
    of bundles in README.md.

    Args:
        bundle: folder name below ``bundles/``; all of them if not given.
        write: write the pages that differ instead of naming them.
        merge: results.json of ``clinbundles reproduce``, or the file of ``clinbundles bench --json``, which says of
            which bundles it is; added to the bundles' results before their pages are written.
    """
    names = bundle_names(bundle)
    if merge is not None:
        for name, more in _parts(Path(merge), bundle).items():
            _merge(ROOT / "bundles" / name / "docs" / "results.json", more, merge)
    pages = {ROOT / "README.md": root_page()}
    loose = [f"README.md:{line}: {n} is in no table" for line, n in loose_decimals(pages[ROOT / "README.md"])]
    for name in names:
        folder = ROOT / "bundles" / name
        pages |= bundle_pages(folder)
        loose += _loose(folder, pages[folder / "docs" / "README.md"])
    different = [path for path, text in pages.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if write or merge is not None:
        for path in different:
            write_atomically(path, pages[path])
            print(f"wrote {_name(path)}")
        different = []
    if different:
        listed = ", ".join(map(_name, different))
        raise SystemExit(f"Not as results.json has it: {listed}; clinbundles report --write fills the pages.")
    if loose:
        raise SystemExit("\n".join(loose))
    print(f"{len(pages)} pages agree with results.json")


def bundle_names(bundle: str | None) -> list[str]:
    """The bundle's name, checked, or the names of all bundles."""
    names = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/docs/results.json"))
    if not names:
        raise FileNotFoundError("the pages are those of a checkout of the project, and this is an installed package.")
    if bundle is not None and bundle not in names:
        raise ValueError(f"bundle is {bundle!r}, expected one of {', '.join(names)}.")
    return names if bundle is None else [bundle]


def root_page() -> str:
    """The project's README.md with the table of all bundles filled in: what its weights reach and are for."""
    path = ROOT / "README.md"
    rows = []
    for name in bundle_names(None):
        docs = ROOT / "bundles" / name / "docs"
        content = read_results(docs / "results.json")
        head = content["headline"]
        if not (docs / head["picture"]).is_file():
            raise FileNotFoundError(f"{docs / 'results.json'}: headline.picture is {head['picture']!r}: no such file.")
        folder = f"bundles/{name}/docs"
        rows.append(
            [
                f"[{name}]({folder}/README.md){_warning(docs.parent)}",
                head["images"],
                head["metric_title"],
                _of_the_weights(content, head, docs, "headline"),
                _of_strangers(content, head, docs),
                f'<img src="{folder}/{head["picture"]}" width="160" alt="{name}">',
            ]
        )
    titles = ["bundle", "images", "metric", "shipped weights, test split", "data of others", "picture"]
    table = as_markdown(titles, rows)
    return fill(path.read_text(encoding="utf-8"), {("table", "bundles"): table}, "README.md")


def _of_the_weights(content: Mapping[str, Any], cell: Mapping[str, Any], docs: Path, field: str) -> str:
    """The text of a cell that says what the shipped weights reach.

    Raises:
        ValueError: its run was made with other weights, or does not say with which.
    """
    place = f"{_name(docs)}/results.json: {field}"
    text = cell_text(content, cell, place)
    weights, run = docs.parent / "models" / "model.pt", content["runs"][cell["run"]]
    digest = read_card(weights).get("weights_sha256")
    if weights.is_file() and run.get("weights_sha256") != digest:
        raise ValueError(
            f"{place}.run is {cell['run']!r}, which was not measured with models/model.pt: its weights_sha256 is "
            f"{run.get('weights_sha256')}, and that of model.json {digest}; measure it with these weights."
        )
    return text


def _of_strangers(content: Mapping[str, Any], head: Mapping[str, Any], docs: Path) -> str:
    """What the shipped weights reach on data of others, and which these are."""
    if "strangers" not in head:
        return "not measured"
    cell = head["strangers"]
    return f"{_of_the_weights(content, cell, docs, 'headline.strangers')}, {content['runs'][cell['run']]['data']}"


def _warning(folder: Path) -> str:
    """What the card of a bundle's weights says they are for, as a line below its name."""
    warning = read_card(folder / "models" / "model.pt").get("warning")
    return f"<br>*Weights: {warning[0].lower()}{warning[1:]}*" if warning else ""


def bundle_pages(folder: Path) -> dict[Path, str]:
    """The text that a bundle's pages should have, by path."""
    source = folder / "docs" / "results.json"
    content, place = read_results(source), _name(source)
    tables = content.get("tables", [])
    readme = folder / "docs" / "README.md"
    blocks = {("table", t["id"]): markdown_table(content, t, place) for t in tables if t["where"] == "readme"}
    for name, cell in content.get("values", {}).items():
        blocks["value", name] = cell_text(content, cell, f"{place}: values[{name!r}]")
    metadata = folder / "configs" / "metadata.json"
    return {
        readme: fill(readme.read_text(encoding="utf-8"), blocks, _name(readme)),
        folder / "docs" / "results.md": results_page(content, folder.name, place),
        metadata: with_headline(metadata.read_text(encoding="utf-8"), content, _name(metadata)),
    }


def results_page(content: Mapping[str, Any], name: str, place: str) -> str:
    """The bundle's page of all its other tables and of the runs behind them."""
    text = [
        f"# Results of {name}\n\n",
        "Written by `clinbundles report --write` from [results.json](results.json). The bundle's [page](README.md)\n"
        "says what the words mean.\n",
    ]
    for table in content.get("tables", []):
        if table["where"] == "results":
            text.append(f"\n## {table['title']}\n\n")
            text += [f"{table['note']}\n\n"] if "note" in table else []
            text.append(markdown_table(content, table, place))
    text.append("\n## Runs\n\nHashes are SHA-256: of the images and masks by content, of the split, of the gaze.\n")
    shown = {line.get("run") for table in content.get("tables", []) for line in table["lines"]}
    for run_name, run in content["runs"].items():
        text.append(f"\n### {run_name}\n\n- `{run['command']}`\n")
        for field in ("data", "split", "gaze"):
            if run[field] != "none":
                text.append(f"- {field}: {run[field]} (hash {run[f'{field}_sha256']})\n")
        text += [f"- weights: hash {run['weights_sha256']}\n"] if "weights_sha256" in run else []
        seeds = ", ".join(map(str, run["seeds"])) or "none"
        text += [f"- seeds: {seeds}\n", f"- hardware: {run['hardware']}\n", f"- scale: {run['scale']}\n"]
        text += [f"- {run['note']}\n"] if "note" in run else []
        for result in content["results"]:
            if result["run"] == run_name and (extra := _extra(result)):
                text.append(f"- {result['row']}, {result['column']}: {extra}\n")
        if run["scale"].startswith("bench: ") and run_name not in shown:
            text.append(f"\n{measurement_table(content, run_name)}")
    return "".join(text)


def _extra(result: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} {_setting(value)}" for name, value in result.get("settings", {}).items())
    return "; ".join(part for part in (settings, result.get("note", "")) if part)


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else f"`{json.dumps(value)}`"


def with_headline(metadata: str, content: Mapping[str, Any], place: str) -> str:
    """A metadata.json with the one result that it keeps.

    Raises:
        ValueError: it has no line for it, or results.json has none.
    """
    if "headline" not in content:
        raise ValueError(f"{place}: results.json has no headline for it.")
    if len(HEADLINE.findall(metadata)) != 1:
        raise ValueError(f'{place}: expected one line "headline": {{…}}.')
    head = content["headline"]
    result = result_of(content, {name: head[name] for name in KEYS}, f"{place}: headline")
    if result is None or head["metric"] not in result["metrics"]:
        raise ValueError(f"{place}: headline is {head}, which no result has.")
    run = content["runs"][result["run"]]
    line = {name: head[name] for name in ("row", "column", "metric")} | result["metrics"][head["metric"]]
    line |= {name: run[name] for name in ("data", "split", "seeds")} | {"scale": run["scale"].partition(":")[0]}
    return HEADLINE.sub(lambda match: f"{match[1]}{json.dumps(line, ensure_ascii=False)}{match[2]}", metadata)


def _parts(file: Path, bundle: str | None) -> dict[str, dict[str, Any]]:
    """The results in a file, by the bundle that they join."""
    content = read_json(file)
    if not isinstance(content, dict) or not content.keys() <= set(bundle_names(None)):  # of clinbundles reproduce
        if bundle is None:
            raise ValueError(f"--merge {file}: say which bundle's results it joins.")
        return {bundle: read_results(file)}
    content = read_measurements(file)
    if bundle is not None and bundle not in content:
        raise ValueError(f"--merge {file}: it has no measurements of {bundle}, but of {', '.join(content)}.")
    return {name: part for name, part in content.items() if bundle in (None, name)}


def _merge(path: Path, more: Mapping[str, Any], file: str) -> None:
    content = merge_results(read_results(path), more, file=file)
    check_results(content, str(path))
    write_atomically(path, as_json(content) + "\n")
    print(f"wrote {_name(path)}")


def _loose(folder: Path, page: str) -> list[str]:
    """Decimals in a bundle's prose that are no constant of its results.json, and constants that are nowhere."""
    docs = folder / "docs"
    content = read_results(docs / "results.json")
    constants, numbers = content.get("constants", {}), []
    texts = {_name(docs / "README.md"): page}
    for table in content.get("tables", []):
        texts[f"{_name(docs / 'results.json')}: table {table['id']}"] = f"{table['title']} {table.get('note', '')}"
    lines = []
    for place, text in texts.items():
        for line, number in loose_decimals(text):
            numbers.append(number)
            if number not in constants:
                where = f"{place}:{line}" if place.endswith(".md") else place
                lines.append(f"{where}: {number} is in no table and no constant of results.json")
    lines += [f"{_name(docs / 'results.json')}: constant {n} is on no page" for n in constants if n not in numbers]
    return lines


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
