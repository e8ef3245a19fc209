"""What a person does on the page, as tests do it, and what stands ready for it."""

from contextlib import suppress

import psutil
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, Page, expect

from studio import runs

LONG_MS = 180_000


def load(page: Page, studio, path: str = "/") -> None:
    """Open the page and wait until it has found out what to show first."""
    page.goto(studio.page(path))
    expect(page.locator("#run-head .badge, #practice").locator("visible=true").first).to_be_visible()


def visit(page: Page, address: str) -> None:
    """Open an address, also where the page is just about to reload itself because its server has come back."""
    try:
        page.goto(address)
    except Error as error:
        if "ERR_ABORTED" not in error.message:
            raise
        page.goto(address)


def tab(page: Page, name: str) -> None:
    """Choose a tab."""
    page.get_by_role("tab", name=name, exact=True).click()
    expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")


def examine(page: Page) -> None:
    """Press Examine and wait for the verdict."""
    page.locator("#examine").click()
    expect(page.locator("#examination .verdict")).to_be_visible(timeout=60_000)


def source_is(page: Page, source) -> None:
    """Name the pairs to learn from."""
    field = page.locator("#field-data-source").locator("input, textarea")
    field.fill(str(source))
    field.blur()


def is_accessible(page: Page) -> None:
    """Fails with what axe finds wrong."""
    found = Axe().run(page).response["violations"]
    assert not found, [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]


def moved(studio, run: runs.Run) -> runs.Run:
    """A run that was made elsewhere, among the studio's: made there it would be started."""
    studio.runs.mkdir(parents=True, exist_ok=True)
    return runs.Run(run.folder.rename(studio.runs / run.name))


def running(studio, program: str) -> list[psutil.Process]:
    """The page's own processes that run a program of the engine."""
    found = []
    for one in psutil.Process(studio.process.pid).children():
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [one] if program in one.cmdline() else []
    return found
