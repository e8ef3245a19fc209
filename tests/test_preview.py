"""A look at a dataset: the first pairs from a short process, or one clear sentence."""

import json
import shutil

import pytest

from studio import practice
from studio.errors import DataError
from studio.preview import look
from studio.settings import DataSettings
from studio.ui.data_tab import keep, looked_at


def test_the_practice_pairs_are_shown_with_how_they_were_read():
    seen = look(DataSettings(rows=50), first=3)
    assert len(seen.pairs) == 3 and seen.usable == 50
    assert "All 50 rows are usable" in seen.counts and "“chosen”" in seen.columns
    assert seen.pairs[0]["prompt"][-1]["role"] == "user"


@pytest.mark.parametrize(("name", "text", "told"), [
    ("empty.jsonl", "", "is empty"),
    ("page.jsonl", "<html></html>", "cannot be read as JSONL"),
    ("wrong.csv", "a,b\n1,2\n", "the columns are a, b"),
    ("header.csv", "prompt,chosen,rejected\n", "holds no rows"),
])
def test_a_file_that_gives_no_pairs_is_told_in_a_sentence(tmp_path, name, text, told):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        look(DataSettings(source=str(tmp_path / name)))


def test_a_csv_file_gives_pairs(tmp_path):
    (tmp_path / "pairs.csv").write_text('question,chosen,rejected\n"Why, though?",Because.,No.\nHow?,Thus.,"Don\'t ask, go."\n', encoding="utf-8")
    assert look(DataSettings(source=str(tmp_path / "pairs.csv"))).usable == 2


def test_a_private_dataset_needs_the_token(hub, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    shutil.copy(practice.PAIRS, folder / "train.jsonl")
    token = hub.add_user("ada")
    hub.add_dataset("ada/pairs", folder, private=True)
    with pytest.raises(DataError, match="ada/pairs was not found"):
        look(DataSettings(source="ada/pairs"))
    assert look(DataSettings(source="ada/pairs", rows=10), token).usable == 10


def test_an_upload_is_kept_beside_the_runs_under_its_content(tmp_path):
    uploaded = tmp_path / "my pairs.jsonl"
    uploaded.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}), encoding="utf-8")
    kept = keep(tmp_path / "runs", str(uploaded))
    assert kept.read_bytes() == uploaded.read_bytes() and kept.name == uploaded.name
    assert keep(tmp_path / "runs", str(uploaded)) == kept


def test_what_a_dataset_holds_is_shown_as_text_and_never_as_markup(tmp_path):
    rows = [{"prompt": "<img src=x onerror=alert(1)>", "chosen": "<script>1</script>", "rejected": f"<b>{at}</b>"} for at in range(2)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shown = looked_at({"data.source": str(tmp_path / "x.jsonl")}, "")
    assert "&lt;script&gt;" in shown and "<script>" not in shown and "<img src=x" not in shown


def test_a_setting_out_of_range_is_told_instead_of_looking():
    assert "at most 0.5" in looked_at({"data.held_out": 0.9}, "")
