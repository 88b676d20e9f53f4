from clinbundles.engines.outputs.per_image import number_patients


def test_patients_are_numbered_as_they_appear_and_stay_unknown_where_they_are() -> None:
    assert number_patients(["Smith", None, "Jones", "Smith"]) == [0, "", 1, 0]
    assert number_patients([]) == []
