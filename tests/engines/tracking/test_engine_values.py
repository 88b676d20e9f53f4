from types import SimpleNamespace

import torch

from clinbundles.engines.tracking.engine_values import learning_rates, losses_of, scalars


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
