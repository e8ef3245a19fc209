"""Several people in one studio, each in a browser of their own."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from studio import events, jobs, runs
from studio.access import Users
from tests.browser.conftest import PATIENCE_MS
from tests.jobs_at_work import practice
from tests.studio_at_work import StudioProcess


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A studio with two users, of whom anna has a run, and with a repository of checkpoints."""
    home = tmp_path_factory.mktemp("studio") / "runs"
    home.mkdir()
    for name in ("anna", "bert"):
        Users(home).add(name, f"password of {name}")
    run = runs.create(runs.room(home, "anna"), practice())
    for event in (events.Started("cpu", {}), events.Stopped(step=0)):
        events.append(jobs.of(run).log, event)
    studio = StudioProcess(home, {"ORPO_STUDIO_CHECKPOINTS": "ada/checkpoints"}).start()
    yield studio
    studio.kill()


def signed_in(browser: Browser, studio, name: str, password: str | None = None):
    """A page of a browser of one's own, after the sign-in form."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(studio.url)
    page.fill("#name", name)
    page.fill("#password", password or f"password of {name}")
    page.click("text=Sign in")
    return page


def test_each_sees_their_own_runs_and_leaves_by_a_button(browser, studio):
    anna, bert = signed_in(browser, studio, "anna"), signed_in(browser, studio, "bert")
    expect(anna.locator("#person")).to_contain_text("Signed in as anna")
    expect(anna.locator("#run-head")).to_contain_text("practice-")
    expect(bert.locator("#person")).to_contain_text("Signed in as bert")
    expect(bert.locator("#practice")).to_be_visible()
    expect(bert.get_by_text("ada/checkpoints may hold runs")).to_be_visible()
    expect(anna.get_by_text("ada/checkpoints may hold runs")).to_be_hidden()
    assert "practice-" not in bert.content()
    anna.reload()
    expect(anna.locator("#run-head")).to_contain_text("practice-")
    anna.click("text=Sign out")
    expect(anna.locator("#name")).to_be_visible()
    anna.goto(studio.url)
    expect(anna.locator("#name")).to_be_visible()
    for page in (anna, bert):
        page.context.close()


def test_a_wrong_password_is_told_on_the_form_which_anyone_can_use(browser, studio):
    page = signed_in(browser, studio, "bert", "not his password")
    expect(page.locator("[role=alert]")).to_have_text("Name and password do not belong together.")
    found = Axe().run(page).response["violations"]
    assert not found, [violation["id"] for violation in found]
    page.context.close()
