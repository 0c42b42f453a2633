"""Labels from CSV files as spreadsheets and people write them."""

import logging
import unicodedata

import numpy as np
import pytest

from anogan.data.image_set import ImageSet
from anogan.data.labels import labelled
from anogan.errors import UserError

pytestmark = pytest.mark.unit

NAMES = ["a/0.png", "a/1.png", "b/0.png"]
LINES = ["file,label,kind", "a/0.png,normal,", "a/1.png,good,", "b/0.png,anomalous,hole"]


def images(*names):
    return ImageSet.from_array(np.zeros((len(names), 4, 4, 1), np.uint8), names)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Labels the images of these names, in the folder test_data, by the lines of a CSV file."""
    monkeypatch.chdir(tmp_path)

    def read(lines, names=NAMES, encoding="utf-8", end="\n", folder="test_data"):
        (tmp_path / "list.csv").write_bytes("".join(f"{x}{end}" for x in lines).encode(encoding))
        return labelled(images(*names), "list.csv", folder)

    return read


def of_files(*files):
    return ["file,label", *(f"{file},{i % 2}" for i, file in enumerate(files))]


def assert_read(found):
    assert found.labels.tolist() == [0, 0, 1] and found.kinds == ("normal", "normal", "hole")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_separated_by_commas_semicolons_or_tabs(read, delimiter, end):
    assert_read(read([line.replace(",", delimiter) for line in LINES], end=end))


@pytest.mark.parametrize(
    "header", ["File, LABEL ,Kind", '"file","label","kind"', " file,label,kind"]
)
def test_the_header_may_be_in_other_case_spaced_and_quoted(read, header):
    assert_read(read([header, *LINES[1:]]))


def test_columns_may_stand_in_any_order_among_others(read):
    found = read(["note;label;file", "x, y;bad;a/0.png", '"a;b";ok;a/1.png', ";1;b/0.png"])
    assert found.labels.tolist() == [1, 0, 1] and found.kinds[:2] == ("anomalous", "normal")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_the_encodings_of_spreadsheets_are_read(read, encoding):
    found = read(["file\tlabel\tkind", "ä€.png\tdefect\tLöcher"], ["ä€.png"], encoding)
    assert found.labels.tolist() == [1] and found.kinds == ("Löcher",)


def test_blank_lines_are_skipped(read):
    assert_read(read(["", LINES[0], "", *LINES[1:3], ",,", "  ", LINES[3], ""]))


def test_a_comma_in_a_quoted_name_is_part_of_it(read):
    assert read(of_files('"a, b.png"'), ["a, b.png"]).labels.tolist() == [0]


def test_words_for_labels_in_any_case(read):
    words = ["normal", "Good", "ok", "0", "anomalous", "anomaly", "abnormal", "defect"]
    words += ["Defective", " BAD ", "1"]
    names = [f"{i}.png" for i in range(len(words))]
    lines = [f"{name},{word}" for name, word in zip(names, words, strict=True)]
    assert read(["file,label", *lines], names).labels.tolist() == [0] * 4 + [1] * 7


def test_another_word_is_an_error_that_quotes_it(read):
    with pytest.raises(UserError, match="list.csv, line 3: label .* not 'perhaps'"):
        read(["file,label", "a/0.png,normal", "a/1.png, perhaps"])
    with pytest.raises(UserError, match="list.csv, line 2: label .* not ''"):
        read(["file,label", "a/0.png"])


@pytest.mark.parametrize("header", ["files,labelling", "file,note", "file,label,label", "PK\x03"])
def test_a_header_without_the_columns_is_an_error_that_quotes_it(read, header):
    with pytest.raises(UserError) as error:
        read(["", header, "a/0.png,normal"])
    assert f"the columns file and label in its first line, not {header!r}" in str(error.value)


@pytest.mark.parametrize(
    ("column", "normal", "anomalous"),
    [
        *(("label", *pair) for pair in (("0.0", "1.0"), ("0,0", "1,0"), ("False", "True"))),
        *(("label", *pair) for pair in (("OK", "NG"), ("pass", "fail"), ("i.O.", "n.i.O."))),
        *(("label", *pair) for pair in (("gut", "schlecht"), ("Negative", "Positive"))),
        *(("is_anomaly", *pair) for pair in (("0", "1"), ("False", "True"), ("no", "yes"))),
        *(("target", "0", "1"), ("Class", "healthy", "diseased"), ("Anomaly", "n", "y")),
        *(("is_normal", *pair) for pair in (("1", "0"), ("True", "False"), ("yes", "no"))),
        *(("OK", "1.0", "0.0"), ("passed", "true", "false")),
    ],
)
def test_labels_as_pandas_spreadsheets_and_inspectors_write_them(read, column, normal, anomalous):
    lines = [f"a/0.png;{normal}", f"a/1.png;{normal}", f"b/0.png;{anomalous}"]
    assert read([f"file;{column}", *lines]).labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("column", ["filename", "Image", "path", "file_path", "Image Name", "id"])
def test_columns_of_other_usual_names(read, column):
    assert_read(
        read(
            [
                f"defect type,target,{column}",
                *(",".join(reversed(line.split(","))) for line in LINES[1:]),
            ]
        )
    )


def test_minus_one_and_one_are_refused_for_they_mean_both(read):
    for one, other in (("1", "-1"), ("-1", "1"), ("1.0", "-1.0")):
        with pytest.raises(UserError, match="used in opposite senses .*write normal and anomalous"):
            read(["file,label", f"a/0.png,{one}", f"a/1.png,{other}", "b/0.png,1"])


@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
def test_a_first_line_may_name_what_separates(read, delimiter):
    assert_read(read([f"sep={delimiter}", *(line.replace(",", delimiter) for line in LINES)]))


def test_a_table_without_a_header_is_read_by_what_its_cells_hold(read):
    assert_read(read(["0;a/0.png;", "0;a/1.png;", "1;b/0.png;hole"]))
    assert read(["a/0.png,ok", "a/1.png,ok", "b/0.png,ng"]).labels.tolist() == [0, 0, 1]
    with pytest.raises(UserError, match="the columns file and label in its first line, not 'x,ok'"):
        read(["x,ok", "a/0.png,ok"])


def test_names_may_lack_their_ending_where_it_is_unique(read):
    assert_read(read(["file,label,kind", "a/0,0", "a/1,0", "b/0,1,hole"]))
    with pytest.raises(UserError, match="no label for 0.jpg"):
        read(["file,label", "0,0", "1,1"], ["0.jpg", "0.png", "1.png"])


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp1250", "zły"),
        ("cp1251", "норма"),
        ("cp932", "良品"),
        ("gb18030", "缺陷"),
        ("cp949", "불량"),
    ],
)
def test_another_code_page_is_named(read, encoding, name):
    names = [f"{name}_{i}.png" for i in range(3)]
    with pytest.raises(UserError, match=f"list.csv is not UTF-8: as {encoding} it has the names"):
        read(of_files(*names), names, encoding)
    assert read(of_files(*names), names).labels.tolist() == [0, 1, 0]


def test_a_workbook_is_an_error_that_says_how_to_save_it(tmp_path):
    for name, start in (("a.xlsx", b"PK\x03\x04"), ("a.xls", b"\xd0\xcf\x11\xe0")):
        (tmp_path / name).write_bytes(start + bytes(100))
        with pytest.raises(UserError, match=f"{name} is a workbook, .* choose Save As, CSV UTF-8"):
            labelled(images("a.png"), tmp_path / name, tmp_path)


def test_utf_16_is_read_without_its_mark(read):
    for encoding in ("utf-16-le", "utf-16-be"):
        assert_read(read(LINES, encoding=encoding))


# which image a line is for


@pytest.mark.parametrize(
    "form", ["a\\{}", "./a/{}", ".\\a\\{}", "a//{}", " a/{} ", "test_data/a/{}", "test_data\\a\\{}"]
)
def test_a_path_may_be_written_in_several_ways(read, form):
    files = [form.format(f"{i}.png") for i in range(2)]
    assert read(of_files(*files), NAMES[:2]).labels.tolist() == [0, 1]


def test_the_folders_path_or_the_end_of_it_may_stand_before_a_file(read, tmp_path):
    whole = tmp_path / "sets" / "bottle" / "test"
    for front in (whole, "sets/bottle/test", "bottle/test", "./sets/bottle/test", "test"):
        files = [f"{front}/a/{i}.png" for i in range(2)]
        found = read(of_files(*files), NAMES[:2], folder="sets/bottle/test")
        assert found.labels.tolist() == [0, 1]
    with pytest.raises(UserError, match="no label for a/0.png"):
        read(of_files("train/a/0.png", "train/a/1.png"), NAMES[:2], folder="sets/bottle/test")


def test_a_name_that_is_there_is_taken_as_it_stands(read):
    names = ["test_data/a.png", "a.png", "b\\c.png", "b/c.png"]
    assert read(of_files(*names), names).labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("there, written", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_match_in_any_unicode_form(read, there, written):
    name = unicodedata.normalize(there, "Prüfling.png")
    found = read(of_files(unicodedata.normalize(written, name)), [name])
    assert found.labels.tolist() == [0] and found.names == (name,)


def test_names_that_differ_in_their_unicode_form_alone_are_told_apart(read):
    names = [unicodedata.normalize(form, "ü.png") for form in ("NFC", "NFD")]
    assert read(of_files(*names), names).labels.tolist() == [0, 1]


@pytest.mark.parametrize("line", ["b\\0.png,normal,hole", "./b/0.png,anomalous,tear"])
def test_lines_that_contradict_each_other_are_an_error_that_names_them(read, line):
    with pytest.raises(UserError, match="list.csv, lines 4 and 6 contradict .* b/0.png"):
        read([*LINES, "", line])


def test_a_line_that_stands_there_twice_is_no_contradiction(read):
    assert_read(read([*LINES, *LINES[1:]]))


def test_lines_that_name_no_image_are_counted(read, caplog):
    with caplog.at_level(logging.WARNING):
        assert_read(read([*LINES, "b/1.png,1,", "b/2.png,1,"]))
    expected = "list.csv: 2 of 5 lines name no image in test_data; the first: line 5, 'b/1.png'"
    assert [r.getMessage() for r in caplog.records] == [expected]


def test_an_image_without_a_label_is_an_error_that_quotes_the_line_most_like_it(read):
    with pytest.raises(UserError, match=r"no label for b/0.png \(1 of 3 .* line 5 has 'B/0.PNG'\)"):
        read([*LINES[:3], "c/7.png,1,", "B/0.PNG,1,"])
    with pytest.raises(UserError, match=r"\(3 of 3 images are missing; line 2 has 'quite else'\)"):
        read(["file,label", "quite else,1", "something,0"])
    with pytest.raises(UserError, match=r"no label for b/0.png \(1 of 3 images are missing\): add"):
        read(LINES[:3])
