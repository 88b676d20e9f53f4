import shlex

import pytest

from clinbundles.scripts import cli
from clinbundles.scripts.verbs import VERBS


@pytest.mark.parametrize("name", VERBS)
def test_the_examples_of_a_verb_are_words_that_it_takes(name: str) -> None:
    for example in VERBS[name].examples:
        words = [*name.split(), *shlex.split(example)]
        assert cli.find_verb(words) == name
        cli.values_of(VERBS[name], words[len(name.split()) :])
