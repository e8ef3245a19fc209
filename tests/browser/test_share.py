"""Share in a browser: a run on the practice model is merged, written as GGUF and downloaded. One studio, in order."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import expect

from studio import gguf_file
from tests.browser.steps import LONG_MS, moved, tab
from tests.tiny_run import tuned_run


@pytest.fixture(scope="module")
def run(studio, tmp_path_factory):
    """A run with an adapter that changes the practice model."""
    return moved(studio, tuned_run(tmp_path_factory.mktemp("elsewhere"), "practice"))


@pytest.fixture
def opened(run, opened):
    """The page, with the run in view."""
    return opened


def test_a_merge_is_stopped_and_leaves_nothing(opened, run):
    tab(opened, "Share")
    opened.locator("#merge").click()
    opened.locator("#stop-merge").click()
    expect(opened.locator("#merge-state")).to_contain_text("Stopped at your request; nothing half-made was left", timeout=LONG_MS)
    expect(opened.locator("#stop-merge")).to_be_hidden()
    assert not run.merged.exists()


def test_the_adapter_is_merged_and_checked(opened, run):
    tab(opened, "Share")
    opened.locator("#merge").click()
    expect(opened.locator("#merge-state")).to_contain_text("The merged model is in", timeout=LONG_MS)
    assert (run.merged / "model.safetensors").is_file()


def test_the_merged_model_is_written_as_gguf_and_downloaded(opened, run):
    tab(opened, "Share")
    opened.locator("#gguf").click()
    expect(opened.locator("#gguf-state")).to_contain_text("The file says what the merged model says", timeout=LONG_MS)
    with opened.expect_download() as download:
        opened.locator("#download-gguf").click()
    assert download.value.suggested_filename == f"{run.name}-Q8_0.gguf"
    assert Path(download.value.path()).read_bytes() == gguf_file.of(run).read_bytes()


def test_adapter_and_merged_model_are_downloaded_whole(opened, run):
    tab(opened, "Share")
    for what, folder, weights in (("adapter", run.adapter, "adapter_model.safetensors"), ("merged", run.merged, "model.safetensors")):
        with opened.expect_download() as download:
            opened.locator(f"#download-{what}").click()
        assert download.value.suggested_filename == f"{run.name}-{what}.zip"
        with ZipFile(download.value.path()) as archive:
            assert archive.read(f"{run.name}-{what}/{weights}") == (folder / weights).read_bytes()
    opened.get_by_role("button", name="Use it in Python").click()
    expect(opened.locator("#snippet")).to_contain_text(str(run.merged))


def test_a_push_without_a_token_is_told_and_nothing_is_lost(opened, run):
    tab(opened, "Share")
    opened.locator("#push-repo").locator("input, textarea").fill("friendly")
    opened.locator("#push").click()
    expect(opened.locator("#push-state")).to_contain_text("token", timeout=LONG_MS)
    assert run.adapter.is_dir()
