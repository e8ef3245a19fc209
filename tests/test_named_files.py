"""What an event is told to read is its sender's own upload and nothing else, in every event and wherever the path stands."""

import json
import os
import time
from pathlib import Path

import gradio as gr
import pytest

from studio import collected, names, runs, uploads
from studio.access import AccessError, Users
from studio.errors import DataError
from studio.jobs import PROJECT, Queue
from studio.ui.page import build
from studio.ui.studio import Studio
from tests.studio_at_work import StudioProcess
from tests.visitors import Event, Visitor, contents

SECRET = "what only anna knows"
SENDERS = ("bert", "carl", "dora", "emil")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("studio") / "runs"
    home.mkdir()
    for name in ("anna", *SENDERS):
        Users(home).add(name, f"password of {name}")
    theirs = collected.path(runs.room(home, "anna"))
    theirs.parent.mkdir(parents=True)
    theirs.write_text(json.dumps({"prompt": SECRET, "chosen": "x", "rejected": "y"}) + "\n", encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def studio(home):
    studio = StudioProcess(home).start()
    yield studio
    studio.kill()


def uploaded(visitor: Visitor, name: str, content: bytes) -> str:
    return visitor.http.post("/gradio_api/upload", files={"files": (name, content)}).raise_for_status().json()[0]


def file(path) -> dict:
    return {"path": path, "orig_name": "pairs.jsonl", "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def senders(studio):
    return [Visitor(studio.url).sign_in(name, f"password of {name}") for name in SENDERS]


@pytest.fixture(scope="module")
def paths(studio, home, senders, tmp_path_factory) -> list[str]:
    """Everything that is not the sender's upload. What a sender has uploaded is there as well, so that a link or a way out can start from it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "pairs.jsonl").write_text(json.dumps({"prompt": SECRET, "chosen": "x", "rejected": "y"}), encoding="utf-8")
    (outside / "settings.yaml").write_text("training: {beta: 0.3}", encoding="utf-8")
    os.mkfifo(outside / "fifo.jsonl")
    anna = Visitor(studio.url).sign_in("anna", "password of anna")
    theirs = Path(uploaded(anna, "hers.jsonl", SECRET.encode()))
    own = Path(uploaded(senders[0], "his.jsonl", b"{}"))
    for link, target in (("link.jsonl", outside / "pairs.jsonl"), ("device.jsonl", "/dev/zero"), ("folder.jsonl", outside)):
        (own.parent / link).symlink_to(target)
    room = runs.room(home, "anna")
    return [str(collected.path(room)), str(theirs), str(home / ".users.json"), str(home / ".secret"), str(outside / "pairs.jsonl"),
            str(outside / "settings.yaml"), str(outside / "fifo.jsonl"), str(outside), "/dev/zero", "/proc/self/environ",
            *(str(own.parent / link) for link in ("link.jsonl", "device.jsonl", "folder.jsonl")), str(own.parent), f"{own.parent}/../../../{theirs.name}",
            f"{own.parent}/./{own.name}", f"//{own}", os.path.relpath(outside / "pairs.jsonl", PROJECT), "../anna/.collected/collected.jsonl", "", f"file://{own}", "http://127.0.0.1:9/pairs.jsonl",
            "pairs\0.jsonl", 7, None, ["x"], {"path": str(outside / "pairs.jsonl")}]


def kinds_that_take_files(page: gr.Blocks) -> set[str]:
    """Kinds of components of a built page whose values can hold a file, by what Gradio says of them."""
    models = {block.get_block_name(): getattr(block, "data_model", None) for block in page.blocks.values()}
    return {kind for kind, model in models.items() if model is not None and "FileData" in json.dumps(model.model_json_schema())}


def sent(visitor: Visitor, event: Event, values: list) -> str:
    """The answer, asked again where the sender had been too quick."""
    while "too many requests" in (answer := visitor.call(event, values)):
        time.sleep(1)
    return answer


@pytest.mark.fault("T79")
def test_every_event_that_takes_a_file_refuses_what_its_sender_has_not_uploaded(studio, home, senders, paths, tmp_path, tries):
    with gr.Blocks() as other:
        gr.Chatbot(), gr.File(), gr.Image(), gr.MultimodalTextbox(), gr.Textbox(), gr.State()
    assert kinds_that_take_files(other) == {"chatbot", "file", "image", "multimodaltextbox"}, "The walk would find whatever takes a file."
    kinds = kinds_that_take_files(build(Studio(tmp_path, Queue(tmp_path))))
    assert "uploadbutton" in kinds
    before = contents(home, (".lock",))
    taking = [event for event in senders[0].events if kinds & set(event.types)]
    assert len([event for event in taking if "uploadbutton" in event.types]) >= 3
    once, through = set(), []
    for place, event in enumerate(taking):
        visitor = senders[place % len(senders)]
        # The same function again after another trigger takes the same inputs: one path is enough there.
        named = paths if (event.name.rstrip("_0123456789"), event.types) not in once else paths[:1]
        once.add((event.name.rstrip("_0123456789"), event.types))
        for path in named:
            tries(1)
            values = [[file(path)] if kind == "chatbot" else file(path) if kind in kinds else value
                      for kind, value in zip(event.types, visitor.values(event), strict=True)]
            answer = sent(visitor, event, values)
            if "have not uploaded" not in answer or SECRET in answer:
                through.append((event.name, path, answer[:200]))
    assert not through
    assert contents(home, (".lock",)) == before, "Nothing was moved, either."


@pytest.mark.fault("T79")
def test_no_event_takes_a_file_hidden_in_a_value_of_any_kind(studio, home, senders, tries):
    path = str(collected.path(runs.room(home, "anna")))
    hidden = ({"value": file(path)}, [[file(path)]], [{"role": "user", "content": [{"type": "file", "file": file(path)}]}], {"a": {"b": [{"path": path}]}})
    through = []
    for place, event in enumerate(senders[0].different_events):
        visitor, value = senders[place % len(senders)], hidden[place % len(hidden)]
        if event.inputs:
            tries(1)
            answer = sent(visitor, event, [value] * len(event.inputs))
            if "have not uploaded" not in answer:
                through.append((event.name, value))
    assert not through
    for address, body in (("/gradio_api/component_server", {"data": file(path), "component_id": 1, "fn_name": "x", "session_hash": "y"}),
                          ("/gradio_api/call/start", {"data": [file(path)]}), ("/gradio_api/run/start", {"data": [file(path)]}),
                          ("/gradio_api/queue/join", {"data": [], "fn_index": 0, "session_hash": "x", "event_data": file(path)})):
        assert senders[0].http.post(address, json=body).status_code == 403, address


def test_a_path_as_bare_text_is_no_file_either(studio, home, senders):
    before = contents(home, (".lock",))
    for event in senders[0].events:
        if "uploadbutton" in event.types:
            values = [str(collected.path(runs.room(home, "anna"))) if kind == "uploadbutton" else value
                      for kind, value in zip(event.types, senders[0].values(event), strict=True)]
            answer = sent(senders[0], event, values)
            assert '"success":false' in answer and SECRET not in answer
    assert contents(home, (".lock",)) == before


def test_one_s_own_upload_is_taken_and_kept_in_one_s_room(studio, home, senders):
    events = [event for event in senders[1].events if event.types == ("uploadbutton",)]
    (event,) = [event for event in events if event.name != "load_file"][:1]
    path = uploaded(senders[1], "../.hidden pairs.jsonl", b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    assert Path(path).parent.parent == uploads.arriving(home / "temporary" / str(studio.port), "carl")
    answer = sent(senders[1], event, [file(path)])
    (kept,) = uploads.kept(runs.room(home, "carl"))
    assert '"success":true' in answer and str(kept) in answer and kept.name == "hidden pairs.jsonl"
    assert "have not uploaded" in sent(senders[2], event, [file(path)]), "It is not another's to name."


def test_whatever_the_studio_makes_beside_the_runs_is_hidden_or_no_run_s_name(studio, home, senders):
    uploaded(senders[3], "pairs.jsonl", b"{}")
    for room in runs.rooms(home):
        visible = [path.name for path in room.iterdir() if not path.name.startswith(".")]
        assert set(visible) <= set(names.OWN) and not [name for name in visible if names.RUN.fullmatch(name)]
    assert {path.name for path in home.iterdir()} >= set(names.OWN)


def test_an_upload_is_opened_only_as_a_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for path in (tmp_path / "fifo", tmp_path / "link", tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(DataError, match="pload"):
            uploads.opened(path)
    with pytest.raises(AccessError):
        uploads.refuse_others({"path": str(tmp_path / "link")}, tmp_path.parent)
