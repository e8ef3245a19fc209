"""What a card and the page show for use elsewhere runs as it stands, where there is no studio, and says what the studio says."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoTokenizer

from studio import events, jobs, parcel, usage
from studio.begun import Begun
from studio.engine import adapter, model, proof, vocabulary
from studio.engine.merge import merge
from studio.engine.push import push
from studio.engine.worker import Desk
from studio.errors import DataError, StudioError
from studio.jobs import PROJECT, Queue
from studio.runs import Run
from studio.share import FILE, PushRequest
from studio.ui import share_tab
from studio.ui.studio import Studio
from tests.hub_server import Hub
from tests.jobs_at_work import practice, said
from tests.tiny_run import tiny_base, tuned_run

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
BY_ITSELF = """
import contextlib, importlib.util, io, json, sys
import torch
assert importlib.util.find_spec("studio") is None
found = {}
for name, program in json.load(open("programs.json", encoding="utf-8")).items():
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, names)
    speaker = names["model"] if "model" in names else names["pipe"].model
    tokenizer = names["tokenizer"] if "tokenizer" in names else names["pipe"].tokenizer
    ids = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        heard = speaker(**ids).logits[0, -1].float().log_softmax(-1)
    found[name] = {"printed": printed.getvalue(), "heard": heard.tolist(), "ids": ids["input_ids"][0].tolist()}
json.dump(found, open("found.json", "w", encoding="utf-8"))
"""


def programs(readme: str) -> dict[str, str]:
    """The Python of a card by what it uses."""
    found = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    return {"pipeline" if "pipeline" in text else "PEFT" if "PeftModel" in text else "transformers": text for text in found}


def run_by_itself(folder, texts: dict[str, str], hub: Hub, token: str) -> dict[str, dict]:
    """What each program prints and expects to come next, in a process that has no studio to import."""
    (folder / "programs.json").write_text(json.dumps(texts), encoding="utf-8")
    done = subprocess.run([sys.executable, "-P", "-c", BY_ITSELF.replace("ASKED", repr(ASKED))], cwd=folder, capture_output=True, text=True,
                          encoding="utf-8", timeout=280, env=os.environ | {
                              "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HOME": str(folder / "cache"),
                              "PYTHONPATH": str(PROJECT / "tests" / "guard")})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


def spoken(run: Run) -> dict:
    """What the studio's own base and adapter answer, in the precision of the base's files."""
    tokenizer = vocabulary.read(run.adapter, run.name)
    base = model.load_base(adapter.pinned(run), tokenizer, quantized=False, on="cpu")
    tuned = model.worn(base, run.adapter, torch_device="cpu").eval()
    inputs = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    hello = tokenizer.apply_chat_template([{"role": "user", "content": "Hello!"}], add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = tuned.generate(**hello, max_new_tokens=256, eos_token_id=tokenizer.eos_token_id)
    with tuned.disable_adapter():
        plain = proof.hear(tuned, [inputs["input_ids"]])[0]
    return {"base": plain, "heard": proof.hear(tuned, [inputs["input_ids"]])[0], "ids": inputs["input_ids"][0].tolist(),
            "answer": tokenizer.decode(answer[0, hello["input_ids"].shape[1]:], skip_special_tokens=True)}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Runs with the base's own template and with ChatML on a base that lacks its tokens, pushed; and what their snippets gave."""
    found = {}
    with Hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        token = hub.add_user("ada")
        folder, texts, runs = tmp_path_factory.mktemp("elsewhere"), {}, {}
        for template in ("own", "chatml"):
            hub.add_model(f"acme/{template}", tiny_base(tmp_path_factory.mktemp("base"), chatml=template == "own"))
            run = runs[template] = tuned_run(tmp_path_factory.mktemp("runs"), f"acme/{template}", **{"model.template": template})
            run.job("merge").mkdir()
            merge(Desk(run.job("merge")))
            run.job("push").mkdir()
            for what in ("adapter", "merged"):
                asked = PushRequest(repo=f"{template}-{what}", what=what)
                (run.job("push") / FILE).write_text(asked.to_yaml(), encoding="utf-8")
                assert push(Desk(run.job("push"), {"token": token})) is None
                readme = hub.repos[f"ada/{asked.repo}"].files()["README.md"].decode()
                texts |= {f"{template} {what} {kind}": text for kind, text in programs(readme).items()}
            studio = Studio(run.folder.parent, Queue(run.folder.parent))
            texts[f"{template} merged page"] = share_tab.how_to_use(studio, run)
            texts[f"{template} adapter page"] = usage.snippet(run, "adapter", str(run.adapter))
        expected = {template: spoken(run) for template, run in runs.items()}
        for name, got in run_by_itself(folder, texts, hub, token).items():
            found[name] = (got, expected[name.split()[0]])
        yield found, runs


@pytest.mark.fault("T87")
@pytest.mark.parametrize("name", [f"{template} {way}" for template in ("own", "chatml") for way in (
    "adapter PEFT", "adapter pipeline", "adapter page", "merged transformers", "merged pipeline", "merged page")])
def test_the_snippet_runs_without_the_studio_and_says_the_same(elsewhere, name):
    got, expected = elsewhere[0][name]
    assert got["ids"] == expected["ids"]
    heard, likely = torch.tensor(got["heard"]), expected["heard"].topk(20).indices
    assert len(heard) == len(expected["heard"])
    exact = "adapter" in name and "pipeline" not in name  # merged, and in a pipeline's adapter, 16 bits round
    assert (heard[likely] - expected["heard"][likely]).abs().max() < (1e-3 if exact else 0.3)
    assert (expected["base"] - expected["heard"]).abs().max() > 1, "the adapter must change something, or this proves nothing"
    assert got["printed"].strip()
    if exact:
        assert got["printed"] == expected["answer"] + "\n"


def test_every_snippet_of_the_cards_was_run(elsewhere):
    assert sorted(elsewhere[0]) == sorted(f"{template} {way}" for template in ("own", "chatml") for way in (
        "adapter PEFT", "adapter pipeline", "adapter page", "merged transformers", "merged pipeline", "merged page"))


def test_chatml_adds_no_token_where_the_base_lacks_them_and_the_run_says_how_turns_end(elsewhere):
    run = elsewhere[1]["chatml"]
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    assert tokenizer.eos_token == "<|endoftext|>" and "<|im_end|>" not in tokenizer.get_vocab()
    text = tokenizer.apply_chat_template([*ASKED, {"role": "assistant", "content": "Paris."}], tokenize=False)
    assert text == "<|im_start|>user\nWhat is the capital of France?<|endoftext|>\n<|im_start|>assistant\nParis.<|endoftext|>\n"
    assert "has no token <|im_end|>" in vocabulary.chatml_in_words(run.settings.model, tokenizer)
    assert "turn ends with <|endoftext|>" in vocabulary.chatml_in_words(run.settings.model, tokenizer)


def test_chatml_takes_its_own_tokens_where_the_base_has_them(tmp_path):
    settings = practice(**{"model.name": str(tiny_base(tmp_path)), "model.template": "chatml"}).model
    tokenizer = vocabulary.load_tokenizer(settings)
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|im_end|>", vocabulary.CHATML)
    assert vocabulary.chatml_in_words(settings, tokenizer) == ""


def test_a_base_that_has_no_end_of_text_gets_no_chatml(tmp_path):
    tiny_base(tmp_path, chatml=False)
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described | {"eos_token": None}))
    with pytest.raises(StudioError, match=r"neither <\|im_end\|> nor an end-of-text token"):
        vocabulary.load_tokenizer(practice(**{"model.name": str(tmp_path), "model.template": "chatml"}).model)


def with_more_tokens(base) -> None:
    """A tokenizer that knows two tokens more than the embedding matrix has rows, one of them for padding."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<pad>", "<extra>"], special_tokens=True)
    tokenizer.pad_token = "<pad>"
    tokenizer.save_pretrained(base)


def test_tokens_without_a_row_are_not_padded_with_get_no_row_and_stop_a_run_whose_pairs_have_them(tmp_path):
    from studio.engine import material

    base = tiny_base(tmp_path / "base")
    with_more_tokens(base)
    pairs = tmp_path / "pairs.jsonl"
    row = {"prompt": "What is the capital of France?", "chosen": "Paris <extra>", "rejected": "Rome"}
    pairs.write_text("".join(json.dumps(row | {"prompt": f"{number} {row['prompt']}"}) + "\n" for number in range(8)))
    settings = practice(**{"model.name": str(base), "data.source": str(pairs)})
    tokenizer = vocabulary.load_tokenizer(settings.model)
    rows = json.loads((base / "config.json").read_text())["vocab_size"]
    assert tokenizer.pad_token == tokenizer.eos_token and len(tokenizer) == rows + 2
    assert model.load_base(settings.model, tokenizer).get_input_embeddings().weight.shape[0] == rows
    (tmp_path / "job").mkdir()
    with pytest.raises(DataError, match=r"The pairs contain '<extra>', a token without a row in the embedding matrix"):
        material.gather(settings, tokenizer, Desk(tmp_path / "job"), Begun())


# --- adapters of older versions, which added tokens --------------------------------------------------------------------


@pytest.fixture
def older(tmp_path):
    """A run of a version that added ChatML's tokens to a base without them."""
    return tuned_run(tmp_path / "runs", tiny_base(tmp_path / "base", chatml=False), **{"model.template": "chatml"}, added=True)


def test_an_adapter_with_added_tokens_is_not_handed_on_and_the_page_says_what_to_do(older):
    assert usage.needs_studio(older)
    with pytest.raises(StudioError, match="two tokens that its base does not have.*Merge it: the merged model has these tokens"):
        parcel.contents(older, "adapter", "tuned")
    assert "Merge it" in share_tab.lead(Studio(older.folder.parent, Queue(older.folder.parent)), older)


def test_its_merged_model_has_the_tokens_and_a_card_of_its_own(older):
    older.job("merge").mkdir()
    merge(Desk(older.job("merge")))
    tokenizer = AutoTokenizer.from_pretrained(older.merged)
    assert json.loads((older.merged / "config.json").read_text())["vocab_size"] == len(tokenizer)
    assert tokenizer("<|im_end|>")["input_ids"] == [len(tokenizer) - 1]
    assert "README.md" in parcel.contents(older, "merged", "tuned")


def test_an_answer_s_beginning_that_was_not_learned_is_taken_away_by_the_snippet_and_told_of_the_rest(tmp_path, older):
    older.merged.mkdir(parents=True)
    (older.folder / "asking.json").write_text(json.dumps({"unlearned": "assistant\n"}))
    text = usage.section(older, "merged", "ada/tuned", "a base")
    assert "Pipelines and servers do not" in text and "from transformers import pipeline" not in text
    lines = usage.snippet(older, "merged", "x").splitlines()
    names = {"tokenizer": AutoTokenizer.from_pretrained(older.adapter), "messages": ASKED}
    exec("\n".join(line for line in lines if line.startswith(("text =", "inputs ="))), names)
    assert names["text"].endswith("<|im_start|>") and names["inputs"]["input_ids"].shape[0] == 1


# --- vLLM, in words where it cannot ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "told"), [
    ({}, "vllm serve acme/base --revision abc --tokenizer ada/tuned --enable-lora --max-lora-rank 32 --lora-modules tuned=ada/tuned"),
    ({"adapter.bias": "lora_only"}, "because its biases were trained too. Serve the merged model"),
    ({"adapter.target_modules": "q_proj, lm_head"}, "because it changes the embeddings or the output layer"),
    ({"adapter.rank": 1024}, "because its rank is above 512")])
def test_a_command_for_vllm_is_shown_only_where_vllm_loads_the_adapter(tmp_path, monkeypatch, changes, told):
    from studio import runs

    run = runs.create(tmp_path, practice(**{"model.name": "acme/base", "adapter.rank": 17} | changes))
    monkeypatch.setattr(usage, "base_commit", lambda run: "abc")
    assert told in usage.vllm(run, "adapter", "ada/tuned")
    assert usage.vllm(run, "merged", "ada/tuned") == "With vLLM: `vllm serve ada/tuned`"


def test_a_training_says_that_no_token_was_added(tmp_path):
    base = tiny_base(tmp_path / "base", chatml=False)
    from studio.engine.train import train
    from studio.runs import create

    run = create(tmp_path / "runs", practice(**{"model.name": str(base), "model.template": "chatml", "training.max_steps": 1, "data.rows": 8,
                                                "training.max_length": 1024}))
    train(Desk(run.folder))
    assert any("has no token <|im_end|>" in event.text for event in said(run) if isinstance(event, events.Noted))
    assert json.loads((run.adapter / "tokenizer.json").read_text())["added_tokens"][-1]["content"] == "<|endoftext|>"
    assert jobs.of(run).log.exists()
