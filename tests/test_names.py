"""Names of models and datasets, and files of settings: what they are not is told from the text alone, and nothing is asked."""

import os
import time
from itertools import product

import pytest

from studio import events, names, runs
from studio.errors import SettingsError
from studio.jobs import Queue, of, status
from studio.plain_yaml import LARGEST
from studio.settings import Settings
from tests.jobs_at_work import practice

TOKEN = "hf_" + "aBcDeFgHiJ" * 3 + "kLmN"
ADDRESSES = ["http://127.0.0.1:9/x", "//127.0.0.1:9", "http://2130706433", "2130706433", "0x7f000001", "0x7f.1", "127.0.0.1", "127.0.0.1/x", "127.1:80",
             "[::1]:9", "::1", "http://user@127.0.0.1:9/", "file:///etc/passwd", "hf://datasets/x", "https://169.254.169.254/latest/meta-data", "localhost:8080/x"]
PATHS = ["../../etc/passwd", "./model", "~/models/llama", "a/../../b", "/models/../etc", "..", ".", "C:\\models\\llama", "c:/models", "\\\\host\\share", "${HOME}/x"]
NO_NAMES = ["-rf", "--output_dir=/x", "a b", "a/b/c", "a//b", "a--b", "x" * 300, "@file", "; touch x", "$(id)", "CON:", "name.", "%2e%2e%2fx", "..\u2215x", "\uff0e\uff0e/x"]
UNSEEN = ["a\0b", "owner/na\u202eme", "a\nb", "a\u200bb", "\ud800x"]


def complaint(**values) -> str:
    with pytest.raises(SettingsError) as refused:
        Settings.from_form(**values)
    [(_, text)] = refused.value.problems.items()
    return text


@pytest.mark.parametrize("field", ["model.name", "data.source", "data.also"])
@pytest.mark.fault("T58", "T57")
def test_what_is_no_name_is_refused_as_what_it_is(field, tries):
    kinds = {"address": ADDRESSES, "path": PATHS, "": NO_NAMES, "cannot be seen": UNSEEN, "looks like a token": [TOKEN]}
    for words, texts in kinds.items():
        for text in texts:
            if field == "data.also" and {"\n", ";"} & set(text):
                continue  # these end a line there, and each part is a source of its own
            told = complaint(**{field: text})
            assert words in told and told.count(". ") >= 1 and told.endswith("."), (text, told)
            assert TOKEN not in told
        tries(len(texts))


@pytest.mark.parametrize("name", ["gpt2", "meta-llama/Meta-Llama-3-8B", "mlabonne/orpo-dpo-mix-40k", "a_b/c.d-e", "practice", "/models/my model", "01-ai/Yi-6B"])
def test_names_of_the_hub_and_full_paths_pass(name):
    assert Settings.from_form(**{"model.name": name, "data.source": name}).model.name == name


def test_an_address_of_the_hub_s_own_site_is_answered_with_the_name_in_it():
    assert complaint(**{"model.name": "https://huggingface.co/meta-llama/Meta-Llama-3-8B/tree/main"}).endswith("Enter meta-llama/Meta-Llama-3-8B.")
    assert complaint(**{"data.source": "https://huggingface.co/datasets/ada/pairs"}).endswith("Enter ada/pairs.")


def test_a_file_without_its_folder_is_told_so():
    assert "the folder it is in" in complaint(**{"data.source": "pairs.jsonl"})


@pytest.mark.parametrize("text", ["../../refs", "a b", "-x", "x\0", "main\n"])
def test_a_revision_is_no_path(text):
    assert "cannot be a revision" in complaint(**{"model.revision": text + "x"})
    Settings.from_form(**{"model.revision": "refs/pr/1", "data.revision": "v1.0"})


@pytest.mark.fault("T59")
def test_paths_may_be_limited_to_folders(tmp_path):
    inside, link = tmp_path / "models" / "tiny", tmp_path / "models" / "link"
    inside.mkdir(parents=True)
    link.symlink_to("/etc")
    names.refuse_paths_outside(["owner/name", "practice", str(inside)], [tmp_path / "models"])
    for path in (tmp_path / "models2" / "x", link, "/etc", "/"):
        with pytest.raises(ValueError, match="not open to you"):
            names.refuse_paths_outside([str(path)], [tmp_path / "models"])
    with pytest.raises(ValueError, match="not open to you"):
        names.refuse_paths_outside([str(inside)], [])


# --- files of settings ------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x]\n" + "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(12))
HOSTILE = {
    "laughs": LAUGHS, "brackets": "[" * 5000, "mappings": "{a: " * 5000, "digits": "training: {seed: " + "9" * 5000 + "}", "a day that is none": "data: 2026-99-99",
    "tag": "!!python/object/apply:os.system ['touch canary']", "tag within": "model: !!python/name:os.system", "class": "__class__: x", "self": "self: 1",
    "class within": "model: {__class__: x, __init__: y}", "wrong types": "training: {beta: [1], seed: {}, epochs: '1e9'}", "keys that are none": "model: {1: x}\n2: y",
    "a merge by reference": "model: &m {name: practice}\ndata: {<<: *m}", "nothing but nulls": "model:\ndata:\n"}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.fault("T63")
def test_a_hostile_file_of_settings_is_refused_in_words_and_at_once(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(SettingsError) as refused:
        Settings.from_file(tmp_path / "settings.yaml")
    assert time.process_time() - began < 2 and len(str(refused.value)) < 2000
    assert [path.name for path in tmp_path.iterdir()] == ["settings.yaml"]


def spoil(path, how: str) -> None:
    """Put something else in a file's place."""
    path.unlink()
    if how == "link":
        (path.parent / "elsewhere").write_text(Settings().to_yaml(), encoding="utf-8")
        path.symlink_to(path.parent / "elsewhere")
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes({"binary": b"\x80\xff\0" * 99, "large": b"# " + b"x" * 10 * 2**20, "half": b"model: {na", "empty": b""}[how])


@pytest.mark.parametrize("how", ["link", "folder", "pipe", "binary", "large"])
@pytest.mark.fault("T63")
def test_what_is_no_file_of_text_is_refused_in_words(tmp_path, how):
    path = tmp_path / "settings.yaml"
    path.touch()
    spoil(path, how)
    assert how != "large" or path.stat().st_size > LARGEST
    with pytest.raises(SettingsError, match=r"Choose a settings file of the studio\."):
        Settings.from_file(path)


@pytest.mark.parametrize(("file", "how"), [
    *product(["settings.yaml", "events.jsonl"], ["link", "folder", "pipe", "binary", "large", "half", "empty"]),
    *product(["worker.json", "exit.json", "pulse"], ["link", "folder", "binary", "half", "empty"])])
@pytest.mark.fault("T63")
def test_one_spoiled_folder_breaks_neither_the_list_nor_the_queue(tmp_path, file, how):
    sound, spoiled = runs.create(tmp_path, practice()), runs.create(tmp_path, practice())
    (spoiled.folder / file).touch()
    spoil(spoiled.folder / file, how)
    queue = Queue(tmp_path)
    assert sound in runs.listed(tmp_path) and sound in queue.unfinished()
    assert queue.unfinished()[sound] == "queued"
    for run in runs.listed(tmp_path):
        assert status(of(run)) in (None, "queued", "crashed")
        events.last(events.read(of(run).log), events.Queued)
