import io

import pytest
import torch
from torch import distributed

from clinbundles.nets.datasetgan.adaptation import AdaptiveProbability
from clinbundles.nets.datasetgan.augmentation import AdaptiveAugmentation


def controller(probability: float = 0.0, **options: float) -> AdaptiveProbability:
    return AdaptiveProbability(AdaptiveAugmentation("ct", probability), **options)


def logits(positive: int, negative: int) -> torch.Tensor:
    """Answers of one batch, of which only the signs count."""
    return torch.cat([torch.full((positive, 1), 7.0), torch.full((negative, 1), -0.1)])


def test_the_probability_rises_above_the_target_and_falls_below_and_rests_on_it() -> None:
    # r_t of 14 of 16 is 0.75, of 12 is 0.5; of 8 of 10 it is 0.6.
    for batch, direction in ((logits(14, 2), 1), (logits(12, 4), -1)):
        control = controller(0.5, ada_kimg=1.0)
        for _ in range(4):
            control.update(batch)
        assert control.probability.item() == pytest.approx(0.5 + direction * 64 / 1000)
    control = controller(0.5, target=0.5)
    for _ in range(4):
        control.update(logits(12, 4))
    assert control.r_t.item() == 0.5
    assert control.probability.item() == 0.5


def test_the_probability_goes_from_0_to_1_within_ada_kimg_and_stays_there() -> None:
    control = controller(ada_kimg=2.0)
    images = 0
    while control.probability < 1 - 1e-6:
        control.update(logits(16, 0))
        images += 16
    assert images == pytest.approx(2000, abs=64)
    for _ in range(8):
        control.update(logits(16, 0))
    assert control.probability.item() == 1
    control = controller(0.0, ada_kimg=2.0)
    for _ in range(8):
        control.update(logits(0, 16))
    assert control.probability.item() == 0


def test_it_moves_every_interval_by_the_mean_sign_of_all_its_batches() -> None:
    control = controller(0.5, interval=3, ada_kimg=1.0)
    for batch in (logits(8, 0), logits(8, 0)):
        control.update(batch)
        assert control.probability.item() == 0.5
    control.update(logits(2, 6))
    assert control.r_t.item() == pytest.approx(12 / 24)
    assert control.probability.item() == pytest.approx(0.5 - 24 / 1000)


def test_a_resumed_control_goes_on_in_the_middle_of_an_interval() -> None:
    batches = [logits(k, 16 - k) for k in (16, 15, 9, 14, 16, 16, 16, 8, 16, 16, 16)]
    whole, first = controller(ada_kimg=1.0), controller(ada_kimg=1.0)
    for batch in batches:
        whole.update(batch)
    for batch in batches[:6]:
        first.update(batch)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second = controller(ada_kimg=1.0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for batch in batches[6:]:
        second.update(batch)
    assert second.probability.item() == whole.probability.item() > 0
    assert second.r_t.item() == whole.r_t.item()
    assert second.batches == whole.batches == 3


def test_several_processes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    # Another process with as many images, none of which the discriminator takes for real.
    monkeypatch.setattr(distributed, "all_reduce", lambda sums: sums.add_(torch.tensor([-64.0, 64.0])))
    control = controller(0.5, ada_kimg=1.0)
    for _ in range(4):
        control.update(logits(16, 0))
    assert control.r_t.item() == 0
    assert control.probability.item() == pytest.approx(0.5 - 128 / 1000)


def test_answers_keep_no_graph_and_an_empty_interval_is_refused() -> None:
    control = controller()
    for _ in range(4):
        control.update(logits(16, 0).requires_grad_())
    assert not control.r_t.requires_grad
    assert not control.probability.requires_grad
    with pytest.raises(ValueError, match="interval and ada_kimg must be above 0"):
        controller(interval=0)
    with pytest.raises(ValueError, match="target is 7, expected a number from -1 to 1"):
        controller(target=7)
