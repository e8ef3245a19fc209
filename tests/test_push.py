"""The push job against the small Hub: private by default, one commit, nothing of others disturbed, no token written."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from studio import card, events, jobs
from studio.engine import adapter
from studio.engine.push import push
from studio.engine.worker import Desk
from studio.errors import SettingsError, StudioError
from studio.runs import Run
from studio.share import FILE, PushRequest
from tests.hub_server import Hub
from tests.hub_wire import HANG_UP, TAKE_AND_HANG_UP
from tests.jobs_at_work import ended, log_of, said
from tests.tiny_run import tiny_base, tuned_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on a local base, to be copied."""
    return tuned_run(tmp_path_factory.mktemp("runs"), tiny_base(tmp_path_factory.mktemp("base-of-this-machine")))


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / finished.name)
    return Run(tmp_path / finished.name)


def pushed(run: Run, token: str | None = None, repo: str = "tuned", **choices) -> str:
    """Ask for the push and wait; how it ended."""
    jobs.request(jobs.of(run, "push"), PushRequest(repo=repo, **choices).to_yaml(), {"token": token} if token else None)
    return ended(run, "push")


def reason(run: Run) -> str:
    return events.last(said(run, "push"), events.Failed).reason


def titles(hub: Hub, repo: str) -> list[str]:
    """What was committed, after the Hub's own first commit."""
    return [commit.title for commit in hub.repos[repo].commits[1:]]


def metadata(readme: bytes) -> dict:
    return yaml.safe_load(readme.decode().split("---")[1])


def python(hub: Hub, program: str, token: str) -> str:
    """What a program prints that uses the real client with this Hub."""
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True,
                          env=os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": token}).stdout


@pytest.mark.fault("T64")
def test_an_adapter_is_pushed_privately_in_one_commit_with_a_card_and_without_leaking_the_token(hub, run):
    token = hub.add_user("ada")
    for stray in ("training_args.bin", "optimizer.pt"):
        (run.adapter / stray).write_bytes(b"not for others")
    assert pushed(run, token) == "finished", log_of(run, "push")
    repo = hub.repos["ada/tuned"]
    assert repo.private
    assert titles(hub, "ada/tuned") == [f"Upload the adapter of {run.name} with ORPO Studio"]
    assert set(repo.files()) == {".gitattributes", "README.md", "curves.png", "adapter_model.safetensors", "adapter_config.json",
                                 "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    said_last = events.last(said(run, "push"), events.Pushed)
    assert (said_last.repo, said_last.url) == ("ada/tuned", f"{hub.url}/ada/tuned/commit/{repo.commits[-1].oid}")
    size = (run.adapter / "adapter_model.safetensors").stat().st_size
    progress = events.last(said(run, "push"), events.Progressed)
    assert (progress.done, progress.total, progress.unit) == (size, size, "bytes")
    for path in run.folder.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_no_file_of_a_push_says_where_it_lay_and_a_merged_model_takes_the_place_of_its_adapter(hub, run):
    token = hub.add_user("ada")
    assert pushed(run, token) == "finished", log_of(run, "push")
    base = run.settings.model.name
    for name, content in hub.repos["ada/tuned"].files().items():
        assert base.encode() not in content and str(run.folder).encode() not in content, name
    config = json.loads(hub.repos["ada/tuned"].files()["adapter_config.json"])
    assert config["base_model_name_or_path"] == base.rsplit("/", 1)[-1]
    assert "The base is not on the Hub" in hub.repos["ada/tuned"].files()["README.md"].decode()
    shutil.copytree(base, run.merged)
    assert pushed(run, token, what="merged") == "finished", log_of(run, "push")
    assert set(hub.repos["ada/tuned"].files()) == {".gitattributes", "README.md", "curves.png", "model.safetensors", "config.json",
                                                   "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                                   "chat_template.jinja"}
    assert metadata(hub.repos["ada/tuned"].files()["README.md"])["library_name"] == "transformers"


def test_a_gguf_file_is_pushed_with_a_card_of_its_own(hub, run):
    token = hub.add_user("ada")
    run.job("gguf").mkdir()
    (run.job("gguf") / f"{run.name}-Q8_0.gguf").write_bytes(b"GGUF")
    assert pushed(run, token, what="gguf") == "finished", log_of(run, "push")
    files = hub.repos["ada/tuned"].files()
    assert set(files) - {".gitattributes"} == {"README.md", "curves.png", f"{run.name}-Q8_0.gguf"} and files[f"{run.name}-Q8_0.gguf"] == b"GGUF"
    assert metadata(files["README.md"])["library_name"] == "gguf"


@pytest.mark.fault("T41")
def test_a_push_that_failed_at_the_commit_is_repeated_into_exactly_one_commit(hub, run):
    token = hub.add_user("ada")
    hub.fail_next("commit", 500)
    assert pushed(run, token) == "failed"
    assert reason(run) == "The Hub had a problem of its own. Wait a few minutes and try again; nothing is lost."
    hub.fail_next("commit", HANG_UP)
    assert pushed(run, token) == "failed" and titles(hub, "ada/tuned") == []
    # The Hub takes the commit and the answer is lost: the next push finds everything in place.
    hub.fail_next("commit", TAKE_AND_HANG_UP)
    assert pushed(run, token) == "failed" and len(titles(hub, "ada/tuned")) == 1
    assert pushed(run, token) == "finished", log_of(run, "push")
    assert len(titles(hub, "ada/tuned")) == 1
    assert run.adapter.is_dir()


@pytest.mark.fault("T41")
def test_a_line_that_breaks_in_the_weights_is_picked_up_again(hub, run):
    hub.fail_next("lfs", HANG_UP, at_byte=1000)
    assert pushed(run, hub.add_user("ada")) == "finished", log_of(run, "push")
    weights = hub.repos["ada/tuned"].files()["adapter_model.safetensors"]
    assert weights == (run.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.fault("T38")
def test_what_cannot_be_pushed_is_refused_before_anything_is_made(hub, run):
    writer, reader = hub.add_user("ada"), hub.add_user("bob", role="read")
    assert pushed(run, "hf_" + "x" * 34) == "failed"
    assert reason(run).startswith("The Hub did not accept the token.")
    assert pushed(run, reader) == "failed"
    assert reason(run).startswith("This token can only read.")
    assert pushed(run, writer, repo="acme/tuned") == "failed"
    assert reason(run) == ("The token belongs to ada, who may not write to acme. "
                           "Use one of ada, or a token of acme.")
    assert hub.repos == {} and "POST" not in {method for method, _ in hub.requests}


@pytest.mark.parametrize(("what", "words"), [
    ("adapter", "No token was entered."),
    ("merged", "This run has not been merged yet. Merge it first, or take the adapter."),
    ("gguf", "No GGUF file was written of this run yet. Write it first, or take the merged model or the adapter."),
])
def test_what_is_missing_here_is_said_without_asking_the_hub(run, what, words):
    run.job("push").mkdir()
    (run.job("push") / FILE).write_text(PushRequest(repo="tuned", what=what).to_yaml())
    with pytest.raises(StudioError, match=words):
        push(Desk(run.job("push")))


@pytest.mark.fault("T41")
def test_a_repository_of_others_making_is_left_alone_unless_replacing_is_allowed(hub, run, tmp_path):
    token = hub.add_user("ada", organisations=("acme",))
    (tmp_path / "other").mkdir()
    for name in ("model.safetensors", "README.md", "notes.txt"):
        (tmp_path / "other" / name).write_text("of another making")
    hub.add_model("acme/other", tmp_path / "other", private=True)
    assert pushed(run, token, repo="acme/other") == "failed"
    assert reason(run).startswith("acme/other exists and was not made by this studio")
    assert titles(hub, "acme/other") == ["files"]
    assert pushed(run, token, repo="acme/other", overwrite=True) == "finished", log_of(run, "push")
    files = hub.repos["acme/other"].files()
    assert "model.safetensors" not in files and "adapter_model.safetensors" in files and "notes.txt" in files


def test_a_private_push_does_not_go_into_a_public_repository(hub, run):
    token = hub.add_user("ada")
    hub.add("ada/tuned", private=False)
    assert pushed(run, token) == "failed"
    assert reason(run).startswith("ada/tuned exists and is public")
    assert pushed(run, token, private=False) == "finished", log_of(run, "push")


def test_a_pushed_adapter_on_a_hub_base_loads_by_its_name_alone(hub, run):
    token = hub.add_user("ada")
    base = hub.add_model("acme/tiny", Path(run.settings.model.name))
    base.commit("card", base.files() | {"README.md": b"---\nlicense: llama3\n---\n"})
    python(hub, "from huggingface_hub import snapshot_download; snapshot_download('acme/tiny')", token)  # as training does
    settings = run.folder / "settings.yaml"
    settings.write_text(settings.read_text().replace(run.settings.model.name, "acme/tiny"))
    adapter.sign(run.adapter, replace(adapter.origin(run.adapter), name="acme/tiny", commit=base.commits[-1].oid))
    run = Run(run.folder)
    assert pushed(run, token) == "finished", log_of(run, "push")
    files = hub.repos["ada/tuned"].files()
    config = json.loads(files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny", base.commits[-1].oid)
    told = metadata(files["README.md"])
    assert (told["base_model"], told["base_model_relation"], told["license"]) == ("acme/tiny", "adapter", "llama3")
    assert b"Meta Llama 3 Community License" in files["NOTICE"] and "**Built with Meta Llama 3**" in files["README.md"].decode()
    assert "begins with “Llama 3”" in events.last(said(run, "push"), events.Noted).text
    snippet = files["README.md"].decode().split("```python")[1].split("```")[0]
    by_name_alone = "print(AutoModelForCausalLM.from_pretrained('ada/tuned').peft_config)"
    assert "LoraConfig" in python(hub, snippet.replace("max_new_tokens=256", "max_new_tokens=4") + by_name_alone, token)


def test_a_card_says_what_was_measured_and_nothing_in_it_can_be_mistaken_for_markup(finished):
    text = card.render(finished, "adapter", "ada/tuned")
    told = metadata(text.encode())
    assert told["library_name"] == "peft" and told["pipeline_tag"] == "text-generation"
    assert {"orpo", "lora", card.TAG} <= set(told["tags"])
    assert told["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.875
    assert "| Preference accuracy | 50.0 % | 87.5 % |" in text and "Measured on 8 pairs" in text
    assert f"| Beta | {finished.settings.training.beta} |" in text and "transformers 5.23.0" in text and "2403.07691" in text
    assert "PeftModel" not in card.render(finished, "merged", "ada/tuned")
    assert card.plain("<b>[x](y)\n| `z`") == r"\<b\>\[x\]\(y\) \| \`z\`"


def test_a_request_survives_its_file_and_says_what_is_wrong_by_field():
    asked = PushRequest(repo="acme/tuned", what="merged", private=False)
    assert PushRequest.from_yaml(asked.to_yaml()) == asked
    assert PushRequest(repo="x").private
    for choices, field in ({"repo": ""}, "repo"), ({"repo": "a/b/c"}, "repo"), ({"repo": "--"}, "repo"), ({}, "repo"), \
            ({"repo": "x", "what": "all"}, "what"), ({"repo": "x", "token": "hf_secret"}, "token"):
        with pytest.raises(SettingsError) as caught:
            PushRequest(**choices)
        assert set(caught.value.problems) == {field}
    with pytest.raises(SettingsError):
        PushRequest.from_yaml("- nothing")
