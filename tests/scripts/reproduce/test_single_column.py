import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from clinbundles.scripts.reproduce import plan as grid_plan

ROOT = Path(__file__).parents[3]
PLANS = sorted(ROOT.glob("bundles/*/configs/reproduce.json"))


@pytest.fixture(scope="module")
def reproduce(load_script) -> ModuleType:
    return load_script("reproduce.run")


class EveryScore:
    """Stands in for run_configs: an evaluation leaves all that any table of a bundle is counted from."""

    def __init__(self, plan: dict) -> None:
        self.plan = plan

    def __call__(self, _: Path, names: list[str], *, output_dir: str, **knobs) -> None:
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"image": ["a", "b"], "label": ["x", "y"], "prediction": ["x", "x"]}
        tables |= {f"{name}_{k}": [4, 2 + k] for name in ("both", "either") for k in (0, 1)}
        tables |= {table["metric"]: [0.5, 0.7] for table in self.plan["tables"].values()}
        pd.DataFrame(tables).to_csv(folder / "per_image.csv", index=False)
        (folder / "cost.json").write_text(json.dumps({t["cost"]: 2.0 for t in self.plan.get("costs", {}).values()}))


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.parents[1].name)
def test_every_column_of_a_bundle_can_be_asked_for_alone(
    reproduce: ModuleType, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = json.loads(path.read_text())
    monkeypatch.setattr(reproduce, "run_configs", EveryScore(plan))
    monkeypatch.setattr(reproduce, "check_knobs", lambda *_: None)  # of which another test is
    for module in ("plot", "plot_lines"):
        monkeypatch.setattr(reproduce, module, lambda *_: _[-1].touch())
    columns = grid_plan.entries(plan, "columns", "smoke")
    row = next(name for name in grid_plan.entries(plan, "rows", "smoke") if name in ("samples", "UNet", "PACE"))
    kinds = {
        json.dumps([column["configs"], sorted(column["after"])]): name
        for name, column in columns.items()
        if name not in plan.get("sets", {})
    }
    for name in [*kinds.values(), *(name for name in columns if "," in name)]:
        output = tmp_path / name.replace("/", "-")
        if name in plan["rows"].get("data_set", {}).get("samples", {}).get("not", []):
            continue
        arguments = {"rows": row, "columns": name, "scale": "smoke", "seeds": 0, "tracking": False}
        reproduce.reproduce(path.parents[1].name, **arguments, output_dir=str(output))
        if "evaluate" in columns[name]["configs"]:
            assert f"- {name}: no comparison, as it is the only column." in (output / "tables.md").read_text()
