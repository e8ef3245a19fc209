"""Any file of rows becomes the same rows, cell for cell; what cannot be read is told by line and in words."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

from studio.engine.files.lines import MAX_ROW, How, Line
from studio.engine.files.parquet import plain
from studio.engine.files.reader import TYPES, rows
from studio.errors import DataError, EncodingDoubt

PAIRS = [{"prompt": f"Why {n}?", "chosen": f"Because “é” {n}.", "rejected": f"No {n}."} for n in range(1, 5)]


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(found=PAIRS, end="\n") -> str:
    return "".join(json.dumps(pair, ensure_ascii=False) + end for pair in found)


def table(found=PAIRS, separator=",", **options) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), delimiter=separator, **options)
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def parquet(path: Path, columns: pa.Table, **options) -> Path:
    pq.write_table(columns, path, **options)
    return path


def workbook(path: Path, **sheets: list[list]) -> Path:
    book = Workbook()
    book.remove(book.active)
    for title, cells in sheets.items():
        sheet = book.create_sheet(title)
        for row in cells:
            sheet.append(row)
    book.save(path)
    return path


def values(path: Path) -> list[dict]:
    """All rows of a file of which every row can be read."""
    found = list(rows(path))
    assert not [line for line in found if line.reason]
    return [line.values for line in found]


def refusal(path: Path) -> str:
    """The sentences with which a file is refused, be it at once or on the way."""
    with pytest.raises(DataError) as caught:
        list(rows(path))
    assert str(caught.value).count(". ") >= 1, "one sentence for what happened and one for what to do"
    return str(caught.value)


# --- JSON -------------------------------------------------------------------------------------------------------------

SAME = {
    "plain": ("p.jsonl", jsonl()),
    "ndjson": ("p.ndjson", jsonl()),
    "a capital ending": ("p.JSONL", jsonl()),
    "a byte order mark": ("p.jsonl", "\ufeff" + jsonl()),
    "CRLF": ("p.jsonl", jsonl(end="\r\n")),
    "no last line break": ("p.jsonl", jsonl().rstrip()),
    "blank lines": ("p.jsonl", "\n\n" + jsonl(end="\n \n") + "\n\n"),
    "UTF-16": ("p.jsonl", jsonl().encode("utf-16")),
    "UTF-16, big end first": ("p.jsonl", b"\xfe\xff" + jsonl().encode("utf-16-be")),
    "UTF-32": ("p.jsonl", jsonl().encode("utf-32")),
    "lines called .json": ("p.json", jsonl()),
    "a list called .jsonl": ("p.jsonl", json.dumps(PAIRS)),
    "a list": ("p.json", json.dumps(PAIRS)),
    "a list over many lines": ("p.json", json.dumps(PAIRS, indent=2)),
    "a list with an object on each line": ("p.json", "[" + jsonl(end=",\n").rstrip(",\n") + "]"),
    "a list in an object": ("p.json", json.dumps({"version": 1, "data": PAIRS, "tags": ["a"]})),
    "a list in an object over many lines": ("p.json", json.dumps({"examples": PAIRS, "about": {"n": [1]}}, indent=1)),
    "a list in an object called .jsonl": ("p.jsonl", json.dumps({"train": PAIRS})),
    "UTF-16 list": ("p.json", json.dumps(PAIRS, ensure_ascii=False).encode("utf-16")),
    "commas": ("p.csv", table()),
    "semicolons": ("p.csv", table(separator=";")),
    "bars": ("p.csv", table(separator="|")),
    "tabs": ("p.tsv", table(separator="\t")),
    "tabs called .csv": ("p.csv", table(separator="\t")),
    "commas called .tsv": ("p.tsv", table()),
    "every cell quoted": ("p.csv", table(quoting=csv.QUOTE_ALL)),
    "CSV with a byte order mark": ("p.csv", "\ufeff" + table()),
    "CSV with a quoted header after the mark": ("p.csv", "\ufeff" + table(quoting=csv.QUOTE_ALL)),
    "CSV with line feeds": ("p.csv", table(lineterminator="\n")),
    "CSV of an old Mac": ("p.csv", table(lineterminator="\r")),
    "CSV with blank lines": ("p.csv", "\n" + table(lineterminator="\n\n") + "\n  \n"),
    "CSV of Excel in UTF-16": ("p.csv", table(separator="\t").encode("utf-16")),
    "CSV that announces its separator": ("p.csv", "sep=;\r\n" + table(separator=";")),
}


@pytest.mark.parametrize(("name", "content"), SAME.values(), ids=SAME.keys())
@pytest.mark.fault("T1")
def test_the_same_rows_come_out_of_every_way_to_write_them(tmp_path, name, content):
    assert values(written(tmp_path, name, content)) == PAIRS


def test_lines_are_numbered_as_in_the_file(tmp_path):
    assert [line.number for line in rows(written(tmp_path, "p.jsonl", "\n" + jsonl(end="\n\n")))] == [2, 4, 6, 8]
    assert [line.number for line in rows(written(tmp_path, "p.json", json.dumps(PAIRS, indent=2)))] == [1, 2, 3, 4]
    assert [line.number for line in rows(written(tmp_path, "p.csv", 'a,b\n"1\n\n2",x\n\n3,y\n'))] == [2, 6]


ODD = {
    "a list": ("[1, 2]", "are a list"),
    "a number": ("17", "are a single value"),
    "a text": ('"yes"', "are a text"),
    "no JSON": ("{'prompt': 'single quotes'}", "are not JSON"),
    "two objects": ('{"a": 1} {"b": 2}', "are not JSON"),
    "a lone surrogate": ('{"a": ["\\ud800"]}', "hold a broken character"),
    "a lone surrogate in a name": ('{"\\udfff": 1}', "hold a broken character"),
    "an escaped NUL": ('{"a": {"b": "x\\u0000"}}', "hold a NUL"),
    "a NUL": ('{"a": "x\0"}', "hold a NUL"),
    "a number of too many digits": ('{"a": ' + "1" * 5000 + "}", "are not JSON"),
    "too many brackets": ('{"a": ' + "[" * 20000 + "]" * 20000 + "}", "are nested too deeply"),
}


@pytest.mark.parametrize(("raw", "reason"), ODD.values(), ids=ODD.keys())
@pytest.mark.fault("T8")
def test_a_line_that_is_no_row_says_why_and_the_others_are_read(tmp_path, raw, reason):
    found = list(rows(written(tmp_path, "p.jsonl", jsonl(PAIRS[:2]) + raw + "\n" + jsonl(PAIRS[2:]))))
    assert [line.values for line in found] == [*PAIRS[:2], None, *PAIRS[2:]]
    assert found[2].number == 3 and found[2].reason.startswith(reason)


@pytest.mark.parametrize("raw", ["[1]", "17", '"yes"', '{"a": "\\ud800"}', '{"a": "\\u0000"}'])
def test_an_odd_element_of_a_list_says_why_too(tmp_path, raw):
    found = list(rows(written(tmp_path, "p.json", f'[{{"a": 1}}, {raw}, {{"a": 2}}]')))
    assert [line.values for line in found] == [{"a": 1}, None, {"a": 2}] and found[1].reason


def test_pairs_of_surrogates_and_numbers_that_are_none_are_read(tmp_path):
    found = values(written(tmp_path, "p.jsonl", '{"a": "\\ud83d\\ude00"}\n{"a": NaN}\n{"a": 1, "a": 2}\n'))
    assert found[0] == {"a": "😀"} and found[1]["a"] != found[1]["a"] and found[2] == {"a": 2}


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "wrapped.json"])
@pytest.mark.parametrize("lost", [4, 9, 25])
@pytest.mark.fault("T3")
def test_of_a_file_that_is_cut_off_the_whole_rows_are_read(tmp_path, name, lost):
    whole = {"p.jsonl": jsonl().rstrip(), "p.json": json.dumps(PAIRS), "wrapped.json": json.dumps({"data": PAIRS}, indent=1)}[name]
    found = list(rows(written(tmp_path, name, whole.encode()[:-lost])))
    assert [line.values for line in found[:-1]] == PAIRS[: len(found) - 1] and len(found) >= 4
    assert found[-1].number == len(found) and found[-1].values is None and found[-1].reason.startswith("are cut off")


def test_a_cut_in_the_middle_of_a_character_is_no_question_of_encoding(tmp_path):
    for name, text in (("p.jsonl", jsonl()), ("p.csv", table()), ("p.json", json.dumps(PAIRS, ensure_ascii=False))):
        whole = text.encode()
        found = list(rows(written(tmp_path, name, whole[: whole.rindex("é".encode()) + 1])))
        assert [line.values for line in found] == [*PAIRS[:3], None]


NO_ROWS = {
    "empty": ("p.jsonl", "", "p.jsonl is empty"),
    "blank": ("p.json", "\ufeff \r\n\n", "p.json is empty"),
    "blank and long": ("p.json", "\n" * 5000, "p.json holds no rows"),
    "an empty table": ("p.csv", "", "p.csv is empty"),
    "a header only": ("p.csv", "prompt,chosen,rejected\n\n", "no rows below its header"),
    "an empty list": ("p.json", "[]", "holds no rows"),
    "a web page": ("p.jsonl", "\n <!DOCTYPE html>\n<html>", "line 2, begins a web page"),
    "a web page called .csv": ("p.csv", "<HTML lang=en><body>404</body>", "line 1, begins a web page"),
    "no JSON at all": ("p.jsonl", "prompt;chosen\n" * 30, "line 1, is not JSON but begins with “prompt;chosen”"),
    "no JSON in few lines": ("p.json", "\nhello\nworld", "line 2, is not JSON"),
    "a list that is broken": ("p.json", json.dumps(PAIRS, indent=1).replace('"chosen":', '"chosen"', 1), "line 4, is not JSON"),
    "an object that is broken": ("p.json", json.dumps({"data": PAIRS}, indent=1) + "\n{}", "line 25, is not JSON"),
    "two lists on end": ("p.json", "[{}][{}]", "more comes after the end"),
    "several lists of rows": ("p.json", json.dumps({"train": PAIRS, "test": PAIRS}), "several lists of rows: “train”, “test”"),
    "an object and no rows": ("p.json", json.dumps({"prompt": 1, "chosen": {"a": 2}}), "one object and no list of rows"),
    "JSON called .csv": ("p.csv", jsonl(), "line 1, is JSON and not a header"),
    "a name twice": ("p.csv", "a, b,a ,c,b\n1,2,3,4,5\n", "the header names “a”, “b” more than once"),
    "a header that opens a quote": ("p.csv", 'a,"b\nc,d\n"e",f\n', "line 1: the header cannot be read"),
    "a type that is not read": ("p.docx", "x", "Choose a file ending in .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow or .xlsx"),
    "no ending": ("pairs", "x", "of a type that is not read"),
    "text called .xlsx": ("p.xlsx", "a,b\n", "no Excel workbook"),
    "text called .parquet": ("p.parquet", "a,b\n1,2\n", "it is none, whatever its name says"),
    "an empty .parquet": ("p.parquet", "", "p.parquet is empty"),
    "an old workbook": ("p.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old kind or one with a password"),
    "UTF-16 that breaks off": ("p.csv", b"\xff\xfea\0\n\0\x00\xd8a\0", "line 2, is damaged"),
    "a picture": ("p.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe\xd8" * 9, "nor text in an encoding that is known here"),
    "a NUL in the header": ("p.csv", "a\0,b\n1,2\n", "the names of the columns hold a NUL"),
}


@pytest.mark.parametrize(("name", "content", "words"), NO_ROWS.values(), ids=NO_ROWS.keys())
@pytest.mark.fault("T3")
def test_a_file_without_rows_is_refused_in_words(tmp_path, name, content, words):
    assert words in refusal(written(tmp_path, name, content))


@pytest.mark.fault("T3")
def test_what_concerns_the_whole_file_is_told_at_once(tmp_path):
    with pytest.raises(DataError, match="line 40001, is not UTF-8"):
        rows(written(tmp_path, "p.jsonl", '{"a": "é"}\n'.encode() * 40000 + b'{"a": "\xe9"}\n'))


def test_an_object_of_texts_is_one_row(tmp_path):
    row = {"prompt": "Why?", "chosen": [{"role": "user", "content": "x"}], "rejected": [{"role": "user", "content": "y"}]}
    assert values(written(tmp_path, "p.jsonl", json.dumps(row))) == [row]
    assert values(written(tmp_path, "p.json", json.dumps(row, indent=1))) == [row]


def test_a_list_longer_than_what_is_read_at_once_comes_whole(tmp_path):
    found = [{"n": n, "text": "x" * (n % 5000)} for n in range(1500)]
    assert values(written(tmp_path, "p.json", json.dumps({"skipped": list(range(300_000)), "data": found}))) == found


def test_a_broken_first_line_does_not_turn_lines_into_a_document(tmp_path):
    found = list(rows(written(tmp_path, "p.jsonl", '{"prompt": \n' + jsonl())))
    assert [line.values for line in found] == [None, *PAIRS]


# --- encodings --------------------------------------------------------------------------------------------------------

SPELLED = {
    "cp1252": ("Où est la bibliothèque ? Là-bas, dit-il.", "Größe, Übung, Straße; schöne Grüße", "El niño comió piña, ¿verdad?",
               "It’s the “answer” – fine", "Blåbærsyltetøy på brød", "Þetta er íslenska, góðan daginn", "Perché è così? Può darsi",
               "Hyvää päivää, mitä kuuluu"),
    "cp1250": ("Zażółć gęślą jaźń", "Příliš žluťoučký kůň úpěl ďábelské ódy", "Šta radiš danas? Možda čitaš", "Árvíztűrő tükörfúrógép"),
    "cp1254": ("Gökyüzü neden mavi? Işığın saçılması yüzünden",),
    "cp1251": ("Съешь ещё этих мягких французских булок",),
    "mac_roman": ("Café au lait – “très bon”, à la bibliothèque", "Größe, Übung, Straße; schöne Grüße"),
    "gb18030": ("你好，世界。这是一个问题，请回答。", "为什么天空是蓝色的？因为瑞利散射。"),
    "big5": ("為什麼天空是藍色的？因為瑞利散射。",),
    "cp932": ("こんにちは世界。これは質問です。",),
    "cp949": ("안녕하세요 세계. 이것은 질문입니다.",),
    "utf-16-le": ("Why not?",),
}


@pytest.mark.parametrize(("encoding", "text"), [(encoding, text) for encoding, texts in SPELLED.items() for text in texts])
@pytest.mark.fault("T2")
def test_a_text_in_another_encoding_is_read_in_it_and_this_is_said_with_its_line(tmp_path, encoding, text):
    found = [{"prompt": "plain", "chosen": "yes", "rejected": "no"}, {"prompt": text, "chosen": f"{text} 1", "rejected": f"2 {text}"}]
    path = written(tmp_path, "pairs.csv", table(found).encode(encoding))
    before = path.read_bytes()
    try:
        read = rows(path)
    except EncodingDoubt as doubt:  # so few words may be in several: the right reading is among those to choose from
        assert f"pairs.csv, line 3, is not UTF-8, and which encoding it is in is not certain: in {doubt.readings[0][1]}" in str(doubt)
        named = [one for one, _, _ in doubt.readings if before.decode(one) == before.decode(encoding)]
        assert named and [line.values for line in rows(path, How(encoding=named[0]))] == found
    else:
        assert [line.values for line in read] == found
        assert "It is read so; the file itself stays as it is." in read.remark or "is in UTF-16 and is read so" in read.remark
        assert encoding == "utf-16-le" or "as line 3 shows: “" in read.remark
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_special_character_late_in_the_file_is_found_with_its_line(tmp_path):
    lines = b'{"a": "plain"}\n' * 90_000 + '{"a": "über die Brücke gehen wir nicht, und das ist schön für uns"}\n'.encode("cp1252")
    read = rows(written(tmp_path, "p.jsonl", lines))
    assert "p.jsonl is in Windows-1252, Western European (cp1252) and not in UTF-8, as line 90001 shows: “" in read.remark and "über die Brücke" in read.remark
    assert list(read)[-1].values["a"].startswith("über die Brücke")


def test_one_damaged_line_among_good_ones_is_not_taken_for_an_encoding(tmp_path):
    path = written(tmp_path, "p.jsonl", jsonl().encode() + b'{"a": "\xe9"}\n' + jsonl().encode())
    assert "line 5, is not UTF-8, though other lines are" in refusal(path)


def test_an_encoding_that_was_named_is_checked(tmp_path):
    path = written(tmp_path, "p.csv", b"a,b\n1,2\n" + b"\x81\x8d,3\n")
    for encoding, words in (("cp1252", "line 3, is not Windows-1252"), ("klingon", "no encoding “klingon”"), ("rot13", "no encoding “rot13”")):
        with pytest.raises(DataError, match=words):
            rows(path, How(encoding=encoding))


# --- tables -----------------------------------------------------------------------------------------------------------

CELLS = ["NA", "None", "null", "nan", "001", "1e5", "TRUE", "1,234.50", " padded ", "", "''", "quote \" in it", '"quoted"', '""',
         "two\nlines", "two\r\nlines", "a\rb", "\n", "#not a comment", "=1+1", "a;b|c\td", "\\", "\\n", "é", "😀", "\u2028", "x" * 200_000]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.fault("T4")
def test_every_cell_arrives_as_it_was_written(tmp_path, separator, quoting):
    found = [{"prompt": cell, "chosen": "x", "rejected": cell} for cell in CELLS]
    assert values(written(tmp_path, "p.csv", table(found, separator, quoting=quoting))) == found


def test_cells_full_of_commas_do_not_divide_a_semicolon_file(tmp_path):
    text = "Well, yes, of course, and so on"
    found = [{"prompt, in full": text, "chosen, in full": text, "rejected": text} for _ in range(60)]
    assert values(written(tmp_path, "p.csv", table(found, ";"))) == found
    ragged = list(rows(written(tmp_path, "r.csv", "prompt;chosen;rejected\n" + "a, b; c, d; e, f\n" * 5 + "x,y,z\n")))
    assert [line.reason for line in ragged] == [""] * 5 + ["have fewer cells than the header"]


@pytest.mark.fault("T5")
def test_a_row_of_another_length_says_so(tmp_path):
    found = list(rows(written(tmp_path, "p.csv", "a,b\n1,2\n1\n1,2,3\n3,4")))
    assert [line.values for line in found] == [{"a": "1", "b": "2"}, None, None, {"a": "3", "b": "4"}]
    assert [line.reason for line in found[1:3]] == ["have fewer cells than the header", "have more cells than the header"]


@pytest.mark.parametrize(("raw", "reasons"), [
    ('"said "hi" to me",x', ["have a quotation mark in the wrong place"]),
    ('"never closed,x', ["open a quotation mark that is not closed"]),
    ('"never closed\nover lines,x', ["open a quotation mark that is not closed", ""]),
])
def test_a_misplaced_quotation_mark_costs_its_own_row_only(tmp_path, raw, reasons):
    found = list(rows(written(tmp_path, "p.csv", f'a,b\n"1","2"\n{raw}\n"3","4"\n5" nails,6\n')))
    assert [line.reason for line in found] == ["", *reasons, "", ""]
    assert [line.number for line in found] == list(range(2, 2 + len(found)))
    assert found[-2].values == {"a": "3", "b": "4"} and found[-1].values == {"a": '5" nails', "b": "6"}


def test_a_quotation_mark_that_never_closes_is_named_with_its_line(tmp_path):
    words = refusal(written(tmp_path, "p.csv", 'a,b\n1,2\n"x\ny","never ""ever""\n' + 'say ""3"",4\n' * 1000))
    assert "p.csv, line 4: a quotation mark opens there and never closes" in words


def test_a_table_that_ends_in_a_quoted_cell_loses_its_last_row_only(tmp_path):
    found = list(rows(written(tmp_path, "p.csv", 'a,b\n1,2\n3,"cut of')))
    assert found[0].values == {"a": "1", "b": "2"} and found[1].number == 3 and found[1].reason.startswith("are cut off")


def test_a_nul_in_a_cell_is_told(tmp_path):
    assert [line.reason for line in rows(written(tmp_path, "p.csv", "a,b\n1,x\0\n1,2\n"))] == ["hold a NUL character", ""]


# --- Parquet ----------------------------------------------------------------------------------------------------------

TALK = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because.", "tool_calls": [{"name": "f"}]}]


@pytest.mark.fault("T6")
def test_every_kind_of_parquet_column_becomes_plain_values(tmp_path):
    columns = {
        "messages": pa.array([TALK, TALK[:1]]),
        "large": pa.array(["a", None], pa.large_string()),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "nothing": pa.nulls(2),
        "nested": pa.array([{"a": {"b": [1]}, "c": None}, {"a": None, "c": "x"}]),
        "when": pa.array([datetime(2024, 1, 2)] * 2, pa.timestamp("us")),
    }
    found = list(rows(parquet(tmp_path / "p.parquet", pa.table(columns))))
    assert found[0] == Line(1, {"messages": TALK, "large": "a", "dictionary": "a", "nothing": None, "nested": {"a": {"b": [1]}, "c": None},
                                "when": datetime(2024, 1, 2)})
    assert found[1].values["messages"] == TALK[:1] and found[1].values["large"] is None and found[1].number == 2


def test_a_table_in_memory_becomes_the_same_plain_rows():
    assert list(plain(pa.table({"messages": [TALK]}))) == [{"messages": TALK}]


def test_parquet_rows_are_numbered_across_batches(tmp_path):
    path = parquet(tmp_path / "p.parquet", pa.table({"n": list(range(2000))}), row_group_size=700)
    assert [(line.number, line.values["n"]) for line in rows(path)] == [(n + 1, n) for n in range(2000)]


def test_a_parquet_text_that_is_no_utf8_costs_its_own_row_only(tmp_path):
    raw = pa.array([b"a", b"\xe9", b"c\0", b"d"]).view(pa.string())
    found = list(rows(parquet(tmp_path / "p.parquet", pa.table({"a": raw}))))
    assert [line.reason for line in found] == ["", "hold text that is not UTF-8", "hold a NUL character", ""]
    assert [line.number for line in found] == [1, 2, 3, 4]


@pytest.mark.fault("T7")
def test_a_parquet_file_that_is_damaged_or_ambiguous_is_refused(tmp_path):
    path = parquet(tmp_path / "p.parquet", pa.table({"a": ["x"] * 1000}))
    whole = path.read_bytes()
    assert "it is cut off" in refusal(written(tmp_path, "cut.parquet", whole[:-100]))
    assert "it is damaged" in refusal(written(tmp_path, "torn.parquet", whole[:8] + b"\xff" * 40 + whole[48:]))
    assert "is a Parquet file. Rename" in refusal(written(tmp_path, "p.jsonl", whole))
    twice = parquet(tmp_path / "twice.parquet", pa.table([["a"], ["b"]], names=["chosen", "chosen"]))
    assert "more than one column chosen" in refusal(twice)
    assert "holds no rows" in refusal(parquet(tmp_path / "none.parquet", pa.table({"a": pa.array([], pa.string())})))


# --- Excel ------------------------------------------------------------------------------------------------------------


def test_the_cells_of_a_sheet_become_the_texts_that_a_person_sees(tmp_path):
    cells = [7, 7.0, 0.1, 1e20, True, "007", "NA", " x\ny ", date(2024, 1, 2), datetime(2024, 1, 2, 3, 4), None, "l1_x000D_ _x005F_x000D_"]
    texts = ["7", "7", "0.1", "1e+20", "TRUE", "007", "NA", " x\ny ", "2024-01-02", "2024-01-02 03:04:00", "", "l1\r _x000D_"]
    path = workbook(tmp_path / "p.xlsx", S=[["n", "value"], *([str(n), cell] for n, cell in enumerate(cells))])
    assert [found["value"] for found in values(path)] == texts


def test_a_sheet_is_read_with_its_own_row_numbers_and_without_empty_rows(tmp_path):
    path = workbook(tmp_path / "p.xlsx", Empty=[], Pairs=[[], ["a", "b", None], [1, 2], [None, " "], ["x"], [1, 2, 3], [None], [""]], Old=[["z"]])
    assert list(rows(path)) == [Line(3, {"a": "1", "b": "2"}), Line(5, {"a": "x", "b": ""}), Line(6, None, "have more cells than the header")]
    assert rows(path).remark == ("p.xlsx has several sheets: “Pairs” is read, not “Old”. To read another, enter its name as the subset.")


def test_there_is_nothing_to_remark_where_there_is_no_choice(tmp_path):
    assert rows(workbook(tmp_path / "p.xlsx", Pairs=[["a"], [1]], Empty=[])).remark == ""
    assert rows(written(tmp_path, "p.jsonl", jsonl())).remark == ""


def repacked(source: Path, target: Path, sheet: bytes) -> Path:
    """The workbook with another sheet in it, as nothing but a hand would write it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, sheet if part.endswith("sheet1.xml") else old.read(part))
    return target


SHEET = (b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1"><v>1</v></c></row>'
         b"%s</sheetData></worksheet>")


@pytest.mark.fault("T7")
def test_a_workbook_that_cannot_be_read_is_refused(tmp_path):
    path = workbook(tmp_path / "p.xlsx", S=[["a", "a"], [1, 2]])
    whole = path.read_bytes()
    assert "p.xlsx, sheet “S”, row 1: the header names “a” more than once" in refusal(path)
    assert "p.csv is compressed: it is an Excel workbook" in refusal(written(tmp_path, "p.csv", whole))
    assert "unpack it first" in refusal(written(tmp_path, "cut.xlsx", whole[:-300]))
    assert "no sheet with content" in refusal(workbook(tmp_path / "none.xlsx", S=[]))
    assert "no rows below its header" in refusal(workbook(tmp_path / "header.xlsx", S=[["a", "b"]]))
    assert "no name for any column" in refusal(written(tmp_path, "nameless.csv", ",,\n1,2,3\n"))
    assert "cannot be read as an Excel workbook" in refusal(repacked(path, tmp_path / "broken.xlsx", SHEET % b"<row"))


def test_a_workbook_that_unpacks_to_too_much_costs_neither_time_nor_memory(tmp_path):
    path, began = workbook(tmp_path / "p.xlsx", S=[["a"], [1]]), time.perf_counter()
    far = b'<row r="%d"><c r="XFD%d"><v>2</v></c></row>'
    assert "higher than Excel can" in refusal(repacked(path, tmp_path / "far.xlsx", SHEET % (far % (4 * 10**9, 4 * 10**9))))
    lone = list(rows(repacked(path, tmp_path / "lone.xlsx", SHEET % (far % (1_048_576, 1_048_576)))))
    assert lone == [Line(1_048_576, None, "have more cells than the header")]
    assert "packed more than 200 times" in refusal(repacked(path, tmp_path / "dense.xlsx", SHEET % (b" " * 60_000_000)))
    assert time.perf_counter() - began < 10


# --- what is no file of rows ------------------------------------------------------------------------------------------


def tar(content: bytes, mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        part = tarfile.TarInfo("p.jsonl")
        part.size = len(content)
        archive.addfile(part, io.BytesIO(content))
    return packed.getvalue()


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p.jsonl", content)
    return packed.getvalue()


PACKED = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zip": zipped, "tar": lambda content: tar(content, "w:"),
          "zstd": lambda content: pa.compress(content, "zstd", asbytes=True)}


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.parquet", "p.xlsx", "p.jsonl.gz", "p"])
@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.fault("T9")
def test_a_compressed_file_is_told_from_its_first_bytes(tmp_path, name, packing):
    words = refusal(written(tmp_path, name, PACKED[packing](jsonl().encode())))
    assert words == f"{name} is compressed ({packing}); unpack it first. Then choose the file that was in it."


def test_a_text_that_begins_like_an_archive_is_read(tmp_path):
    assert values(written(tmp_path, "p.csv", "BZh,PK\n1,2\n")) == [{"BZh": "1", "PK": "2"}]


def test_a_place_without_a_file_is_told_with_what_can_be_read(tmp_path):
    missing, long = tmp_path / "missing.jsonl", tmp_path / ("x" * 300 + ".jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, words in ((missing, "There is no file"), (tmp_path / "folder.jsonl", "is a folder"), (long, "cannot be opened"),
                        (tmp_path / "pipe.jsonl", "is no file"), (Path("a\0.jsonl"), "cannot be opened")):
        assert words in refusal(path) and all(ending in refusal(path) for ending in TYPES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path):
    path = written(tmp_path, "p.jsonl", jsonl())
    path.chmod(0)
    assert "cannot be opened (Permission denied)" in refusal(path)


# --- size -------------------------------------------------------------------------------------------------------------

HUGE = "x" * (9 * 1024**2)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet"])
@pytest.mark.fault("T8")
def test_a_huge_cell_costs_its_own_row_only(tmp_path, name):
    found = [PAIRS[0], {**PAIRS[1], "chosen": HUGE}, PAIRS[2]]
    if name == "p.parquet":
        path = parquet(tmp_path / name, pa.Table.from_pylist(found))
    else:
        path = written(tmp_path, name, {"p.jsonl": jsonl(found), "p.json": json.dumps(found), "p.csv": table(found)}[name])
    assert [line.values for line in rows(path)] == [PAIRS[0], None, PAIRS[2]]
    assert list(rows(path))[1].reason == "hold a cell of more than 8 MB"


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "quoted.csv"])
def test_a_row_that_is_too_long_is_skipped_and_the_next_is_read(tmp_path, name):
    with open(tmp_path / name, "w") as file:
        file.write('{"a": 1}\n{"a": "' if name == "p.jsonl" else "a,b\n1,1\n" + '"' * (name == "quoted.csv"))
        for _ in range(MAX_ROW // 1024**2 + 3):
            file.write("x" * (1024**2 - 1) + ("\n" if name == "quoted.csv" else "x"))
        file.write('"}\n{"a": 2}\n' if name == "p.jsonl" else '"' * (name == "quoted.csv") + ",2\n3,3\n")
    found = list(rows(tmp_path / name))
    assert [line.reason for line in found] == ["", "are longer than 32 MB", ""] and found[2].values["a"] in (2, "3")
    assert [line.number for line in found[:2]] == ([1, 2] if name == "p.jsonl" else [2, 3])
    assert found[2].number == {"p.jsonl": 3, "p.csv": 4, "quoted.csv": 3 + MAX_ROW // 1024**2 + 3 + 1}[name]


def test_a_first_line_that_is_too_long_costs_its_own_row_only(tmp_path):
    path = written(tmp_path, "p.jsonl", '{"a": "' + "x" * MAX_ROW + '"}\n{"a": 2}\n')
    assert list(rows(path)) == [Line(1, None, "are longer than 32 MB"), Line(2, {"a": 2})]


def test_a_record_over_very_many_lines_is_skipped(tmp_path):
    path = written(tmp_path, "p.csv", 'a,b\n"' + "x\n" * 150_000 + '",2\n3,4\n')
    assert list(rows(path)) == [Line(2, None, "go over more than 100,000 lines"), Line(150_003, {"a": "3", "b": "4"})]


PEAK = """
import resource, sys
from pathlib import Path
from studio.engine.files.reader import rows
from studio.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(sum(1 for _ in rows(Path(sys.argv[1]))))
except DataError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def peak(path: Path) -> tuple[str, int]:
    """What reading a file in a process of its own says, and the MB that it grows by."""
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    said, grown = done.stdout.strip().splitlines()
    return said, int(grown)


def test_a_long_file_needs_no_more_memory_than_a_short_one(tmp_path):
    with open(tmp_path / "p.jsonl", "w") as file:
        file.writelines(itertools.repeat(json.dumps({"text": "x" * 3000}) + "\n", 40_000))
    said, grown = peak(tmp_path / "p.jsonl")
    assert said == "40000" and grown < 40


@pytest.mark.fault("T9")
def test_an_archive_that_is_a_bomb_costs_no_memory(tmp_path):
    with gzip.open(tmp_path / "p.jsonl", "wb", compresslevel=1) as file:
        file.writelines(itertools.repeat(bytes(1024**2), 290))
    said, grown = peak(tmp_path / "p.jsonl")
    assert "is compressed (gzip)" in said and grown < 5
