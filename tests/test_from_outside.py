"""What comes from the Hub is not trusted: a run that is brought back may do no more than its new owner could choose in the form."""

from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from studio import adoption, events, names, runs, trash
from studio.access import LOCAL, AccessError, Users, Visitor
from studio.errors import SettingsError, StudioError
from studio.jobs import Queue
from studio.ui.studio import Studio
from tests.hub_server import Hub
from tests.jobs_at_work import practice


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def pushed(hub, monkeypatch):
    """Puts a run's files into a repository on the Hub, with these settings and under this name; gives what is found there."""
    token = hub.add_user("ada")
    monkeypatch.setattr("studio.hub_access.constants", SimpleNamespace(ENDPOINT=hub.url))
    monkeypatch.setattr(adoption, "HfApi", lambda token=None: HfApi(endpoint=hub.url, token=token))
    real = adoption.hf_hub_download
    monkeypatch.setattr(adoption, "hf_hub_download", lambda *inputs, **options: real(*inputs, endpoint=hub.url, **options))

    def push(name: str, settings: str, log: bytes = b"") -> adoption.Found:
        repo = hub.add("ada/checkpoints", private=True)
        below = f"runs/{name}"
        repo.commit("run", {f"{below}/settings.yaml": settings.encode(), f"{below}/events.jsonl": log,
                            f"{below}/checkpoint/step-00000004/manifest.json": b"{}"})
        (found,) = adoption.found("ada/checkpoints", token)
        return found

    push.token = token
    return push


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "runs"
    home.mkdir()
    runs.create(runs.room(home, "anna"), practice())
    return home


def studio_of(home, visitor: Visitor) -> Studio:
    return Studio(home, Queue(home), who=lambda: visitor, models=(home.parent / "models",), has_users=bool(visitor.name))


@pytest.mark.fault("T80")
@pytest.mark.parametrize("field", ["data.source", "data.also", "model.name"])
@pytest.mark.parametrize("place", ["users/anna/.collected/collected.jsonl", "users/anna/.uploads/0123456789ab/pairs.jsonl", ".users.json", "../elsewhere"])
def test_a_run_that_reads_what_its_new_owner_could_not_choose_is_refused_and_named(home, pushed, field, place):
    settings = practice(**{field: str((home / place).resolve())})
    bert = studio_of(home, Visitor("bert"))
    found = pushed("somebody-s-run", settings.to_yaml())
    with pytest.raises(StudioError, match=f"not brought back. {field}: .*not open to you"):
        adoption.bring_back(bert.root, found, pushed.token, bert.permitted)
    assert not list(bert.root.iterdir()), "Nothing was made of it."


def test_the_same_run_is_brought_back_by_the_person_at_this_machine_who_may_read_its_files(home, pushed):
    settings = practice(**{"data.source": str(home / "pairs.jsonl")})
    person = studio_of(home, LOCAL)
    run = adoption.bring_back(person.root, pushed("my-run", settings.to_yaml()), pushed.token, person.permitted)
    assert run.settings == settings


@pytest.mark.fault("T80")
@pytest.mark.parametrize("name", names.OWN)
def test_a_run_named_like_a_folder_of_the_studio_is_refused_by_name(home, pushed, name):
    for visitor in (LOCAL, Visitor("bert"), Visitor("carla", admin=True)):
        studio = studio_of(home, visitor)
        with pytest.raises(StudioError, match=f"'{name}' is the name of a folder of the studio's own"):
            adoption.bring_back(studio.root, pushed(name, practice().to_yaml()), pushed.token, studio.permitted)
        assert not (studio.root / name / "settings.yaml").exists()
    with pytest.raises(StudioError, match="folder of the studio's own"):
        Users(home).add(name, "a long password")
    with pytest.raises(SettingsError, match="folder of the studio's own"):
        practice(**{"adapter.start_from": name})


@pytest.mark.fault("T80")
@pytest.mark.parametrize("name", [".trash", ".uploads", "..", "a/b", "A"])
def test_what_cannot_be_a_run_s_name_is_not_taken_for_a_run(hub, pushed, name):
    repo = hub.add("ada/checkpoints", private=True)
    repo.commit("run", {f"runs/{name}/settings.yaml": b"{}", f"runs/{name}/checkpoint/step-00000004/manifest.json": b"{}"})
    assert adoption.found("ada/checkpoints", pushed.token) == []


@pytest.mark.fault("T80")
def test_a_folder_of_the_studio_that_looks_like_a_run_is_none_and_cannot_be_thrown_away(home):
    """However the files of a run got into it: everybody's rooms lie below."""
    theirs = runs.listed(runs.room(home, "anna"))
    (home / "users" / "settings.yaml").write_text(practice().to_yaml(), encoding="utf-8")
    events.append(home / "users" / events.FILE, events.Stopped(step=4))
    carla = studio_of(home, Visitor("carla", admin=True))
    assert carla.find("users") is None and "users" not in [run.name for run in carla.runs()]
    with pytest.raises(StudioError, match="no run"):
        runs.find(home, "users")
    assert runs.listed(runs.room(home, "anna")) == theirs


def test_throwing_a_run_away_moves_that_run_only(home):
    before = {path for path in home.rglob("*") if path.name == "settings.yaml"}
    run = runs.create(runs.room(home, "bert"), practice())
    events.append(run.folder / events.FILE, events.Stopped(step=0))
    trash.throw_away(run)
    assert {path for path in home.rglob("settings.yaml") if trash.FOLDER not in path.parts} == before


@pytest.mark.fault("T80")
def test_settings_are_looked_at_again_before_a_run_goes_on(home):
    bert = studio_of(home, Visitor("bert"))
    run = runs.create(bert.root, practice(**{"data.source": str(runs.room(home, "anna") / ".collected" / "collected.jsonl")}))
    with pytest.raises(SettingsError, match="not open to you"):
        bert.resume(run)


def test_nobody_but_the_person_at_this_machine_allows_code(home):
    with pytest.raises(AccessError):
        studio_of(home, Visitor("bert")).consents()


def test_a_file_that_no_run_has_is_not_fetched(home, pushed, monkeypatch):
    monkeypatch.setitem(adoption.LARGEST, "events.jsonl", 1000)
    fetched = []
    monkeypatch.setattr(adoption, "hf_hub_download", lambda *inputs, **options: fetched.append(inputs))
    with pytest.raises(StudioError, match="events.jsonl in ada/checkpoints has .* which no run's has"):
        adoption.bring_back(home, pushed("long-log", practice().to_yaml(), b"x" * 1001), pushed.token)
    assert not fetched
