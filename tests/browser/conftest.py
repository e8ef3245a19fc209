"""A Chromium of this machine for the browser tests, a studio and a Hub for each file of them.

Every page fails its test when it reaches outside or its scripts throw.
"""

import shutil
from contextlib import suppress

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from studio import jobs, runs
from tests.browser.steps import load
from tests.hub_server import Hub
from tests.jobs_at_work import said
from tests.studio_at_work import StudioProcess

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser():
    assert CHROMIUM, "No Chromium found. make test installs one; by hand: apt-get install chromium."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser):
    """A fresh page that fails its test when it asked an address outside or its scripts threw."""
    # Without a graphics card every frame of an animation is computed.
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page: Page = context.new_page()
    outside, thrown = [], []
    page.on("request", lambda asked: outside.append(asked.url) if not _is_local(asked.url) else None)
    page.on("pageerror", lambda error: thrown.append(str(error)))
    yield page
    page.unroute_all(behavior="ignoreErrors")  # what a test still holds back when it ends is nobody's any more
    context.close()
    assert not outside
    assert not thrown


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failure goes what the page showed and what its newest runs said last."""
    report = yield
    page, studio = (item.funcargs.get(name) for name in ("page", "studio"))
    if report.when == "call" and report.failed and page and studio:
        with suppress(Exception):  # a page that is gone shows nothing
            report.sections.append(("What the page showed", page.locator("body").inner_text(timeout=5000)))
        for run in runs.listed(studio.runs)[:3]:
            report.sections.append((f"What run {run.name} said last", "\n".join(str(event)[:500] for event in said(run)[-5:])))
    return report


def _is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "about:"))


@pytest.fixture(scope="module")
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def studio(tmp_path_factory, hub):
    studio = StudioProcess(tmp_path_factory.mktemp("studio") / "runs", {"HF_ENDPOINT": hub.url}).start()
    yield studio
    studio.kill()
    for run in runs.listed(studio.runs):
        jobs.stop(jobs.of(run))


@pytest.fixture
def opened(page: Page, studio) -> Page:
    load(page, studio)
    return page
