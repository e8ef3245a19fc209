"""What of a run is downloaded: whole, of a length known before, with nothing of this machine in it, and used as its card says."""

import io
import json
import shutil
from zipfile import ZipFile

import pytest

from studio import events, parcel, usage
from studio.access import Visitor
from studio.errors import StudioError
from studio.jobs import Queue
from studio.runs import Run
from studio.summary import Summary
from studio.ui import share_tab
from studio.ui.downloads import zipped
from studio.ui.studio import Studio
from tests.tiny_run import tiny_base, tuned_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base-of-this-machine"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base):
    return tuned_run(tmp_path_factory.mktemp("runs"), base)


@pytest.fixture
def run(trained, tmp_path):
    """A copy, to be spoiled."""
    shutil.copytree(trained.folder, tmp_path / "runs" / trained.name)
    return Run(tmp_path / "runs" / trained.name)


def loaded_by(program: str, folder, monkeypatch) -> str:
    """The kind of model that a program has loaded and let answer, run in this folder."""
    monkeypatch.chdir(folder)
    names = {}
    exec(program.replace("max_new_tokens=256", "max_new_tokens=4"), names)
    assert names["answer"].shape[1] > names["inputs"]["input_ids"].shape[1]
    return type(names["model"]).__name__


def test_a_downloaded_adapter_is_whole_and_answers_by_the_snippet_of_its_card(trained, base, tmp_path, monkeypatch):
    packed = zipped(trained, "adapter")
    length, content = len(packed), b"".join(packed)
    assert length == len(content)
    with ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    folder = tmp_path / f"{trained.name}-adapter"
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (trained.adapter / name).read_bytes()
    program = (folder / "README.md").read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    assert loaded_by(program.replace(usage.BASE, str(base)), tmp_path, monkeypatch).startswith("PeftModel")


def test_a_download_names_no_place_of_this_machine(trained, base):
    content = b"".join(zipped(trained, "adapter"))
    assert str(base).encode() not in content and str(trained.folder.parent).encode() not in content
    config = json.loads(parcel.contents(trained, "adapter", "tuned")["adapter_config.json"])
    assert config["base_model_name_or_path"] == base.name


def test_the_page_s_snippet_answers_as_it_stands_at_this_machine(trained, tmp_path, monkeypatch):
    studio = Studio(trained.folder.parent, Queue(trained.folder.parent))
    assert loaded_by(share_tab.how_to_use(studio, trained), tmp_path, monkeypatch).startswith("PeftModel")
    studio.who = lambda: Visitor("anna")
    program = share_tab.how_to_use(studio, trained)
    assert str(trained.folder) not in program and f'"{trained.name}-adapter"' in program and usage.BASE in program
    assert share_tab.how_to_use(studio, None) == ""


def test_folders_are_told_to_the_person_at_this_machine_alone(trained):
    studio = Studio(trained.folder.parent, Queue(trained.folder.parent))
    merged = Summary([events.Saved(0, "merged"), events.Noted("It says the same.")])

    def told() -> str:
        return share_tab.lead(studio, trained) + share_tab.ended(studio, trained, "merge", "finished", merged)

    assert str(trained.adapter) in told() and str(trained.merged) in told() and "It says the same." in told()
    studio.who = lambda: Visitor("anna")
    assert str(trained.folder.parent) not in told() and trained.name in told() and "can be downloaded and pushed" in told()


def test_what_cannot_be_handed_on_is_told_and_not_offered(run):
    with pytest.raises(StudioError, match="has not been merged yet. Merge it first, or take the adapter"):
        zipped(run, "merged")
    run.merged.mkdir(parents=True)
    (run.merged / "model.py").touch()
    with pytest.raises(StudioError, match="needs code of its own"):
        zipped(run, "merged")
    (run.adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(StudioError, match="adapter_config.json of .* cannot be read"):
        zipped(run, "adapter")
    (run.adapter / "vocab.json").symlink_to("/etc/hostname")
    with pytest.raises(StudioError, match="is a link to somewhere else"):
        zipped(run, "adapter")
    assert parcel.size(run, "merged") is None and parcel.size(run, "adapter") is None
    assert share_tab.offered(run, "adapter").visible is False and share_tab.offered(None, "merged").visible is False


def test_a_file_that_changes_while_it_is_read_ends_the_download_short_of_its_length(run):
    packed = zipped(run, "adapter")
    (run.adapter / "adapter_model.safetensors").write_bytes(b"less")
    with pytest.raises(RuntimeError, match="did not match the computed size"):
        b"".join(packed)
