"""Edits, columns and undo belong to the data they were made for: another file has none of them, and the first one's come back."""

import json
from dataclasses import replace

import pytest

from studio import fingerprints, source_choices
from studio.engine import data
from studio.errors import DataError, SettingsError
from studio.preferences.mix import Part
from studio.settings import Settings
from studio.source_choices import follow, identity


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(number, **more):
    return {"prompt": f"Why is {number}?", "chosen": f"Because {number}.", "rejected": f"No {number}.", **more}


@pytest.fixture
def files(tmp_path):
    """Two files of the same columns, and their names in the form."""
    one, two = (write(tmp_path / f"{name}.jsonl", (row(at + start) for at in range(30))) for name, start in (("one", 0), ("two", 500)))
    return str(one), str(two)


def form(source, **more):
    values = {name: value for name, value in Settings().to_form().items() if name in source_choices.OF_DATA}
    return values | {"data.source": str(source)} | more


def answers(asked):
    return {seen.number: seen.pair.chosen[0]["content"] for seen in data.read(asked).found}


class Form:
    """The form as the page holds it: values, undo stack and whose choices they are; `choose` is what a person does."""

    def __init__(self, root, source):
        self.root, self.values, self.history = root, form(source), []
        self.whose = identity(self.values)

    def choose(self, **values):
        self.values |= {name.replace("__", "."): value for name, value in values.items()}
        found = follow(self.root, self.whose, self.values, self.history)
        if found:
            self.values, self.history, self.whose = self.values | found.values, found.history, found.whose
        return found.told if found else ""

    def edit(self, text):
        self.history = [*self.history, {"data.edits": self.values["data.edits"]}]
        self.choose(data__edits=text, data__edits_for=source_choices.marks(self.values))

    @property
    def settings(self):
        return Settings.from_form(**self.values)


def test_edits_made_for_one_file_leave_the_next_one_alone_and_come_back_with_theirs(files, tmp_path):
    one, two = files
    page = Form(tmp_path, one)
    page.choose(data__prompt_column="prompt", data__held_out=0.2)
    page.edit("drop 3; swap 23")
    told = page.choose(data__source=two)
    assert page.values["data.edits"] == page.values["data.edits_for"] == page.values["data.prompt_column"] == ""
    assert page.history == [] and page.values["data.held_out"] == 0.05
    assert answers(page.settings.data)[23] == "Because 522."
    assert "Put away with one.jsonl, and back when you choose it again: 2 edits, Held-out share, Prompt column" in told and "Nothing has been chosen for two.jsonl" in told
    page.edit("swap 1")
    told = page.choose(data__source=one)
    assert (page.values["data.edits"], page.values["data.prompt_column"], page.values["data.held_out"]) == ("drop 3; swap 23", "prompt", 0.2)
    assert page.history == [{"data.edits": ""}] and answers(page.settings.data)[23] == "No 22."
    assert "Brought back for one.jsonl: 2 edits" in told
    page.choose(data__source=two)
    assert page.values["data.edits"] == "swap 1"


def test_what_the_form_says_for_a_moment_with_the_choices_of_the_file_before_is_nobody_s(files, tmp_path, monkeypatch):
    """The page sends its values when the source changes, and may do so before its other fields have followed."""
    one, two = files
    form_ = Form(tmp_path, one)
    form_.choose(data__rows=20)
    form_.edit("drop 7")
    in_between = form_.values | {"data.source": two}
    form_.choose(data__source=two)
    assert form_.whose.supersedes(in_between) and not form_.whose.supersedes(form_.values)
    later = source_choices.time.monotonic() + source_choices.IN_FLIGHT_SECONDS
    monkeypatch.setattr(source_choices.time, "monotonic", lambda: later)
    assert not form_.whose.supersedes(in_between), "Whoever enters the same by hand later means it."


def test_a_name_that_is_being_typed_loses_nothing(files, tmp_path):
    page = Form(tmp_path, files[0])
    page.edit("swap 2")
    for text in ("owner", "owner/", "owner/na", "owner/name", ""):
        page.choose(data__source=text)
    assert page.choose(data__source=files[0]) and page.values["data.edits"] == "swap 2"


def test_the_same_content_under_another_name_has_the_same_choices(files, tmp_path):
    page = Form(tmp_path, files[0])
    page.edit("swap 2")
    copied = tmp_path / "renamed.jsonl"
    copied.write_bytes((tmp_path / "one.jsonl").read_bytes())
    page.choose(data__source=str(copied))
    assert page.values["data.edits"] == "swap 2" and answers(page.settings.data)[2] == "No 1."


def test_edits_stay_while_sources_are_added_behind_and_go_with_another_split_or_another_source_before(files, tmp_path):
    """Row numbers go through the sources in their order."""
    one, two = files
    page = Form(tmp_path, one)
    page.edit("swap 2")
    assert page.choose(data__also=two) == "" and page.values["data.edits"] == "swap 2"
    page.edit("swap 2; drop 40")
    third = str(write(tmp_path / "three.jsonl", map(row, range(900, 930))))
    page.choose(data__also=third)
    assert page.values["data.edits"] == "swap 2", "drop 40 was of two.jsonl"
    page.choose(data__also=two)
    assert page.values["data.edits"] == "swap 2; drop 40"
    hub = Form(tmp_path, "owner/name")
    hub.choose(data__edits="swap 2")
    hub.choose(data__split="test")
    assert hub.values["data.edits"] == "" and hub.values["data.split"] == "test"
    hub.choose(data__split="train")
    assert hub.values["data.edits"] == "swap 2"


def test_a_file_of_whose_choices_nothing_can_be_read_begins_without(files, tmp_path):
    page = Form(tmp_path, files[0])
    page.edit("swap 2")
    page.choose(data__source=files[1])
    for kept in (tmp_path / source_choices.FOLDER).iterdir():
        kept.write_text("[" * 9000, encoding="utf-8")
    page.choose(data__source=files[0])
    assert page.values["data.edits"] == ""


def test_nothing_that_looks_like_a_token_is_kept(files, tmp_path):
    page = Form(tmp_path, files[0])
    page.choose(data__prompt_column="hf_" + "aB3" * 12, evaluation__prompts="hf_" + "aB3" * 12, data__split="test")
    page.choose(data__source=files[1])
    assert "aB3" not in "".join(kept.read_text(encoding="utf-8") for kept in (tmp_path / source_choices.FOLDER).iterdir())


# --- with the settings, wherever they go ------------------------------------------------------------------------------


def settings(source, edits, **more):
    return Settings.from_form(**form(source, **{"data.edits": edits, **more}))


def test_a_run_refuses_edits_that_were_made_for_other_data_and_says_for_which(files):
    one, two = files
    made_for = str(fingerprints.of(Part(one)))
    assert answers(settings(one, "swap 23", **{"data.edits_for": made_for}).data)[23] == "No 22."
    with pytest.raises(DataError, match=r"The edits were made for [0-9a-f]{12}, \d+ bytes: one.jsonl, and these are .*two.jsonl"):
        data.read(settings(two, "swap 23", **{"data.edits_for": made_for}).data)
    with pytest.raises(DataError, match="Choose those data again, or remove the edits"):
        source_choices.refuse_edits_of_other_data(settings(two, "swap 23", **{"data.edits_for": made_for}).data)


def test_edits_know_their_data_through_a_file_of_settings(files):
    one, two = files
    kept = Settings.from_yaml(settings(one, "swap 23", **{"data.edits_for": str(fingerprints.of(Part(one)))}).to_yaml())
    other = kept.data.model_copy(update={"source": two})
    with pytest.raises(DataError, match="one.jsonl"):
        data.read(other)


def test_a_file_that_was_changed_is_another_one_and_one_that_has_grown_is_not(files, tmp_path):
    one, path = files[0], tmp_path / "one.jsonl"
    asked = settings(one, "swap 2", **{"data.edits_for": str(fingerprints.of(Part(one)))}).data
    with open(path, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(row(77)) + "\n")
    assert answers(asked)[2] == "No 1." and len(answers(asked)) == 31
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    with pytest.raises(DataError, match="made for"):
        data.read(asked)


def test_edits_by_row_that_do_not_say_for_which_data_are_told_to_be_unchecked(files):
    told = " ".join(data.read(settings(files[0], "swap 2").data).in_words())
    assert "do not say which data they were made for" in told
    assert "do not say" not in " ".join(data.read(settings(files[0], "drop duplicates").data).in_words())


def test_mixed_sources_are_all_checked_and_one_may_be_added_behind(files, tmp_path):
    one, two = files
    both = "\n".join(str(fingerprints.of(Part(path))) for path in files)
    data.read(settings(one, "swap 40", **{"data.also": two, "data.edits_for": both}).data)
    data.read(settings(one, "swap 4", **{"data.also": two, "data.edits_for": str(fingerprints.of(Part(one)))}).data)
    for asked in (settings(two, "swap 40", **{"data.also": one, "data.edits_for": both}), settings(one, "swap 40", **{"data.edits_for": both})):
        with pytest.raises(DataError, match="made for"):
            data.read(asked.data)


def test_a_dataset_of_the_hub_is_known_by_its_commit_and_its_split():
    part, commit = Part("owner/name"), "0123456789abcdef" * 2 + "01234567"
    made_for = str(fingerprints.of(part, commit))
    assert made_for == "0123456789ab: owner/name"
    fingerprints.refuse_others(made_for, [part], [fingerprints.of(part, commit)])
    fingerprints.refuse_others(made_for, [part], [fingerprints.of(part, "main")])  # offline: not known
    test = replace(part, split="test")
    for other, at in ((part, "f" * 40), (test, commit), (Part("owner/other"), commit)):
        with pytest.raises(DataError, match="0123456789ab: owner/name"):
            fingerprints.refuse_others(made_for, [other], [fingerprints.of(other, at)])


@pytest.mark.parametrize("text", ["yes", "0123456789ab", "0123456789AB: x", "0123456789ab:x", "0123456789ab, -1 bytes: x\nno"])
def test_what_names_no_data_is_refused(text):
    with pytest.raises(SettingsError, match="which data the edits were made for"):
        Settings.from_form(**{"data.edits_for": text})


@pytest.mark.parametrize("name", ["a, b: c.jsonl", "ä ö.csv", "7 bytes: x.tsv", "x" * 200 + ".jsonl"])
def test_a_file_of_any_name_has_a_fingerprint_that_is_read_back(tmp_path, name):
    path = write(tmp_path / name, map(row, range(4)))
    asked = settings(path, "swap 2", **{"data.edits_for": str(fingerprints.of(Part(str(path))))}).data
    assert Settings.from_yaml(Settings(data=asked.model_dump()).to_yaml()).data == asked
    fingerprints.refuse_others(asked.edits_for, asked.parts, [fingerprints.of(part) for part in asked.parts])
