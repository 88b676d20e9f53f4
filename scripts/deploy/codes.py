"""Coded terms for what bundles find: SNOMED CT by the name of a class, else a code of our own that says the name."""

from __future__ import annotations

import re

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from .series import MANUFACTURER

SCHEME = f"99{MANUFACTURER.upper()}"[:16]
ANATOMY, MORPHOLOGY = codes.SCT.AnatomicalStructure, codes.SCT.MorphologicallyAbnormalStructure
# SNOMED CT's code, its meaning, and the category as a segment.
TERMS = {
    "normal": ("17621005", "Normal", MORPHOLOGY),
    "bacterial": ("53084003", "Bacterial pneumonia", MORPHOLOGY),
    "viral": ("75570004", "Viral pneumonia", MORPHOLOGY),
    "pneumonia": ("233604007", "Pneumonia", MORPHOLOGY),
    "covid19": ("882784691000119100", "Pneumonia caused by SARS-CoV-2", MORPHOLOGY),
    "polyp": ("68496003", "Polyp of colon", MORPHOLOGY),
    "vessel": ("59820001", "Blood vessel", ANATOMY),
    "body": ("22943007", "Trunk", ANATOMY),
    "left lung": ("44029006", "Left lung", ANATOMY),
    "right lung": ("3341006", "Right lung", ANATOMY),
    "nucleus": ("84640000", "Nucleus", ANATOMY),
    "cell": ("4421005", "Cell", ANATOMY),
}


def term_of(name: str) -> CodedConcept:
    """Give the coded term for a class; a name without one in SNOMED CT gets a code of our own scheme."""
    if name.lower() in TERMS:
        value, meaning, _ = TERMS[name.lower()]
        return CodedConcept(value, "SCT", meaning)
    return own_term(name, name)


def category_of(name: str) -> CodedConcept:
    """Give the category of a class as the type of a segment."""
    return TERMS.get(name.lower(), ("", "", MORPHOLOGY))[2]


def own_term(value: str, meaning: str) -> CodedConcept:
    """Make a code of our own scheme: the value in 16 characters, the meaning in 64."""
    return CodedConcept(re.sub(r"\W+", "_", value)[:16], SCHEME, meaning[:64])
