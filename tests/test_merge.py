"""The merge job: a model in 16 bits that says what base and adapter say, or two sentences and nothing left behind."""

import json
import resource
import shutil
from contextlib import contextmanager

import pytest
import torch
from peft.tuners.lora import LoraModel
from safetensors.torch import load_file, save_file

from studio import events, jobs
from studio.engine.merge import MARGIN, merge, refuse_if_short, whole
from studio.engine.worker import Desk
from studio.errors import NoSpaceError, StudioError
from studio.runs import Run
from tests.jobs_at_work import ended, log_of, said
from tests.tiny_run import heard_from, tiny_base, tuned_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"))


def merged(run: Run) -> str:
    """Ask for the merge and wait; how it ended."""
    jobs.request(jobs.of(run, "merge"), "")
    return ended(run, "merge")


def desk_of(run: Run) -> Desk:
    """To do the merge in this process: where the worker adds nothing but the time its libraries take."""
    run.job("merge").mkdir()
    return Desk(run.job("merge"))


def reason(run: Run) -> str:
    return events.last(events.read(jobs.of(run, "merge").log), events.Failed).reason


def heard(run: Run, kind: type) -> list[events.Event]:
    return [event for event in said(run, "merge") if isinstance(event, kind)]


def left_behind(run: Run) -> set[str]:
    """What a merge leaves beside its bookkeeping."""
    return {path.name for path in run.job("merge").iterdir()} - {
        "request.yaml", "events.jsonl", "worker.json", "worker.log", ".lock", ".working", "stop", "pulse", jobs.EXIT}


@pytest.fixture(scope="module")
def once(base, tmp_path_factory):
    """A run that has been merged."""
    run = tuned_run(tmp_path_factory.mktemp("runs"), base)
    assert merged(run) == "finished", log_of(run, "merge")
    return run


def test_the_merged_model_says_what_base_and_adapter_say(once, base):
    tuned = heard_from(base, once.adapter)
    assert (heard_from(once.merged) - tuned).abs().max() < 0.3
    assert (heard_from(base) - tuned).abs().max() > 1, "the adapter must change something, or this proves nothing"


def test_the_log_says_phases_the_measured_difference_and_the_result(once):
    assert [event.phase for event in heard(once, events.Entered)] == ["loading", "merging", "checking", "saving"]
    assert "differ by at most 0." in heard(once, events.Noted)[0].text
    assert heard(once, events.Saved)[0].path == "merged"


def test_the_merged_folder_holds_a_whole_model_in_16_bits_and_nothing_else_is_left(once, base):
    assert left_behind(once) == {"merged"}
    assert {path.name for path in once.merged.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja"}
    weights = load_file(once.merged / "model.safetensors")
    assert all(weight.dtype == torch.bfloat16 and torch.isfinite(weight).all() for weight in weights.values())
    assert (once.merged / "chat_template.jinja").read_bytes() == (base / "chat_template.jinja").read_bytes()


def test_generation_stops_at_the_end_of_the_turn_and_where_the_base_stopped(once):
    generation = json.loads((once.merged / "generation_config.json").read_text())
    config = json.loads((once.merged / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in config["added_tokens"]}
    assert generation["eos_token_id"] == [ids["<|im_end|>"], ids["<|endoftext|>"]]


@pytest.mark.fault("T45")
def test_an_adapter_trained_on_4_bits_is_merged_into_16_bits(base, tmp_path):
    run = tuned_run(tmp_path, base, **{"model.quantization": "nf4"})
    assert merged(run) == "finished", log_of(run, "merge")
    assert "quantization_config" not in json.loads((run.merged / "config.json").read_text())
    assert load_file(run.merged / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert (heard_from(run.merged) - heard_from(base, run.adapter)).abs().max() < 0.3


def test_tokens_that_an_older_version_added_to_the_base_are_part_of_the_merged_model(tmp_path):
    plain = tiny_base(tmp_path / "plain", chatml=False)
    run = tuned_run(tmp_path / "runs", plain, **{"model.template": "chatml"}, added=True)
    merge(desk_of(run))
    before, after = (load_file(folder / "model.safetensors")["model.embed_tokens.weight"] for folder in (plain, run.merged))
    assert len(after) == len(before) + 2 and torch.equal(after[: len(before)], before)
    assert not torch.equal(after[-1], after[-2])


@pytest.mark.fault("T20")
def test_a_full_disk_leaves_the_old_result_and_no_half_made_one(base, tmp_path):
    run = tuned_run(tmp_path, base)
    run.merged.mkdir(parents=True)
    (run.merged / "config.json").write_text("the old result")
    with files_no_larger_than(50_000):
        jobs.request(jobs.of(run, "merge"), "")
    assert ended(run, "merge") == "failed"
    assert "disk" in reason(run) and reason(run).count(".") >= 2, reason(run)
    assert left_behind(run) == {"merged"}
    assert (run.merged / "config.json").read_text() == "the old result"


@contextmanager
def files_no_larger_than(size: int):
    """What a full disk looks like to a worker that is started meanwhile: it inherits the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_merge_that_would_not_fit_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(NoSpaceError, match=r"needs 1000000.00 GB and \d+\.\d+ GB are free"):
        refuse_if_short(10**15, tmp_path)
    refuse_if_short(MARGIN, tmp_path)


@pytest.mark.fault("T16")
def test_an_adapter_with_numbers_that_are_not_finite_is_not_merged(base, tmp_path):
    run = tuned_run(tmp_path, base)
    weights = load_file(run.adapter / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, run.adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudioError, match=r"base_model\.model\..* in adapter/adapter_model\.safetensors holds numbers that are not finite"):
        merge(desk_of(run))
    assert left_behind(run) == set()


@pytest.mark.fault("T45")
def test_a_merged_model_that_says_something_else_is_not_kept(base, tmp_path, monkeypatch):
    run = tuned_run(tmp_path, base)
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda tuned, safe_merge: tuned.unload())  # forgets the adapter
    with pytest.raises(StudioError, match="does not say what base and adapter say"):
        merge(desk_of(run))
    assert left_behind(run) == set()


def test_a_merge_that_is_asked_to_stop_leaves_nothing(base, tmp_path):
    run = tuned_run(tmp_path, base)
    desk = desk_of(run)
    (desk.folder / "stop").touch()
    assert isinstance(merge(desk), events.Stopped)
    assert left_behind(run) == set()


def test_a_run_without_an_adapter_cannot_be_merged(base, tmp_path):
    run = tuned_run(tmp_path, base)
    shutil.rmtree(run.adapter)
    with pytest.raises(StudioError, match="This run has no adapter yet. Let it train to the end, then merge."):
        merge(desk_of(run))


def test_a_new_result_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path):
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(OSError), whole(folder) as draft:
        (draft / "new").touch()
        raise OSError("no space")
    assert [path.name for path in tmp_path.rglob("*")] == ["merged", "old"]
    with whole(folder) as draft:
        (draft / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["merged", "new"]
