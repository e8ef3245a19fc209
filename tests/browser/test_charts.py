"""The live charts on a page of their own: they grow while points arrive, and what the reader did to them stays."""

import math
import re

import gradio as gr
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from studio.ui import parts
from studio.ui.charts import PANELS, live_charts
from studio.ui.studio import QUIET
from studio.ui.theme import launch_options

LOSS = "#chart-loss .plot"


class Source:
    """A run that the test lets grow, as the page's timer sees it."""

    def __init__(self):
        self.run, self.rows, self.others = "first", [], {}

    def points(self, run: str, have: int) -> dict:
        rows = self.rows if run == self.run else self.others.get(run, [])
        return {"rows": rows[have:], "total": len(rows)}

    def value(self) -> dict:
        return {"run": self.run, "count": len(self.rows), "others": {name: len(rows) for name, rows in self.others.items()}}

    def grow(self, count: int, **metrics: float | None) -> None:
        first = 1 + sum(row["split"] == "train" for row in self.rows)
        self.rows += [row(step, **metrics) for step in range(first, first + count)]


def row(step: int, split: str = "train", **metrics: float | None) -> dict:
    """What a step might report, with some of it set by the test."""
    gone = math.exp(-step / 300)
    wave = math.sin(step)
    usual = {"loss": 1.4 + gone + wave / 10, "nll_loss": 1.2 + gone, "log_odds_ratio": -0.3 - gone / 2,
             "log_odds_chosen": 2 - 2 * gone + wave / 4, "rewards/chosen": -0.1 - gone / 50, "rewards/rejected": -0.4 + gone / 4,
             "rewards/margins": 0.3 - gone / 4 + wave / 30, "rewards/accuracies": 0.95 - gone * 0.4, "logps/chosen": -1 - gone,
             "logps/rejected": -4 + gone * 2, "grad_norm": 1.5 + wave, "learning_rate": 8e-6 * min(step / 100, 1)}
    return {"step": step, "split": split, "metrics": usual | metrics}


@pytest.fixture(scope="module")
def served():
    """The demo page, and the source that feeds it."""
    source = Source()
    with gr.Blocks(title="Charts", analytics_enabled=False) as demo:
        gr.HTML(parts.header("Charts", "A page for nothing else."), padding=False)
        charts = live_charts(lambda run, have: source.points(run, have))
        gr.Timer(0.3).tick(source.value, None, charts, concurrency_limit=None, **QUIET)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, footer_links=[], **launch_options())
    yield source, url
    demo.close()


@pytest.fixture
def source(served) -> Source:
    served[0].__init__()
    return served[0]


@pytest.fixture
def url(served) -> str:
    return served[1]


def opened(page: Page, url: str, mode: str = "light") -> Page:
    page.goto(f"{url}?__theme={mode}")
    return page


def wait_for_step(page: Page, step: int) -> None:
    expect(page.locator(LOSS)).to_have_attribute("aria-label", re.compile(rf"^Loss: loss [\d.]+ at step {step}\b"))


def trace(page: Page, name: str, panel: str = "loss") -> dict:
    """A drawn curve by its name, as Plotly holds it."""
    found = page.evaluate("([panel, uid]) => document.querySelector(`#chart-${panel} .plot`).data.find(t => t.uid === uid)",
                          [panel, name])
    assert found, f"no curve {name}"
    return found


def range_of(page: Page) -> list[float]:
    return page.evaluate(f"document.querySelector('{LOSS}')._fullLayout.xaxis.range")


def zoom(page: Page) -> list[float]:
    """Drag over the middle of the loss chart; the steps that are in view afterwards."""
    box = page.locator(f"{LOSS} .nsewdrag").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    page.mouse.up()
    expect(page.get_by_role("button", name="Show all steps of Loss")).to_be_visible()
    return range_of(page)


def test_before_the_first_point_a_sentence_stands_there(page, source, url):
    opened(page, url)
    expect(page.get_by_text("The curves begin here")).to_be_visible()
    assert page.evaluate("window.Plotly === undefined"), "5 MB were loaded for nothing"
    source.grow(1)
    wait_for_step(page, 1)
    expect(page.get_by_text("The curves begin here")).to_be_hidden()
    expect(page.locator(".chart .main-svg .scatterlayer .trace").first).to_be_attached()


def test_every_panel_is_drawn(page, source, url):
    source.grow(50)
    source.rows.append(row(50, "eval"))
    opened(page, url)
    for panel in PANELS:
        plot = page.locator(f"#chart-{panel.id} .plot")
        expect(plot).to_have_attribute("aria-label", re.compile(f"^{panel.title}: .*at step 50"))
    assert trace(page, "odds-ratio part")["customdata"][0] == pytest.approx(
        source.rows[0]["metrics"]["loss"] - source.rows[0]["metrics"]["nll_loss"], abs=1e-4)
    assert trace(page, "better-held-out", "rewards")["x"] == [50]


def test_zoom_and_node_stay_while_points_arrive(page, source, url):
    source.grow(200)
    opened(page, url)
    wait_for_step(page, 200)
    page.evaluate(f"document.querySelector('{LOSS} .main-svg').dataset.mark = 'same'")
    zoomed = zoom(page)
    assert 40 < zoomed[0] < zoomed[1] < 140
    source.grow(100)
    wait_for_step(page, 300)
    assert range_of(page) == zoomed
    assert page.locator(f"{LOSS} .main-svg[data-mark=same]").count() == 1
    page.get_by_role("button", name="Show all steps of Loss").press("Enter")
    expect(page.get_by_role("button", name="Show all steps of Loss")).to_be_hidden()
    assert range_of(page)[1] >= 300
    source.grow(50)
    wait_for_step(page, 350)
    assert range_of(page)[1] >= 350, "after Show all the chart follows the run again"


def test_the_hover_box_stays_while_points_arrive(page, source, url):
    source.grow(100)
    opened(page, url)
    wait_for_step(page, 100)
    page.locator(f"{LOSS} .nsewdrag").hover()
    box = page.locator(f"{LOSS} .hoverlayer .legend")
    expect(box).to_contain_text("likelihood part")
    expect(box).to_contain_text("step")
    source.grow(1)
    wait_for_step(page, 101)
    expect(box).to_be_visible()


def test_what_is_out_of_sight_is_drawn_less_often_and_shows_all_in_the_end(page, source, url):
    page.set_viewport_size({"width": 1280, "height": 1100})  # the last row, of two, is below
    source.grow(50)
    opened(page, url)
    last = page.locator("#chart-gradient .plot")
    expect(last).to_have_attribute("aria-label", re.compile("at step 50$"))
    page.evaluate("""() => {
      const react = window.Plotly.react;
      window.drawn = {};
      window.Plotly.react = (plot, ...rest) => {
        const panel = plot.closest("figure").id;
        window.drawn[panel] = (window.drawn[panel] ?? 0) + 1;
        return react(plot, ...rest);
      };
    }""")
    for step in range(51, 55):
        source.grow(1)
        wait_for_step(page, step)
    drawn = page.evaluate("window.drawn")
    assert drawn["chart-loss"] >= 4 and drawn.get("chart-gradient", 0) <= 3, drawn
    expect(last).to_have_attribute("aria-label", re.compile("at step 54$"), timeout=10_000)
    assert trace(page, "gradient norm", "gradient")["x"][-1] == 54
    last.scroll_into_view_if_needed()
    source.grow(1)
    expect(last).to_have_attribute("aria-label", re.compile("at step 55$"), timeout=3000)


def test_only_new_points_travel(page, source, url):
    source.grow(40)
    asked = []
    page.on("request", lambda request: asked.append(request.post_data_json["data"])
            if "component_server" in request.url else None)
    opened(page, url)
    wait_for_step(page, 40)
    source.grow(2)
    wait_for_step(page, 42)
    assert asked == [{"run": "first", "have": 0}, {"run": "first", "have": 40}]


def test_a_reload_shows_all_points(page, source, url):
    source.grow(60)
    opened(page, url)
    wait_for_step(page, 60)
    page.reload()
    wait_for_step(page, 60)
    assert trace(page, "loss")["x"] == list(range(1, 61))


def test_another_run_begins_afresh(page, source, url):
    source.grow(60)
    opened(page, url)
    wait_for_step(page, 60)
    source.run, source.rows = "second", [row(step) for step in range(1, 31)]
    wait_for_step(page, 30)
    assert trace(page, "loss")["x"] == list(range(1, 31))


def test_other_runs_are_laid_over_grow_and_go(page, source, url):
    source.grow(60)
    opened(page, url)
    wait_for_step(page, 60)
    zoomed = zoom(page)
    source.others = {"older": [row(step, loss=3.0) for step in range(1, 91)], "younger": [row(step, loss=2.0) for step in range(1, 11)]}
    told = page.locator(LOSS)
    expect(told).to_have_attribute("aria-label", re.compile(r"loss of older 3\.00 at step 90, loss of younger 2\.00 at step 10$"))
    assert range_of(page) == zoomed
    older, younger = trace(page, "over-older"), trace(page, "over-younger")
    assert older["name"] == "run older" and set(older["customdata"]) == {3.0} and len({older["line"]["color"], younger["line"]["color"]}) == 2
    assert trace(page, "over-older", "margin")["y"]
    source.others["younger"].append(row(11, loss=2.5))
    expect(told).to_have_attribute("aria-label", re.compile(r"loss of younger 2\.50 at step 11$"))
    source.run, source.others = "older", {"first": source.rows}  # the other way round
    source.rows = [row(step, loss=3.0) for step in range(1, 91)]
    expect(told).to_have_attribute("aria-label", re.compile(r"^Loss: loss 3\.00 at step 90.* loss of first [\d.]+ at step 60$"))
    source.others = {}
    expect(told).not_to_have_attribute("aria-label", re.compile("loss of"))
    assert page.evaluate(f"document.querySelector('{LOSS}').data.every(one => !one.uid.startsWith('over-'))")


def test_steps_taken_again_after_a_resume_are_drawn_once(page, source, url):
    source.grow(20)
    source.rows += [row(step, loss=9.0) for step in range(15, 26)]
    opened(page, url)
    wait_for_step(page, 25)
    drawn = trace(page, "loss")
    assert drawn["x"] == list(range(1, 26))
    assert drawn["y"][13] < 9 and drawn["y"][14] == 9


def test_what_is_no_number_is_a_gap(page, source, url):
    source.grow(5)
    source.grow(1, loss=math.nan)
    source.grow(4)
    opened(page, url)
    wait_for_step(page, 10)
    assert trace(page, "loss")["y"][5] is None
    assert trace(page, "odds-ratio part")["y"][5] is None
    assert trace(page, "likelihood part")["y"][5] is not None


def test_ten_thousand_points_are_thinned_but_a_spike_shows(page, source, url):
    source.grow(10_000)
    source.rows[7_000]["metrics"]["loss"] = 77.0
    for each in source.rows[3_000:]:
        each["metrics"]["nll_loss"] = None
    opened(page, url)
    wait_for_step(page, 10_000)
    drawn = trace(page, "loss-raw")
    assert len(drawn["x"]) < 2_500
    assert max(y for y in drawn["y"] if y is not None) == 77
    first, last = zoom(page)
    coarse = sum(first <= step <= last for step in drawn["x"])
    page.wait_for_function(f"(first) => document.querySelector('{LOSS}').data[0].x[0] > first - 9", arg=first)
    assert len(trace(page, "loss-raw")["x"]) > 2 * coarse


def test_colours_follow_the_page(page, source, url):
    source.grow(40)
    opened(page, url)
    wait_for_step(page, 40)
    light = trace(page, "loss")["line"]["color"]
    page.evaluate("document.body.classList.add('dark')")
    page.wait_for_function(f"(light) => document.querySelector('{LOSS}').data[1].line.color !== light", arg=light)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_axe_finds_nothing(page, source, url, mode):
    source.grow(40)
    source.rows.append(row(40, "eval"))
    opened(page, url, mode)
    wait_for_step(page, 40)
    expect(page.locator("#chart-gradient .main-svg").first).to_be_attached()
    found = Axe().run(page).response["violations"]
    assert not found, [(each["id"], each["nodes"][0]["target"]) for each in found]


def test_a_phone_scrolls_only_down(page, source, url):
    page.set_viewport_size({"width": 390, "height": 800})
    source.grow(40)
    opened(page, url)
    wait_for_step(page, 40)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    charts = page.locator(".chart")
    assert charts.nth(0).bounding_box()["x"] == charts.nth(1).bounding_box()["x"]


def test_a_zoom_ends_with_its_run(page, source, url):
    source.grow(200)
    opened(page, url)
    wait_for_step(page, 200)
    assert zoom(page)[0] > 40
    source.run, source.rows = "second", [row(step) for step in range(1, 31)]
    wait_for_step(page, 30)
    expect(page.get_by_role("button", name="Show all steps of Loss")).to_be_hidden()
    assert trace(page, "loss")["x"] == list(range(1, 31)), "all its lines are there"
    first, last = range_of(page)
    assert first <= 1 and 30 <= last < 40
    zoom(page)
    source.run, source.rows = "first", [row(step) for step in range(1, 201)]
    wait_for_step(page, 200)
    assert len(trace(page, "loss")["x"]) > 100 and range_of(page)[1] >= 200


@pytest.mark.parametrize("steps", [2, 4])
def test_no_step_is_written_twice_below_the_first_steps(page, source, url, steps):
    source.grow(steps)
    opened(page, url)
    wait_for_step(page, steps)
    written = page.locator(f"{LOSS} .xtick text")
    expect(written.first).to_be_attached()
    texts = written.all_text_contents()
    assert len(texts) == len(set(texts)) >= 2, texts
