import pytest

from clinbundles.scripts.bench import rounds


def test_contenders_take_turns_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    seconds = rounds.time_rounds({name: lambda n=name: calls.append(n) for name in "ab"}, rounds=3, warm_up=2)
    assert calls == list("ab" * 5)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
    assert all(time >= 0 for times in seconds.values() for time in times)


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_not_that_of_the_medians() -> None:
    assert rounds.ratio([1, 4, 9], [1, 2, 3]) == pytest.approx(2)
    with pytest.raises(ValueError, match="argument 2"):
        rounds.ratio([1], [1, 2])


def test_the_machine_is_described_with_its_threads_and_versions() -> None:
    text = rounds.describe_machine(2, ["pillow"])
    assert "2 of " in text
    assert "pillow " in text
    assert "torch " in text
