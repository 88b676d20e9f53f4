import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clinbundles.engines.weights_card import read_card, write_card
from clinbundles.scripts.bench.measurements import add_measurements
from clinbundles.scripts.report.results import as_json, read_results

ROOT = Path(__file__).parents[3]
XRAY = "covid_xray_transfer"


@pytest.fixture(scope="module")
def run(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("report.run")


@pytest.fixture
def house(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]) -> Path:
    """A project with the bundle toy, whose pages are filled."""
    docs, configs = tmp_path / "bundles/toy/docs", tmp_path / "bundles/toy/configs"
    docs.mkdir(parents=True)
    configs.mkdir()
    (tmp_path / "README.md").write_text("<!-- table bundles -->\n<!-- end -->\n")
    (docs / "README.md").write_text(
        "At a threshold of 0.5:\n<!-- table methods -->\n<!-- end -->\n\nThat is <!-- value half --><!-- end -->.\n"
    )
    (docs / "results.json").write_text(as_json(content))
    (docs / "picture.png").touch()
    (configs / "metadata.json").write_text('{\n    "headline": {},\n    "weights": {}\n}\n')
    monkeypatch.setattr(run, "ROOT", tmp_path)
    run.report(write=True)
    return tmp_path


@pytest.fixture
def copied(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pages of the X-ray bundle, to be changed."""
    bundle = tmp_path / "bundles" / XRAY
    shutil.copytree(ROOT / "bundles" / XRAY / "docs", bundle / "docs")
    (bundle / "configs").mkdir()
    shutil.copy(ROOT / "bundles" / XRAY / "configs" / "metadata.json", bundle / "configs")
    (tmp_path / "README.md").write_text("<!-- table bundles -->\n<!-- end -->\n")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    run.report(write=True)
    run.report()
    return bundle / "docs"


def change(page: Path, old: str, new: str) -> None:
    text = page.read_text()
    assert old in text
    page.write_text(text.replace(old, new, 1))


def test_the_projects_own_pages_agree_with_their_results(run: ModuleType, capsys: pytest.CaptureFixture) -> None:
    assert run.bundle_names(None)
    run.report()
    assert "pages agree" in capsys.readouterr().out


def test_writing_fills_every_page_and_a_second_time_changes_nothing(
    run: ModuleType, house: Path, capsys: pytest.CaptureFixture
) -> None:
    docs = house / "bundles/toy/docs"
    assert (
        "| [toy](bundles/toy/docs/README.md) | eyes of nobody | Dice | 0.800 | not measured |"
        in (house / "README.md").read_text()
    )
    assert "| one half | 0.750 |" in (docs / "README.md").read_text()
    assert "That is <!-- value half -->-0.050<!-- end -->." in (docs / "README.md").read_text()
    results = (docs / "results.md").read_text()
    assert "## Levers\n\nThe seed is 0.\n\n| data | seeds | Dice |" in results
    assert f"- data: eyes (hash {'0' * 64})" in results
    metadata = json.loads((house / "bundles/toy/configs/metadata.json").read_text())
    assert metadata["headline"]["mean"] == 0.8
    assert metadata["weights"] == {}
    capsys.readouterr()
    run.report("toy", write=True)
    assert capsys.readouterr().out == "4 pages agree with results.json\n"


def test_the_first_table_says_what_the_shipped_weights_reach_also_on_data_of_others(
    run: ModuleType, house: Path, content: dict[str, Any]
) -> None:
    content["headline"]["strangers"] = {"run": "levers", "row": "eyes", "column": "half", "metric": "dice"}
    content["runs"]["levers"]["data"] = "eyes of strangers"
    (house / "bundles/toy/docs/results.json").write_text(as_json(content))
    run.report("toy", write=True)
    assert "| Dice | 0.800 | 0.700, eyes of strangers |" in (house / "README.md").read_text()
    weights = house / "bundles/toy/models/model.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    write_card(weights, {})
    digest = read_card(weights)["weights_sha256"]
    for name in ("grid", "levers"):  # the head, then the strangers
        with pytest.raises(ValueError, match=rf"'{name}', .* not measured with models/model\.pt: .* {digest};"):
            run.report()
        content["runs"][name]["weights_sha256"] = digest
        (house / "bundles/toy/docs/results.json").write_text(as_json(content))
    run.report("toy", write=True)
    assert f"- weights: hash {digest}\n" in (house / "bundles/toy/docs/results.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "results.md"])
@pytest.mark.parametrize("mutation", ["swapped rows", "turned sign", "changed figure"])
def test_a_page_that_was_changed_by_hand_is_named(
    run: ModuleType, copied: Path, page: str, mutation: str, capsys: pytest.CaptureFixture
) -> None:
    path = copied / page
    lines = path.read_text().splitlines(keepends=True)
    rows = [n for n, line in enumerate(lines) if line.startswith("| Model_")]
    if mutation == "swapped rows":
        lines[rows[0]], lines[rows[1]] = lines[rows[1]], lines[rows[0]]
        path.write_text("".join(lines))
    elif mutation == "changed figure":
        change(path, "| 0.906 |", "| 0.960 |")
    else:
        old, new = ("-->0.988<", "-->-0.988<") if page == "README.md" else ("| +0.014 |", "| -0.014 |")
        change(path, old, new)
    with pytest.raises(SystemExit, match=f"Not as results.json has it: .*{XRAY}/docs/{page}"):
        run.report()
    run.report(XRAY, write=True)
    run.report()


def test_a_changed_number_in_the_results_is_named_on_every_page_that_shows_it(run: ModuleType, copied: Path) -> None:
    content = read_results(copied / "results.json")
    head = {name: content["headline"][name] for name in ("run", "row", "column")}
    result = next(r for r in content["results"] if head.items() <= r.items())
    result["metrics"][content["headline"]["metric"]]["value"] = 0.8765
    (copied / "results.json").write_text(as_json(content))
    with pytest.raises(SystemExit, match=r"README.md, .*docs/README.md, .*results.md, .*metadata.json; "):
        run.report()


def test_a_decimal_in_prose_and_a_constant_on_no_page_are_named(run: ModuleType, house: Path) -> None:
    page = house / "bundles/toy/docs/README.md"
    change(page, "At a threshold of 0.5", "Dice is 0.951")
    with pytest.raises(SystemExit) as caught:
        run.report()
    assert "docs/README.md:1: 0.951 is in no table and no constant of results.json" in str(caught.value)
    assert "results.json: constant 0.5 is on no page" in str(caught.value)
    change(page, "0.951", "0.5")
    change(house / "bundles/toy/docs/results.json", "The seed is 0.", "It gives 0.7.")
    with pytest.raises(SystemExit, match=r"table levers: 0\.7 is in no table"):
        run.report(write=True)


def test_a_grid_is_merged_and_shown(run: ModuleType, house: Path, content: dict[str, Any]) -> None:
    grid = {"runs": {"grid": content["runs"]["grid"]}, "results": content["results"][:2]}
    grid["results"][0]["metrics"]["dice"]["mean"] = 0.85
    (house / "grid.json").write_text(json.dumps(grid))
    with pytest.raises(ValueError, match="say which bundle's results it joins"):
        run.report(merge=str(house / "grid.json"))
    run.report("toy", merge=str(house / "grid.json"))
    assert "| whole | 0.850 |" in (house / "bundles/toy/docs/README.md").read_text()
    run.report()


def test_what_is_missing_is_said_in_one_sentence(run: ModuleType, house: Path) -> None:
    with pytest.raises(ValueError, match="bundle is 'tyo', expected one of toy"):
        run.report("tyo")
    metadata = house / "bundles/toy/configs/metadata.json"
    text = metadata.read_text()
    metadata.write_text("{}\n")
    with pytest.raises(ValueError, match=r"metadata\.json: expected one line"):
        run.report()
    metadata.write_text(text)
    (house / "bundles/toy/docs/picture.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"headline\.picture is 'picture\.png': no such file"):
        run.report()


def test_the_report_imports_neither_torch_nor_pandas() -> None:
    code = "import sys, clinbundles.scripts.report.run; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_report_takes_in_what_benches_measured_and_shows_all_of_it(
    run: ModuleType, house: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    rows = {
        "ours": {"ms": {"value": 2.0, "low": 1.0, "high": 3.0}, "time": {"value": 0.5, "low": 0.4, "high": 0.6}},
        "theirs": {"ms": {"value": 4}},
    }
    add_measurements(file, "toy", "blur", rows, device="cpu", threads=1, scale="2 rounds")
    run.report(merge=str(file))
    page = (house / "bundles/toy/docs/results.md").read_text()
    assert "### blur, 1 CPU thread" in page
    assert "| ours | 2 | 0.5 | [0.4, 0.6] |\n| theirs | 4 |  |  |" in page
    run.report()  # pages agree
    results = house / "bundles/toy/docs/results.json"
    content = json.loads(results.read_text())
    lines = [{"run": "blur, 1 CPU thread", "row": "speed", "column": name} for name in rows]
    columns = [{"title": "side", "text": "label"}, {"title": "ms", "metric": "ms", "value": "value", "format": ".1f"}]
    content["tables"].append({"id": "speed", "where": "results", "title": "Speed", "lines": lines, "columns": columns})
    results.write_text(json.dumps(content))
    run.report("toy", write=True)
    page = (house / "bundles/toy/docs/results.md").read_text()
    assert "| ours | 2.0 |" in page
    assert "[0.4, 0.6]" not in page  # a table of its own shows what matters of it
    file.write_text(file.read_text().replace('"value": 4', '"value": "4"'))
    with pytest.raises(ValueError, match=r"bench\.json: toy: .*'4'"):
        run.report("toy", merge=str(file))
