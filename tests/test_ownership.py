"""What is somebody's is nobody else's: every event of the page, every file address and every script's call is tried by a stranger."""

import json
import shutil

import pytest

from studio import collected, events, examination, export, jobs, questions, runs, uploads, votes
from studio.access import Users
from studio.candidates import BASE, Candidate
from studio.export import ExportRequest
from studio.preferences.pairs import Pair
from tests.jobs_at_work import practice, until
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor, contents

SECRET = "what only anna knows"
PASSWORDS = {"anna": "password of anna", "bert": "password of bert", "carla": "password of carla",
             "dora": "password of dora"}
LOCKS = (".lock",)
"""Looking whether a job is at work may touch them; they hold nothing."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("studio") / "runs"
    home.mkdir()
    for name, password in PASSWORDS.items():
        Users(home).add(name, password, admin=name == "carla")
    return home


@pytest.fixture(scope="module")
def anna(home, tmp_path_factory):
    """Everything that somebody can have: a finished run, an upload, its examination and export, collected pairs. Her room."""
    room = runs.room(home, "anna")
    turn = {"role": "user", "content": SECRET}
    pairs = [{"prompt": f"{SECRET} {n}", "chosen": f"a good answer {n}", "rejected": f"a bad answer {n}"} for n in range(20)]
    file = tmp_path_factory.mktemp("brought") / "anna-pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    upload = uploads.keep(room, file)
    settings = practice(**{"data.source": str(upload)})
    run = runs.create(room, settings)
    for event in (events.Started("cpu", {}), events.Noted(SECRET), events.Sampled(4, SECRET, SECRET, SECRET), events.Saved(4, "adapter"),
                  events.Finished()):
        events.append(jobs.of(run).log, event)
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text(json.dumps({"peft_type": SECRET}), encoding="utf-8")
    for name in ("worker.log", "held_out.jsonl"):
        (run.folder / name).write_text(SECRET, encoding="utf-8")
    collected.add(room, Pair([turn], [turn | {"role": "assistant"}], [{"role": "assistant", "content": "another"}]), run.name)
    questions.keep(room, SECRET)
    votes.add(run, (BASE, Candidate(run.name, 4)), 1, SECRET)
    examined = examination.begin(room, settings)
    until(lambda: jobs.status(examined) in jobs.OVER)
    export.begin(examined, ExportRequest(to="jsonl"))
    until(lambda: export.result(export.job_of(examined)))
    return room


@pytest.fixture(scope="module")
def studio(home, anna):
    studio = StudioProcess(home, environment={"SPACE_ID": "anna/studio"}).start()  # where the page has what only a Space has
    yield studio
    studio.kill()
    for run in runs.everywhere(home):
        jobs.stop(jobs.of(run))


def visitor(studio, name: str) -> Visitor:
    return Visitor(studio.url).sign_in(name, PASSWORDS[name])


@pytest.fixture
def bert(studio) -> Visitor:
    return visitor(studio, "bert")


def run_of(anna) -> runs.Run:
    return runs.listed(anna)[0]


def exported(anna):
    """The number of the examination and the exported file."""
    (export_log,) = (anna / ".examined").glob("*/export/events.jsonl")
    examined = jobs.Job("examine", export_log.parent.parent)
    return examined.folder.name, export.result(export.job_of(examined))


@pytest.mark.fault("T46")
def test_no_event_tells_or_changes_anything_of_somebody_else_s(bert, anna, tries):
    """Every event that the page has, as it describes them itself, with all that names anna's things in every field."""
    digest, _ = exported(anna)
    handles = [run_of(anna).name, str(run_of(anna).folder), str(uploads.kept(anna)[0]), str(anna / ".examined" / digest), "anna",
               f"../anna/{run_of(anna).name}"]
    before, told = contents(anna, LOCKS), []
    taking_text = [event for event in bert.different_events if set(event.types) - {"state", "number", "checkbox"}]
    assert len(taking_text) > 40
    for event in taking_text:
        for handle in handles:
            tries(1)
            answer = bert.call(event, bert.values_with(event, handle))
            if SECRET in answer:
                told.append((event, handle, answer))
    assert not told
    assert contents(anna, LOCKS) == before


def test_nothing_of_somebody_else_s_is_listed(studio, anna):
    dora = visitor(studio, "dora")
    for event in dora.different_events:
        if event.inputs and not event.name.startswith(("start", "begin")):
            answer = dora.call(event, dora.values(event))
            assert run_of(anna).name not in answer and SECRET not in answer and str(anna) not in answer, event


@pytest.mark.fault("T46")
@pytest.mark.parametrize("name", ["status", "stop", "resume"])
def test_scripts_are_told_the_same_of_a_run_that_is_another_s_and_of_one_that_is_not(bert, anna, name):
    (event,) = [event for event in bert.events if event.name == name]
    theirs, nobody_s = (bert.call(event, [run]) for run in (run_of(anna).name, "no-such-run"))
    assert "There is no run" in theirs and "There is no run" in nobody_s


@pytest.mark.fault("T46", "T54")
def test_files_are_handed_to_their_owner_only(studio, bert, anna):
    digest, file = exported(anna)
    answer = visitor(studio, "anna").http.get(f"/downloads/{digest}")
    assert answer.content == file.read_bytes() and SECRET in answer.text
    assert answer.headers["content-disposition"].startswith("attachment") and answer.headers["x-content-type-options"] == "nosniff"
    for address in (f"/downloads/{digest}", f"/downloads/../anna/.examined/{digest}", f"/gradio_api/file={file}", f"/gradio_api/file={uploads.kept(anna)[0]}"):
        assert bert.http.get(address).status_code in (403, 404)


@pytest.mark.fault("T46")
def test_adapters_are_handed_to_their_owner_and_to_an_administrator_only(studio, bert, anna):
    name = run_of(anna).name
    address = f"/downloads/runs/{name}/adapter"
    for entitled in ("anna", "carla"):
        answer = visitor(studio, entitled).http.get(address)
        assert answer.status_code == 200 and SECRET in answer.content.decode("latin-1")
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}-adapter.zip"'
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
    nobody_s = bert.http.get("/downloads/runs/no-such-run/adapter")
    for theirs in (address, address.replace("adapter", "merged"), f"/downloads/runs/..%2fanna%2f{name}/adapter"):
        answer = bert.http.get(theirs)
        assert answer.status_code == 404 and SECRET not in answer.text
        assert answer.json() == nobody_s.json() or "%2f" in theirs
    assert visitor(studio, "anna").http.get(address.replace("/adapter", "/worker.log")).status_code == 422


def test_only_an_administrator_decides_when_a_space_is_paused(studio, bert):
    (arm,) = [event for event in bert.events if event.name.startswith("start") and sorted(event.types) == ["number", "textbox"]]
    assert "Only an administrator decides" in bert.call(arm, ["hf_token", 15])
    assert "Attach a storage bucket" in visitor(studio, "carla").call(arm, ["hf_token", 15])


@pytest.mark.fault("T46")
def test_a_gguf_file_is_handed_to_its_owner_from_any_byte_on_and_to_nobody_else(studio, bert, anna):
    run = run_of(anna)
    run.job("gguf").mkdir(exist_ok=True)
    (run.job("gguf") / f"{run.name}-Q8_0.gguf").write_text(SECRET, encoding="utf-8")
    address = f"/downloads/runs/{run.name}/gguf"
    owner = visitor(studio, "anna").http
    assert owner.get(address).text == SECRET and f'filename="{run.name}-Q8_0.gguf"' in owner.get(address).headers["content-disposition"]
    rest = owner.get(address, headers={"Range": "bytes=5-"})
    assert rest.status_code == 206 and rest.text == SECRET[5:], "A download that broke off goes on."
    assert bert.http.get(address).status_code == 404 and SECRET not in bert.http.get(address).text
    shutil.rmtree(run.job("gguf"))


def test_what_somebody_uploads_is_read_by_nobody_else(studio, bert):
    anna = visitor(studio, "anna")
    (path,) = anna.http.post("/gradio_api/upload", files={"files": ("more.jsonl", SECRET.encode())}).raise_for_status().json()
    for somebody in (anna, bert):
        assert somebody.http.get(f"/gradio_api/file={path}").status_code == 403


@pytest.mark.fault("T46")
def test_another_s_page_is_closed(studio, bert):
    """A session's number is what Gradio knows a page by: whoever learns it gets neither its events nor what it remembers."""
    anna = visitor(studio, "anna")
    (event,) = [event for event in anna.events if event.name == "follow"]
    assert '"success":true' in anna.call(event, anna.values(event))
    bert.session = anna.session
    with bert.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": anna.session}) as stream:
        assert stream.status_code == 403
    assert bert.http.get(f"/gradio_api/heartbeat/{anna.session}").status_code == 403


@pytest.mark.fault("T59")
def test_files_of_the_studio_s_machine_are_neither_a_user_s_data_nor_their_model(bert, home, anna):
    (start,) = [event for event in bert.events if event.name == "start"]
    before = runs.listed(runs.room(home, "bert"))
    for source in ("/etc/hostname", str(home / ".users.json"), str(uploads.kept(anna)[0]),
                   str(runs.room(home, "bert") / ".." / "anna" / ".collected" / "collected.jsonl")):
        for settings in ({"data": {"source": source}}, {"data": {"also": source}}, {"model": {"name": source}}):
            answer = bert.call(start, [settings])
            assert '"success":false' in answer and ("not open to you" in answer or ".." in source), settings
    assert runs.listed(runs.room(home, "bert")) == before


def test_an_administrator_sees_everybody_s_runs_and_whose_they_are(studio, anna):
    carla = visitor(studio, "carla")
    (status,) = [event for event in carla.events if event.name == "status"]
    assert '"finished"' in carla.call(status, [run_of(anna).name])
    (load,) = [event for event in carla.events if event.name == "load"]
    assert "anna's" in carla.call(load, [""])
