"""The studio as a real process for the tests: python app.py on a free port with its own runs folder."""

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from studio.jobs import PROJECT
from tests.jobs_at_work import until


@dataclass
class StudioProcess:
    """A studio on 127.0.0.1 that can be killed and started again on the same folder and port."""

    runs: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    seconds_to_page: float = 0
    process: subprocess.Popen | None = None
    key: str = "key-of-the-tests"
    arguments: tuple[str, ...] = ()
    output: Path | None = None
    program: tuple[str, ...] = ("app.py",)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, path: str = "/") -> str:
        """The address of a page with the key that lets a browser in."""
        return f"{self.url}{path}{'&' if '?' in path else '?'}key={self.key}"

    @property
    def headers(self) -> dict[str, str]:
        """What lets a script in."""
        return {"Authorization": f"Bearer {self.key}"}

    def start(self) -> "StudioProcess":
        """Start it and wait until it serves the page. Returns itself."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *self.program, "--port", str(self.port), "--runs", str(self.runs), *self.arguments],
            cwd=PROJECT, env=os.environ | {"ORPO_STUDIO_KEY": self.key} | self.environment,
            stdout=self.output.open("ab") if self.output else None, stderr=subprocess.STDOUT if self.output else None)
        until(self.serves, 60)
        self.seconds_to_page = time.monotonic() - begun
        return self

    def serves(self) -> bool:
        assert self.process.poll() is None, "The studio ended while it should start."
        try:
            return httpx.get(self.url + "/login", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()
