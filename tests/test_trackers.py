"""Trackers get steps, held-out pairs, settings and the run's name, in a folder inside the run's; read back with their own readers."""

import base64
import json
import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from studio import credentials, events, jobs, output, runs, trackers
from studio.engine.trackers import Reports, config_of
from studio.engine.worker import Desk
from studio.errors import StudioError
from studio.jobs import PROJECT
from studio.runs import Run
from studio.ui import train_tab
from studio.ui.studio import Studio
from tests.jobs_at_work import ended, heard, log_of, practice

KEY = "0123456789abcdef" * 2 + "01234567"
TOLD = """
    import sys
    from pathlib import Path
    from studio import events
    from studio.engine.trackers import Reports
    from studio.engine.worker import Desk
    from studio.runs import Run
    run = Run(Path(sys.argv[1]))
    desk = Desk(run.folder, {"wandb": key} if (key := sys.stdin.readline().strip()) else {})
    reports = Reports(desk, run, run.settings)
    for event in (events.Evaluated(0, "base", {"loss": 3.0, "rewards/accuracies": 0.5, "n": 8}),
                  events.Stepped(1, {"loss": 2.5, "learning_rate": 1e-4, "nll_loss": None, "odd": 1.0}),
                  events.Stepped(2, {"loss": 2.0}), events.Evaluated(2, "tuned", {"loss": 2.25, "rewards/accuracies": 0.875, "n": 8}),
                  events.Evaluated(1, "tuned", {"loss": 9.0})):
        desk.say(event)
    reports.close()
"""
SAID = {"train/loss": [(1, 2.5), (2, 2.0)], "train/learning_rate": [(1, 1e-4)], "eval/loss": [(0, 3.0), (2, 2.25)],
        "eval/rewards/accuracies": [(0, 0.5), (2, 0.875)], "eval/n": [(0, 8.0), (2, 8.0)]}
"""What a reader must find of what TOLD says: nothing that is no number, and no second look at an earlier step."""


def python(program: str, *arguments: object, cwd: Path, read: str = "", **environment: str) -> str:
    """What another Python prints that runs the program in a folder of its own, and reads that text."""
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)], cwd=cwd, input=read, capture_output=True, text=True,
                          encoding="utf-8", env=os.environ | {"PYTHONPATH": path} | environment, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def told(tmp_path: Path, tracker: str, key: str = "", **environment: str) -> Run:
    """A run that has told a tracker what TOLD says, from a working directory with nothing in it."""
    if not trackers.is_installed(tracker):
        pytest.skip(f"{tracker} is not installed")
    run = runs.create(tmp_path / "runs", practice(**{"training.report_to": tracker, "training.beta": 0.25,
                                                     "data.edits": 'rewrite 3 {"chosen": "a private text"}; drop 7'}))
    (tmp_path / "elsewhere").mkdir()
    python(TOLD, run.folder, cwd=tmp_path / "elsewhere", read=key, **{"WANDB_MODE": "", "NETRC": os.devnull} | environment)
    assert list((tmp_path / "elsewhere").iterdir()) == [], "it wrote where the process happened to run"
    notes = [note.text for note in heard(run, events.Noted)]
    assert len(notes) == 1 and trackers.WORDS[tracker] in notes[0], notes
    return run


def found(readings: list) -> dict[str, list[tuple[int, float]]]:
    """[name, step, value] -> the same as SAID, in single precision."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in readings:
        if name in SAID or name.startswith(("train/odd", "train/nll")):
            curves.setdefault(name, []).append((step, pytest.approx(value, rel=1e-6)))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in curves.items()}


def test_tensorboard_reads_back_what_a_run_said(tmp_path):
    run = told(tmp_path, "tensorboard")
    read = json.loads(python("""
        import json, sys
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        events = EventAccumulator(sys.argv[1]).Reload()
        texts = [event.tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"] for event in events.Tensors(name)]
        print(json.dumps([[[name, one.step, one.value] for name in events.Tags()["scalars"] for one in events.Scalars(name)], texts]))
    """, run.folder / "tensorboard" / run.name, cwd=tmp_path))
    assert found(read[0]) == SAID
    assert "| training.beta | 0.25 |" in read[1][0] and "rewrite 3" in read[1][0] and "private" not in read[1][0]


def test_trackio_reads_back_what_a_run_said(tmp_path):
    run = told(tmp_path, "trackio", TRACKIO_SPACE_ID="ada/somewhere")
    read = json.loads(python("""
        import json, sys
        from trackio.sqlite_storage import SQLiteStorage
        name = SQLiteStorage.get_runs("orpo-studio")[0]
        print(json.dumps([name, SQLiteStorage.get_logs("orpo-studio", name), SQLiteStorage.get_run_config("orpo-studio", name)]))
    """, cwd=tmp_path, TRACKIO_DIR=str(run.folder / "trackio")).splitlines()[-1])
    assert read[0] == run.name
    assert found([[key, row["step"], value] for row in read[1] for key, value in row.items() if isinstance(value, float | int)]) == SAID
    assert read[2]["training.beta"] == 0.25 and "private" not in json.dumps(read[2])


def test_weights_and_biases_reads_back_what_a_run_said_offline(tmp_path):
    run = told(tmp_path, "wandb")
    file, = (run.folder / "wandb").glob("offline-run-*/*.wandb")
    read = json.loads(python("""
        import json, sys
        from wandb.proto import wandb_internal_pb2

        def records(data):  # the framing of LevelDB's log, after a header of 7 bytes; the messages are the library's own
            at, whole = 7, b""
            while at + 7 <= len(data):
                if 32768 - at % 32768 < 7:
                    at += 32768 - at % 32768
                    continue
                size, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
                whole, at = whole + data[at + 7:at + 7 + size], at + 7 + size
                if kind in (1, 4):
                    yield whole
                    whole = b""

        run, config, rows = "", {}, []
        for data in records(open(sys.argv[1], "rb").read()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            run = record.run.display_name or run
            for update in (*record.run.config.update, *record.config.update):
                config[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
            if record.history.item:
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
        print(json.dumps([run, config, rows]))
    """, file, cwd=tmp_path).splitlines()[-1])
    assert read[0] == run.name and read[1]["training.beta"] == 0.25 and "private" not in json.dumps(read[1])
    assert found([[key, row["train/global_step"], value] for row in read[2] for key, value in row.items()
                  if isinstance(value, float | int)]) == SAID


class Listening(BaseHTTPRequestHandler):
    """As much of W&B's server as a run needs to be taken in; notes who asks and what is sent."""

    heard: ClassVar[list[tuple[str, str, bytes]]] = []
    ANSWERS: ClassVar[dict] = {
        "entity": {"organization": {"coreWeaveOrganizationId": ""}},
        "viewer": {"id": "u", "entity": "ada", "username": "ada", "flags": "{}", "teams": {"edges": []}}, "model": {"bucket": None},
        "serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None, "features": []},
        "upsertBucket": {"inserted": True, "bucket": {"id": "x", "name": "run", "displayName": "run", "config": "{}", "historyLineCount": 0, "project": {
            "id": "p", "name": "orpo-studio", "entity": {"id": "e", "name": "ada"}}}}}

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.heard.append((self.path, self.headers.get("authorization") or "", sent))
        files = json.loads(sent)["variables"].get("files") or [] if self.path == "/graphql" else []
        address = f"http://{self.headers['host']}/upload/"
        taken = {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": [{"name": name, "uploadUrl": address + name} for name in files]}}
        answer = json.dumps({"data": self.ANSWERS | taken} if self.path == "/graphql" else {}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def log_message(self, *_):
        pass


def test_with_a_key_weights_and_biases_is_asked_and_the_key_stands_in_no_file(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        run = told(tmp_path, "wandb", KEY, WANDB_BASE_URL=f"http://127.0.0.1:{server.server_port}", HOME=str(tmp_path / "home"))
    finally:
        server.shutdown()
    asked = {authorization for _, authorization, _ in Listening.heard}
    assert asked == {"Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()}
    streamed = b"".join(sent for path, _, sent in Listening.heard if path.endswith("/file_stream"))
    assert b"eval/rewards/accuracies" in streamed and run.name.encode() in b"".join(sent for _, _, sent in Listening.heard)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5 and not [path for path in written if KEY.encode() in path.read_bytes()]
    assert not [sent for _, _, sent in Listening.heard if KEY.encode() in sent or b"private" in sent or str(PROJECT).encode() in sent]


# --- what is installed, and what is handed over -----------------------------------------------------------------------


def test_a_left_over_folder_is_not_the_package(tmp_path, monkeypatch):
    """wandb itself leaves one of its name where a process ran; Python finds it as a package without code."""
    (tmp_path / "wandb").mkdir()
    program = ("import importlib.util, sys; from studio import trackers; "
               "print(importlib.util.find_spec(sys.argv[1]) is not None, trackers.is_installed(sys.argv[1]))")
    (tmp_path / "nobody_s_tracker").mkdir()
    assert python(program, "nobody_s_tracker", cwd=tmp_path).split() == ["True", "False"]
    is_there = trackers.is_installed("wandb")
    assert python(program, "wandb", cwd=tmp_path).split() == ["True", str(is_there)]
    monkeypatch.setattr(trackers, "is_installed", lambda name: False)
    with pytest.raises(StudioError, match="Weights & Biases is not installed. Run pip install wandb, or set Report to to none"):
        trackers.refuse_one_that_is_missing("wandb")
    trackers.refuse_one_that_is_missing("none")


class Waiting:
    """A queue that notes what a run is handed, and starts nothing."""

    def __init__(self, home):
        self.handed, self.index = {}, jobs.Queue(home).index

    def add(self, settings, secrets, room, once_within=0.0):
        run = runs.create(room, settings)
        self.handed[run] = secrets
        return run

    def secrets(self, run):
        return self.handed[run]

    def resume(self, run, secrets):
        self.resumed = secrets


def test_the_key_goes_with_the_run_that_reports_and_to_no_other_job(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "is_installed", lambda name: True)
    studio = Studio(tmp_path, queue := Waiting(tmp_path))
    begun = {tracker: Run(tmp_path / train_tab.begin(studio, practice(**{"training.report_to": tracker, "training.seed": seed}), "", f" {KEY} "))
             for seed, tracker in enumerate(("wandb", "tensorboard"))}
    assert queue.handed[begun["wandb"]][trackers.KEY] == KEY
    assert trackers.KEY not in queue.handed[begun["tensorboard"]]
    assert trackers.KEY not in studio.secrets(begun["wandb"]), "chat, merge and push have no use for it"
    studio.resume(begun["wandb"])
    assert queue.resumed[trackers.KEY] == KEY
    with pytest.raises(StudioError, match="W&B key: This holds a space or a line break. Copy the key again"):
        train_tab.begin(studio, practice(**{"training.report_to": "wandb"}), "", "two words")
    for run in begun.values():
        assert not [path for path in run.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_worker_of_a_user_s_run_gets_no_key_but_the_one_that_was_entered(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert "WANDB_API_KEY" not in credentials.environment("ada") and credentials.environment("ada")["NETRC"] == os.devnull
    assert credentials.handed_over("ada", {trackers.KEY: "mine"}) == {trackers.KEY: "mine"}


def test_the_key_is_blotted_out_of_events_and_output(tmp_path):
    desk = Desk(tmp_path, {trackers.KEY: KEY})
    desk.say(events.Noted(f"wandb: {KEY} was refused"))
    with output.into(tmp_path / "worker.log", desk.secrets.values()) as log:
        os.write(log.fileno() if hasattr(log, "fileno") else log, f"wandb: {KEY} was refused\n".encode())
    assert KEY not in (tmp_path / events.FILE).read_text(encoding="utf-8")


def test_a_tracker_that_fails_is_said_once_and_ends_no_run(tmp_path, monkeypatch):
    class Broken:
        told = "Weights & Biases shows this run."

        def log(self, metrics, step):
            raise ConnectionError(f"{KEY} was refused")

    run = runs.create(tmp_path, practice(**{"training.report_to": "wandb"}))
    monkeypatch.setattr("studio.engine.trackers.WeightsAndBiases", lambda *given: Broken())
    desk = Desk(run.folder, {trackers.KEY: KEY})
    reports = Reports(desk, run, run.settings)
    for step in (1, 2):
        desk.say(events.Stepped(step, {"loss": 1.0}))
    reports.close()
    notes = [note.text for note in heard(run, events.Noted)]
    assert notes == [Broken.told, "Weights & Biases failed ([token] was refused) and is left out from here on. "
                                  "The run itself goes on, and its curves are under Runs."]


def test_the_config_holds_every_setting_and_no_text_of_a_pair():
    config = config_of(practice(**{"data.edits": 'rewrite 3 {"chosen": "private; text"}; drop 7'}))
    assert config["data.edits"] == "rewrite 3; drop 7" and config["training.learning_rate"] == practice().training.learning_rate


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_whole_run_reports_its_last_measurement_and_is_not_disturbed(tmp_path, monkeypatch, tracker):
    if not trackers.is_installed(tracker):
        pytest.skip(f"{tracker} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = runs.create(tmp_path, practice(**{"training.report_to": tracker}))
    jobs.start(jobs.of(run))
    assert ended(run) == "finished", log_of(run)
    assert not [note.text for note in heard(run, events.Noted) if "failed" in note.text]
    assert any((run.folder / tracker).rglob("*")) and not (PROJECT / "wandb").exists()
