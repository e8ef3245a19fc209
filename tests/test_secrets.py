"""A token lives in memory and in a pipe to the worker, and nowhere else, whatever is done with it and whatever goes wrong."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest

from studio import credentials, jobs, runs
from studio.engine.worker import Desk
from studio.events import Failed, Noted, read
from studio.jobs import of, status
from studio.practice import MODEL
from studio.redaction import redact
from studio.runs import Run, owner_of_job, room
from tests.hub_server import Hub
from tests.jobs_at_work import until
from tests.studio_at_work import StudioProcess
from tests.visitors import Event, Visitor

TOKEN = "hf_" + "aBcDeFgHiJ" * 3 + "kLmN"


# --- what is blotted out ----------------------------------------------------------------------------------------------

MASKED = [
    TOKEN, f"'{TOKEN}'", f'{{"token": "{TOKEN}"}}', f"\x1b[31m{TOKEN}\x1b[0m", f"x{TOKEN}y", f"https://hub/x?token={TOKEN}&y=1", "hf_oauth_eyJhbGciOi.aBcDeFgH.x-y",
    "Authorization: Bearer aBcDeFgH0123456789", "{'authorization': 'Bearer aBcDeFgH.123'}", "headers=[(b'authorization', b'Bearer aBcDeFgH12345')]",
    "Bearer \x1b[33maBcDeFgH0123456789\x1b[0m", "Authorization: Basic YUJjRGVGZ0g6cGFzcw==", "authorization: basic YUJjRGVGZ0g6cGFzcw==",
    "Cookie: session=aBcDeFgH; theme=dark", "set-cookie: orpo=aBcDeFgH; HttpOnly", "{'cookie': 'session=aBcDeFgH; x=y', 'accept': '*/*'}",
    "https://ada:aBcDeFgH1@host/x", "https://aBcDeFgH123@host/", "api_key=aBcDeFgH01234567", "WANDB_API_KEY=0aBcDeFgH89abcdef0123456789abcdef0123456", "password: aBcDeFgH123",
    "client_secret='aBcDeFgH-123456'", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.aBcDeFgH"]
KEPT = [
    "pad_token", "token count 34", "tokens: 12", "pad_token: <|endoftext|>", "eos_token='<|im_end|>'", "token=None", "token: 128009", "bos_token: abc12345678", "max_new_tokens=256",
    "hf_hub_download failed", "hf_transfer", "hf_xet 1.2.0", "bearer of bad news", "Bearer authentication is used", "Basic settings", "basic training", "a cookie recipe",
    "https://huggingface.co/a/b@main", "ada@example.org", "secret: none", "step 12 of 400, tokens/s: 1234", "Enter a token: it is kept in memory"]


@pytest.mark.parametrize("text", MASKED)
@pytest.mark.fault("T65")
def test_a_credential_is_blotted_out_of(text):
    told = redact(text)
    assert "[token]" in told and "aBcDeFgH" not in told and "YUJjRGVGZ0g6" not in told


@pytest.mark.parametrize("text", KEPT)
@pytest.mark.fault("T65")
def test_words_about_credentials_stay(text):
    assert redact(text) == text


def test_a_known_secret_is_blotted_out_whatever_it_looks_like():
    assert redact("it was plain words, or plain%20words", ["plain words"]) == "it was [token], or [token]"


def test_what_a_worker_says_holds_no_secret(tmp_path):
    desk = Desk(tmp_path, {"token": "plain words"})
    desk.say(Noted("it was plain words"))
    desk.say(Failed(reason=f"{TOKEN} was refused."))
    assert [event.text if isinstance(event, Noted) else event.reason for event in read(tmp_path / "events.jsonl")] == ["it was [token]", "[token] was refused."]


# --- what a worker is handed ------------------------------------------------------------------------------------------


def test_a_worker_s_environment_holds_no_secret_of_the_studio_and_a_user_s_none_at_all(monkeypatch):
    ours = {"HF_TOKEN": "a", "HUGGING_FACE_HUB_TOKEN": "b", "OAUTH_CLIENT_SECRET": "c", "ORPO_STUDIO_KEY": "d", "ORPO_STUDIO_PASSWORD": "e"}
    machine = {"WANDB_API_KEY": "f", "AWS_SECRET_ACCESS_KEY": "g", "GITHUB_TOKEN": "h", "DATABASE_URL": "postgres://u:p@host/x", "PGPASS": "i",
               "MY_PW": "j", "SLACK_WEBHOOK": "k", "CUDA_NOTE": "hf_" + "aB1" * 12, "KEYBOARD": "de"}
    plain = {"TOKENIZERS_PARALLELISM": "true", "HF_HOME": "/x", "CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8",
             "SSL_CERT_FILE": "/y", "HTTPS_PROXY": "http://proxy:3128", "LD_LIBRARY_PATH": "/z"}
    for name, value in (ours | machine | plain).items():
        monkeypatch.setenv(name, value)
    local, users = credentials.environment(""), credentials.environment("bert")
    assert not ours.keys() & local.keys() and machine.items() <= local.items()
    assert not (ours | machine).keys() & users.keys() and users["NETRC"] == os.devnull
    assert plain.items() <= local.items() and plain.items() <= users.items()
    assert local[credentials.NOT_LENT] == users[credentials.NOT_LENT] == "1"


def test_this_machine_s_login_is_for_the_person_at_it_and_for_nobody_where_users_are(monkeypatch):
    monkeypatch.setattr(credentials, "login", lambda: "the machine's")
    monkeypatch.delenv(credentials.NOT_LENT, raising=False)
    assert credentials.handed_over("", {}) == {"token": "the machine's"}
    assert credentials.handed_over("", {"token": "entered"}) == {"token": "entered"}
    assert credentials.handed_over("bert", {}) == {}
    monkeypatch.setenv(credentials.NOT_LENT, "1")
    assert credentials.handed_over("", {}) == {}


def test_whose_job_it_is_follows_from_its_folder(tmp_path):
    for user in ("", "bert"):
        mine = room(tmp_path, user)
        assert {owner_of_job(mine / folder) for folder in ("run", "run/merge", ".two_steps", ".examined/0a", ".examined/0a/export")} == {user}


# --- a token's whole way ----------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """Reads arguments and environment of every process that a studio starts, for as long as it is open."""

    def __init__(self, studio: StudioProcess):
        super().__init__(daemon=True)
        self.studio, self.seen, self.open = studio, {}, True

    def run(self) -> None:
        while self.open:
            for process in [one for one in psutil.process_iter(["cmdline"]) if "studio." in " ".join(one.info["cmdline"] or ())]:
                folder = Path("/proc") / str(process.pid)
                try:
                    self.seen[process.pid] = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
                except OSError:
                    continue
            time.sleep(0.02)


class Person(Visitor):
    """A visitor who fills in forms by the fields' ids; keeps all that comes back."""

    heard = ""

    def event(self, name: str, field: str = "") -> Event:
        """The first event of that name, or of a function of that name, that reads the field."""
        return next(event for event in self.events if name in (event.name, event.name.rstrip("_0123456789")) and (not field or field in self.ids(event)))

    @property
    def passwords(self) -> list[dict]:
        """The fields for secrets."""
        return [component for component in self.components.values() if component["props"].get("type") == "password"]

    def ids(self, event: Event) -> list[str]:
        return [(self.components[place]["props"].get("elem_id") or "") if place in self.components else "" for place in event.inputs]

    def does(self, event: Event, **fields) -> str:
        """Set an event off with values by field id, dashes written as underscores."""
        given = {name.replace("_", "-"): value for name, value in fields.items()}
        answer = self.call(event, [given.get(field.replace("_", "-"), value) for field, value in zip(self.ids(event), self.values(event), strict=True)])
        self.heard += answer
        return answer


FIELDS = {"field-model-name": "ada/tiny", "field-data-source": "ada/pairs", "field-training-max_steps": 2, "field-training-max_length": 128,
          "field-data-rows": 12, "field-training-batch_size": 2, "field-data-held_out": 0.2}


def searched(folders: list[Path]) -> dict[str, bytes]:
    """Every file below the folders, by its path."""
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


@pytest.mark.parametrize("way", ["short", pytest.param("whole", marks=pytest.mark.slow)])
@pytest.mark.fault("T64", "T66")
def test_a_token_is_nowhere_but_in_memory_whatever_is_done_with_it(tmp_path, way, tries):
    with Hub() as hub:
        token = hub.add_user("ada")
        secrets = {"HF_TOKEN": "hf_" + "machineMACHINE" * 2 + "123456", "OAUTH_CLIENT_SECRET": "oauth-secret-canary-77", "ORPO_STUDIO_KEY": "key-of-the-tests-only"}
        rows, broken = tmp_path / "rows", shutil.copytree(MODEL, tmp_path / "broken")
        rows.mkdir()
        (rows / "train.jsonl").write_text("".join(json.dumps({"prompt": f"Question {at}?", "chosen": f"A good answer to {at}.", "rejected": f"No {at}."}) + "\n"
                                                  for at in range(12)), encoding="utf-8")
        (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
        hub.add_model("ada/tiny", MODEL, private=True)
        hub.add_model("ada/broken", broken, private=True)
        hub.add_dataset("ada/pairs", rows, private=True)
        home, cache, temporary = (tmp_path / name for name in ("home", "cache", "temporary"))
        temporary.mkdir()
        studio = StudioProcess(home, secrets | {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "TMPDIR": str(temporary)}, output=tmp_path / "output.txt",
                               key=secrets["ORPO_STUDIO_KEY"]).start()
        watch = Watch(studio)
        watch.start()
        person = Person(studio.url, studio.headers)
        try:
            told = examined_and_crashed(person, home, token)
            told += trained_and_shared(person, home, hub, token) if way == "whole" else ""
            studio.kill()
            studio.start()
            again = Person(studio.url, studio.headers)
            told += "".join(again.http.get(path).text for path in ("/", "/config"))
            assert len(again.passwords) >= 3 and not any(component["props"].get("value") for component in again.passwords)
            filled = {place for event in again.config["dependencies"] for place in event["outputs"]}
            assert not filled & {component["id"] for component in again.passwords}
        finally:
            watch.open = False
            studio.kill()
            for run in runs.everywhere(home):
                jobs.stop(of(run))
        found = searched([home, cache, temporary]) | {"output": (tmp_path / "output.txt").read_bytes(), "what came back": (person.heard + told).encode(),
                                                      **{f"process {pid}": text for pid, text in watch.seen.items()}}
        found |= {f"{repo.id}/{name}": content for repo in hub.repos.values() for name, content in repo.files().items()}
        found |= {f"LFS {oid}": content for oid, content in hub.objects.items()}
        tries(len(found))
        assert len(watch.seen) >= 3 and any("worker.log" in name for name in found) and (way == "short" or "ada/tuned/README.md" in found)
        for secret in (token, secrets["HF_TOKEN"], secrets["OAUTH_CLIENT_SECRET"]):
            assert not [name for name, content in found.items() if secret.encode() in content], secret[:9]


def examined_and_crashed(person: Person, home: Path, token: str) -> str:
    """Type it, look the model up, examine, crash while it is in use, read the log. What came back besides the events."""
    typed = dict.fromkeys([component["props"]["elem_id"] for component in person.passwords], token)
    for name, field in (("search", "data-token"), ("look_up", "train-token"), ("begin_1", "data-token"), ("show_files", "")):
        person.does(person.event(name, field), **FIELDS, **typed)
    until(lambda: list(home.glob(".examined/*/examination.json")))
    failed = started(person, home, FIELDS | typed | {"field-model-name": "ada/broken"})
    until(lambda: status(of(failed)) in jobs.OVER)
    until(lambda: "Traceback" in (failed.folder / "worker.log").read_text(encoding="utf-8"))
    person.does(person.event("follow"))  # the page offers the new run
    told = person.does(person.event("read_log"), in_view=failed.name)
    assert "Traceback" in told
    return told + "".join(person.http.get(path).text for path in ("/", "/config", "/gradio_api/info"))


def trained_and_shared(person: Person, home: Path, hub: Hub, token: str) -> str:
    """Train, ask, merge, fail to push, push. What the page says of itself then."""
    typed = dict.fromkeys([component["props"]["elem_id"] for component in person.passwords], token)
    run = started(person, home, FIELDS | typed)
    until(lambda: status(of(run)) in jobs.OVER)
    assert status(of(run)) == "finished", (run.folder / "worker.log").read_text(encoding="utf-8")
    person.does(person.event("follow"))
    assert '"success":true' in person.does(person.event("ask"), in_view=run.name, question="Hello?")
    person.does(person.event("start_merge"), in_view=run.name)
    until(lambda: status(of(run, "merge")) in jobs.OVER)
    for faults, how in ((9, "failed"), (0, "finished")):
        hub.fail_next("commit", 500, times=faults)
        person.does(person.event("pressed", "push-repo"), in_view=run.name, push_repo="tuned", **typed)
        until(lambda: status(of(run, "push")) in jobs.OVER)
        assert status(of(run, "push")) == how, (run.folder / "push" / "worker.log").read_text(encoding="utf-8")
        hub.faults.clear()
    return person.http.get("/config").text


def started(person: Person, home: Path, fields: dict) -> Run:
    before = set(runs.everywhere(home))
    person.does(person.event("pressed", "wandb-key"), **fields)
    [run] = set(runs.everywhere(home)) - before
    return run
