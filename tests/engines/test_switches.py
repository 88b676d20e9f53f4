import pytest

from clinbundles.engines.switches import check_switches


@pytest.mark.parametrize("word", ["false", "true", "FALSE", "no", ""])
def test_text_is_refused_where_true_or_false_is_meant(word: str) -> None:
    check_switches(resume=True, rotate=False, force=None)
    with pytest.raises(ValueError, match=f"--rotate is the text '{word}', expected True or False"):
        check_switches(resume=True, rotate=word)


def test_a_place_whose_name_monai_has_changed_is_refused() -> None:
    check_switches(places=["/data/a:b", None, [{"image": "a.png"}]])
    with pytest.raises(ValueError, match=r"^/data #1/list.json: MONAI takes # in a path for ::"):
        check_switches(places=["/data", "/data ::1/list.json"])


def test_a_word_that_is_none_of_its_option_is_refused_by_the_name_of_the_option() -> None:
    check_switches(words={"arm": ["original", "original", "positive"]})
    with pytest.raises(ValueError, match=r"^--arm is 'foo', expected one of original, positive\.$"):
        check_switches(words={"arm": ["foo", "original", "positive"]})
