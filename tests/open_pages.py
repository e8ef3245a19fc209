"""Open pages without a browser: each keeps a session and sends the ticks of the timers that are active, at their own pace."""

import asyncio
import json
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True)
class Tick:
    """One event of a timer, or one that follows when a component has changed: `by` is which."""

    number: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    by: int | None = None


class Layout:
    """What the page says of itself: its components, timers, and the events that its timers and states set off."""

    def __init__(self, config: dict[str, Any]):
        self.components = {one["id"]: one for one in config["components"]}
        self.dependencies = config["dependencies"]
        self.timers = {place: one["props"] for place, one in self.components.items() if one["type"] == "timer"}

    def set_off_by(self, component: int, event: str) -> list[Tick]:
        """The events on the server that a component's event sets off."""
        return [Tick(one["id"], tuple(one["inputs"]), tuple(one["outputs"]), component) for one in self.dependencies
                if one["backend_fn"] and [component, event] in [list(target) for target in one["targets"]]]

    def by_id(self, elem_id: str) -> int:
        return next(place for place, one in self.components.items() if one["props"].get("elem_id") == elem_id)

    @property
    def arrivals(self) -> list[Tick]:
        """What a page asks when it is opened."""
        return [Tick(one["id"], tuple(one["inputs"]), tuple(one["outputs"])) for one in self.dependencies
                if one["backend_fn"] and any(event == "load" for _, event in one["targets"])]

    @property
    def mirrors(self) -> list[tuple[list[str], list[int], int]]:
        """The texts that hold many fields, which the browser writes: the fields' names, the fields, the text."""
        found = ((one, re.search(r"Object\.fromEntries\((\[.*?\])\.map", str(one["js"]))) for one in self.dependencies if not one["backend_fn"])
        return [(json.loads(names[1]), one["inputs"], one["outputs"][0]) for one, names in found if names]

    def timer_of(self, output: int) -> int:
        """The timer whose look, by itself or through a state, changes this component."""
        return next(timer for timer in self.timers if any(
            output in each.outputs or any(output in later.outputs for state in each.outputs for later in self.set_off_by(state, "change"))
            for each in self.set_off_by(timer, "tick")))


@dataclass
class Page:
    """One open page. `values` are what its components hold, as a browser keeps them; `waits` how long each answer took, in seconds."""

    http: httpx.AsyncClient
    layout: Layout
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    values: dict[int, Any] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    active: dict[int, bool] = field(default_factory=dict)

    def __post_init__(self):
        self.values = {place: one["props"].get("value") for place, one in self.layout.components.items()} | self.values
        self.active = {place: bool(props.get("active", True)) for place, props in self.layout.timers.items()} | self.active

    async def send(self, tick: Tick, follow: bool = True) -> None:
        """Set off one event, keep what it answers, and, to `follow`, set off what follows from what it changed."""
        begun = time.monotonic()
        answer = await self.http.post("/gradio_api/run/predict", json={
            "data": [self.values.get(place) for place in tick.inputs], "fn_index": tick.number, "session_hash": self.session,
            "event_data": None, "trigger_id": tick.by})
        self.waits.append(time.monotonic() - begun)
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code} {answer.text[:200]}")
            return
        before = {place: self.values.get(place) for place in tick.outputs}
        for place, value in zip(tick.outputs, answer.json()["data"], strict=True):
            self._keep(place, value)
        for place in tick.outputs if follow else ():
            if self.values.get(place) != before[place]:
                for follows in self.layout.set_off_by(place, "change"):
                    await self.send(follows)

    def _keep(self, place: int, value: Any) -> None:
        if isinstance(value, dict) and value.get("__type__") == "update":
            if place in self.active and "active" in value:
                self.active[place] = value["active"]
            if "value" in value:
                self.values[place] = value["value"]
        elif value is not None:
            self.values[place] = value

    async def arrive(self) -> None:
        for tick in self.layout.arrivals:
            await self.send(tick, follow=False)  # else so many pages that arrive at once would be told to wait
        for names, fields, text in self.layout.mirrors:
            self.values[text] = json.dumps(dict(zip(names, map(self.values.get, fields), strict=True)))

    async def look(self, timer: int) -> None:
        """What one tick of a timer sets off."""
        for tick in self.layout.set_off_by(timer, "tick"):
            await self.send(tick)

    async def stay(self, seconds: float) -> None:
        """Stay open so long: every active timer ticks at its pace; a tick that takes longer than that is waited for."""
        end = time.monotonic() + seconds

        async def ticking(timer: int) -> None:
            pace = self.layout.timers[timer]["value"]
            await asyncio.sleep(secrets.randbelow(1000) / 1000 * pace)
            while time.monotonic() < end:
                begun = time.monotonic()
                if self.active[timer]:
                    await self.look(timer)
                await asyncio.sleep(max(0.0, pace - (time.monotonic() - begun)))

        await asyncio.gather(*(ticking(timer) for timer in self.layout.timers))


async def layout_of(http: httpx.AsyncClient) -> Layout:
    return Layout(json.loads((await http.get("/config")).raise_for_status().text))


def client(url: str, headers: dict[str, str], connections: int = 50, address: str | None = None) -> httpx.AsyncClient:
    """A client; `address` is where on this machine it asks from: each has a rate of its own."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    transport = httpx.AsyncHTTPTransport(limits=limits, local_address=address)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, transport=transport)
