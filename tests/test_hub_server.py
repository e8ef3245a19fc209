"""The small Hub, asked by the real client: what the other tests rely on is as the client expects it."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.hub_server import Hub
from tests.hub_wire import HANG_UP

WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\ntags: [small]\n---\n# A model", encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "sub" / "notes.txt").write_text("notes", encoding="utf-8")
    return folder


def ask(hub: Hub, tmp_path: Path, program: str, token: str = "", **names) -> dict:
    """What a program with the real client puts into `found`; `outcome(call)` gives a result, or an error's class name."""
    given = "\n".join(f"{name} = {value!r}" for name, value in names.items())
    frame = ("import json\nfrom huggingface_hub import *\nfrom huggingface_hub.errors import *\napi, found = HfApi(), {}\n"
             "def outcome(call, *args, **options):\n    try:\n        return call(*args, **options)\n"
             "    except Exception as error:\n        return type(error).__name__\n")
    program = frame + given + "\n" + textwrap.dedent(program) + "\nprint(json.dumps(found, default=str))"
    surroundings = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": token}
    done = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_models_and_datasets_are_downloaded_whole(hub, folder, tmp_path):
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    (pairs / "train.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3, encoding="utf-8")
    model = hub.add_model("ada/small", folder)
    hub.add_dataset("ada/small", pairs)
    found = ask(hub, tmp_path, """
        from datasets import load_dataset
        found["folder"] = snapshot_download("ada/small")
        found["rows"] = len(load_dataset("ada/small", split="train"))
        found["sha"] = api.model_info("ada/small").sha
        found["tags"] = api.model_info("ada/small").tags
        found["top"] = [entry.path for entry in api.list_repo_tree("ada/small")]
        found["part"] = get_session().get(hf_hub_url("ada/small", "config.json"), headers={"Range": "bytes=1-1"}).text
        """)
    downloaded = Path(found["folder"])
    assert (downloaded / "model.safetensors").read_bytes() == WEIGHTS
    assert (downloaded / "sub" / "notes.txt").read_text() == "notes"
    assert found["rows"] == 3 and found["sha"] == model.commits[-1].oid and found["tags"] == ["small"]
    assert set(found["top"]) == {"sub", ".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert found["part"] == "}"


def test_what_may_not_be_read_is_refused_as_the_client_expects(hub, folder, tmp_path):
    hub.add_model("ada/open", folder)
    hub.add_model("ada/gated", folder, gated=True)
    hub.add_model("ada/private", folder, private=True)
    asks = """
        for name in ("open", "gated", "private", "missing"):
            found[name] = outcome(hf_hub_download, "ada/" + name, "config.json")
        found["revision"] = outcome(hf_hub_download, "ada/open", "config.json", revision="nowhere")
        found["file"] = outcome(hf_hub_download, "ada/open", "nothing.json")
        """
    stranger = ask(hub, tmp_path, asks, hub.add_user("bob"))
    assert Path(stranger.pop("open")).name == "config.json"
    assert stranger == {"gated": "GatedRepoError", "private": "RepositoryNotFoundError", "missing": "RepositoryNotFoundError",
                        "revision": "RevisionNotFoundError", "file": "RemoteEntryNotFoundError"}
    owner = ask(hub, tmp_path, asks, hub.add_user("ada"))
    assert all(Path(owner[name]).name == "config.json" for name in ("gated", "private"))


def test_an_upload_is_one_commit_and_an_unchanged_one_is_none(hub, folder, tmp_path):
    found = ask(hub, tmp_path, """
        api.create_repo("new", private=True)
        found["first"] = api.upload_folder(repo_id="ada/new", folder_path=folder).oid
        found["second"] = api.upload_folder(repo_id="ada/new", folder_path=folder).oid
        api.delete_file("config.json", "ada/new")
        """, hub.add_user("ada"), folder=str(folder))
    repo = hub.repos["ada/new"]
    assert repo.private and found["first"] == found["second"] == repo.commits[1].oid
    assert repo.files(found["first"])["model.safetensors"] == WEIGHTS
    assert len(repo.commits) == 3 and "config.json" not in repo.files()


def test_a_large_file_comes_in_parts_where_the_hub_wants_it(folder, tmp_path):
    with Hub(part_size=30_000) as hub:
        ask(hub, tmp_path, """
            api.create_repo("new")
            api.upload_folder(repo_id="ada/new", folder_path=folder)
            """, hub.add_user("ada"), folder=str(folder))
        assert hub.repos["ada/new"].files()["model.safetensors"] == WEIGHTS
        assert sum(method == "PUT" for method, _ in hub.requests) == 4


def test_who_may_not_write_is_refused(hub, folder, tmp_path):
    hub.add_model("acme/other", folder)
    asks = """
        def status(call, *args):
            try:
                call(*args)
            except HfHubHTTPError as error:
                return error.response.status_code
        found["who"] = status(api.whoami)
        found["create"] = status(api.create_repo, "acme/new")
        def upload(name, content):
            return outcome(api.upload_file, path_or_fileobj=content, path_in_repo=name, repo_id="acme/other")
        found["card"] = upload("README.md", b"---\\na: [\\n---\\n")
        found["commit"] = upload("x.txt", b"x")
        """
    assert ask(hub, tmp_path, asks, "hf_unknown")["who"] == 401
    for token in (hub.add_user("bob"), hub.add_user("carl", role="read", organisations=("acme",))):
        assert ask(hub, tmp_path, asks, token) == {"who": None, "create": 403, "card": "ValueError", "commit": "HfHubHTTPError"}
    assert len(hub.repos["acme/other"].commits) == 2


def test_faults_come_when_they_are_asked_for_and_then_no_more(hub, folder, tmp_path):
    hub.fail_next("whoami", 429)
    hub.fail_next("create", HANG_UP)
    hub.fail_next("lfs", HANG_UP, at_byte=5000)
    found = ask(hub, tmp_path, """
        found["who"] = [outcome(api.whoami), api.whoami()["name"]]
        found["create"] = [outcome(api.create_repo, "new"), api.create_repo("new").repo_id]
        found["upload"] = outcome(api.upload_folder, repo_id="ada/new", folder_path=folder)
        """, hub.add_user("ada"), folder=str(folder))
    assert found["who"] == ["HfHubHTTPError", "ada"] and found["create"] == ["RemoteProtocolError", "ada/new"]
    assert hub.repos["ada/new"].files()["model.safetensors"] == WEIGHTS
    assert sum(method == "PUT" for method, _ in hub.requests) == 2
