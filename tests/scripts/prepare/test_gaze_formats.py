"""A small file of each format of gaze, as its software writes it, from the command to the map of attention."""

import numpy as np
import pytest

from clinbundles.transforms.gaze.attention_map import GazeToAttentionMap

# Where the observer looked, in fractions of each image: for 60 samples, then for 90.
LOOKS = {"i0": [(0.24, 0.3), (0.74, 0.6)], "i1": [(0.6, 0.8), (0.2, 0.5)]}
COUNTS = (60, 90)
STEP_MS = 1000 / 120
SHOWN = ["", "Instructions", "I0.JPG", "i1", "Übersicht.png"]
PLACE = ["--image_rect_px", "460,165,1000,750"]
SIZES = ["--screen_size_px", "1920,1080", "--screen_size_mm", "531,299"]
DISTANCE = ["--viewing_distance_mm", "600"]


def stays(shown):
    """What was shown, the gaze in pixels of the screen, and the number of samples, of each stay."""
    for name in shown:
        places = LOOKS.get(name.lower().partition(".")[0], [(0.1, 0.1), (0.9, 0.9)])
        for (x, y), count in zip(places, COUNTS, strict=True):
            yield name, 460 + x * 1000, 165 + y * 750, count


def samples(row, shown=SHOWN):
    places = [(name, x, y) for name, x, y, count in stays(shown) for _ in range(count)]
    return [row(k, *place) for k, place in enumerate(places)]


def fixations(row, shown=SHOWN):
    return [row(name, x, y, count * STEP_MS) for name, x, y, count in stays(shown)]


def write(path, rows, *, delimiter=",", encoding="utf-8", comma=False):
    header = list(dict.fromkeys(key for row in rows for key in row))
    lines = [delimiter.join(header)]
    for row in rows:
        fields = [
            f"{v:.4f}".replace(".", "," if comma else ".") if isinstance(v, float) else str(v) for v in row.values()
        ]
        fields = dict(zip(row, fields, strict=True))
        lines.append(delimiter.join(fields.get(title, "") for title in header))
    path.write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return path


def pro_lab(path, *, millimetres=False, **spelling):
    """Two participants, rows of the mouse among those of the tracker, screens without a picture."""

    def row(k, name, x, y, who="P1"):
        lengths = {"Gaze point X [DACS mm]": x * 531 / 1920, "Gaze point Y [DACS mm]": y * 299 / 1080}
        lengths["Eye position left Z [DACS mm]"] = 600.0
        shown = {"Presented Media width [px]": 1000, "Presented Media height [px]": 750}
        shown |= {"Presented Media position X [DACS px]": 460, "Presented Media position Y [DACS px]": 165}
        shown |= {"Original Media width [px]": 40, "Original Media height [px]": 30}
        return {
            "Recording timestamp [μs]": round(k * STEP_MS * 1000), "Sensor": "Eye Tracker", "Participant name": who,
            "Recording resolution width": 1920, "Recording resolution height": 1080,
            "Gaze point X [DACS px]": x, "Gaze point Y [DACS px]": y, **(lengths if millimetres else {}),
            "Validity left": "Valid", "Validity right": "Invalid", "Eye movement type": "Fixation",
            "Eye movement type index": sum(np.cumsum(COUNTS * len(SHOWN)) <= k) + 1,
            "Eye movement event duration [ms]": round(COUNTS[k % 150 >= 60] * STEP_MS),
            "Fixation point X [MCS px]": (x - 460) / 25, "Fixation point Y [MCS px]": (y - 165) / 25,
            "Presented Stimulus name": name, **(shown if name else {}),
        }  # fmt: skip

    rows = samples(row)
    rows[20:20] = [{**rows[20], "Sensor": "Mouse", "Gaze point X [DACS px]": "", "Validity left": ""}]
    others = samples(lambda *place: row(*place, who="P2"), ["i5"])
    return write(path, [*rows, *others], delimiter="\t", **spelling)


def studio(path):
    def row(k, name, x, y):
        shown = {"MediaPosX (ADCSpx)": 460, "MediaPosY (ADCSpx)": 165, "MediaWidth": 1000, "MediaHeight": 750}
        return {
            "ParticipantName": "P1", "RecordingName": "Rec 01", "RecordingResolution": "1920 x 1080", "MediaName": name,
            **(shown if name else {}), "RecordingTimestamp": round(k * STEP_MS),
            "GazePointLeftX (ADCSpx)": x, "GazePointLeftY (ADCSpx)": y, "GazePointRightX (ADCSpx)": "",
            "GazePointRightY (ADCSpx)": "", "DistanceLeft": 600.0, "ValidityLeft": 0, "ValidityRight": 4,
            "GazePointLeftX (ADCSmm)": x * 531 / 1920, "GazePointLeftY (ADCSmm)": (1080 - y) * 299 / 1080,
        }  # fmt: skip

    return write(path, samples(row), delimiter="\t", encoding="utf-16", comma=True)


def sdk_row(k, _, x, y):
    eyes = {}
    for eye, valid in (("left", 1), ("right", 0)):
        eyes |= {f"{eye}_gaze_point_on_display_area_x": x / 1920 if valid else "nan"}
        eyes |= {f"{eye}_gaze_point_on_display_area_y": y / 1080 if valid else "nan"}
        eyes |= {f"{eye}_gaze_point_validity": valid, f"{eye}_gaze_origin_in_user_coordinate_system_z": 600.0}
    stamp = 5_000_000_000 + round(k * STEP_MS * 1000)
    return {"device_time_stamp": stamp - 77_000, "system_time_stamp": stamp, **eyes}


def titta(path):
    """The tables gaze and msg one below the other, as pandas writes them, with its unnamed index."""
    rows = [{"": k, **row} for k, row in enumerate(samples(sdk_row))]
    for k, name in enumerate(SHOWN):
        for word, at in (("onset", 150 * k), ("offset", 150 * k + 149)):
            stamp = rows[at]["system_time_stamp"]
            rows.append({"": 2 * k, "system_time_stamp": stamp - (word == "onset"), "msg": f"{word}_{name or 'fix'}"})
    return write(path, rows)


def one_image_each(folder, row, **spelling):
    """Files i0 and i1 of one image each, which name none."""
    for name in LOOKS:
        write(folder / f"{name}.tsv", samples(row, [name]), **spelling)
    return folder / "i?.tsv"


def tx300_row(k, _, x, y):
    eyes = {}
    for eye, lost in (("L", k % 9 == 0), ("R", False)):
        eyes |= {f"{eye}EyePos3dz": 0 if lost else 600.0, f"{eye}Validity": 4 if lost else 0}
        eyes |= {f"{eye}GazePos2dx": -1 if lost else x / 1920, f"{eye}GazePos2dy": -1 if lost else y / 1080}
    return {"Time": 2_619_771_723 + round(k * STEP_MS * 1000), **eyes, "RelTimestamp": k * STEP_MS}


def pytrack_row(k, _, x, y):
    eyes = {}
    for eye in ("Left", "Right"):
        eyes |= {f"Gaze2d_{eye}.x": x / 1920, f"Gaze2d_{eye}.y": y / 1080, f"Validity_{eye}": 0}
        eyes |= {f"EyePos3d_{eye}.z": 600.0}
    return {"Recording timestamp": round(k * STEP_MS * 1000), **eyes}


def gazemedseg(path):
    def row(name, x, y, ms):
        on_image = {"CURRENT_FIX_X": (x - 460) / 1000, "CURRENT_FIX_Y": (y - 165) / 750}
        return {"IMAGE": name, **on_image, "CURRENT_FIX_DURATION": round(ms), "IMAGE_HEIGHT": 30, "IMAGE_WIDTH": 40}

    return write(path, fixations(row), encoding="utf-8-sig")


def eyelink(path):
    def row(name, x, y, ms):
        place = {"CURRENT_FIX_X": x, "CURRENT_FIX_Y": y, "CURRENT_FIX_DURATION": round(ms)}
        return {"RECORDING_SESSION_LABEL": "s1", "image": name or "UNDEFINEDnull", **place}

    rows = fixations(row)
    rows += [{**rows[4], "CURRENT_FIX_X": "."}, {**rows[4], "RECORDING_SESSION_LABEL": "s2"}]
    return write(path, rows, delimiter="\t", comma=True)


def csv_samples(path):
    rows = samples(lambda k, name, x, y: {"T": k * STEP_MS / 1000, "X": x, "Y": y, "Bild": name})
    return write(path, rows, delimiter=";", encoding="cp1252", comma=True)


def csv_fixations(path):
    rows = fixations(lambda name, x, y, ms: {"Who": "a", "Bild": f"C:\\img\\{name}", "X": x, "Y": y, "D": ms / 1000})
    return write(path, [*rows, {**rows[4], "Who": "b"}], delimiter=";", encoding="utf-16-le", comma=True)


STEM, SECONDS = ["--image_name", "{stem}"], ["--time_unit", "s"]
COLUMNS = ["--gaze_columns", "x=X,y=Y,time=T,image=Bild"]
FORMATS = {
    "pro_lab": (lambda p: pro_lab(p / "g.tsv", millimetres=True, encoding="utf-8-sig"), ["--participant", "P1"]),
    "pro_lab_comma": (
        lambda p: pro_lab(p / "g.tsv", comma=True, encoding="utf-16"), ["--participant", "P1", *SIZES[2:], *DISTANCE],
    ),
    "pro_lab_fixations": (lambda p: pro_lab(p / "g.tsv"), ["--participant", "P1", "--use_exported_fixations"]),
    "studio": (lambda p: studio(p / "g.tsv"), []),
    "sdk": (lambda p: one_image_each(p, sdk_row), [*STEM, *PLACE, *SIZES]),
    "titta": (lambda p: titta(p / "g.csv"), [*PLACE, *SIZES]),
    "tx300": (lambda p: one_image_each(p, tx300_row, delimiter="\t"), [*STEM, *PLACE, *SIZES]),
    "pytrack": (lambda p: one_image_each(p, pytrack_row), [*STEM, *PLACE, *SIZES]),
    "gazemedseg": (lambda p: gazemedseg(p / "g.csv"), []),
    "eyelink": (lambda p: eyelink(p / "g.txt"), [*PLACE, "--participant", "s1"]),
    "csv_samples": (lambda p: csv_samples(p / "g.csv"), [*COLUMNS, *PLACE, *SIZES, *DISTANCE]),
    "csv_fixations": (
        lambda p: csv_fixations(p / "g.csv"),
        ["--gaze_columns", "x=X,y=Y,duration=D,image=Bild,participant=Who", "--participant", "a", *PLACE, *SECONDS],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_format_becomes_a_map_that_is_bright_where_the_observer_looked(add, tmp_path, capsys, name):
    writer, flags = FORMATS[name]
    gaze = add(writer(tmp_path), *flags)
    assert isinstance(gaze, dict), gaze
    assert sorted(gaze) == ["i0.jpg", "i1.jpg"]
    if "{stem}" not in flags:
        assert "other screen" in capsys.readouterr().out
    for image, (rows,) in gaze.items():
        first, second = places = LOOKS[image.partition(".")[0]]
        np.testing.assert_allclose(np.array(rows)[:, :2], places, atol=2e-3)
        np.testing.assert_allclose(np.array(rows)[:, 2], np.array(COUNTS) * STEP_MS, atol=35)
        (attention,) = GazeToAttentionMap(sigma_px=8)([rows], (300, 400)).numpy()
        peak = np.unravel_index(attention.argmax(), attention.shape)
        np.testing.assert_allclose(np.array(peak)[::-1] + 0.5, np.multiply(second, (400, 300)), atol=1)
        assert attention[int(first[1] * 300), int(first[0] * 400)] == pytest.approx(60 / 90, abs=0.05)
        assert attention[0, 0] < 0.01
