import numpy as np
import pytest

from clinbundles.transforms.gaze.tables import Column, open_table, read_time_ms, read_validity


def table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "gaze.txt"
    path.write_bytes(text.encode(encoding))
    opened = open_table(path)
    opened.load(opened.stems)
    return opened


@pytest.mark.parametrize(
    ("name", "stem", "unit"),
    [
        ("Gaze point X", "gazepointx", ""),
        ("GazePointX (ADCSpx)", "gazepointx", "adcspx"),
        ("Gaze point X (MCSnorm)", "gazepointx", "mcsnorm"),
        ("Gaze point X [MCS norm]", "gazepointx", "mcsnorm"),
        ("Recording timestamp [\u03bcs]", "recordingtimestamp", "us"),
        ("Recording timestamp [\u00b5s]", "recordingtimestamp", "us"),
        ("CURRENT_FIX_X", "current_fix_x", ""),
    ],
)
def test_a_header_is_a_stem_and_a_unit(name, stem, unit):
    assert Column.parse(name) == Column(name, stem, unit)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
def test_delimiter_and_encoding_are_found(tmp_path, encoding, delimiter):
    opened = table(tmp_path, f"a{delimiter}b [\u03bcs]\r\n1.5{delimiter}2\r\n{delimiter}-4e1\r\n", encoding)
    np.testing.assert_array_equal(opened.numbers(opened.need("a")), [1.5, np.nan])
    np.testing.assert_array_equal(opened.numbers(opened.need("b", units=("us",))), [2, -40])


def test_a_western_code_page_is_taken_where_the_text_is_no_utf_8(tmp_path):
    opened = table(tmp_path, "time [\u00b5s]\tname\n" + "1\tpolyp\n" * 5000 + "2\tK\u00f6ln.png\n", "cp1252")
    assert opened.need("time", units=("us",)).unit == "us"
    assert opened.text(opened.need("name"))[-1] == "K\u00f6ln.png"


def test_a_mark_for_a_missing_name_is_no_name(tmp_path):
    opened = table(tmp_path, "a\tname\n1\t.\n2\tUNDEFINED\n3\tx.png\n")
    assert list(opened.names(opened.need("name"))) == ["", "", "x.png"]


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_a_decimal_comma_is_a_point(tmp_path, delimiter):
    opened = table(tmp_path, f"a{delimiter}b\n1,25{delimiter}3\n-0,5{delimiter}4\n")
    np.testing.assert_array_equal(opened.numbers(opened.need("a")), [1.25, -0.5])


def test_a_column_with_points_and_commas_is_refused(tmp_path):
    opened = table(tmp_path, "a\tb\n1,25\t3\n1.25\t4\n")
    with pytest.raises(ValueError, match=r"gaze.txt: column 'a' has both decimal points and commas, such as '1,25'"):
        opened.numbers(opened.need("a"))


@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
def test_commas_that_may_part_thousands_are_refused(tmp_path, delimiter):
    rows = [f'"{value}"{delimiter}1\n' for value in ("1,210", "980", "", "-1,060")]
    opened = table(tmp_path, f"a{delimiter}b\n" + "".join(rows))
    with pytest.raises(ValueError, match=r"gaze.txt: column 'a' has '1,210' beside '980', .* thousands") as refusal:
        opened.numbers(opened.need("a"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (("1,210", "980", "1,06"), [1.21, 980, 1.06]),
        (("0,125", "1,250", "3"), [0.125, 1.25, 3]),
        (("1,210", "2,060", "3,000"), [1.21, 2.06, 3]),
        (("1,210", "1210,500", "3"), [1.21, 1210.5, 3]),
    ],
)
def test_three_digits_behind_a_decimal_comma_are_read_where_they_can_be_no_thousands(tmp_path, text, values):
    opened = table(tmp_path, "a\tb\n" + "".join(f"{value}\t1\n" for value in text))
    np.testing.assert_array_equal(opened.numbers(opened.need("a")), values)


def test_a_decimal_comma_in_a_comma_separated_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gaze.txt: row 1 has more fields than the header"):
        table(tmp_path, "a,b\n1,25,3\n1,5,4\n")


def test_a_later_row_with_too_many_fields_is_refused_with_its_file(tmp_path):
    with pytest.raises(ValueError, match=r"gaze.txt: row 2 has more fields than the header"):
        table(tmp_path, "a,b\n1,3\n1,5,4\n")


def test_a_delimiter_at_the_end_of_each_row_does_no_harm(tmp_path):
    opened = table(tmp_path, "a\tb\n1\t2\t\n3\t4\t\n")
    np.testing.assert_array_equal(opened.numbers(opened.need("a")), [1, 3])


def test_a_quotation_mark_in_a_tab_separated_file_swallows_no_line(tmp_path):
    opened = table(tmp_path, 'a\tnote\n1\t"oops\n2\tfine\n3\t"\n')
    np.testing.assert_array_equal(opened.numbers(opened.need("a")), [1, 2, 3])


def test_a_table_between_comment_lines_ends_at_the_next_one(tmp_path):
    opened = table(tmp_path, "# made,today\n\n# samples\na,b\n1,2\n3,4\n\n# summary\nc,d,e\n5,6,7\n")
    np.testing.assert_array_equal(opened.numbers(opened.need("b")), [2, 4])


def test_text_among_numbers_is_named(tmp_path):
    opened = table(tmp_path, "a\tb\n1\t2\nlost\t4\n")
    with pytest.raises(ValueError, match=r"gaze.txt: column 'a' has 'lost', expected a number"):
        opened.numbers(opened.need("a"))


def test_a_unit_that_is_not_known_is_named(tmp_path):
    opened = table(tmp_path, "Gaze point X [furlong]\tb\n1\t2\n")
    with pytest.raises(
        ValueError, match=r"column 'Gaze point X \[furlong\]' has the unit 'furlong', expected one of 'px'"
    ):
        opened.need("gazepointx", units=("px",))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "file is empty"), ("\n\n", "file is empty"), ("a,b\n", "no rows"), ("a,a\n1,2\n", "'a' more than once")],
)
def test_a_file_without_data_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"gaze.txt: .*{message}"):
        table(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "gaze.bin"
    path.write_bytes(b"\x01\x02\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"gaze.bin: not a text file"):
        open_table(path)


@pytest.mark.parametrize(
    ("start", "way"),
    [
        (b"SR_RESEARCH_COMBINED_FILE V 3.1\x00", "an EyeLink recording is not read: export a fixation report"),
        (b"** CONVERTED FROM a.edf using edfapi 4.2", "EyeLink's ASC is not read: export a fixation report"),
        (b"PK\x03\x04\x14\x00", "a spreadsheet or zip is not read: save the table as CSV"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_way_by_one(tmp_path, start, way):
    (tmp_path / "g").write_bytes(start)
    with pytest.raises(ValueError, match=f"g: {way}"):
        open_table(tmp_path / "g")


def test_a_titta_recording_as_hdf5_is_refused_with_the_way_by_csv(tmp_path):
    path = tmp_path / "gaze.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe\xfa")
    with pytest.raises(
        ValueError, match=r"gaze.h5: an HDF5 file, such as Titta's.*one CSV.*\.to_csv\('gaze\.csv'\)\.$"
    ):
        open_table(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gaze.tsv: no such file"):
        open_table(tmp_path / "gaze.tsv")


def column(tmp_path, name, values):
    path = tmp_path / "gaze.tsv"
    path.write_text("\n".join([f"{name}\tother", *(f"{value}\t0" for value in values)]), encoding="utf-8")
    table = open_table(path)
    table.load(table.stems)
    return table, table.columns[0]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("Recording timestamp", 8.333),
        ("Recording timestamp", 8333),
        ("Recording timestamp", 0.008333),
        ("Recording timestamp [ms]", 8.333),
        ("Recording timestamp [\u03bcs]", 8333),
    ],
)
def test_times_are_milliseconds_whatever_their_unit(tmp_path, name, step):
    table, stamps = column(tmp_path, name, 7 * step + step * np.arange(5))
    np.testing.assert_allclose(np.diff(read_time_ms(table, stamps)), 8.333)


def test_microseconds_that_are_called_milliseconds_are_refused(tmp_path):
    table, stamps = column(tmp_path, "Recording timestamp [ms]", [0, 8333, 16667])
    with pytest.raises(ValueError, match=r"gaze.tsv: column 'Recording timestamp \[ms\]' steps by 8333"):
        read_time_ms(table, stamps)


def test_a_sample_without_a_time_is_refused(tmp_path):
    table, stamps = column(tmp_path, "time", [0, "", 20])
    with pytest.raises(ValueError, match="column 'time' has an empty field"):
        read_time_ms(table, stamps)


@pytest.mark.parametrize(
    ("codes", "values", "valid"),
    [
        (True, [0, 1, 2, 3, 4, ""], [1, 1, 0, 0, 0, 0]),
        (True, ["Valid", "Invalid"], [1, 0]),
        (False, [1, 0, "True", "False", "1.0"], [1, 0, 1, 0, 1]),
    ],
)
def test_codes_and_flags_of_validity_mean_the_opposite(tmp_path, codes, values, valid):
    table, flags = column(tmp_path, "validity", values)
    np.testing.assert_array_equal(read_validity(table, flags, codes=codes), np.array(valid, bool))


def test_an_unknown_validity_is_named(tmp_path):
    table, flags = column(tmp_path, "validity", [0, 7])
    with pytest.raises(ValueError, match="column 'validity' has '7'"):
        read_validity(table, flags, codes=True)


def test_a_header_that_is_longer_than_any_is_refused_before_it_is_split(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(f"c{k}" for k in range(200_000)) + "\n1,2\n")
    with pytest.raises(ValueError, match=r"wide\.csv: line 1 has 1,000,000 characters or more, which no table"):
        open_table(tmp_path / "wide.csv")


def test_a_row_that_is_longer_than_any_is_refused_before_it_is_read_whole(tmp_path):
    (tmp_path / "long.csv").write_text("x,y\n1,2\n" + "3" * 2_000_000)
    table = open_table(tmp_path / "long.csv")
    with pytest.raises(ValueError, match=r"long\.csv: line 3 has 1,000,000 characters or more"):
        table.load(frozenset({"x"}))
