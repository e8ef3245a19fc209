"""Somebody at the page without a browser: every event of it, called by its number as a page would."""

import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

TEXTS = ("textbox", "dropdown", "radio", "browserstate", "code")
REPEATED = re.compile(r"(arrive|show|made|begin|refresh|look_up|afresh)_\d+")
"""Events that are others again after another trigger: the same function with the same inputs."""


@dataclass(frozen=True)
class Event:
    """One event of the page, public or private: its number, its name, the components that it reads and their types."""

    number: int
    name: str
    inputs: tuple[int, ...]
    types: tuple[str, ...]


@dataclass
class Visitor:
    """A client with its own session, signed in or not."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    session: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self):
        self.http = httpx.Client(base_url=self.url, headers=self.headers, timeout=60)

    def sign_in(self, name: str, password: str) -> "Visitor":
        """Get a pass. Returns itself."""
        self.http.post("/login", data={"username": name, "password": password}).raise_for_status()
        return self

    @cached_property
    def config(self) -> dict[str, Any]:
        """The page's own description of itself."""
        return self.http.get("/config").raise_for_status().json()

    @cached_property
    def components(self) -> dict[int, dict[str, Any]]:
        return {component["id"]: component for component in self.config["components"]}

    @cached_property
    def events(self) -> list[Event]:
        """All events that run on the server."""
        return [Event(found["id"], str(found["api_name"] or ""), tuple(found["inputs"]),
                      tuple(self.components[place]["type"] if place in self.components else "" for place in found["inputs"]))
                for found in self.config["dependencies"] if found["backend_fn"]]

    @cached_property
    def different_events(self) -> list[Event]:
        """The events without those that are others again."""
        return [event for event in self.events if not REPEATED.fullmatch(event.name)]

    def values(self, event: Event) -> list[Any]:
        """What the page would send if nobody had touched it."""
        return [self.components[place]["props"].get("value") if place in self.components else None for place in event.inputs]

    def values_with(self, event: Event, text: str) -> list[Any]:
        """The same with this text in every field that takes text, and in the hands of every file field and conversation."""
        instead = {"api": {"model": {"name": text}, "data": {"source": text}} if event.name == "start" else text,
                   "uploadbutton": {"path": text, "orig_name": text, "meta": {"_type": "gradio.FileData"}},
                   "chatbot": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
        return [text if kind in TEXTS else instead.get(kind, value)
                for kind, value in zip(event.types, self.values(event), strict=True)]

    def call(self, event: Event, values: list[Any]) -> str:
        """All that comes back when the event is set off, as text: the refusal, or everything the stream says until its end."""
        joined = self.http.post("/gradio_api/queue/join", json={
            "data": values, "fn_index": event.number, "session_hash": self.session, "event_data": None, "trigger_id": None})
        if joined.status_code != 200:
            return joined.text
        heard = []
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                heard.append(line)
                if line.startswith("data:") and json.loads(line[5:]).get("msg") in ("process_completed", "close_stream", "server_stopped"):
                    break
        return "\n".join(heard)


def contents(folder: Path, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Every file, folder and link below a folder with a hash of what it holds, but for files of some names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name not in but:
            held = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(folder))] = hashlib.sha256(held).hexdigest()
    return found
