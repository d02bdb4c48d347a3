import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framework.data.paths import expand
from framework.data.tables import TableSource, column_names, read_columns, read_labelled, read_rows
from framework.errors import UserError

ROWS = [{"review": "good film", "label": 1}, {"review": "bad, long\nfilm", "label": 0}]
MAP = {"text": "review"}


def write(folder, suffix, rows=ROWS):
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        quoted = [",".join(f'"{value}"' for value in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
def test_every_format_gives_the_same_rows_and_labels(tmp_path, suffix):
    source = TableSource(path=str(write(tmp_path, suffix)), columns=MAP)
    assert read_columns(source, ["text"]) == [{"text": "good film"}, {"text": "bad, long\nfilm"}]
    assert read_labelled(source) == (["good film", "bad, long\nfilm"], [1, 0])


def test_a_saved_dataset_is_read_by_split(tmp_path):
    import datasets

    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "set")
    source = TableSource(path=str(tmp_path / "set"), split="test", columns=MAP)
    assert read_columns(source, ["text"])[0] == {"text": "good film"}
    with pytest.raises(UserError, match=r"no split 'train'; it has test"):
        read_columns(source.model_copy(update={"split": "train"}), ["text"])


def test_a_file_inside_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "some_reviews"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('reading data must not import the package')")
    write(package, ".csv")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "some_reviews", raising=False)
    source = TableSource(path="package:some_reviews/table.csv", columns=MAP)
    assert len(read_columns(source, ["text"])) == 2
    with pytest.raises(UserError, match=r"has no table 'other\.csv'"):
        read_columns(TableSource(path="package:some_reviews/other.csv"), ["text"])
    with pytest.raises(UserError, match="'no_such_package' is not installed"):
        read_columns(TableSource(path="package:no_such_package/table.csv"), ["text"])


def test_where_then_limit(tmp_path):
    rows = [{"text": f"t{i}", "source": "ab"[i % 2]} for i in range(6)]
    source = TableSource(path=str(write(tmp_path, ".jsonl", rows)), where={"source": "b"}, limit=2)
    assert read_columns(source, ["text"]) == [{"text": "t1"}, {"text": "t3"}]
    with pytest.raises(UserError, match=r"no row has source='c'; source has 'a', 'b'"):
        read_columns(source.model_copy(update={"where": {"source": "c"}}), ["text"])


def test_a_missing_file_offers_its_neighbour(tmp_path):
    write(tmp_path, ".parquet")
    with pytest.raises(UserError, match=r"no such file; did you mean table\.parquet"):
        read_columns(TableSource(path=str(tmp_path / "tabel.parquet")), ["text"])
    with pytest.raises(UserError, match="no such file"):
        read_columns(TableSource(path="./nowhere/at_all"), ["text"])
    (tmp_path / "table.xls").write_text("x")
    with pytest.raises(UserError, match="tables end in"):
        read_columns(TableSource(path=str(tmp_path / "table.xls")), ["text"])


def test_an_unknown_hub_name_is_one_line():
    with pytest.raises(UserError, match="cannot load split 'train'") as caught:
        read_columns(TableSource(path="nobody/has-this-data-set"), ["text"])
    assert "\n" not in str(caught.value)


def test_a_missing_column_offers_the_nearest_and_lists_all(tmp_path):
    source = TableSource(path=str(write(tmp_path, ".parquet")), columns={"text": "reviews"})
    with pytest.raises(UserError, match=r"'reviews' \(did you mean 'review'\?\); it has review, label; map it"):
        read_columns(source, ["text"])


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(
    ("value", "words"), [(None, "is empty"), ("", "is empty"), (" \n", "is empty"), (3, "holds int, not text")]
)
def test_a_bad_value_names_file_row_and_column(tmp_path, suffix, value, words):
    rows = [{"review": value}] if suffix == ".parquet" else [{"review": "good"}, {"review": value}]
    path = write(tmp_path, suffix, rows)
    with pytest.raises(UserError, match=rf"table{suffix} row {len(rows)}: column 'review' {words}") as caught:
        read_columns(TableSource(path=str(path), columns=MAP), ["text"])
    assert "\n" not in str(caught.value)


def test_a_short_csv_row_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,text\n1,fine\n2\n")
    with pytest.raises(UserError, match="row 2: column 'text' is empty"):
        read_columns(TableSource(path=str(path)), ["text"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.jsonl", "", "holds no rows"),
        ("t.json", "[]", "holds no rows"),
        ("t.json", "{}", "must be a list"),
        ("t.jsonl", '{"text": "a"}\n{"text"', "line 2: not JSON"),
        ("t.jsonl", '"a"', "row 1: holds str, not an object"),
        ("t.csv", "text\n", "holds no rows"),
        ("t.csv", "", "no column 'text'; it has none"),
        ("t.parquet", "not parquet", "not a readable .parquet file"),
    ],
)
def test_an_empty_or_broken_table(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_columns(TableSource(path=str(tmp_path / name)), ["text"])
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"text\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"not a readable \.csv file"):
        read_columns(TableSource(path=str(tmp_path / "t.csv")), ["text"])


def test_a_label_that_is_not_one(tmp_path):
    path = write(tmp_path, ".parquet", [{"text": "a", "label": 1}, {"text": "b", "label": 7}])
    with pytest.raises(UserError, match="row 2: column 'label' holds 7; a label is 0 or 1"):
        read_labelled(TableSource(path=str(path)))


def test_paths_expand_with_one_default(monkeypatch):
    monkeypatch.delenv("GOLDILOCKS_SHARED", raising=False)
    assert expand("${GOLDILOCKS_SHARED}/data/x.parquet") == "../shared/data/x.parquet"
    monkeypatch.setenv("GOLDILOCKS_SHARED", "elsewhere")
    assert expand("${GOLDILOCKS_SHARED}/data/x.parquet") == "elsewhere/data/x.parquet"
    with pytest.raises(UserError, match="NO_SUCH_VARIABLE is not set"):
        expand("${NO_SUCH_VARIABLE}/x")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_rows_keep_their_values_and_numbers(tmp_path, suffix):
    turns = [{"role": "user", "content": "hello"}]
    rows = [{"text": turns, "kind": "a"}, {"text": None, "kind": "b"}, {"text": turns, "kind": "b"}]
    source = TableSource(path=str(write(tmp_path, suffix, rows)), where={"kind": "b"}, columns={"said": "text"})
    assert column_names(source) == ["text", "kind"]
    assert read_rows(source, ["said"]) == [(2, {"said": None}), (3, {"said": turns})]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_is_no_text(tmp_path, suffix):
    path = write(tmp_path, suffix)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert column_names(TableSource(path=str(path))) == ["review", "label"]
    assert read_columns(TableSource(path=str(path), columns=MAP), ["text"])[0] == {"text": "good film"}


def test_long_cells_of_a_csv_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,text\n1," + "x" * 200_000 + "\n")
    assert len(read_columns(TableSource(path=str(path)), ["text"])[0]["text"]) == 200_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,text\n1,fine\n2,good, but long\n", "t.csv row 2: 3 cells under 2 columns; put text with commas in quotes"),
        ("text,id,text\na,1,b\n", "2 columns are called 'text'; rename all but one"),
        ('id,text\n1,"never closed\n2,b\n', r"not a readable \.csv file \(after line 1: "),
    ],
)
def test_a_csv_whose_cells_are_not_where_they_seem_is_refused(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_columns(TableSource(path=str(tmp_path / "t.csv")), ["text"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize("value", ["bad \ud83d end", ["deep", {"in": "\udc00"}]])
def test_half_a_character_is_named_and_a_whole_one_is_read(tmp_path, suffix, value):
    path = write(tmp_path, suffix, [{"review": "whole \U0001f600"}, {"review": value}])
    with pytest.raises(
        UserError, match=rf"table{suffix} row 2: column 'review' holds half of a character \('\\u"
    ) as caught:
        read_rows(TableSource(path=str(path), columns=MAP), ["text"])
    assert str(caught.value).isascii()
    first = TableSource(path=str(path), columns=MAP, limit=1)
    assert read_rows(first, ["text"]) == [(1, {"text": "whole \U0001f600"})]


@pytest.mark.parametrize("text", ["[" * 200_000, '[{"text": ' + "1" * 5000 + "}]"])
def test_json_without_end_is_one_line(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=r"t\.json not JSON \(") as caught:
        read_columns(TableSource(path=str(tmp_path / "t.json")), ["text"])
    assert "\n" not in str(caught.value)
