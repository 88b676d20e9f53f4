from pathlib import Path

from clinbundles.scripts.audit.setting import Setting


def test_every_run_has_the_paths_the_seed_and_the_options_of_the_audit(tmp_path: Path) -> None:
    folder, datalist, knobs = tmp_path / "data", tmp_path / "list.json", {"image_size": 32, "seed": 1}
    setting = Setting(folder, datalist, tmp_path / "model", tmp_path / "out", ["a", "b"], {}, 7, knobs, {}, {})
    paths = {"dataset_dir": str(folder), "datalist": str(datalist)}
    assert setting.common == {"image_size": 32, "seed": 7, **paths}
    parser = setting.parser(split="validation")
    assert (parser["image_size"], parser["seed"], parser["split"]) == (32, 7, "validation")
    assert parser["ckpt_path"] == str(tmp_path / "model" / "model.pt")
