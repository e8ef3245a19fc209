"""A model that cannot be loaded without Python files of its own: looked at, allowed, run; and never without that."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from studio import events, jobs, remote_code
from studio.access import AccessError, Visitor
from studio.chat import Sampling
from studio.engine.duet import Duet
from studio.engine.push import push
from studio.engine.worker import Desk
from studio.errors import SettingsError, StudioError
from studio.jobs import Queue
from studio.preferences.pairs import Pair
from studio.remote_code import Consents
from studio.settings import ModelSettings, Settings
from studio.share import FILE, PushRequest
from studio.ui.page import build
from studio.ui.studio import Studio
from tests.jobs_at_work import ended, heard, log_of, practice
from tests.tiny_models import saved, tiny_model
from tests.traps import change, with_code_of_its_own

LOADING = """
import json, sys
from pathlib import Path
from studio.engine.model import load_base
from studio.engine.vocabulary import load_tokenizer
from studio.settings import ModelSettings
told = []
for name, revision in json.loads(sys.argv[2]):
    settings = ModelSettings(name=name, revision=revision)
    try:
        load_base(settings, load_tokenizer(settings), consent=frozenset([sys.argv[1]]))
        words = "loaded"
    except Exception as error:
        words = str(error)
    told.append((words, Path(sys.argv[3]).exists()))
print(json.dumps(told))
"""
"""Loads models by name and revision, as a worker that was handed a consent; tells of each what became of it, and of the canary."""


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def own(tmp_path, canary):
    """A model of a kind that transformers does not know, in a folder; its code touches the canary when it is run."""
    return with_code_of_its_own(saved(tiny_model("llama"), tmp_path / "own"), canary)


@pytest.fixture
def queue(tmp_path):
    queue = Queue(tmp_path / "runs", poll_seconds=0.1).open()
    yield queue
    queue.close()


def short(model) -> Settings:
    return practice(**{"model.name": str(model), "training.max_steps": 2, "training.max_length": 128})


def trained(queue, settings: Settings, secrets=None):
    run = queue.add(settings, secrets)
    return run, ended(run)


def allowed(model: ModelSettings, secrets: dict[str, str] | None = None) -> dict[str, str]:
    """What a worker is handed after somebody has looked at a model's code and ticked the box."""
    consents = Consents()
    code = remote_code.look(model, secrets or {})
    consents.show(code)
    consents.allow(code.digest)
    return consents.secrets() | (secrets or {})


@pytest.mark.fault("T62")
def test_code_that_nobody_allowed_is_not_run_and_the_failure_says_where_to_look(own, queue, canary):
    run, end = trained(queue, short(own))
    assert end == "failed"
    (failed,) = heard(run, events.Failed)
    assert "needs to run code of its own" in failed.reason and "Code that a model brings" in failed.reason
    assert not canary.exists()


@pytest.mark.fault("T62")
def test_code_that_was_allowed_is_run_in_training_chat_and_merge_and_the_consent_is_written_nowhere(own, queue, canary, tmp_path):
    secrets = allowed(ModelSettings(name=str(own)))
    assert not canary.exists(), "Looking runs nothing."
    run, end = trained(queue, short(own), secrets)
    assert end == "finished", log_of(run)
    assert canary.exists()
    digest = secrets[remote_code.SECRET]
    prompt = Pair([{"role": "user", "content": "Hello"}], [], []).prompt
    with pytest.raises(StudioError, match="needs to run code of its own"):
        Duet(run)
    said = []
    Duet(run, consent=frozenset([digest])).answer([prompt, prompt], Sampling(max_new_tokens=2), said.append)
    jobs.request(jobs.of(run, "merge"), "{}\n", secrets)
    assert ended(run, "merge") == "finished", log_of(run, "merge")
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and digest.encode() in path.read_bytes()]
    run.job("push").mkdir()
    (run.job("push") / FILE).write_text(PushRequest(repo="tuned", what="merged").to_yaml(), encoding="utf-8")
    with pytest.raises(StudioError, match="code of its own.*Take the adapter"):
        push(Desk(run.job("push"), {"token": "hf_not-needed-so-far"}))


@pytest.mark.fault("T62")
def test_a_consent_is_for_one_repository_at_one_commit_and_its_files_as_they_are(own, this_hub, canary):
    repo = this_hub.add_model("someone/own", own)
    settings = ModelSettings(name="someone/own")
    code = remote_code.look(settings, {})
    assert code.commit == repo.revision().oid and set(code.files) == {"configuration_own.py", "modeling_own.py"}
    assert "pathlib" in code.files["modeling_own.py"] and code.commit[:12] in code.in_words()
    this_hub.add_model("someone/else", own)
    repo.commit("worse", {**repo.files(), "modeling_own.py": repo.files()["modeling_own.py"] + b"\n# and more\n"})
    models = [("someone/else", ""), (str(own), ""), ("someone/own", ""), ("someone/own", code.commit)]
    done = subprocess.run([sys.executable, "-c", LOADING, code.digest, json.dumps(models), str(canary)], cwd=jobs.PROJECT,
                          capture_output=True, text=True, check=True)
    *others, last = json.loads(done.stdout.splitlines()[-1])
    assert len(others) == 3 and all("needs to run code of its own" in told and not was_run for told, was_run in others), others
    assert last == ["loaded", True]


@pytest.mark.fault("T62")
def test_of_a_model_whose_code_nobody_allowed_no_weights_are_fetched(own, queue, hub):
    hub.add_model("someone/own-weights", own)
    assert trained(queue, short("someone/own-weights"))[1] == "failed"
    fetched = {Path(path).suffix for method, path in hub.requests if method == "GET" and "/resolve/" in path}
    assert ".json" in fetched and not fetched & {".safetensors", ".py"}


@pytest.mark.fault("T62")
def test_code_of_another_repository_is_never_run(own):
    change(own / "config.json", auto_map={"AutoConfig": "someone/else--configuration_own.OwnConfig"})
    with pytest.raises(StudioError, match="code of another repository"):
        remote_code.look(ModelSettings(name=str(own)), {})


def test_a_model_that_transformers_knows_needs_no_code_whatever_it_brings(own):
    change(own / "config.json", model_type="llama")
    assert remote_code.look(ModelSettings(name=str(own)), {}) is None


def test_more_code_than_anybody_would_read_is_refused(own):
    (own / "long.py").write_text("#" * 2**20, encoding="utf-8")
    with pytest.raises(StudioError, match="more code than anybody would read"):
        remote_code.look(ModelSettings(name=str(own)), {})


@pytest.mark.fault("T62")
def test_only_what_was_shown_can_be_allowed_and_a_box_unticked_takes_it_back(own):
    consents, code = Consents(), remote_code.look(ModelSettings(name=str(own)), {})
    with pytest.raises(StudioError, match="Look at it first"):
        consents.allow(code.digest)
    consents.show(code)
    assert consents.allow(code.digest) == code and consents.secrets() == {remote_code.SECRET: code.digest}
    consents.allow(code.digest, False)
    assert consents.secrets() == {}


@pytest.mark.fault("T62")
def test_no_user_of_a_studio_can_allow_anything(tmp_path):
    studio = Studio(tmp_path, Queue(tmp_path), who=lambda: Visitor("anna", admin=True))
    with pytest.raises(AccessError, match="at this machine"):
        studio.consents()
    assert studio.handed({"token": "hf_x"}) == {"token": "hf_x"}


@pytest.mark.fault("T62")
@pytest.mark.parametrize("name", ["model.trust_remote_code", "trust_remote_code", "model.code", "code"])
def test_no_setting_speaks_of_it(name):
    with pytest.raises(SettingsError):
        Settings.from_form(**{name: True})
    assert not re.search("trust|remote", json.dumps(Settings().to_form()))


def test_an_address_of_the_page_that_allows_code_is_not_among_those_for_programs(tmp_path):
    page = build(Studio(tmp_path, Queue(tmp_path)))
    assert not [name for name in page.get_api_info()["named_endpoints"] if "code" in name or "allow" in name]
