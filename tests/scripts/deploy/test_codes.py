"""Coded terms for what bundles find."""

import json

import pytest

from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.deploy.codes import ANATOMY, MORPHOLOGY, SCHEME, TERMS, category_of, term_of
from clinbundles.scripts.deploy.inference import Bundle

METADATA = sorted(ROOT.glob("bundles/*/configs/metadata.json"))


@pytest.mark.parametrize("file", METADATA, ids=lambda file: file.parents[1].name)
def test_every_class_of_our_bundles_has_a_term_of_snomed_ct(file: object) -> None:
    labels = Bundle(file.parents[1], json.loads(file.read_text()), "").labels.values()
    assert labels
    assert {term_of(name).scheme_designator for name in labels} == {"SCT"}


def test_a_class_of_a_stranger_gets_a_code_of_our_own_that_fits_its_field() -> None:
    term = term_of("some very long name of a finding that nobody has coded yet, whatever it may be, ever")
    assert term.scheme_designator == SCHEME
    assert len(term.value) <= 16
    assert len(term.meaning) <= 64
    assert len(SCHEME) <= 16


def test_organs_are_anatomy_and_findings_are_not() -> None:
    assert category_of("left lung") == ANATOMY
    assert category_of("polyp") == category_of("unheard of") == MORPHOLOGY
    assert len({value for value, *_ in TERMS.values()}) == len(TERMS)
