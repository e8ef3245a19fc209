"""Training as a real process: it ends well on good input and with two sentences on bad input."""

import json
import shutil

import pytest
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file

from studio import events, gpu, jobs, runs
from studio.errors import NoSpaceError, StudioError
from studio.jobs import Queue
from studio.practice import MODEL
from studio.summary import Summary
from tests.jobs_at_work import ended, heard, log_of, practice, said, until


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


def trained(root, **changes):
    """Run these settings to their end in a worker of their own."""
    run = runs.create(root, practice(**changes))
    jobs.start(jobs.of(run))
    return run, ended(run)


def failure(root, **changes):
    run, how = trained(root, **changes)
    assert how == "failed", log_of(run)
    assert not run.adapter.exists() and not list(run.folder.glob(".draft-*"))
    reason = heard(run, events.Failed)[0].reason
    assert "Traceback" not in reason and reason.endswith(".")
    until(lambda: "Traceback" in log_of(run), 10)  # a process of its own writes it down
    return reason


def written(folder, rows, name="pairs.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_run_says_its_phases_its_steps_its_measurements_and_leaves_an_adapter(root):
    run, how = trained(root)
    assert how == "finished", log_of(run)
    phases = [event.phase for event in heard(run, events.Entered)]
    assert list(dict.fromkeys(phases)) == ["downloading", "tokenizing", "loading", "evaluating", "training", "saving"]
    assert [event.step for event in heard(run, events.Stepped)] == [1, 2, 3, 4]
    assert heard(run, events.Planned)[0].steps == 4 and heard(run, events.Planned)[0].held_out == 8
    first = heard(run, events.Stepped)[0].metrics
    assert {"loss", "nll_loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "grad_norm", "learning_rate"} <= set(first)
    measured = heard(run, events.Evaluated)
    assert (measured[0].model, measured[0].step) == ("base", 0) and (measured[-1].model, measured[-1].step) == ("tuned", 4)
    assert all(event.metrics["n"] == 8 for event in measured)
    sampled = heard(run, events.Sampled)  # as training goes, always the same questions; the base does not change
    assert [event.step for event in sampled] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert len({(event.prompt, event.base) for event in sampled}) == 3 == len(Summary(said(run)).samples)
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    assert (run.adapter / "chat_template.jinja").read_bytes() == (MODEL / "chat_template.jinja").read_bytes()
    assert len(run.held_out.read_text(encoding="utf-8").splitlines()) == 8


def test_a_prompt_that_the_template_refuses_is_told_and_the_run_goes_on(root, tmp_path):
    picky = tmp_path / "picky"
    shutil.copytree(MODEL, picky)
    template = picky / "chat_template.jinja"
    refusing = "{% if 'secret' in messages[0]['content'] %}{{ raise_exception('no secrets') }}{% endif %}"
    template.write_text(refusing + template.read_text(encoding="utf-8"), encoding="utf-8")
    run, how = trained(root, **{"model.name": str(picky), "data.held_out": 0.0, "evaluation.prompts": "Who are you?\nTell me a secret"})
    assert how == "finished", log_of(run)
    assert [(event.step, event.prompt) for event in heard(run, events.Sampled)] == [(1, "Who are you?")]
    assert "From step 1 on no answers are sampled, because the chat template refuses a prompt (no secrets)." in str(heard(run, events.Noted))
    assert len(heard(run, events.Stepped)) == 4 and not heard(run, events.Evaluated)


@pytest.mark.parametrize(("quantization", "optimizer"), [("nf4", "paged_adamw_8bit"), pytest.param("int8", "adamw_8bit", marks=pytest.mark.slow)])
def test_a_quantized_base_trains_on_the_cpu(root, quantization, optimizer):
    run, how = trained(root, **{"model.quantization": quantization, "training.optimizer": optimizer,
                                "adapter.dropout": 0.05, "training.gradient_checkpointing": "full"})
    assert how == "finished", log_of(run)
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)


@pytest.mark.fault("T13")
def test_chatml_tokens_are_added_where_the_model_lacks_them(root, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(MODEL, plain)
    (plain / "chat_template.jinja").unlink()
    text = (plain / "tokenizer.json").read_text(encoding="utf-8")
    (plain / "tokenizer.json").write_text(text.replace("<|im_start|>", "<|a|>").replace("<|im_end|>", "<|b|>"), encoding="utf-8")
    config = (plain / "tokenizer_config.json").read_text(encoding="utf-8")
    (plain / "tokenizer_config.json").write_text(config.replace("<|im_start|>", "<|a|>").replace("<|im_end|>", "<|b|>"), encoding="utf-8")
    assert "has no chat template" in failure(root, **{"model.name": str(plain)})
    run, how = trained(root, **{"model.name": str(plain), "model.template": "chatml"})
    assert how == "finished", log_of(run)
    assert "<|im_start|>" in (run.adapter / "chat_template.jinja").read_text(encoding="utf-8")


@pytest.mark.fault("T39")
@pytest.mark.slow
def test_an_unknown_model_is_told_by_name(root, hub):
    assert "nobody/nothing was not found" in failure(root, **{"model.name": "nobody/nothing"})


@pytest.mark.slow
def test_an_unknown_dataset_is_told_by_name(root, hub):
    assert "nobody/pairs" in failure(root, **{"data.source": "nobody/pairs"})


@pytest.mark.fault("T39")
def test_a_gated_model_without_access_says_where_to_ask(root, hub):
    hub.add_model("meta/closed", MODEL, gated=True)
    assert "meta/closed is gated" in failure(root, **{"model.name": "meta/closed"})


@pytest.mark.fault("T40")
def test_a_hub_that_cannot_be_reached_is_told(root):
    assert "Hub cannot be reached" in failure(root, **{"model.name": "somebody/something"})


def test_a_model_and_a_dataset_come_from_the_hub(root, hub, tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    written(rows, [{"prompt": f"Question {at}?", "chosen": f"A good answer to {at}.", "rejected": f"No {at}."} for at in range(30)],
            "train.jsonl")
    hub.add_model("someone/tiny", MODEL)
    hub.add_dataset("someone/pairs", rows)
    run, how = trained(root, **{"model.name": "someone/tiny", "data.source": "someone/pairs"})
    assert how == "finished", log_of(run)
    assert any(event.unit == "bytes" and event.done == event.total for event in heard(run, events.Progressed))


def test_wrong_columns_are_told_with_those_that_are_there(root, tmp_path):
    told = failure(root, **{"data.source": written(tmp_path, [{"text": "a", "label": 1}] * 5)})
    assert "No column with the question was recognised; the columns are text, label." in told


@pytest.mark.slow
def test_an_empty_file_is_told(root, tmp_path):
    assert "is empty" in failure(root, **{"data.source": written(tmp_path, [])})


@pytest.mark.slow
def test_a_file_that_is_not_what_its_name_says_is_told(root, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("<html>not pairs</html>", encoding="utf-8")
    assert "line 1, begins a web page (HTML)" in failure(root, **{"data.source": str(tmp_path / "pairs.jsonl")})


@pytest.mark.slow
def test_a_file_that_is_not_there_is_told(root, tmp_path):
    assert "There is no file" in failure(root, **{"data.source": str(tmp_path / "gone.jsonl")})


@pytest.mark.fault("T12")
@pytest.mark.slow
def test_pairs_that_all_teach_nothing_are_refused(root, tmp_path):
    same = [{"prompt": "q", "chosen": "a", "rejected": "a"}] * 9
    assert "9 have the same answer twice" in failure(root, **{"data.source": written(tmp_path, same)})


@pytest.mark.fault("T11")
def test_questions_that_fill_the_maximum_length_are_left_out_and_counted(root, tmp_path):
    rows = [{"prompt": "why " * (300 if at % 3 == 0 else 3), "chosen": f"good {at}", "rejected": f"bad {at}"} for at in range(30)]
    run, how = trained(root, **{"data.source": written(tmp_path, rows), "training.max_length": 64, "data.rows": None})
    assert how == "finished", log_of(run)
    assert any("10 have a question that fills" in event.text for event in heard(run, events.Noted))
    for weights in load_file(run.adapter / "adapter_model.safetensors").values():
        assert (weights == weights).all()


@pytest.mark.fault("T14")
def test_numbers_that_blow_up_stop_the_run_and_say_at_which_step(root, tmp_path):
    """A base whose last norm is so large that its logits overflow: the loss is no number from the first step on."""
    assert "blew up at step 1" in failure(root, **{"model.name": str(with_last_norm_times(tmp_path, 1e37))})


def with_last_norm_times(folder, factor):
    """The practice model with logits so many times as large."""
    sick = folder / "sick"
    shutil.copytree(MODEL, sick)
    weights = load_torch_file(sick / "model.safetensors")
    weights["model.norm.weight"] *= factor
    save_torch_file(weights, sick / "model.safetensors", metadata={"format": "pt"})
    return sick


@pytest.mark.fault("T15")
def test_the_adapter_is_kept_as_it_was_before_the_step_whose_numbers_blow_up(root, tmp_path):
    """A base that knows "~" by infinite numbers, and one pair that holds it."""
    rows = [{"prompt": f"Question {at}?", "chosen": f"A good answer to {at}.", "rejected": f"No {at}."} for at in range(31)]
    rows.append({"prompt": "Question ~?", "chosen": "A good answer.", "rejected": "No."})
    run, how = trained(root, **{"model.name": str(that_cannot_read(tmp_path, "~")), "data.source": written(tmp_path, rows),
                                "data.held_out": 0, "data.seed": 0, "training.max_steps": 8})
    assert how == "failed", log_of(run)
    kept = heard(run, events.Saved)[0].step
    assert kept == len(heard(run, events.Stepped)) > 0
    reason = heard(run, events.Failed)[0].reason
    assert f"blew up at step {kept + 1}: the loss is nan" in reason and f"The adapter of step {kept}" in reason
    for weights in load_file(run.adapter / "adapter_model.safetensors").values():
        assert (weights == weights).all()


def that_cannot_read(folder, letter):
    """The practice model with a head of its own, in whose embedding one letter is infinite."""
    sick = folder / "sick"
    shutil.copytree(MODEL, sick)
    weights = load_torch_file(sick / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    vocabulary = json.loads((sick / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    weights["model.embed_tokens.weight"][vocabulary[letter]] = float("inf")
    save_torch_file(weights, sick / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((sick / "config.json").read_text(encoding="utf-8"))
    (sick / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}), encoding="utf-8")
    return sick


@pytest.mark.slow
def test_a_tracker_that_is_not_installed_is_told_before_anything_is_loaded(root):
    assert "pip install wandb" in failure(root, **{"training.report_to": "wandb"})


@pytest.mark.skipif(bool(gpu.cards()), reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_and_not_there_is_refused_before_a_run_is_made(root):
    with pytest.raises(StudioError, match="A GPU was asked for"):
        gpu.refuse_what_cannot_start(practice(**{"model.device": "gpu"}), root)
    assert "A GPU was asked for" in failure(root, **{"model.device": "gpu"})


@pytest.mark.fault("T21")
def test_a_disk_without_space_is_refused_before_a_run_is_made(root, monkeypatch):
    monkeypatch.setattr(gpu.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 5 * 10**6))
    with pytest.raises(NoSpaceError, match="Only 5 MB are free"):
        gpu.refuse_what_cannot_start(practice(), root)
    assert runs.listed(root) == []


@pytest.mark.fault("T20")
def test_a_disk_that_fills_up_ends_in_words_and_leaves_nothing_half_made(root):
    """The worker may write files of 30 kB at most, as on a disk that runs full while the adapter is saved."""
    import resource

    run = runs.create(root, practice())
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, was[1]))
    try:
        jobs.start(jobs.of(run))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert ended(run) == "failed", log_of(run)
    assert "disk is full" in heard(run, events.Failed)[0].reason
    assert not run.adapter.exists()


@pytest.mark.slow
def test_a_queue_takes_a_run_from_start_to_end(root):
    queue = Queue(root, poll_seconds=0.1).open()
    try:
        run = queue.add(practice())
        assert ended(run) == "finished"
        assert [type(event).__name__ for event in said(run)][:2] == ["Queued", "Started"]
    finally:
        queue.close()
