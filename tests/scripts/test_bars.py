import pytest

from clinbundles.scripts import bars


def test_where_no_terminal_shows_a_bar_a_line_a_minute_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    now = iter(range(0, 1000, 25))
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(now))
    assert list(bars.watch("abcdef", desc="reading", unit="image")) == [*"abcdef"]
    out, err = capfd.readouterr()
    assert out == "reading: 3 of 6 images, 75 s left\n"
    assert err == ""
    assert list(bars.watch("cdef", desc="reading", unit="study", done=2)) == [*"cdef"]
    assert capfd.readouterr().out == "reading: 5 of 6 studies, 25 s left\n"
    monkeypatch.setattr(bars.sys.stderr, "isatty", lambda: True)
    assert list(bars.watch("abcdef", desc="reading", unit="image")) == [*"abcdef"]
    assert capfd.readouterr().out == ""


def test_the_first_with_all_that_it_loads_is_no_part_of_the_rate(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    now = iter([0, 100, 102, 104, 162, 164])
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(bars.sys.stderr, "isatty", lambda: False)
    assert list(bars.watch("abcde", desc="applying", unit="study")) == [*"abcde"]
    lines = ["applying: 1 of 5 studies, 7 min left", "applying: 4 of 5 studies, 21 s left"]
    assert capfd.readouterr().out.splitlines() == lines
