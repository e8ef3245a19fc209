"""A run whose machine is gone goes on elsewhere from the checkpoint that it had pushed, bit for bit; a Hub that fails harms no run."""

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file

from studio import adoption, events, jobs, runs
from studio.errors import StudioError
from studio.jobs import Queue
from studio.summary import Summary
from tests.hub_server import Hub
from tests.jobs_at_work import ended, heard, log_of, practice, said, until

REPO = "ada/checkpoints"
CHOICES = {"training.max_steps": 8, "training.checkpoint_every": 2, "adapter.dropout": 0.1, "training.push_checkpoints_to": "checkpoints"}


@pytest.fixture(scope="module")
def hub():
    patch = pytest.MonkeyPatch()
    with Hub() as hub:
        patch.setenv("HF_ENDPOINT", hub.url)
        yield hub
    patch.undo()


@pytest.fixture(scope="module")
def token(hub):
    return hub.add_user("ada")


@pytest.fixture(scope="module")
def whole(hub, token, tmp_path_factory):
    """The run that nothing happened to, which has pushed its checkpoints."""
    run = runs.create(tmp_path_factory.mktemp("runs"), practice(**CHOICES))
    jobs.start(jobs.of(run), {"token": token})
    assert ended(run) == "finished", log_of(run)
    return run


@pytest.fixture
def api(hub, token, monkeypatch):
    """The page's end of the Hub, which reads its address when it is imported."""
    monkeypatch.setattr(adoption, "HfApi", lambda token=None: HfApi(endpoint=hub.url, token=token))
    real = adoption.hf_hub_download
    monkeypatch.setattr(adoption, "hf_hub_download", lambda *inputs, **options: real(*inputs, endpoint=hub.url, **options))


def test_checkpoints_go_to_a_private_repository_of_which_the_last_one_is_kept(hub, whole):
    repo = hub.repos[REPO]
    files = set(repo.revision().files)
    below = f"runs/{whole.name}"
    assert repo.private and {f"{below}/settings.yaml", f"{below}/events.jsonl", f"{below}/checkpoint/step-00000006/manifest.json"} <= files
    assert {name.split("/")[3] for name in files if "/checkpoint/" in name} == {"step-00000006"}
    assert not list(whole.folder.glob(".draft-*")) and not heard(whole, events.Failed)


@pytest.mark.fault("T43")
def test_on_an_empty_disk_the_run_is_found_brought_back_and_goes_on_exactly(hub, token, whole, api, tmp_path):
    (found,) = adoption.found(REPO, token)
    assert (found.name, found.step) == (whole.name, 6)
    run = adoption.bring_back(tmp_path, found, token)
    assert jobs.status(jobs.of(run)) == "stopped" and run.last_checkpoint == 6 and run.settings == whole.settings
    queue = Queue(tmp_path, poll_seconds=0.1).open()
    queue.resume(run, {"token": token})
    until(lambda: heard(run, events.Finished))
    queue.close()
    mine, wanted = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, whole))
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)
    assert [step.step for step in Summary(said(run)).steps] == list(range(1, 9)), "The curves came back too."
    with pytest.raises(StudioError, match="is here already"):
        adoption.bring_back(tmp_path, found, token)


@pytest.mark.parametrize(("repo", "told"), [("", "No repository was named"), ("../x", "No repository was named"), ("ada/nowhere", "was not found")])
def test_a_repository_that_cannot_be_looked_into_is_told(api, token, repo, told):
    with pytest.raises(StudioError, match=told):
        adoption.found(repo, token)


@pytest.mark.fault("T43", "T63")
def test_of_a_hostile_repository_nothing_is_taken_but_what_belongs_to_a_run(hub, token, api, tmp_path):
    client = HfApi(endpoint=hub.url, token=token)
    client.create_repo("ada/hostile", private=True)
    for name, content in {"runs/evil/checkpoint/step-00000004/manifest.json": b"{}", "runs/evil/checkpoint/step-00000004/optimizer.pt": b"pickle",
                          "runs/evil/worker.json": b'{"pid": 1}', "runs/evil/settings.yaml": b"!!python/object/apply:os.system ['touch x']",
                          "runs/.hidden/checkpoint/step-00000004/manifest.json": b"{}"}.items():
        client.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="ada/hostile")
    (found,) = adoption.found("ada/hostile", token)
    assert found.name == "evil" and {path.split("/")[-1] for path in found.files} == {"manifest.json", "settings.yaml"}
    with pytest.raises(StudioError):
        adoption.bring_back(tmp_path, found, token)
    assert not list(tmp_path.iterdir()), "Nothing was made of it."


@pytest.mark.slow
@pytest.mark.fault("T41", "T43")
def test_a_run_whose_checkpoints_cannot_be_pushed_says_so_once_and_finishes(hub, tmp_path):
    HfApi(endpoint=hub.url, token=(token := hub.add_user("eve"))).create_repo("eve/open", private=False)
    for changes, secrets, told in (({"training.push_checkpoints_to": "open"}, {"token": token}, "is public"), ({}, {}, "No token was entered")):
        run = runs.create(tmp_path, practice(**CHOICES | changes))
        jobs.start(jobs.of(run), secrets)
        assert ended(run) == "finished", log_of(run)
        notes = [event.text for event in heard(run, events.Noted) if "on this machine only" in event.text]
        assert len(notes) == 1 and told in notes[0]
