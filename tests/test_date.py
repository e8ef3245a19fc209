"""A chat template that writes today's date writes the date of the run, wherever the run speaks and whenever that is."""

import json
import random
import shutil
from datetime import datetime

import pytest

from studio import begun, card, events, runs, seal
from studio.candidates import BASE, Candidate
from studio.chat import Sampling
from studio.engine import proof, tokens, vocabulary
from studio.engine.duet import Duet
from studio.engine.rendering import render
from studio.engine.vocabulary import load_tokenizer
from studio.jobs import Queue
from studio.practice import MODEL
from studio.preferences.pairs import Pair
from studio.settings import ModelSettings
from tests.jobs_at_work import ended, heard, log_of, practice, until
from tests.tiny_run import tiny_base, tuned_run

DATED = "{% if strftime_now is defined %}Today is {{ strftime_now('%Y-%m-%d %H:%M:%S') }}. {% endif %}"
"""To the second, so that a test need not wait for tomorrow."""
THEN, LATER = datetime(2024, 2, 29, 8, 15, 30), datetime(2025, 12, 31, 23, 59, 59)
PAIR = Pair(*([{"role": role, "content": text}] for role, text in (("user", "Why?"), ("assistant", "Because."), ("assistant", "No."))))


def dated(folder, text: str = DATED):
    """The practice model with a template that begins with a date."""
    shutil.copytree(MODEL, folder)
    template = folder / "chat_template.jinja"
    template.write_text(text + template.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(ModelSettings(name=str(dated(tmp_path_factory.mktemp("dated") / "model"))))


def test_a_template_reads_the_date_that_it_is_told(tokenizer):
    assert render(tokenizer, PAIR.prompt, THEN).startswith("Today is 2024-02-29 08:15:30. ")
    assert render(tokenizer, [PAIR.prompt] * 2, LATER)[1].startswith("Today is 2025-12-31 23:59:59. ")
    now = datetime.strptime(render(tokenizer, PAIR.prompt)[9:28], "%Y-%m-%d %H:%M:%S")
    assert abs((datetime.now() - now).total_seconds()) < 60


def test_a_template_that_draws_at_random_writes_the_same_and_disturbs_no_other_draw(tmp_path):
    drawing = load_tokenizer(ModelSettings(name=str(dated(tmp_path / "model", "{{ range(99999)|random }} "))))
    random.seed(5)
    expected = random.random()
    random.seed(5)
    texts = {render(drawing, PAIR.prompt, THEN) for _ in range(5)}
    assert len(texts) == 1 and random.random() == expected


def test_tokens_of_another_day_are_not_taken_from_the_cache(tokenizer, tmp_path):
    def first_words(moment: datetime) -> str:
        return tokenizer.decode(tokens.tokenize([PAIR], tokenizer, 256, cache=tmp_path, moment=moment)[0].chosen)[:28]

    assert [first_words(moment) for moment in (THEN, LATER, THEN)] == [f"Today is {moment}" for moment in (THEN, LATER, THEN)]
    assert len(list(tmp_path.iterdir())) == 2
    plain = load_tokenizer(ModelSettings())
    for moment in (THEN, LATER):
        tokens.tokenize([PAIR], plain, 256, cache=tmp_path, moment=moment)
    assert len(list(tmp_path.iterdir())) == 3  # where no date is written one set does for every day


def test_a_run_with_a_dated_template_resumes_another_day(tmp_path):
    queue = Queue(tmp_path / "runs", poll_seconds=0.1).open()
    run = queue.add(practice(**{"model.name": str(dated(tmp_path / "model")), "training.checkpoint_every": 2, "evaluation.every": 100}))
    assert ended(run) == "finished", log_of(run)
    queue.resume(run)  # seconds later, which this template writes as well
    until(lambda: len(heard(run, events.Finished) + heard(run, events.Failed)) == 2)
    queue.close()
    assert not heard(run, events.Failed) and heard(run, events.Resumed)[0].step == 2
    first, again = heard(run, events.Planned)
    assert first.moment == again.moment == begun.moment(run).isoformat()
    asked = proof.prompts(run, reader := vocabulary.read(run.adapter, run.name))
    assert all(reader.decode(ids[0]).startswith(f"Today is {begun.moment(run)}. ") for ids in asked)


def test_base_and_tuned_are_asked_with_the_date_of_the_run_in_the_chat(tmp_path):
    run = tuned_run(tmp_path / "runs", tiny_base(tmp_path / "base"))
    template = run.adapter / "chat_template.jinja"
    template.write_text(DATED + template.read_text(encoding="utf-8"), encoding="utf-8")
    log = run.folder / events.FILE
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    trained = seal.of(run.adapter)
    log.write_text("".join(json.dumps(line | ({"moment": THEN.isoformat(), "rules": 2, "template": trained} if line["event"] == "Planned" else {}))
                           + "\n" for line in lines), encoding="utf-8")
    duet = Duet(runs.find(run.folder.parent, run.name))
    heard_texts = []
    duet._speak = lambda prompts, *_, **__: heard_texts.extend(prompts)
    assert duet.pair == (BASE, Candidate(run.name))
    duet.answer([PAIR.prompt, PAIR.prompt], Sampling(max_new_tokens=4), lambda texts: None)
    assert [text[:29] for text in heard_texts] == [f"Today is {THEN}."] * 2
    assert f"Chat template: seal {trained}; it writes today's date, which was 2024-02-29 throughout training" in card.render(run, "adapter", "a/b")
