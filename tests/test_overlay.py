"""Other runs beside the one in view: which are offered, and how results and settings differ."""

import pytest

from studio import events, jobs, runs
from studio.jobs import Queue
from studio.runs import Run
from studio.ui import overlay_card
from studio.ui.studio import Studio
from tests.jobs_at_work import practice, said


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path, Queue(tmp_path))


def begun(studio, loss=0.5, **changes) -> Run:
    """A run that has taken a step and finished."""
    run = runs.create(studio.root, practice(**changes))
    for event in (events.Started("cpu", {}, at=100.0),
                  events.Evaluated(0, "base", {"rewards/accuracies": 0.5, "rewards/margins": 0.0}, [-0.1, 0.1]),
                  events.Stepped(1, {"loss": loss}, at=110.0),
                  events.Evaluated(1, "tuned", {"rewards/accuracies": 1.0, "rewards/margins": 0.25}, [0.2, 0.3]),
                  events.Finished(at=163.0)):
        events.append(jobs.of(run).log, event)
    return run


def rows_of(table: str) -> list[str]:
    return table.split("<tr>")[2:]


def test_other_runs_that_have_begun_are_offered(studio):
    first, second = begun(studio), begun(studio)
    waiting = runs.create(studio.root, practice())
    assert overlay_card.offered(studio, first.name) == [(second.name, second.name)]
    assert {name for _, name in overlay_card.offered(studio, waiting.name)} == {first.name, second.name}
    assert overlay_card.offered(studio, None) and overlay_card.chosen(studio, first.name, [first.name, "gone", second.name]) == [second]
    assert overlay_card.counts(studio, [second]) == {second.name: 3}
    assert len(overlay_card.chosen(studio, None, [second.name] * 9)) == overlay_card.MOST


def test_results_and_differing_settings_are_told(studio):
    one, other = begun(studio), begun(studio, loss=0.25, **{"adapter.rank": 4, "data.edits": "swap 3", "training.max_steps": None})
    table = overlay_card.table([one, other], said)
    rank, = (row for row in rows_of(table) if ">Rank<" in row)
    assert f"<td>{one.settings.adapter.rank}</td><td>4</td>" in rank
    assert [row for row in rows_of(table) if "<td>–</td><td>swap 3</td>" in row] and [row for row in rows_of(table) if "<td>4</td><td>–</td>" in row]
    assert "<td>0.5000</td><td>0.2500</td>" in table and "<td>1 min 03 s</td>" in table
    assert "<td>100.0 % (34.2 to 100.0 %)</td>" in table and "<td>0.2500</td><td>0.2500</td>" in table
    assert "Learning rate" not in table and overlay_card.ALIKE not in table


def test_runs_with_the_same_settings_are_told_to_be_alike_and_one_alone_has_no_table(studio):
    one, other = begun(studio), begun(studio)
    assert overlay_card.ALIKE in overlay_card.table([one, other], said)
    assert overlay_card.table([one], said) == ""


def test_texts_of_a_setting_are_shown_as_text_and_not_without_end(studio):
    one, other = begun(studio), begun(studio, **{"evaluation.prompts": "<img src=x>" + "?" * 500})
    table = overlay_card.table([one, other], said)
    assert "<img" not in table and "? …" in table and "?" * 200 not in table


def test_settings_that_only_another_version_has_are_told_beside_the_others(studio):
    one, other = begun(studio), begun(studio)
    (other.folder / "settings.yaml").write_text("model: {wings: 2}\n", encoding="utf-8")
    table = overlay_card.table([one, runs.find(studio.root, other.name)], said)
    assert '<th scope="row">model.wings (not a setting of this version)</th><td>–</td><td>2</td>' in table and "<td>0.5000</td>" in table


def test_settings_that_cannot_be_read_are_told_to_be_incomparable(studio):
    one, other = begun(studio), begun(studio)
    (other.folder / "settings.yaml").write_text("[" * 100, encoding="utf-8")
    table = overlay_card.table([one, runs.find(studio.root, other.name)], said)
    assert "cannot be compared" in table and "<td>0.5000</td>" in table
