"""The studio as a real process for the tests: python app.py on a free port with its own runs folder."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

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

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "StudioProcess":
        """Start it and wait until it serves the page. Returns itself."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(self.port), "--runs", str(self.runs)],
            cwd=PROJECT, env=os.environ | self.environment)
        until(self.serves, 60)
        self.seconds_to_page = time.monotonic() - begun
        return self

    def serves(self) -> bool:
        assert self.process.poll() is None, "The studio ended while it should start."
        try:
            with urllib.request.urlopen(self.url, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()
