"""A template that is not the trained one is noticed wherever a run speaks or is shared."""

import shutil

import pytest

from studio import card, events, seal
from studio.engine import duet, merge, push
from studio.engine.worker import Desk
from studio.errors import StudioError
from studio.practice import MODEL
from studio.preview import look
from studio.runs import Run
from studio.settings import Settings
from studio.share import FILE, PushRequest
from tests.tiny_run import tiny_base, tuned_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tuned_run(tmp_path_factory.mktemp("runs"), tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / finished.name)
    return Run(tmp_path / finished.name)


def test_a_run_knows_the_seal_of_the_template_that_its_adapter_has(run):
    assert seal.trained_with(run) == seal.seal((run.adapter / seal.TEMPLATE).read_text(encoding="utf-8"))
    seal.check(run, run.adapter)
    readme = card.render(run, "adapter", "ada/tuned")
    assert f"Chat template: seal {seal.trained_with(run)}" in readme


def test_the_seal_is_that_of_the_pairs_as_they_are_shown():
    pair = {"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}]}
    *_, seen = look(Settings(), pair)
    assert seen.seal == seal.seal((MODEL / seal.TEMPLATE).read_text(encoding="utf-8"))


@pytest.mark.parametrize("spoil", [lambda path: path.write_text(path.read_text() + " "), lambda path: path.unlink()],
                         ids=["changed", "gone"])
@pytest.mark.fault("T45c")
def test_chat_merge_and_push_refuse_a_template_that_was_not_trained_with(run, spoil):
    spoil(run.adapter / seal.TEMPLATE)
    with pytest.raises(StudioError, match="not the one this run was trained with"):
        duet.Duet(run)
    (run.folder / "merge").mkdir()
    with pytest.raises(StudioError, match="not the one this run was trained with"):
        merge.merge(Desk(run.folder / "merge"))
    (run.folder / "push").mkdir()
    (run.folder / "push" / FILE).write_text(PushRequest(repo="tuned").to_yaml())
    with pytest.raises(StudioError, match="not the one this run was trained with"):
        push.push(Desk(run.folder / "push"))


def test_a_run_of_an_older_version_has_no_seal_and_is_not_refused(run):
    log = run.folder / events.FILE
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if "Planned" not in line))
    (run.adapter / seal.TEMPLATE).write_text("another")
    assert seal.trained_with(run) == ""
    seal.check(run, run.adapter)


def test_a_card_tells_every_source_by_name_and_every_edit_without_its_text(run, tmp_path):
    changed = run.settings.to_form() | {"data.also": "/home/ada/secret folder/more.jsonl, weight 0.5\nada/pairs",
                                        "data.edits": 'drop duplicates; rewrite 3 {"chosen": "Private words."}'}
    (run.folder / "settings.yaml").write_text(Settings.from_form(**changed).to_yaml())
    readme = card.render(Run(run.folder), "adapter", "ada/tuned")
    assert "Mixed in: more.jsonl, weight 0.5" in readme and "Mixed in: ada/pairs, weight 1" in readme
    assert "Edit: drop duplicates" in readme and "Edit: rewrite 3" in readme
    assert "secret" not in readme and "Private" not in readme
