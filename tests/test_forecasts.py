"""One forecast of a run's time, as a range, wherever it is told; Spaces and their prices as the Hub's client lists them."""

import pytest
from huggingface_hub import SpaceHardware

from studio import hardware, pace
from studio.gpu import Place
from studio.hardware import PRICES_OF_HUB, PRICES_OF_TABLE, Prices
from studio.jobs import PROJECT, Queue
from studio.meter import Meter
from studio.presets import all_presets
from studio.shape import Shapes
from studio.ui import fit_card, page
from tests.jobs_at_work import practice
from tests.test_fit import TUTORIAL, llama_8b

PRESETS = pytest.mark.parametrize("preset", all_presets().values(), ids=lambda preset: preset.name)


@PRESETS
def test_no_preset_promises_a_time_of_its_own(preset):
    """The tutorial's said two hours and the card twenty minutes."""
    assert not {"hour", "hours", "minute", "minutes", "min"} & set(preset.purpose.replace(".", " ").split())
    assert "about a minute" not in page.WELCOME + (PROJECT / "README.md").read_text(encoding="utf-8")


def test_a_forecast_counts_what_is_measured_between_the_steps():
    shape, place = Shapes().find(practice().model), Place("cpu", "cpu", 16 * 10**9)
    few, many = (pace.forecast(practice(**{"training.max_steps": None, "evaluation.every": every}), shape, place, pace.Size(400, 60, 100),
                               earlier=0.5) for every in (0.5, 0.01))
    assert few.low < few.usual < few.high and few.how == "an earlier run"
    assert many.usual > 2 * few.usual
    assert 0.75 * 0.5 * (600 + 0.5 * 3 * 100) < few.low < few.high < 1.4 * 0.5 * (600 + 0.5 * 4 * 100) + 60


def test_the_tutorial_s_known_time_lies_within_the_forecast_for_a_reference_that_computes_more():
    """TRL took two hours on an L4 and computes 44 TFLOP a pair, where packed pairs need 35."""
    (found,) = [offer.forecast for offer in pace.offers(TUTORIAL, llama_8b(), pace.Size(990, 800, 10)) if offer.hardware.slug == "l4x1"]
    assert found.low < 2 * 3600 * 35 / 44 < 1.1 * found.high


def test_the_card_tells_the_range(tmp_path):
    from studio.ui.studio import Studio

    studio = Studio(tmp_path, Queue(tmp_path))
    told = fit_card.shown(studio, practice().to_form())
    assert " to " in told.split("Time: about")[1][:30] and "by arithmetic" in told and PRICES_OF_TABLE in told


# --- what Spaces cost -------------------------------------------------------------------------------------------------


def test_the_table_names_what_the_client_names_and_leaves_out_several_cards():
    client = {one.value for one in SpaceHardware}
    table = {one.slug for one in hardware.TABLE}
    assert table <= client
    left = {slug for slug in client - table if not slug.endswith(("x2", "x4", "x8")) and not slug.startswith("zero")}
    assert left <= {"rtx-pro-6000"}  # older clients do not name it; its speed and price are not published where the table's are from


def listed(name: str, pretty: str, memory: str, dollars: float, card: str = "", count: str = "1") -> dict:
    """An entry of the Hub's list, with its price an hour."""
    accelerator = {"type": "gpu", "model": card, "quantity": count, "vram": memory, "manufacturer": "Nvidia"} if card else None
    return {"name": name, "prettyName": pretty, "cpu": "8 vCPU", "ram": memory, "accelerator": accelerator, "unitLabel": "minute",
            "unitCostMicroUSD": round(1e6 * dollars / 60), "unitCostUSD": dollars / 60}


@pytest.fixture
def prices(this_hub):
    this_hub.hardware = [listed("cpu-upgrade", "CPU Upgrade", "32 GB", 0.06), listed("l4x1", "1x Nvidia L4", "24 GB", 1.23, "L4"),
                         listed("l4x4", "4x Nvidia L4", "96 GB", 4.92, "L4", "4"), listed("new-card", "Unheard-of", "64 GB", 9.0, "X1")]
    found = Prices()
    found.refresh().join(20)
    return found


def test_prices_are_those_that_the_hub_lists(this_hub, prices):
    assert prices.source == PRICES_OF_HUB and [one.slug for one in prices.spaces] == ["cpu-upgrade", "l4x1"]
    upgrade, card = prices.spaces
    assert (upgrade.kind, upgrade.memory, upgrade.dollars) == ("cpu", 32 * 10**9, pytest.approx(0.06))
    assert (card.kind, card.memory, card.tflops, card.dollars) == ("cuda", 24 * 10**9, 121, pytest.approx(1.23))
    assert prices.refresh() is None  # within the hour nobody is asked again


def test_without_the_hub_the_table_stays_and_says_what_it_is(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = Prices()
    found.refresh().join(60)
    assert (found.spaces, found.source) == (hardware.TABLE, PRICES_OF_TABLE)


def test_a_space_knows_its_price_by_accelerator(tmp_path, monkeypatch, prices):
    monkeypatch.setattr("studio.meter.PRICES", prices)
    monkeypatch.setenv("SPACE_ID", "ada/studio")
    monkeypatch.setenv("ACCELERATOR", "l4x1")
    assert prices.of_this_space().dollars == pytest.approx(1.23)
    _, told = Meter(Queue(tmp_path), look_seconds=3600).in_words()
    assert "at $1.23 an hour about $0.00 so far" in told
    monkeypatch.setenv("ACCELERATOR", "none")
    assert prices.of_this_space() is None
