"""What the pages of all bundles must keep: commands that run, short tables, links that lead somewhere."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clinbundles.scripts import cli
from clinbundles.scripts.verbs import VERBS

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
# Options of a run that are no value of its config.
ANY_RUN = ("tracking", "tracking_uri", "experiment_name", "run_name", "bundle_root")

pytestmark = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def pages(bundle: Path) -> list[Path]:
    return [ROOT / "README.md", bundle / "docs" / "README.md"]


def check_options(words: list[str], configs: list[Path], command: str) -> None:
    """Every option of a run is a top-level value of its configs."""
    values = {key for config in configs for key in load(config)}
    for word in words:
        if word.startswith("--") and word[2:] not in (*ANY_RUN, "config_file"):
            assert word[2:].partition("=")[0] in values, f"{command}: {word} is no value of {configs[-1].name}"


def check_command(command: str, bundle: Path) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        for verb in words[1:]:
            assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    for word in words:
        if word.startswith("scripts/"):
            assert (ROOT / word).is_file(), command
    if words[0] == "clinbundles":
        verb = cli.find_verb(words[1:])
        cli.values_of(VERBS[verb], words[1 + len(verb.split()) :])
    elif "monai.bundle" in words:
        names = re.findall(r"configs/([\w.]+\.json)", dict(pairwise(words))["--config_file"])
        assert names, command
        options = words[words.index("monai.bundle") :]
        check_options(options, [bundle / "configs" / name for name in names], command)


def test_numbers_have_one_home(bundle: Path) -> None:
    metadata = load(bundle / "configs" / "metadata.json")
    assert metadata["headline"]
    assert "results" not in metadata
    assert not [key for key, value in metadata["weights"].items() if isinstance(value, dict | float)]
    content = load(bundle / "docs" / "results.json")
    several = [r for r in content["results"] if len(content["runs"][r["run"]]["seeds"]) > 1]
    assert several
    assert all("std" in numbers or "mean" not in numbers for r in several for numbers in r["metrics"].values())


def test_results_name_no_folder_of_the_machine_that_measured_them(bundle: Path) -> None:
    text = (bundle / "docs" / "results.json").read_text()
    assert not re.findall(r"(?<![\w.:/])/\w+/[\w/.-]+", text)


def test_every_command_in_the_pages_can_be_run(bundle: Path) -> None:
    for page in pages(bundle):
        blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), re.DOTALL)
        code = "\n".join(blocks).replace("\\\n", " ")
        commands = re.findall(r"^(?:\$ )?((?:clinbundles|python|torchrun|make|cd) .+?)$", code, re.MULTILINE)
        assert commands, page
        folder = bundle
        for command in (part for line in commands for part in line.split(" && ")):
            folder = ROOT / command.split()[1] if command.startswith("cd ") else folder
            check_command(command, folder)


def test_a_page_has_a_picture_first_few_tables_and_one_value_a_cell(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text()
    assert "![" in text.partition("\n## ")[0]
    assert "```bash" in text.partition("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert 1 <= len(tables) <= 3
    results = (bundle / "docs" / "results.md").read_text()
    for table in tables + re.findall(r"(?:^\|.*\n)+", results, re.MULTILINE):
        for line in table.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) <= 6, line
            assert not [cell for cell in cells if re.search(r"\d ± \d|\d / \d|\] \d|\d \[", cell)], line


def test_every_link_and_picture_of_a_page_is_there(bundle: Path) -> None:
    for page in [*pages(bundle), bundle / "docs" / "results.md"]:
        links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text())
        assert links, page
        for link in map("".join, links):
            if not link.startswith(("http", "#")):
                assert (page.parent / link.partition("#")[0]).exists(), f"{page}: {link}"
