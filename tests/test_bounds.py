"""Tokenizers that mean harm and texts that are too long: memory stays bounded, words say what happened, and Cancel ends them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tokenizers import Regex, normalizers

from studio import events, examination, jobs, preview, shares
from studio.engine import texts, tokens
from studio.engine.vocabulary import load_tokenizer
from studio.errors import BusyError, DataError
from studio.jobs import Job
from studio.preferences.pairs import Pair
from studio.settings import ModelSettings
from tests.jobs_at_work import practice, until
from tests.test_prequantized import said_to_be

MULTIPLIES = normalizers.Sequence([normalizers.Replace("z", "z" * 60)] * 5)
"""A letter becomes 780 million."""
NEVER_ENDS, WORDS = normalizers.Replace(Regex(r"(z|zz|z\w)+="), ""), ("z" * 18 + " ") * 4000 + "="
"""A pattern that tries every way to take a word apart, and so many words that this takes minutes: at one long word it gives up in a second."""
SMALL = "from studio.engine import bounds; bounds.ROOM = bounds.LEAST = 300 * 2**20; "


def with_normalizer(folder: Path, normalizer) -> str:
    """The practice model with a tokenizer that normalizes so."""
    base = said_to_be(folder)
    told = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    path = base / "tokenizer.json"
    path.write_text(json.dumps(told | {"normalizer": json.loads(normalizer.__getstate__())}), encoding="utf-8")
    return str(base)


def data_of(folder: Path, text: str) -> str:
    rows = [{"prompt": "What is it?", "chosen": f"{text} {place}", "rejected": f"No {place}."} for place in range(4)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "pairs.jsonl")


def started(folder: Path, program: str, settings) -> tuple[subprocess.Popen, Job]:
    """An examination in a process of its own, with little room."""
    job = Job("examine", folder)
    folder.mkdir(parents=True)
    (folder / "request.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=jobs.PROJECT, stdin=subprocess.DEVNULL), job


EXAMINE = SMALL + "from studio.engine.examine import job; from studio.engine.worker import work; raise SystemExit(work(job))"


@pytest.mark.fault("T92")
def test_a_normalizer_that_multiplies_a_text_ends_in_words_before_the_memory_is_full(tmp_path):
    settings = practice(**{"model.name": with_normalizer(tmp_path / "base", MULTIPLIES), "data.source": data_of(tmp_path, "zz"), "data.rows": None})
    process, job = started(tmp_path / "examined", EXAMINE, settings)
    most, watched = 0, psutil.Process(process.pid)
    while process.poll() is None:
        try:
            most = max(most, watched.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.02)
    reason = events.last(events.read(job.log), events.Failed).reason
    assert "took more than 0.3 GB of memory, so it was ended. Choose another model, or leave out the longest rows." in reason
    assert most < 3 * 2**30


@pytest.mark.fault("T92")
def test_cancel_ends_an_examination_whose_tokenizer_never_comes_back(tmp_path):
    settings = practice(**{"model.name": with_normalizer(tmp_path / "base", NEVER_ENDS), "data.source": data_of(tmp_path, WORDS),
                           "data.rows": None})
    job = examination.begin(tmp_path, settings)
    until(lambda: any(isinstance(one, events.Entered) and one.phase == "counting tokens" for one in events.read(job.log)))
    time.sleep(6)  # it imports its libraries, and is caught
    assert jobs.status(job) == "running"
    asked = time.monotonic()
    jobs.stop(job)
    until(lambda: jobs.status(job) in jobs.OVER, 20)
    assert jobs.status(job) == "stopped" and time.monotonic() - asked < 10


def test_a_pair_whose_tokens_are_never_made_is_told_instead_of_shown(tmp_path, monkeypatch):
    settings = practice(**{"model.name": with_normalizer(tmp_path / "base", MULTIPLIES)})
    pair = Pair([{"role": "user", "content": "zz"}], [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}])
    program = SMALL + "import runpy; runpy.run_module('studio.engine.look', run_name='__main__')"
    monkeypatch.setattr(preview, "PROGRAM", ["-c", program])
    with pytest.raises(DataError, match="took more than 0.3 GB of memory"):
        list(preview.look(settings, pair.row()))


@pytest.mark.fault("T92")
def test_waiting_for_a_pair_s_tokens_can_be_cancelled_and_a_user_has_so_many_of_these_processes(tmp_path, monkeypatch):
    settings = practice(**{"model.name": with_normalizer(tmp_path / "base", NEVER_ENDS)})
    pair = Pair([{"role": "user", "content": WORDS}], [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}])
    before = set(psutil.Process().children(recursive=True))
    waiting = [preview.look(settings, pair.row(), owner="ada") for _ in range(shares.each.processes)]
    assert [next(each) for each in waiting] == [None] * len(waiting)
    with pytest.raises(BusyError, match="most that one user may have"):
        next(preview.look(settings, pair.row(), owner="ada"))
    begun = set(psutil.Process().children(recursive=True)) - before
    assert begun
    for each in waiting:
        each.close()
    assert preview.at_work["ada"] == 0
    until(lambda: not any(process.is_running() for process in begun), 5)


def test_long_pairs_are_taken_a_few_at_once_and_in_their_order():
    pairs = [Pair([{"role": "user", "content": "q"}], [{"role": "assistant", "content": f"{place} " + "x" * size}],
                  [{"role": "assistant", "content": "n"}]) for place, size in enumerate([10] * 700 + [900_000] * 5 + [5_000_000] + [10] * 3)]
    batches = list(texts.batches(pairs))
    assert [pair for batch in batches for pair in batch] == pairs
    assert [len(batch) for batch in batches] == [500, 202, 2, 1, 1, 3] or max(map(len, batches)) <= 500
    for batch in batches:
        said = sum(len(pair.chosen[0]["content"]) for pair in batch)
        assert len(batch) == 1 or said <= texts.CHARACTERS_AT_ONCE


@pytest.mark.slow
def test_five_hundred_long_cells_take_little_memory(tmp_path):
    """As they were once encoded all at once, they took 7.8 GB."""
    tokenizer, before = load_tokenizer(ModelSettings()), psutil.Process().memory_info().rss
    long = [Pair([{"role": "user", "content": "q"}], [{"role": "assistant", "content": f"{place} " + "word and " * 20_000}],
                 [{"role": "assistant", "content": "no"}]) for place in range(100)]
    tokens.tokenize(long, tokenizer, 512, tmp_path)
    assert psutil.Process().memory_info().rss - before < 1.5 * 2**30
