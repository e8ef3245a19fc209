"""Compare without a browser: what was said is kept on the server, and every list answers a value that is no longer on offer in words."""

import json
from dataclasses import dataclass, field

import gradio as gr
import pytest

from studio import collected, events, jobs, judgements, questions, runs, votes
from studio.candidates import BASE, Candidate
from studio.chat import Answers, Chat
from studio.jobs import Queue
from studio.ui import choices, page, parts, talk
from studio.ui.studio import Studio
from studio.ui.talk import Talk
from tests.jobs_at_work import practice
from tests.visitors import Visitor

CODE = "    Fix this, please:\n\tif x:\n\t\treturn 1\n\n"
SAID = ("\tif x:\n\t    return 1  \n\n", "  <think>so</think>\r\n\t<b>if</b> x &amp;\n\n\n")
GONE = "nobody-offers-this@last"


@dataclass
class Echo(Chat):
    """Notes what it is asked, and answers at once what the test wants said."""

    heard: list = field(default_factory=list)

    def ask(self, run, pair, talks, sampling, secrets=None):
        self.heard.append(json.loads(json.dumps(talks)))  # as the process that answers would read it
        yield Answers(SAID[0][:3], "", together=True)
        yield Answers(*SAID, together=True, done=True)

    def close(self):
        pass


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    root = tmp_path_factory.mktemp("studio") / "runs"
    return Studio(root, Queue(root), chat=Echo())


@pytest.fixture(scope="module")
def run(studio):
    """A run that was stopped with an adapter."""
    run = runs.create(studio.home, practice())
    for event in (events.Planned(pairs=30, held_out=8, steps=2, system="  Be brief.\n"), events.Saved(2, "adapter"), events.Stopped(2)):
        events.append(jobs.of(run).log, event)
    run.adapter.mkdir()
    return run


@pytest.fixture(scope="module")
def built(studio):
    return page.build(studio)


@pytest.fixture(scope="module")
def url(built):
    _, url, _ = built.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield url
    built.close()


class Person(Visitor):
    """Somebody in front of a page of their own: sets off its events by the element that they touch."""

    def set_off(self, elem_id: str, kind: str, values: dict[str, object], data: object = None) -> dict:
        """The outputs of that element's event of that kind, by elem_id. `values` are what the browser holds, by elem_id."""
        at = next(number for number, one in self.components.items() if one["props"].get("elem_id") == elem_id)
        found = next(one for one in self.config["dependencies"] if [at, kind] in [list(target) for target in one["targets"]])
        given = [values.get(self._name(number), self.components.get(number, {"props": {}})["props"].get("value")) for number in found["inputs"]]
        heard = self.answer(found["id"], given, data)
        assert heard["success"], heard
        return dict(zip(map(self._name, found["outputs"]), heard["output"]["data"], strict=True))

    def answer(self, number: int, given: list, data: object = None) -> dict:
        """The last that comes back when an event is set off."""
        joined = self.http.post("/gradio_api/queue/join", json={"data": given, "fn_index": number, "session_hash": self.session,
                                                                "event_data": data, "trigger_id": None})
        if joined.status_code == 422:  # what the validator says is shown under the fields
            return {"success": True, "output": joined.json()}
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            heard = (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:"))
            return next(message for message in heard if message["msg"] == "process_completed")

    def _name(self, number: int) -> str:
        return str(self.components[number]["props"].get("elem_id") or number) if number in self.components else str(number)


@pytest.fixture
def person(url):
    return Person(url)


# --- what was said ----------------------------------------------------------------------------------------------------


def test_the_second_question_is_asked_after_what_was_really_said_and_the_pair_holds_it_to_the_byte(person, studio, run):
    forms = {"in-view": run.name, "compare-first": "base", "compare-second": f"{run.name}@last", "system-prompt": "  Be brief.\n"}
    studio.chat.heard.clear()
    for text in (CODE, "And now?\n"):
        person.set_off("question", "submit", forms | {"question": text})
    opening = [{"role": "system", "content": "  Be brief.\n"}, {"role": "user", "content": CODE}]
    first, second = studio.chat.heard
    assert first == [opening, opening]
    assert second == [[*opening, {"role": "assistant", "content": said}, {"role": "user", "content": "And now?\n"}] for said in SAID]
    person.set_off("new-chat", "click", forms)
    person.set_off("question", "submit", forms | {"question": CODE})
    told = person.set_off("prefer-right", "click", forms)
    assert "Kept as a pair" in told["collected"]
    kept = [json.loads(line) for line in collected.path(studio.root).read_bytes().splitlines()][-1]
    assert (kept["prompt"], kept["chosen"], kept["rejected"]) == (opening, [{"role": "assistant", "content": SAID[1]}],
                                                                   [{"role": "assistant", "content": SAID[0]}])
    again = person.set_off("prefer-left", "click", forms)
    assert "judged these answers already" in again["collected"]


def test_one_s_own_answer_and_a_kept_question_stay_as_they_were_written(tmp_path):
    now = Talk().asked(CODE).answered(Answers(*SAID, done=True))
    assert talk.preferred(now, "neither", "\tMine  \n").chosen == [{"role": "assistant", "content": "\tMine  \n"}]
    questions.keep(tmp_path, CODE, system=" Be brief.\n")
    assert questions.kept(tmp_path) == [questions.Question(CODE, " Be brief.\n")]
    assert talk.questions(None, questions.kept(tmp_path)) == []


def test_fixed_prompts_stay_as_they_stand_through_the_settings_file(tmp_path):
    prompts = "  indented?\n\n\tA tab? \nA line\u2028separator?"
    run = runs.create(tmp_path, practice(**{"evaluation.prompts": prompts}))
    asked = questions.lines(runs.Run(run.folder).settings.evaluation.prompts)
    assert asked == ["  indented?", "\tA tab? ", "A line\u2028separator?"]


def test_what_is_shown_is_text_and_nothing_but_text():
    now = Talk().asked(CODE).answered(Answers(*SAID, done=True))
    shown = now.shown("right")
    assert "<think>" not in shown and "&lt;think&gt;so&lt;/think&gt;&#13;\n\t&lt;b&gt;if&lt;/b&gt; x &amp;amp;\n\n\n</p>" in shown
    assert f'<p dir="auto">{parts.text(CODE)}</p>' in shown


def test_an_answer_that_is_an_ellipsis_is_an_answer():
    now = Talk().asked("Why?").answered(Answers("…", "So.", done=True))
    assert talk.preferred(now, 0).chosen == [{"role": "assistant", "content": "…"}]


def test_answers_that_were_stopped_cannot_be_preferred():
    with pytest.raises(talk.StudioError, match="let both say their last word"):
        talk.preferred(Talk().asked("Why?").answered(Answers("Beca", "So", together=True)), 0)


# --- lists whose choices change ---------------------------------------------------------------------------------------


def test_every_list_of_the_page_hands_on_what_it_does_not_offer(built):
    lists = [block for block in built.blocks.values() if isinstance(block, gr.Dropdown | gr.Radio | gr.CheckboxGroup)]
    assert len(lists) > 20
    assert {type(block) for block in lists} == {choices.Dropdown, choices.Radio}


def test_no_event_ends_in_an_error_for_a_value_that_is_no_longer_on_offer(person, built, run):
    walked, refused = 0, []
    for event in person.events:
        stale = [GONE if kind in ("dropdown", "radio") else value for kind, value in zip(event.types, person.values(event), strict=True)]
        multiple = [person.components[place]["props"].get("multiselect") if place in person.components else None for place in event.inputs]
        stale = [[GONE] if several else value for several, value in zip(multiple, stale, strict=True)]
        if GONE not in stale and [GONE] not in stale:
            continue
        heard = person.answer(event.number, stale)
        walked += 1
        if not heard["success"]:
            refused.append((event.name, heard["output"]))
    assert walked > 50 and not refused


def test_a_pair_that_is_gone_is_told_and_the_lists_are_offered_anew(person, run):
    forms = {"in-view": run.name, "compare-first": "base", "compare-second": f"{run.name}@7", "question": "Why?"}
    told = person.set_off("question", "submit", forms)
    assert [value for _, value in told["compare-second"]["choices"]] == ["base", f"{run.name}@last"]
    assert told["compare-second"]["value"] == f"{run.name}@last"


# --- taken back -------------------------------------------------------------------------------------------------------


def test_a_vote_is_taken_back_with_its_pair_and_nothing_else_changes(tmp_path):
    run = runs.create(tmp_path, practice())
    pair, now = (BASE, Candidate(run.name, 2)), Talk().asked(CODE).answered(Answers(*SAID, done=True))
    for identity in ("one", "two"):
        votes.add(run, pair, 1, CODE, identity)
        collected.add(tmp_path, talk.preferred(now, 1), run.name, identity)
    votes.add(run, pair, 0, "an older one, without an identity")
    before = collected.path(tmp_path).read_bytes().splitlines()
    assert [one.question for one in judgements.latest(tmp_path, run, pair)][0] == "an older one, without an identity"
    assert judgements.undo(tmp_path, run, pair, "one") == (True, True)
    assert votes.tally(run, pair) == votes.Tally(first=1, second=1)
    assert collected.path(tmp_path).read_bytes().splitlines() == before[1:]
    older = next(one for one in judgements.latest(tmp_path, run, pair) if not one.made_a_pair)
    assert judgements.undo(tmp_path, run, pair, older.identity) == (True, False)
    assert votes.tally(run, pair) == votes.Tally(second=1)
    with pytest.raises(judgements.StudioError, match="no longer there"):
        judgements.undo(tmp_path, run, pair, "one")
