from collections import OrderedDict
from typing import Any

import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch import nn

from clinbundles.engines.training.phases import TrainingPhases, freeze_all_but

HEAD = {"layers": ["head"], "learning_rate": 1e-3}
ALL = {"layers": "all", "learning_rate": 1e-4}


def make_network() -> nn.Module:
    """Features with a normalisation, a layer without weights, and a head."""
    features = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    return nn.Sequential(OrderedDict(features=features, flat=nn.Flatten(), head=nn.Linear(4, 3)))


def make_phases(recipe: Any, **options: int) -> TrainingPhases:
    network = make_network()
    evaluator = SupervisedEvaluator("cpu", [], network)
    return TrainingPhases(network, torch.optim.Adam(network.parameters()), evaluator, recipe, **options)


def test_a_recipe_of_phases_is_taken() -> None:
    assert make_phases([HEAD, {**ALL, "name": "all layers", "max_epochs": 3}]).index < 0


def test_going_back_to_all_layers_takes_every_hook_back() -> None:
    network, hooks = make_network(), []
    freeze_all_but(network, ["head"], hooks)
    assert len(hooks) == 1
    freeze_all_but(network, "all", hooks)
    assert not hooks
    assert not network.features.norm._forward_pre_hooks
    assert all(p.requires_grad for p in network.parameters())


def test_a_layer_is_known_by_its_whole_name() -> None:
    network = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), ab=nn.Linear(2, 2)))
    freeze_all_but(network, ["a"], [])
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, False]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([], r"phases is \[\]: expected a list of one phase or more"),
        (HEAD, "phases is {.*}: expected a list"),
        (["head"], "phase 1 is 'head': expected its keys and values"),
        ([{"layers": "all"}], "phase 1: has no learning_rate"),
        ([HEAD, {"learning_rate": 1}], "phase 2: has no layers"),
        ([{**HEAD, "lr": 1}], "phase 1: unknown key 'lr', expected layers, learning_rate, max_epochs, name"),
        ([{**HEAD, "layers": ["fc"]}], "phase 1: the network has no layer 'fc'; its layers are features, flat, head"),
        ([{**HEAD, "layers": [""]}], "the network has no layer ''"),
        ([{**HEAD, "layers": "head"}], "phase 1: layers is 'head', expected \"all\" or a list of names"),
        ([{**HEAD, "layers": []}], r"phase 1: layers is \[\], expected"),
        ([{**HEAD, "layers": ["flat"]}], "phase 1: layer 'flat' has no weights that could learn"),
        ([HEAD, {**ALL, "learning_rate": 0}], "phase 2: learning_rate is 0, expected a number above 0"),
        ([{**HEAD, "learning_rate": "fast"}], "phase 1: learning_rate is 'fast'"),
        ([{**HEAD, "learning_rate": float("nan")}], "phase 1: learning_rate is nan"),
        ([{**HEAD, "max_epochs": 0}], "phase 1: max_epochs is 0, expected a whole number above 0"),
        ([{**HEAD, "max_epochs": 2.5}], "phase 1: max_epochs is 2.5"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(recipe: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_phases(recipe)


@pytest.mark.parametrize("option", ["patience", "lr_patience"])
def test_no_patience_at_all_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} is 0: expected 1 epoch or more"):
        make_phases([HEAD], **{option: 0})
