"""The cleaned pairs leave as a file or a Hub dataset by a real job, and come back as the same pairs."""

import json
import os
import resource
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from studio import events, export, jobs
from studio.card import TAG
from studio.engine import columns
from studio.engine import export as exporting
from studio.engine.data import Stream
from studio.engine.worker import Desk
from studio.errors import DataError, SettingsError, StudioError
from studio.export import ExportRequest
from studio.jobs import Job
from studio.preferences.findings import Seen
from studio.preferences.pairs import Pair
from studio.settings import DataSettings, Settings
from studio.share import FILE
from tests.hub_wire import TAKE_AND_HANG_UP
from tests.jobs_at_work import until

README = "README.md"
ON_HUB = {"train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"}


def row(number, **more):
    return {"prompt": f"Why is „{number}“ what it is?", "chosen": f"Because it is so: é\u2028 {number}", "rejected": f"No. {number}", **more}


def called(number, arguments):
    """A pair in which a tool is asked before the answers differ."""
    call = {"id": f"call-{number}", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"prompt": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": f"Weather {number}?"},
                       {"role": "assistant", "content": "", "tool_calls": [call]},
                       {"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": f"call-{number}"}],
            "chosen": [{"role": "assistant", "content": "Sunny.", "reasoning_content": "The tool says so."}],
            "rejected": [{"role": "assistant", "content": "No idea."}]}


TOOLS = [called(1, {"town": "Łódź", "days": 2}), called(2, {"days": 3, "units": ["C", "F"]}), called(3, {}), row(4)]
"""Turns with and without further keys; arguments that are not the same in every call."""


def write(path, rows):
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    return path


@pytest.fixture
def examined(tmp_path):
    """Makes the folder of an examination of some rows."""
    def of(rows, name="pairs.jsonl", **more) -> Job:
        return asked_for(tmp_path, str(write(tmp_path / name, rows)), **more)

    return of


def asked_for(root, source, **more) -> Job:
    job = Job("examine", root / ".examined" / str(len(list(root.glob(".examined/*")))))
    job.folder.mkdir(parents=True)
    settings = Settings.from_form(**{"data.source": source} | {f"data.{name}": value for name, value in more.items()})
    (job.folder / FILE).write_text(settings.to_yaml(), encoding="utf-8")
    return job


def exported(examined: Job, token: str | None = None, **choices) -> Job:
    """Ask for the export and wait for its end."""
    job = export.begin(examined, ExportRequest(**choices), {"token": token} if token else None)
    until(lambda: jobs.status(job) in jobs.OVER)
    return job


def finished(examined: Job, token: str | None = None, **choices) -> Job:
    job = exported(examined, token, **choices)
    assert jobs.status(job) == "finished", (job.folder / "worker.log").read_text(encoding="utf-8")
    return job


def reason(job: Job) -> str:
    return events.last(events.read(job.log), events.Failed).reason


def pairs_of(source, **more):
    return [seen.pair for seen in Stream(DataSettings(source=str(source), **more))]


def edited(examined: Job):
    """The pairs that the examination's settings give."""
    return [seen.pair for seen in Stream(Settings.from_file(examined.folder / FILE).data)]


def on_hub(hub, repo="ada/cleaned"):
    return hub.repos[f"datasets/{repo}"]


def metadata(readme: bytes) -> dict:
    return yaml.safe_load(readme.decode().split("---")[1])


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_the_exported_file_reads_back_as_the_same_pairs(examined, to):
    edits = 'drop 2; swap 3; rewrite 5 {"chosen": "Yes; it does."}; drop duplicates'
    job = examined([row(at) for at in range(1500)] + [row(7)], edits=edits)
    path = export.result(finished(job, to=to))
    found = pairs_of(path)
    assert path.name == f"cleaned.{to}" and len(found) == 1499 and found == edited(job)
    assert found[3].chosen[0]["content"] == "Yes; it does." and found[1].chosen[0]["content"] == "No. 2"
    assert events.last(events.read(export.job_of(job).log), events.Noted).text == "1,499 pairs."
    assert {one.name for one in path.parent.iterdir()} - {jobs.EXIT} == {path.name, FILE, "events.jsonl", "worker.json", "worker.log", ".lock", ".working", "pulse"}


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
@pytest.mark.fault("T10")
def test_texts_that_a_spreadsheet_would_take_for_formulas_stay_as_they_are(examined, to):
    texts = ["=cmd|'/c calc'!A1", "+1", "-2", "@x", "\tindented"]
    job = finished(examined([row(at, chosen=text) for at, text in enumerate(texts)]), to=to)
    assert [pair.chosen[0]["content"] for pair in pairs_of(str(export.result(job)))] == texts


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_turns_with_tools_keep_all_they_hold(examined, to):
    job = examined(TOOLS)
    found = pairs_of(export.result(finished(job, to=to)))
    assert found == edited(job) and found[1].prompt[2]["tool_calls"][0]["function"]["arguments"] == {"days": 3, "units": ["C", "F"]}
    assert found[2].prompt[2]["tool_calls"][0]["function"]["arguments"] == {} and set(found[3].prompt[0]) == {"role", "content"}


MIXED = ({"days": 2}, {"days": 2.5})


def test_tool_calls_that_parquet_would_change_are_refused_there_and_kept_as_jsonl(examined):
    job = examined([called(number, given) for number, given in enumerate(MIXED)])
    refused = exported(job, to="parquet")
    assert jobs.status(refused) == "failed" and reason(refused).startswith("The tool calls in these pairs hold values of different kinds")
    assert export.result(refused) is None and not list(refused.folder.glob("*.parquet")) and not list(refused.folder.glob(".draft-*"))
    found = pairs_of(export.result(finished(job, to="jsonl")))
    assert [one.prompt[2]["tool_calls"][0]["function"]["arguments"] for one in found] == list(MIXED)


@pytest.mark.parametrize("arguments", [MIXED, ({"days": 2}, {"days": "two"}), ({"days": 2}, {"days": True}), ({"days": 2}, {"days": [2]}),
                                       ({"days": {}}, {"days": {}}), ({"days": 10**30}, {"days": 1})])
def test_no_value_is_changed_in_silence_by_a_column(tmp_path, arguments):
    rows = [called(number, given) for number, given in enumerate(arguments)]
    turns = columns.Turns()
    with pytest.raises(DataError, match="Export the pairs as JSONL"):
        for _ in turns.seen_in(Seen(number, Pair(**one)) for number, one in enumerate(rows, 1)):
            pass
        columns.write(tmp_path / "x.parquet", map(json.dumps, rows), turns)


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_what_edits_hold_out_is_marked_and_can_be_held_out_again(examined, to):
    rows = [row(at, part="dev" if at % 4 == 0 else "main") for at in range(20)] + [row(1, part="dev")]
    job = examined(rows, edits="hold out part = dev; drop leaks")
    path = export.result(finished(job, to=to))
    again = list(Stream(DataSettings(source=str(path), edits="hold out split = test")))
    assert [seen.held_out for seen in again] == [False] * 15 + [True] * 5  # the leak is gone
    assert [seen.pair for seen in again if seen.held_out] == edited(job)[0:20:4]
    assert events.last(events.read(export.job_of(job).log), events.Noted).text == "20 pairs, 5 of them held out."


def test_leaks_stay_where_no_edit_drops_them(examined):
    job = examined([row(1, part="main"), row(1, part="dev")], edits="hold out part = dev")
    assert len(pairs_of(export.result(finished(job)))) == 2


@pytest.mark.slow
def test_only_the_latest_export_is_offered_and_its_file_alone_is_kept(examined):
    job = examined([row(at) for at in range(5)])
    assert export.result(export.job_of(job)) is None
    first, second = export.result(finished(job, to="jsonl")), export.result(finished(job, to="parquet"))
    assert second.suffix == ".parquet" and not first.exists()
    assert pq.ParquetFile(second).schema_arrow.names == ["prompt", "chosen", "rejected"]
    assert jobs.status(exported(job, to="hub", repo="cleaned")) == "failed" and export.result(export.job_of(job)) is None


def test_where_nothing_is_left_it_is_told_with_the_account(examined):
    job = exported(examined([row(1), row(2)], edits="drop 1, 2"))
    assert reason(job) == "0 of 2 rows are usable pairs. 2 were taken out by edits. Change the edits or the columns, then export again."
    assert export.result(job) is None


def test_an_export_ends_when_it_is_asked_to_and_leaves_nothing(examined):
    job = export.begin(examined(row(at) for at in range(200_000)), ExportRequest(to="parquet"))
    until(lambda: events.last(events.read(job.log), events.Progressed))
    jobs.stop(job)
    until(lambda: jobs.status(job) in jobs.OVER, seconds=20)
    assert jobs.status(job) == "stopped" and export.result(job) is None and not list(job.folder.glob(".draft-*"))


def test_a_full_disk_is_told_in_words_and_leaves_nothing(examined):
    job = export.job_of(examined(row(at, chosen="é" * 100 + str(at)) for at in range(1000)))
    job.folder.mkdir()
    (job.folder / FILE).write_text(ExportRequest().to_yaml())
    subprocess.run([sys.executable, "-m", "studio.engine.export", str(job.folder)], stdin=subprocess.DEVNULL, capture_output=True,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)))
    assert reason(job).startswith("The disk is full: ")
    assert export.result(job) is None and not list(job.folder.glob(".draft-*"))


# --- the Hub ----------------------------------------------------------------------------------------------------------


def test_a_dataset_is_pushed_privately_in_one_commit_with_a_card_and_without_path_or_token(hub, examined, tmp_path):
    token = hub.add_user("ada")
    job = examined([row(at, part="dev" if at < 3 else "main") for at in range(12)], name="my_pairs.jsonl", edits="drop 12; hold out part = dev")
    done = finished(job, token, to="hub", repo="cleaned")
    repo, files = on_hub(hub), on_hub(hub).files()
    assert repo.private and [commit.title for commit in repo.commits[1:]] == ["Upload 11 preference pairs with ORPO Studio"]
    assert set(files) == {".gitattributes", README, *ON_HUB.values()}
    pushed = events.last(events.read(done.log), events.Pushed)
    assert (pushed.repo, pushed.url) == ("ada/cleaned", f"{hub.url}/datasets/ada/cleaned/commit/{repo.commits[-1].oid}")
    told, text = metadata(files[README]), files[README].decode()
    assert told["tags"] == ["orpo", "preference", TAG] and told["size_categories"] == ["n<1K"]
    assert told["configs"][0]["data_files"] == [{"split": split, "path": path} for split, path in ON_HUB.items()]
    for words in ("11 pairs, 3 of them held out.", r"my\_pairs.jsonl", "11 of 12 rows are usable pairs. 1 were taken out by edits.",
                  "“drop 12” concerned 1", "Takes the question from “prompt”"):
        assert words in text
    assert str(tmp_path) not in text
    for path in done.folder.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes(), path
    assert export.result(done) is None and not list(done.folder.glob("*.parquet"))


def test_a_pushed_dataset_comes_back_as_the_same_pairs_by_its_name(hub, examined, tmp_path):
    token = hub.add_user("ada")
    job = examined(TOOLS)
    finished(job, token, to="hub", repo="cleaned")
    again = asked_for(tmp_path, "ada/cleaned")
    assert pairs_of(export.result(finished(again, token))) == edited(job)
    finished(again, token, to="hub", repo="third")
    first = on_hub(hub).commits[-1].oid
    text = on_hub(hub, "ada/third").files()[README].decode()
    assert f"[ada/cleaned](https://huggingface.co/datasets/ada/cleaned/tree/{first}), split train, at commit `{first}`" in text
    program = text.split("```python")[1].split("```")[0] + "print(train[1]['chosen'][0]['content'])"
    assert subprocess.run([sys.executable, "-c", program], env=os.environ | {"HF_TOKEN": token}, capture_output=True, text=True,
                          check=True).stdout == "Sunny.\n"


@pytest.mark.slow
def test_exporting_the_same_again_changes_nothing_and_a_split_that_is_gone_goes_there_too(hub, examined):
    token = hub.add_user("ada")
    rows = [row(at, part="dev" if at < 3 else "main") for at in range(12)]
    both, one = examined(rows, edits="hold out part = dev"), examined(rows)
    hub.fail_next("commit", TAKE_AND_HANG_UP)
    assert jobs.status(exported(both, token, to="hub", repo="cleaned")) == "failed"
    finished(both, token, to="hub", repo="cleaned")
    assert len(on_hub(hub).commits) == 2
    finished(one, token, to="hub", repo="cleaned")
    assert len(on_hub(hub).commits) == 3 and set(on_hub(hub).files()) == {".gitattributes", README, ON_HUB["train"]}


def test_what_cannot_be_pushed_is_refused_before_anything_is_made(hub, examined):
    writer, reader, job = hub.add_user("ada"), hub.add_user("bob", role="read"), examined([row(1), row(2)])
    for token, repo, words in (("hf_" + "x" * 34, "cleaned", "The Hub did not accept the token."),
                               (reader, "cleaned", "This token can only read."),
                               (writer, "acme/cleaned", "The token belongs to ada, who may not write to acme.")):
        refused = exported(job, token, to="hub", repo=repo)
        assert jobs.status(refused) == "failed" and reason(refused).startswith(words)
    assert hub.repos == {} and "POST" not in {method for method, _ in hub.requests}


def test_without_a_token_the_hub_is_not_asked(examined):
    folder = examined([row(1)]).folder / "export"
    folder.mkdir()
    (folder / FILE).write_text(ExportRequest(to="hub", repo="cleaned").to_yaml())
    with pytest.raises(StudioError, match="No token was entered."):
        exporting.export(Desk(folder))


@pytest.mark.slow
def test_a_dataset_of_others_making_is_left_alone_and_a_public_one_gets_nothing_private(hub, examined, tmp_path):
    token, job = hub.add_user("ada", organisations=("acme",)), examined([row(1), row(2)])
    (tmp_path / "other").mkdir()
    for name in (README, "notes.txt"):
        (tmp_path / "other" / name).write_text("of another making")
    hub.add_dataset("acme/other", tmp_path / "other", private=True)
    assert reason(exported(job, token, to="hub", repo="acme/other")).startswith("acme/other exists and was not made by this studio")
    finished(job, token, to="hub", repo="acme/other", overwrite=True)
    assert set(on_hub(hub, "acme/other").files()) == {".gitattributes", README, "notes.txt", ON_HUB["train"]}
    hub.add("ada/public", "dataset")
    assert reason(exported(job, token, to="hub", repo="public")).startswith("ada/public exists and is public")
    finished(job, token, to="hub", repo="public", private=False)


# --- the request ------------------------------------------------------------------------------------------------------


def test_a_request_survives_its_file_and_says_what_is_wrong_by_field():
    asked = ExportRequest(to="hub", repo="acme/cleaned", private=False)
    assert ExportRequest.from_yaml(asked.to_yaml()) == asked
    assert ExportRequest().private and ExportRequest(to="parquet").repo == ""
    for choices, field in ({"to": "csv"}, "to"), ({"to": "hub"}, "repo"), ({"to": "hub", "repo": "a/b/c"}, "repo"), \
            ({"to": "hub", "repo": "--"}, "repo"), ({"token": "hf_secret"}, "token"):
        with pytest.raises(SettingsError) as caught:
            ExportRequest(**choices)
        assert set(caught.value.problems) == {field}
    with pytest.raises(SettingsError):
        ExportRequest.from_yaml("- nothing")


def test_what_was_never_examined_is_not_exported(tmp_path):
    with pytest.raises(StudioError, match="have not been examined"):
        export.begin(Job("examine", tmp_path), ExportRequest())
    assert not (tmp_path / "export").exists()
