import logging
from pathlib import Path

import pytest

from clinbundles.engines.data_hash import MEANING, data_hash, hash_facts, hash_in


def test_the_order_of_the_parts_does_not_count_and_their_number_does() -> None:
    assert data_hash(["b", "a"]) == data_hash(["a", "b"])
    assert len({data_hash(parts) for parts in ([], ["a"], ["a", "a"], ["a", "b"])}) == 4


def test_a_datalist_gives_its_hash_and_one_of_an_earlier_version_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    facts = hash_facts(["b", "a"])
    assert hash_in(facts, Path("new.json")) == {"data_sha256": data_hash(["a", "b"])}
    assert hash_in({"name": "eyes"}, Path("own.json")) == {}
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        assert hash_in({"data_sha256": facts["data_sha256"]}, Path("old.json")) == {}
    (sentence,) = caplog.messages
    assert "old.json" in sentence
    assert "prepare the data set again" in sentence
    assert hash_in({"data_sha256": "ab" * 32, "data_sha256_of": MEANING}, Path("x")) == {"data_sha256": "ab" * 32}
