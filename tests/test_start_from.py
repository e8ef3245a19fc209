"""A run that begins with an earlier one's adapter: what that had learned is there, and what does not fit is refused in words."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio import jobs, runs
from studio.jobs import Queue
from studio.summary import Summary
from studio.ui.studio import Studio
from studio.ui.train_tab import again
from tests.jobs_at_work import ended, log_of, practice, said

WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def trained(root, **changes):
    """A run to its end, whatever that is."""
    run = runs.create(root, practice(**changes))
    jobs.start(jobs.of(run))
    ended(run)
    return run


@pytest.fixture(scope="module")
def earlier(root):
    run = trained(root, **{"training.learning_rate": 1e-3})
    assert jobs.status(jobs.of(run)) == "finished", log_of(run)
    return run


def copied(earlier, root, name: str):
    shutil.copytree(earlier.folder, root / name)
    return runs.find(root, name)


@pytest.mark.fault("T23")
def test_a_run_begins_with_what_an_earlier_one_had_learned(root, earlier):
    following = trained(root, **{"adapter.start_from": earlier.name, "training.max_steps": 1, "training.learning_rate": 1e-12})
    assert jobs.status(jobs.of(following)) == "finished", log_of(following)
    mine, its = (load_file(run.folder / WEIGHTS) for run in (following, earlier))
    assert all(torch.allclose(mine[name], its[name], atol=1e-6) for name in its)
    learned, begun = (Summary(said(run)).held_out("tuned") for run in (earlier, following))
    assert begun["rewards/margins"] == pytest.approx(learned["rewards/margins"], abs=1e-4)
    assert begun["rewards/margins"] != pytest.approx(Summary(said(earlier)).held_out("base")["rewards/margins"], abs=1e-4)


def refusal(root, **changes) -> str:
    run = trained(root, **changes)
    assert jobs.status(jobs.of(run)) == "failed"
    assert not run.adapter.exists()
    return Summary(said(run)).failure


@pytest.mark.fault("T23")
@pytest.mark.slow
def test_an_adapter_of_another_rank_is_refused_in_words(root, earlier):
    assert "has another rank" in refusal(root, **{"adapter.start_from": earlier.name, "adapter.rank": 4})


@pytest.mark.fault("T16")
@pytest.mark.slow
def test_an_adapter_with_a_number_that_is_not_finite_is_refused_and_named(root, earlier):
    spoiled = copied(earlier, root, "spoiled")
    weights = load_file(spoiled.folder / WEIGHTS)
    name = sorted(weights)[0]
    weights[name][0, 0] = float("nan")
    save_file(weights, spoiled.folder / WEIGHTS)
    assert name in refusal(root, **{"adapter.start_from": "spoiled"})


@pytest.mark.fault("T45b")
@pytest.mark.slow
def test_an_adapter_of_another_base_is_refused(root, earlier):
    other = copied(earlier, root, "other")
    base = json.loads((other.adapter / "base.json").read_text(encoding="utf-8"))
    (other.adapter / "base.json").write_text(json.dumps(base | {"weights": "0" * 16}), encoding="utf-8")
    assert "other weights than this run's base" in refusal(root, **{"adapter.start_from": "other"})


@pytest.mark.slow
def test_an_earlier_run_that_is_not_there_or_somebody_else_s_is_told(root, earlier):
    theirs = runs.room(root, "anna")
    theirs.mkdir(parents=True)
    copied(earlier, theirs, "anna-s-run")
    for name in ("no-such-run", "anna-s-run"):
        assert "There is no run" in refusal(root, **{"adapter.start_from": name})


def test_the_form_takes_over_what_the_run_in_view_chose_and_whose_adapter_it_is(root, earlier):
    fields = {name: None for name in practice().to_form()}
    for from_adapter in (True, False):
        filled = again(Studio(root, Queue(root)), earlier.name, fields, from_adapter)
        values = dict(zip(fields, filled[: len(fields)], strict=True))  # whose data these are, in words, comes behind
        assert values["adapter.start_from"] == (earlier.name if from_adapter else "")
        assert values["training.learning_rate"] == 1e-3


def test_a_name_that_is_no_run_s_is_refused_at_the_field():
    from studio.errors import SettingsError

    with pytest.raises(SettingsError, match="cannot be a run's name"):
        practice(**{"adapter.start_from": "../another"})
