import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from clinbundles.engines.checkpoint import WeightsLoader
from clinbundles.engines.weights_card import card_path, check_options, read_card, weights_sentence, write_card
from clinbundles.scripts.convert_weights import convert_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 1).state_dict(), path)
    write_card(path, {"options": {"class_names": ["a", "b"], "size": 64}, "warning": "For research."})
    return path


def test_a_card_is_that_of_its_weights_alone(weights: Path) -> None:
    assert card_path(weights).name == "model.json"
    assert read_card(weights)["options"]["size"] == 64
    torch.save(nn.Linear(2, 1).state_dict(), weights)
    assert read_card(weights) == {}
    card_path(weights).unlink()
    assert read_card(weights) == {}


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_what_is_no_card_is_named(weights: Path, text: str) -> None:
    card_path(weights).write_text(text)
    with pytest.raises(ValueError, match=r"model\.json: is no"):
        read_card(weights)


@pytest.mark.parametrize(
    "value",
    ["$print('ran')", "@bundle_root", "%train.json::seed", ["a", "$1"], {"a": [{"_target_": "Adam"}]}],
)
def test_a_card_with_what_a_config_would_run_or_look_up_is_refused(weights: Path, value: Any) -> None:
    for facts in (
        {"options": {"size": value}},
        {"temperature": value},
        {"options": {"size": 64}, "data_name": [value]},
    ):
        write_card(weights, facts)
        with pytest.raises(ValueError, match=r"model\.json: (size|options|temperature|data_name) has .*plain values"):
            read_card(weights)
    for starts in ("a.pt", ["a.pt"], [{"sha256": "0"}]):
        write_card(weights, {"initial_weights": starts})
        with pytest.raises(
            ValueError, match=r"model\.json: initial_weights is .*, expected a list of objects with a name"
        ):
            read_card(weights)
    write_card(weights, {"options": [1]})
    with pytest.raises(ValueError, match=r"model\.json: options is \[1\], expected a JSON object"):
        read_card(weights)


def test_a_loader_prints_the_warning_and_refuses_other_options(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WeightsLoader(weights, nn.Linear(2, 1), {"class_names": ("a", "b"), "unknown": 1}).load()
    assert capsys.readouterr().out.splitlines()[1] == "For research."
    network = nn.Linear(2, 1)
    before = network.weight.clone()
    with pytest.raises(ValueError, match=r'trained with class_names \["a", "b"\], and this run has \["b", "a"\]'):
        WeightsLoader(weights, network, {"class_names": ["b", "a"]}).load()
    assert torch.equal(before, network.weight)
    check_options(weights, {}, {"size": 3})  # nothing is known


def test_a_temperature_that_was_fitted_to_other_weights_is_refused_with_both_values(weights: Path) -> None:
    card = {**read_card(weights), "temperature": 1.5}
    check_options(weights, card, {"temperature": 1.5, "size": 64})
    with pytest.raises(ValueError, match=r"temperature 1\.5 was fitted to these weights, and this run has 1\.0: give"):
        check_options(weights, card, {"temperature": 1.0})
    check_options(weights, read_card(weights), {"temperature": 1.0})  # none was fitted


def test_a_temperature_that_the_card_does_not_know_is_said_on_screen_and_in_tables(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = WeightsLoader(weights, nn.Linear(2, 1), {"temperature": 1.5})
    loader.load()
    said = (
        "temperature 1.5 was not fitted to these weights, as far as their card says; --temperature 1.0 leaves it out."
    )
    assert said in capsys.readouterr().out.splitlines()
    assert loader.sentence.endswith(f"For research. {said}")
    plain = WeightsLoader(weights, nn.Linear(2, 1), {"temperature": 1.0})
    plain.load()
    assert plain.sentence.endswith("For research.")
    write_card(weights, {"temperature": 1.5})
    fitted = WeightsLoader(weights, nn.Linear(2, 1), {"temperature": 1.5})
    fitted.load()
    assert "fitted" not in fitted.sentence + capsys.readouterr().out


def test_every_engine_of_a_loader_knows_which_weights_it_ran_with(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    torch.save(nn.Linear(2, 1).state_dict(), other)
    loaders = [WeightsLoader(path, nn.Linear(2, 1)) for path in (weights, other, None)]
    sentences = [
        f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}: {says}"
        for path, says in ((weights, "For research."), (other, "no card says what these weights are for."))
    ]
    for _ in range(2):
        engine = Engine(lambda engine, batch: None)
        for loader in loaders:
            loader.attach(engine)
        for _ in range(2):  # a second run adds nothing
            engine.run([0])
        assert list(engine.state.weights) == sentences
    assert weights_sentence("0" * 12, {"warning": ""}).endswith("their card does not say what these weights are for.")


def test_weights_in_half_precision_keep_their_card(weights: Path, tmp_path: Path) -> None:
    convert_weights(str(weights), output=str(tmp_path / "half.pt"), half=True)
    card = read_card(tmp_path / "half.pt")
    assert card.pop("weights_sha256") != read_card(weights)["weights_sha256"]
    assert card == {
        name: fact for name, fact in json.loads(card_path(weights).read_text()).items() if "sha" not in name
    }
