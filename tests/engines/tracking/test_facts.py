import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from clinbundles.engines.tracking.facts import (
    describe_datalist,
    git_state,
    knobs,
    learning_rates,
    losses_of,
    scalars,
    scrub,
    used_by,
    without_credentials,
)


def test_a_config_loses_paths_credentials_and_lists_of_data():
    config = {"a": ["/home/doe/w.pt", {"b": "C:\\doe\\x.png"}], "data": [{"image": "doe.png"}], "u": "http://d:p@h/x"}
    assert scrub(config) == {"a": ["w.pt", {"b": "x.png"}], "data": "1 items left out", "u": "http://h/x"}
    assert config["u"] == "http://d:p@h/x"
    assert scrub("sqlite:////home/doe/runs/mlflow.db") == "sqlite:///mlflow.db"
    assert without_credentials("sqlite:///a@b.db") == "sqlite:///a@b.db"


def test_knobs_are_scalars_and_plain_lists_but_not_components():
    config = {"lr": "$1e-3 * 2", "net": "$@net_def", "also": "@lr", "flag": True, "none": None, "run": ["$1"], "d": {}}
    assert knobs(config) == {"lr": "$1e-3 * 2", "flag": "True", "none": "None"}
    assert knobs(config, untracked=["flag", "other"]) == {"lr": "$1e-3 * 2", "none": "None"}


def test_what_a_run_needs_is_what_its_config_refers_to_from_there_on():
    config = {
        "run": ["$@validate#evaluator.run()"],
        "validate": {"evaluator": {"loader": "@loaders::0", "network": "@network"}, "unused": "@other"},
        "loaders": [{"data": "$load(@datalist, @split)"}, "@elsewhere"],
        "network": {"size": "@size", "again": "@network"},
        "train": {"trainer": {"epochs": "@max_epochs", "validator": "@validate#evaluator"}},
        **dict.fromkeys(("other", "datalist", "split", "elsewhere", "size", "max_epochs"), 1),
    }
    evaluated = {"run", "validate", "loaders", "network", "datalist", "split", "size"}
    assert used_by(config, "run") == evaluated
    assert used_by(config | {"run": "$@train#trainer.run()"}, "run") == evaluated | {"train", "max_epochs"}
    assert used_by({"run": "$@absent#0 + @network#1"}, "run") == {"run", "absent", "network"}


def test_a_datalist_that_is_not_json_is_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
        describe_datalist(tmp_path / "bad.json")
    assert describe_datalist(None) == describe_datalist(tmp_path / "absent.json") == ({}, {})


def test_a_split_has_one_hash_in_any_order_and_gaze_one_of_its_own(tmp_path):
    def hashes(**lists):
        (tmp_path / "list.json").write_text(json.dumps({"name": "x", "copies": [["a", "b"]], **lists}))
        params, _ = describe_datalist(tmp_path / "list.json")
        return params["split_sha256"], params.get("gaze_sha256")

    a, b, c = ({"image": name} for name in "abc")
    seen = {**a, "fixations": [[0.5, 0.5, 200]]}
    plain = hashes(training=[a, b], test=[c])
    assert plain == hashes(test=[c], training=[b, {**a, "label": "a.png"}])
    assert plain == hashes(training=[{"image": "x/a"}, {"image": "x/b"}], test=[{"image": "x/c"}])
    assert plain[1] is None
    assert hashes(training=[a, c], test=[b])[0] != plain[0]
    looked_at = hashes(training=[seen, b], test=[c])
    assert looked_at[0] == plain[0]
    assert looked_at[1] not in (None, hashes(training=[{**seen, "fixations": []}, b], test=[c])[1])


def test_code_is_known_by_its_commit_and_by_whether_it_was_changed_since(tmp_path):
    def git(*command):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *author, *command], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    tracked, untracked = tmp_path / "tracked.py", tmp_path / "untracked.py"
    for file in (tracked, untracked):
        file.write_text("1")
    git("init")
    assert git_state(tracked) == {"git_commit": "unknown", "git_dirty": "unknown"}
    git("add", "tracked.py")
    git("commit", "-m", "first")
    git("tag", "v1-rc")
    clean = {"git_commit": git("rev-parse", "HEAD").strip(), "git_dirty": "false"}
    assert git_state(untracked, tracked) == clean
    tracked.write_text("2")
    assert git_state(tracked) == clean | {"git_dirty": "true"}
    assert git_state(untracked)["git_commit"] == "unknown"


def test_losses_and_metrics_of_any_shape_become_numbers():
    assert losses_of([{"g_loss": 1.0, "pred": 2.0}, {"g_loss": 1.0}]) == {"train_g_loss": 1.0}
    assert losses_of(torch.ones(2)) == {}
    nested = {
        "a": torch.tensor([0.5]),
        "b": torch.tensor([1.0, 2.0]),
        "c": {"d": 3},
        "text": "x",
        "big": torch.ones(99),
    }
    assert scalars(nested) == {"a": 0.5, "b_0": 1.0, "b_1": 2.0, "d": 3.0}


def test_every_optimizer_gives_its_learning_rates_under_its_own_name():
    def sgd(*rates):
        return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates])

    assert learning_rates(SimpleNamespace(optimizer=sgd(0.1, 0.2))) == {"lr_group_0": 0.1, "lr_group_1": 0.2}
    assert learning_rates(SimpleNamespace(g_optimizer=sgd(0.3), other=1)) == {"g_lr_group_0": 0.3}


def test_a_path_that_a_config_spells_as_an_expression_is_private_too():
    config = {"dataset_dir": r"$'/home/doe/secret/data \x231'", "output_dir": "$'runs'", "note": "$'a' + @b + 'c'"}
    assert scrub(config) == {"dataset_dir": "data #1", "output_dir": "runs", "note": "$'a' + @b + 'c'"}
