"""More of the files that people have: titles above the header, tables as JSON, saved data sets, sheets, encodings that are certain or not."""

import json

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict
from openpyxl import Workbook

from studio import examination
from studio.engine import data
from studio.engine.files.lines import How
from studio.engine.files.reader import rows
from studio.errors import DataError, EncodingDoubt
from studio.jobs import Job
from studio.settings import DataSettings, Settings

PAIRS = [{"prompt": f"Why {n}?", "chosen": f"Because {n}.", "rejected": f"No {n}."} for n in range(4)]
COLUMNS = {name: [pair[name] for pair in PAIRS] for name in PAIRS[0]}
BY_INDEX = {str(at): pair for at, pair in enumerate(PAIRS)}


def written(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path, how=None):
    return [line.values for line in rows(path, how)]


def stream_of(path, **settings):
    return data.Stream(DataSettings(source=str(path), **settings))


TABLES = {
    "lists by column": COLUMNS,
    "one level down": {"pairs": COLUMNS},
    "pandas by column": {name: {str(at): pair[name] for at, pair in enumerate(PAIRS)} for name in PAIRS[0]},
    "pandas by index": BY_INDEX,
    "pandas split": {"columns": list(COLUMNS), "index": [0, 1, 2, 3], "data": [list(pair.values()) for pair in PAIRS]},
    "pandas table": {"schema": {"fields": [{"name": "prompt"}]}, "data": PAIRS},
    "split one level down": {"version": 1, "table": {"columns": list(COLUMNS), "data": [list(pair.values()) for pair in PAIRS]}},
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_a_table_as_json_becomes_its_rows(tmp_path, table, indent):
    table = {key: value for key, value in table.items() if key != "schema"} if indent else table
    assert values(written(tmp_path / "p.json", json.dumps(table, indent=indent))) == PAIRS


def test_columns_of_different_lengths_are_refused_with_them(tmp_path):
    with pytest.raises(DataError, match="columns of different lengths: “prompt” 4, “chosen” 4, “rejected” 3. Export it again"):
        rows(written(tmp_path / "p.json", json.dumps(COLUMNS | {"rejected": COLUMNS["rejected"][:3]})))


def test_a_data_set_that_was_saved_to_disk_is_read_by_its_split(tmp_path):
    DatasetDict(train=Dataset.from_list(PAIRS), test=Dataset.from_list(PAIRS[:2])).save_to_disk(tmp_path / "saved")
    Dataset.from_list(PAIRS).save_to_disk(tmp_path / "parts", num_shards=2)
    assert len(list(stream_of(tmp_path / "saved"))) == 4 and len(list(stream_of(tmp_path / "saved", split="test"))) == 2
    assert [seen.number for seen in stream_of(tmp_path / "parts")] == [1, 2, 3, 4]
    assert values(next((tmp_path / "parts").glob("*.arrow"))) == PAIRS[:2]
    for folder, split, words in ((tmp_path / "saved", "dev", "saved with the splits train, test and has no “dev”"), (tmp_path, "train", "is a folder and not one")):
        with pytest.raises(DataError, match=words):
            stream_of(folder, split=split)
    (tmp_path / "parts" / "state.json").write_text('{"_data_files": [{"filename": "../saved/train/data-00000-of-00001.arrow"}]}', encoding="utf-8")
    with pytest.raises(DataError, match="names no files of its own"):
        stream_of(tmp_path / "parts")


def test_arrow_files_of_both_forms_are_read_and_a_damaged_one_is_told(tmp_path):
    table = pa.Table.from_pylist(PAIRS)
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    assert values(tmp_path / "file.arrow") == PAIRS
    whole = (tmp_path / "file.arrow").read_bytes()
    with pytest.raises(DataError, match="cut.arrow cannot be read as an Arrow file"):
        rows(written(tmp_path / "cut.arrow", whole[: len(whole) // 2]))


def workbook(path, **sheets):
    book = Workbook()
    book.remove(book.active)
    for title, cells in sheets.items():
        sheet = book.create_sheet(title)
        for row in cells:
            sheet.append(row)
    book.save(path)
    return path


CELLS = [list(COLUMNS), *(list(pair.values()) for pair in PAIRS)]


def test_a_title_above_the_header_is_passed_and_this_is_said(tmp_path):
    titled = [["Preference pairs, second round"], ["Collected by the support team", None, None], [], *CELLS]
    read = rows(workbook(tmp_path / "p.xlsx", Pairs=titled))
    assert [line.values for line in read] == PAIRS and read.remark == "Row 4 of the sheet is read as the header; what stands above it is not used."
    read = rows(written(tmp_path / "p.csv", "Preference pairs\r\n\r\n" + "\r\n".join(",".join(row) for row in CELLS)))
    assert [line.values for line in read] == PAIRS and read.remark == "Line 3 is read as the header; what stands above it is not used."
    assert values(written(tmp_path / "q.csv", "Preference pairs;;\n" + "\n".join(";".join(row) for row in CELLS))) == PAIRS


def test_the_sheet_with_the_pairs_is_found_by_what_is_in_it_and_another_can_be_named(tmp_path):
    path = workbook(tmp_path / "p.xlsx", About=[["Author", "Date"], ["Eve", "today"], ["Ann", "later"]], Pairs=CELLS,
                    Old=[["question", "better", "worse"], ["Q?", "A.", "B."]])
    stream = stream_of(path)
    assert len(list(stream)) == 4 and "“Pairs” is read, not “About”, “Old”" in stream.in_words()
    assert [seen.pair.chosen[0]["content"] for seen in stream_of(path, subset="old")] == ["A."]
    assert "“old” is entered as the subset, which p.csv does not have." in stream_of(
        written(tmp_path / "p.csv", "\n".join(",".join(row) for row in CELLS)), subset="old").in_words()


def test_columns_without_a_name_are_not_used_whatever_is_in_them(tmp_path):
    read = rows(written(tmp_path / "p.csv", ",prompt,,chosen\n0,a,x,b\n1,c,y,d\n"))
    assert [line.values for line in read] == [{"prompt": "a", "chosen": "b"}, {"prompt": "c", "chosen": "d"}]
    assert read.remark == "Columns 1, 3 have no name in the header and are not used."


# --- encodings --------------------------------------------------------------------------------------------------------

TEXTS = {
    "cp1252": ["Der Müller fährt über die Brücke, und das ist schön für uns.", "Il a mangé à l'hôtel où elle était déjà, ça c'est sûr.",
               "El niño se comió una piña muy dulce, pero también había más para los otros, ¿verdad?", "L'università è così: può darsi che non sia più quella di ieri."],
    "cp1250": ["Zażółć gęślą jaźń, a źdźbło trawy rośnie w ogródku.", "Příliš žluťoučký kůň úpěl ďábelské ódy, že ano?", "Árvíztűrő tükörfúrógép, és őszintén szólva ő is."],
    "cp1254": ["Gökyüzü neden mavi? Işığın saçılması yüzünden böyle görünüyor, değil mi?"],
    "cp1251": ["Съешь же ещё этих мягких французских булок, да выпей чаю.", "Чому небо блакитне? Тому що світло розсіюється в повітрі."],
    "koi8_r": ["Съешь же ещё этих мягких французских булок, да выпей чаю."],
    "cp866": ["Съешь же ещё этих мягких французских булок, да выпей чаю."],
    "cp1253": ["Γιατί ο ουρανός είναι μπλε; Επειδή το φως διαχέεται στην ατμόσφαιρα."],
    "gb18030": ["为什么天空是蓝色的？因为太阳光在大气中散射，所以我们看到的是蓝色。"],
    "big5": ["為什麼天空是藍色的？因為太陽光在大氣中散射，所以我們看到的是藍色。"],
    "cp932": ["空はなぜ青いのですか。それは光が空気の中で散乱するからです。"],
    "euc_jp": ["空はなぜ青いのですか。それは光が空気の中で散乱するからです。"],
    "cp949": ["하늘은 왜 파란가요? 그것은 빛이 공기 중에서 흩어지기 때문입니다."],
}


@pytest.mark.parametrize(("encoding", "text"), [(encoding, text) for encoding, texts in TEXTS.items() for text in texts])
def test_an_encoding_is_certain_with_a_few_rows_of_text(tmp_path, encoding, text):
    lines = "".join(f"{text}\t{text} Nr. {at}\tx\n" for at in range(5))
    path = written(tmp_path / "p.tsv", ("prompt\tchosen\trejected\n" + lines).encode(encoding))
    before = path.read_bytes()
    read = rows(path)
    assert [line.values["prompt"] for line in read] == [text] * 5 and "not in UTF-8, as line 2 shows: “" in read.remark
    assert path.read_bytes() == before


def test_what_could_be_in_several_encodings_is_asked_with_a_sample_of_each(tmp_path):
    path = written(tmp_path / "p.csv", "prompt,chosen,rejected\nWhy?,מדוע,no\n".encode("cp1255"))
    with pytest.raises(EncodingDoubt, match="p.csv, line 2, is not UTF-8, and which encoding it is in is not certain: ") as doubt:
        stream_of(path)
    readings = {encoding: sample for encoding, _, sample in doubt.value.readings}
    assert len(readings) > 1 and readings["cp1255"] == "Why?,מדוע,no" and readings["cp1251"] != readings["cp1255"]
    assert [seen.pair.chosen[0]["content"] for seen in stream_of(path, encoding="cp1255")] == ["מדוע"]
    main = [seen.pair.chosen[0]["content"] for seen in data.Stream(DataSettings(also=f"{path}, encoding cp1255"))][-1:]
    assert main == ["מדוע"]


def test_what_is_asked_becomes_a_button_that_fills_the_field_of_its_source(tmp_path):
    (tmp_path / examination.ENCODINGS).write_text(json.dumps({"path": "/x/p.csv", "readings": [["koi8_u", "KOI8-R, Cyrillic", "Привет"], ["cp1254", "Windows-1254", "ðÒ"]]}),
                                                  encoding="utf-8")
    job = Job("examine", tmp_path)
    first, second = examination.encodings(job, Settings(data=DataSettings(source="/x/p.csv").model_dump()))
    assert (first.button, first.setting, first.value) == ("Read it as KOI8-R: “Привет”", "data.encoding", "koi8_u") and second.value == "cp1254"
    mixed = Settings(data=DataSettings(also="/x/p.csv, weight 0.5\n/y/q.csv").model_dump())
    assert examination.encodings(job, mixed)[0].value == "/x/p.csv, weight 0.5, encoding koi8_u\n/y/q.csv"
    assert examination.encodings(Job("examine", tmp_path / "none"), mixed) == ()


def test_a_wish_for_an_encoding_reaches_every_reader(tmp_path):
    for name, content in (("p.csv", "a\nПривет\n"), ("p.jsonl", '{"a": "Привет"}\n'), ("p.json", '[{"a": "Привет"}]')):
        assert values(written(tmp_path / name, content.encode("koi8-r")), How(encoding="koi8-r")) == [{"a": "Привет"}]
