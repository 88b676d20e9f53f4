from pathlib import Path

import numpy as np
import pytest

from clinbundles.transforms.gaze.readers import read_fixations

STUDIO = Path(__file__).parents[3].parent / "shared" / "data" / "gaze" / "tobii_studio_345"
SCREEN = {"screen_size_mm": (480, 270), "viewing_distance_mm": 600}
RECT = (480, 270, 960, 540)
SHOWN = [("first.png", 0.3, 0.3, 60), ("first.png", 0.7, 0.6, 90), ("", 0.5, 0.5, 30), ("second.png", 0.5, 0.25, 60)]
EXPECTED = {"first.png": [[0.3, 0.3, 500], [0.7, 0.6, 750]], "second.png": [[0.5, 0.25, 500]]}

# What a Pro Lab header calls a column, in three spellings: bare, brackets of old versions, units of new ones.
BARE = {
    "time": "Recording timestamp", "px": "Gaze point {eye}{axis}", "norm": "Gaze point {eye}{axis} (MCSnorm)",
    "eye_z": "Eye position {eye}Z", "place": "Presented Media position {axis}", "size": "Presented Media {side}",
    "name": "Presented Media name", "duration": "Gaze event duration", "fixation": "Fixation point {axis}",
}  # fmt: skip
BRACKETS = BARE | {
    "eye_z": "Eye position {eye}Z (DACSmm)", "place": "Presented Media position {axis} (DACSpx)",
    "fixation": "Fixation point {axis} (MCSnorm)",
}  # fmt: skip
UNITS = BARE | {
    "time": "Recording timestamp [\u03bcs]", "px": "Gaze point {eye}{axis} [DACS px]",
    "norm": "Gaze point {eye}{axis} [MCS norm]", "mcs": "Gaze point {eye}{axis} [MCS px]",
    "mm": "Gaze point {eye}{axis} [DACS mm]", "eye_z": "Eye position {eye}Z [DACS mm]",
    "place": "Presented Media position {axis} [DACS px]", "size": "Presented Media {side} [px]",
    "name": "Presented Stimulus name", "duration": "Eye movement event duration [ms]",
    "fixation": "Fixation point {axis} [MCS px]",
}  # fmt: skip


def columns(spelling, gaze, eyes=("left ", "right "), rect=True):
    """Names of the columns, each with a function of a sample's image name, fractions on the image, time and number."""
    x0, y0, width, height = RECT
    places = {
        "px": (lambda x: x0 + x * width, lambda y: y0 + y * height),
        "mm": (lambda x: (x0 + x * width) / 4, lambda y: (y0 + y * height) / 4),
        "norm": (lambda x: x, lambda y: y),
        "mcs": (lambda x: 400 * x, lambda y: 300 * y),
    }
    table = {"Sensor": lambda s: "Eye Tracker", "Participant name": lambda s: "P07"}
    table[spelling["name"]] = lambda s: s[0]
    table["Recording resolution width"], table["Recording resolution height"] = (lambda s: 1920), (lambda s: 1080)
    for kind in gaze:
        for eye in eyes:
            for at, axis in enumerate("XY"):
                table[spelling[kind].format(eye=eye, axis=axis)] = lambda s, k=kind, a=at: (
                    places[k][a](s[1 + a]) if s[0] or k in ("px", "mm") else ""
                )
    for eye in ("left ", "right "):
        table[spelling["eye_z"].format(eye=eye)] = lambda s: 600.5
        table[f"Validity {eye.strip()}"] = lambda s: "Valid"
    if rect:
        for at, axis in enumerate("XY"):
            table[spelling["place"].format(axis=axis)] = lambda s, a=at: RECT[a] if s[0] else ""
        for at, side in enumerate(("width", "height")):
            table[spelling["size"].format(side=side)] = lambda s, a=at: RECT[2 + a] if s[0] else ""
            table[f"Original Media {side}"] = lambda s, a=at: (400, 300)[a] if s[0] else ""
    return table


def write(path, table, time, *, microseconds=False, comma=False, events=True):
    step = 8333 if microseconds else 8.333
    samples = [
        (name, x, y, number) for number, (name, x, y) in enumerate((n, x, y) for n, x, y, c in SHOWN for _ in range(c))
    ]
    lines = ["\t".join([time, *table])]
    for sample in samples:
        now = round(sample[3] * step) if microseconds else round(sample[3] * step, 3)
        fields = [str(value) for value in (now, *(of(sample) for of in table.values()))]
        lines.append(
            "\t".join(field.replace(".", ",") if comma and field[0:1].isdigit() else field for field in fields)
        )
        if events and sample[3] % 40 == 0:
            # A mouse has rows of its own, with a time and without gaze.
            lines.append("\t".join([fields[0], *("Mouse" if name == "Sensor" else "" for name in table)]))
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    return path


def check(fixations):
    assert list(fixations) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(fixations[name][:, :2], np.array(expected)[:, :2], atol=2e-3)
        np.testing.assert_allclose(fixations[name][:, 2], np.array(expected)[:, 2], atol=20)


@pytest.mark.parametrize("comma", [False, True])
@pytest.mark.parametrize("microseconds", [False, True])
@pytest.mark.parametrize("spelling", [BARE, BRACKETS, UNITS], ids=["bare", "brackets", "units"])
def test_every_spelling_of_a_pro_lab_header_gives_the_same_fixations(tmp_path, spelling, microseconds, comma):
    time = spelling["time"] if microseconds else spelling["time"].replace("\u03bc", "m")
    path = write(tmp_path / "a.tsv", columns(spelling, ["px"]), time, microseconds=microseconds, comma=comma)
    check(read_fixations(path, screen_size_mm=(480, 270)))


@pytest.mark.parametrize("eyes", [("left ", "right "), ("",)], ids=["each eye", "the mean"])
@pytest.mark.parametrize("gaze", ["mm", "norm", "mcs"])
def test_gaze_in_millimetres_or_on_the_media_is_as_good_as_in_pixels(tmp_path, gaze, eyes):
    path = write(tmp_path / "a.tsv", columns(UNITS, [gaze], eyes), UNITS["time"], microseconds=True)
    check(read_fixations(path, **SCREEN))


def test_without_a_place_on_the_display_the_normalised_gaze_tells_it(tmp_path):
    path = write(tmp_path / "a.tsv", columns(UNITS, ["px", "norm"], rect=False), UNITS["time"], microseconds=True)
    # One stay of the second image is a point: no line goes through it alone.
    with pytest.raises(ValueError, match="image_rect_px"):
        read_fixations(path, **SCREEN)
    moving = columns(UNITS, ["px", "norm"], rect=False)
    moving = {
        name: (lambda s, of=of: of((s[0], s[1] + s[3] * 1e-6, s[2] + s[3] * 1e-6, s[3]))) for name, of in moving.items()
    }
    check(read_fixations(write(tmp_path / "b.tsv", moving, UNITS["time"], microseconds=True), **SCREEN))


def test_pixels_beside_millimetres_tell_the_size_of_the_display(tmp_path):
    path = write(tmp_path / "a.tsv", columns(UNITS, ["px", "mm"]), UNITS["time"], microseconds=True)
    check(read_fixations(path))


def test_the_size_of_the_display_is_asked_for_where_the_file_does_not_tell_it(tmp_path):
    path = write(tmp_path / "a.tsv", columns(BARE, ["px"]), BARE["time"])
    with pytest.raises(ValueError, match=r"a.tsv: the file does not tell screen_size_mm"):
        read_fixations(path)


@pytest.mark.parametrize("spelling", [BARE, BRACKETS, UNITS], ids=["bare", "brackets", "units"])
def test_exported_fixations_are_taken_as_they_are(tmp_path, spelling):
    kind = {"(MCSnorm)": (1, 1), "[MCS px]": (400, 300)}
    scale = next((factor for unit, factor in kind.items() if unit in spelling["fixation"]), None)
    table = columns(spelling, ["px"])
    for at, axis in enumerate("XY"):
        table[spelling["fixation"].format(axis=axis)] = lambda s, a=at: (
            s[1 + a] * scale[a] if scale else RECT[a] + s[1 + a] * RECT[2 + a]
        )
    table["Eye movement type"] = lambda s: "Fixation"
    table["Eye movement type index"] = lambda s: int(np.searchsorted([60, 150, 180], s[3], side="right"))
    table[spelling["duration"]] = lambda s: 321
    fixations = read_fixations(write(tmp_path / "a.tsv", table, "Recording timestamp"), use_exported_fixations=True)
    np.testing.assert_allclose(fixations["first.png"], [[0.3, 0.3, 321], [0.7, 0.6, 321]])
    np.testing.assert_allclose(fixations["second.png"], [[0.5, 0.25, 321]])


def test_two_participants_in_one_file_are_refused_without_their_names(tmp_path):
    table = columns(BARE, ["px"])
    table["Participant name"] = lambda s: "Jane Doe" if s[3] < 100 else "John Roe"
    with pytest.raises(ValueError, match="column 'Participant name' has 2 different values") as caught:
        read_fixations(write(tmp_path / "a.tsv", table, BARE["time"]), **SCREEN)
    assert "Doe" not in str(caught.value)
    assert "Roe" not in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "expected"), [("P1", ["first.png"]), ("P2", ["second.png"]), ("R2", ["second.png"])]
)
def test_one_of_several_participants_or_recordings_can_be_chosen(tmp_path, chosen, expected):
    table = columns(BARE, ["px"])
    table["Participant name"] = lambda s: "P1" if s[3] < 160 else "P2"
    table["Recording name"] = lambda s: "R1" if s[3] < 160 else "R2"
    path = write(tmp_path / "a.tsv", table, BARE["time"], events=False)
    fixations = read_fixations(path, participant=chosen, **SCREEN)
    assert list(fixations) == expected
    for name in expected:
        np.testing.assert_allclose(fixations[name][:, :2], np.array(EXPECTED[name])[:, :2], atol=2e-3)
    with pytest.raises(ValueError, match="no column 'Participant name' or 'Recording name' has the --participant P9"):
        read_fixations(path, participant="P9", **SCREEN)


@pytest.mark.parametrize("exported", [False, True])
def test_a_screen_that_is_no_image_needs_no_place_on_the_display(tmp_path, exported):
    table = columns(BARE, ["px"])
    for title in ("Presented Media position X", "Presented Media width"):
        of = table[title]
        table[title] = lambda s, of=of: "" if s[0] == "first.png" else of(s)
    table["Eye movement type"] = lambda s: "Fixation"
    table["Eye movement type index"] = lambda s: int(np.searchsorted([60, 150, 180], s[3], side="right"))
    table["Gaze event duration"] = lambda s: 500
    for at, axis in enumerate("XY"):
        table[f"Fixation point {axis}"] = lambda s, a=at: RECT[a] + s[1 + a] * RECT[2 + a]
    path = write(tmp_path / "a.tsv", table, BARE["time"])
    said = []
    settings = {"use_exported_fixations": exported, "report": said.append, **SCREEN}
    fixations = read_fixations(path, images={"second.png"}, **settings)
    assert list(fixations) == ["second.png"]
    np.testing.assert_allclose(fixations["second.png"][:, :2], [[0.5, 0.25]], atol=2e-3)
    assert said == ["gaze on 1 other screen (first.png) was left out."]
    if not exported:
        with pytest.raises(ValueError, match=r"position nan, 270 .* give --image_rect_px"):
            read_fixations(path, images={"first.png"}, **settings)


def test_an_exported_fixation_without_duration_is_dropped_and_counted(tmp_path):
    table = columns(BARE, ["px"])
    table["Eye movement type"] = lambda s: "Fixation"
    table["Eye movement type index"] = lambda s: int(np.searchsorted([60, 150, 180], s[3], side="right"))
    table["Gaze event duration"] = lambda s: "" if s[3] < 60 else 321
    for at, axis in enumerate("XY"):
        table[f"Fixation point {axis}"] = lambda s, a=at: RECT[a] + s[1 + a] * RECT[2 + a]
    said = []
    path = write(tmp_path / "a.tsv", table, BARE["time"])
    fixations = read_fixations(path, use_exported_fixations=True, report=said.append)
    np.testing.assert_allclose(fixations["first.png"], [[0.7, 0.6, 321]])
    assert said == ["1 of 3 fixations have no duration and were dropped."]


def test_an_image_name_beside_those_of_the_file_is_refused(tmp_path):
    path = write(tmp_path / "a.tsv", columns(BARE, ["px"]), BARE["time"])
    with pytest.raises(ValueError, match="image_name is given, but column 'Presented Media name' names the images"):
        read_fixations(path, image_name="other.png", **SCREEN)


def test_an_export_without_stimulus_needs_the_name_and_the_place_of_the_image(tmp_path):
    table = columns(BARE, ["px"], rect=False)
    del table[BARE["name"]]
    path = write(tmp_path / "a.tsv", table, BARE["time"])
    with pytest.raises(ValueError, match="image_name"):
        read_fixations(path, **SCREEN)
    fixations = read_fixations(path, image_name="only.png", image_rect_px=RECT, **SCREEN)
    assert len(fixations["only.png"]) == 4


def test_a_unit_that_no_export_has_is_named(tmp_path):
    spelling = BARE | {"px": "Gaze point {eye}{axis} [furlong]"}
    path = write(tmp_path / "a.tsv", columns(spelling, ["px"]), BARE["time"])
    with pytest.raises(ValueError, match=r"a.tsv: column 'Gaze point left X \[furlong\]' has the unit 'furlong'"):
        read_fixations(path, **SCREEN)


def test_a_file_of_another_sensor_is_refused(tmp_path):
    table = columns(BARE, ["px"]) | {"Sensor": lambda s: "Mouse"}
    with pytest.raises(ValueError, match="column 'Sensor' has no row 'Eye Tracker'"):
        read_fixations(write(tmp_path / "a.tsv", table, BARE["time"], events=False), **SCREEN)


@pytest.fixture
def studio_file():
    files = sorted(STUDIO.glob("*.tsv"))
    if not files:
        pytest.skip(f"{STUDIO} is not there")
    return files[0]


def test_the_real_studio_export_has_the_fixations_that_its_rows_list(studio_file):
    (fixations,) = read_fixations(studio_file, use_exported_fixations=True).values()
    # 43 fixations began while the page was shown, nine of them off it; the first is at 1177, 258 of 1864 x 937.
    assert len(fixations) == 34
    np.testing.assert_allclose(fixations[0], [1177 / 1864, 258 / 937, 167])


def test_own_fixations_of_the_real_studio_export_agree_with_tobiis(studio_file):
    (theirs,) = read_fixations(studio_file, use_exported_fixations=True).values()
    (ours,) = read_fixations(studio_file, filter_settings={"median_samples": 3}).values()
    assert abs(len(ours) - len(theirs)) <= 0.1 * len(theirs)
    size_px = np.array([1864, 937])
    distance_px = np.linalg.norm((theirs[:, None, :2] - ours[None, :, :2]) * size_px, axis=-1)
    nearest = distance_px.argmin(axis=1)
    # A degree is about 36 pixels here. Tobii's noise filter is not known, so single fixations may be split elsewhere.
    assert np.median(distance_px.min(axis=1)) < 9
    assert np.mean(distance_px.min(axis=1) < 18) > 0.75
    assert np.median(ours[nearest, 2] / theirs[:, 2]) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(ours[:, :2].mean(axis=0), theirs[:, :2].mean(axis=0), atol=0.03)


def test_millimetres_of_the_real_studio_export_lead_to_the_same_fixations(studio_file, tmp_path):
    text = studio_file.read_text(encoding="utf-8-sig")
    for eye in ("Left", "Right", ""):
        for axis in "XY":
            text = text.replace(f"GazePoint{eye}{axis} (ADCSpx)", f"Hidden{eye}{axis} (ADCSpx)", 1)
    (tmp_path / "mm.tsv").write_text(text, encoding="utf-8")
    display = {"screen_size_mm": (1920 * 0.26724, 1080 * 0.32691), "filter_settings": {"median_samples": 3}}
    (by_mm,) = read_fixations(tmp_path / "mm.tsv", **display).values()
    (by_px,) = read_fixations(studio_file, **display).values()
    # Pixels are rounded in the file, millimetres to hundredths: a sample may fall on the other side of the threshold.
    assert abs(len(by_mm) - len(by_px)) <= 2
    np.testing.assert_allclose(by_mm[:, :2].mean(axis=0), by_px[:, :2].mean(axis=0), atol=0.01)
