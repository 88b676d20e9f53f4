import shlex

import pytest

from clinbundles.scripts import cli
from clinbundles.scripts.verbs import RENAMED, VERBS


@pytest.mark.parametrize("name", VERBS)
def test_the_examples_of_a_verb_are_words_that_it_takes(name: str) -> None:
    for example in VERBS[name].examples:
        words = [*name.split(), *shlex.split(example)]
        assert cli.find_verb(words) == name
        cli.values_of(VERBS[name], words[len(name.split()) :])


@pytest.mark.parametrize("words", [["label"], ["label", "/data/to_label"]])
def test_a_verb_of_before_is_refused_with_its_name_of_now(words: list[str]) -> None:
    assert RENAMED["label"] in VERBS
    with pytest.raises(
        ValueError, match=r"label is followed by start or status or env.* is called label-slices now\.$"
    ):
        cli.find_verb(words)
