import pytest

from clinbundles.engines.sentences import sentence_of
from clinbundles.nets.optional_packages import needed_by


def test_a_missing_package_is_named_with_what_needs_it_in_a_sentence_for_the_user() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, needed_by("FPN"):
        import no_such_package.models  # noqa: F401
    assert caught.value.name == "no_such_package"
    sentence = "FPN needs the package no-such-package, which is not installed: pip install no-such-package"
    assert sentence_of(caught.value) == sentence


def test_what_is_there_and_other_errors_pass() -> None:
    with needed_by("FPN"):
        import json
    assert json.loads("1") == 1
    with pytest.raises(ImportError, match="cannot import name 'nothing'"), needed_by("FPN"):
        from json import nothing  # noqa: F401
