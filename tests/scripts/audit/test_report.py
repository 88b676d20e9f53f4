from clinbundles.scripts.audit.report import as_markdown, compose_audit, draw

NAMES = ["normal", "bacterial", "covid19"]
GRAD_CAM = {
    "layer": "features",
    "share": {"value": 0.56, "low": 0.5, "high": 0.62},
    "share_by_label": {"normal": 0.56},
    "lung_fields": 0.55,
    "images": 8,
    "empty_maps": 1,
}
NONE = {"images": 9, "trained_on": 0, "validated_on": 0, "same_patient": 0}
SEEN = {"known": True, "basis": "a test says so", "audited": {"test": NONE}, "list": NONE}


def make_audit(
    *,
    whole: float,
    border: float,
    chance: float = 0.3,
    half: float = 0.05,
    sources: dict | None = None,
    seen: dict = SEEN,
    outside: dict | None = None,
    entries: tuple[str, ...] = ("image", "label"),
) -> dict:
    def row(model: str, name: str, value: float) -> tuple[str, str, dict]:
        figure = {"value": value, "low": value - half, "high": value + half}
        scores = {"val_accuracy": figure, "val_macro_f1": figure}
        classes = {label: {"images": 3, "recall": figure} for label in NAMES}
        return (
            model,
            name,
            {
                **{"images": 9, "groups": 5, "unit": "patients", "scores": scores},
                **{"classes": classes, "sources": sources},
            },
        )

    rows = [
        row("audited", "whole", whole),
        row("trained anew", "border", border),
        row("decision tree", "aspect_ratio", 0.6),
        row("always the commonest class", "chance", chance),
    ]
    facts = {"data": "noise", "datalist_sha256": "a" * 64, "model_sha256": "b" * 64, "seed": 0, "training_images": 18}
    facts |= {"entries": entries}
    patients = dict(zip(NAMES, (3, 2, 20), strict=True))
    more: dict = {"seen": seen, "disease_calls": None, "grad_cam": GRAD_CAM, "outside": outside or {}}
    return compose_audit(rows, facts=facts, patients=patients, **more)


def accuracy(value: float) -> dict:
    return {"val_accuracy": {"value": value, "low": None, "high": None}}


def test_the_conclusion_says_no_more_than_the_figures() -> None:
    said = " ".join(make_audit(whole=0.9, border=0.6)["conclusion"])
    assert "the border alone gives 0.600 [0.550, 0.650] where the whole image gives 0.900: 50% of its lead" in said
    assert "not told from the 0.550 of an aimless map" in said
    said = " ".join(make_audit(whole=0.9, border=0.34)["conclusion"])
    assert "the border alone gives 0.340 [0.290, 0.390], which is not told from chance" in said
    said = " ".join(make_audit(whole=0.9, border=0.95)["conclusion"])
    assert "no less than the whole image" in said
    assert "lead" not in said
    said = " ".join(make_audit(whole=0.32, border=0.31)["conclusion"])
    assert "It is not told from chance, so nothing here says what it learned" in said
    assert "lead" not in said


def test_small_sources_are_listed_together() -> None:
    sources = {
        "a.org": {"images": 2, "labels": {"covid19": 2}, "scores": accuracy(0.5)},
        "hospital": {"images": 10, "labels": {"normal": 10}, "scores": accuracy(0.9)},
        "b.org": {"images": 3, "labels": {"covid19": 3}, "scores": accuracy(1.0)},
    }
    lines = as_markdown(make_audit(whole=0.9, border=0.6, sources=sources)).split("\n")
    start = lines.index("## By source") + 4
    assert lines[start : start + 3] == [
        "| hospital | 10 / 0 / 0 | 0.900 |",
        "| 2 with fewer than 5 | 0 / 0 / 5 | 0.800 |",
        "",
    ]


def test_every_row_but_chance_is_a_bar_that_the_line_of_chance_crosses() -> None:
    axes = draw(make_audit(whole=0.9, border=0.6)).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.6, 0.6]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "the whole image: audited",
        "the border alone: trained anew",
        "the file's aspect ratio alone: decision tree",
    ]
    assert [0.3, 0.3] in [list(line.get_xdata()) for line in axes.lines]


def test_a_row_whose_model_saw_test_images_is_marked_in_table_picture_and_conclusion() -> None:
    seen = SEEN | {"audited": {"test": NONE | {"trained_on": 4, "validated_on": 1, "same_patient": 2}}}
    audit = make_audit(whole=0.9, border=0.6, seen=seen)
    lines = as_markdown(audit).split("\n")
    assert [line for line in lines if "trained on)" in line and line.startswith("|")] == [
        "| the whole image | audited (4 of 9 trained on) | 0.900 [0.850, 0.950] | 0.900 [0.850, 0.950] |",
        "| the whole image | audited (4 of 9 trained on) | 0.900 [0.439, 1.000] | 0.900 [0.342, 1.000] "
        "| 0.900 [0.699, 0.972] |",
    ]
    said = " ".join(audit["conclusion"])
    assert said in lines
    assert "trained on 4 of the 9 test images: their values here are not those of new images" in said
    assert "Of the test images 1 chose their checkpoint. Of the test images 2 are of patients" in said
    labels = [label.get_text() for label in draw(audit).axes[0].get_yticklabels()]
    assert labels[0] == "the whole image: audited (4 of 9 trained on)"

    audit = make_audit(whole=0.9, border=0.6, seen=SEEN | {"list": NONE | {"trained_on": 3}})
    table = as_markdown(audit)
    assert "| audited |" in table
    assert "| trained anew (3 of 9 trained on) |" in table
    assert "| nothing | always the commonest class |" in table
    assert "The datalist has 3 of its 9 test images in training too" in table


def test_what_the_weights_were_trained_on_may_be_unknown_and_that_is_said() -> None:
    unknown = {"known": False, "basis": "they have no card", "audited": None, "list": NONE}
    text = as_markdown(make_audit(whole=0.9, border=0.6, seen=unknown))
    assert "| audited (training images unknown) |" in text
    assert "were trained on test images cannot be known: they have no card. If they were, their values say" in text


def test_a_recall_has_wilsons_interval_over_the_patients_of_its_class() -> None:
    audit = make_audit(whole=0.9, border=0.6, half=0.01)
    assert audit["results"][0]["recall"]["covid19"] == {"value": 0.9, "low": 0.699, "high": 0.9721}
    assert audit["results"][0]["recall"]["bacterial"]["low"] < 0.5
    assert "Wilson's, with n the 3 / 2 / 20 patients of normal / bacterial / covid19." in as_markdown(audit)


def test_the_audit_ends_with_what_it_did_not_measure() -> None:
    unknown = {"known": False, "basis": "they have no card", "audited": None, "list": NONE}
    text = as_markdown(make_audit(whole=0.9, border=0.6, seen=unknown, entries=("image", "label", "sex")))
    gaps = text.partition("## What was not measured")[2]
    for gap in (
        "- whether the weights were trained on test images: they have no card",
        "- what all but the lung fields, the lung fields alone gives away, for nothing was trained anew on it",
        "- the accuracy by source, for the datalist names none",
        "for the datalist has no split same_source",
        "- images from elsewhere, for no set was given by --outside",
        "- differences by device, age, of which the datalist says nothing",
        "- differences by sex, which the datalist tells and no audit reads yet",
    ):
        assert gap in gaps
    assert "groups" not in gaps
    audit = make_audit(whole=0.9, border=0.6, sources={"a": {"images": 9, "labels": {}, "scores": accuracy(1.0)}})
    assert not [gap for gap in audit["not_measured"] if "source, for" in gap or "trained on" in gap]
