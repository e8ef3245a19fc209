"""A small Hub on loopback for the real client: users, repositories, commits, downloads, and faults on demand.

    with Hub() as hub:
        token = hub.add_user("ada")
        hub.add_model("ada/tiny", folder, gated=True)
        hub.fail_next("commit", 500)
        ...  # a process with HF_ENDPOINT=hub.url and HF_HUB_DISABLE_XET=1
        assert len(hub.repos["ada/tiny"].commits) == 2

The client reads HF_ENDPOINT when it is imported, so it belongs into a process of its own.
Everything is kept in memory; how it is said over the wire is in `hub_wire`.
"""

import secrets
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.hub_wire import Handler

ATTRIBUTES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass
class User:
    """An account with one token. `role` is the token's: "write" or "read"."""

    name: str
    role: str
    organisations: tuple[str, ...]

    def owns(self, repo_id: str) -> bool:
        return repo_id.split("/")[0] in (self.name, *self.organisations)


@dataclass
class Commit:
    """A revision: all its files by path."""

    title: str
    files: dict[str, bytes]
    oid: str = field(default_factory=lambda: secrets.token_hex(20))


@dataclass
class Repo:
    """A model or dataset. The first commit is the Hub's own, with nothing but .gitattributes."""

    id: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    commits: list[Commit] = field(default_factory=lambda: [Commit("initial commit", ATTRIBUTES)])

    def revision(self, name: str = "main") -> Commit | None:
        """The commit that a branch (there is only main) or a commit id names, or None."""
        return self.commits[-1] if name == "main" else next((c for c in self.commits if c.oid == name), None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.revision(revision).files

    def commit(self, title: str, files: dict[str, bytes]) -> Commit:
        self.commits.append(Commit(title, files))
        return self.commits[-1]


@dataclass
class Fault:
    """What goes wrong when a request of that name comes: an HTTP status or one of the hang-ups; `times` in a row."""

    name: str
    how: int | str
    times: int = 1
    at_byte: int = 0


class Hub:
    """The server. `repos` by "owner/name", datasets by "datasets/owner/name"; `spaces` by "owner/name"; `requests` as (method, path)."""

    def __init__(self, part_size: int | None = None):
        self.users: dict[str, User] = {}
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.spaces: dict[str, dict] = {}
        self.hardware: list[dict] = []
        """What Spaces can run on, with prices, as /api/spaces/hardware answers."""
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.part_size = part_size  # LFS objects larger than this are asked for in parts
        self.ranges = True  # whether a part of a file can be asked for; where not, the whole of it is sent
        self.closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def add_user(self, name: str, role: str = "write", organisations: tuple[str, ...] = ()) -> str:
        """A fresh token of that account, shaped like the Hub's: hf_ and 34 letters."""
        token = "hf_" + "".join(secrets.choice("abcdefghijkmnopqrstuvwxyzABCDEFGHIJKLMNPQRSTUVWXYZ") for _ in range(34))
        self.users[token] = User(name, role, organisations)
        return token

    def add(self, repo_id: str, kind: str = "model", private: bool = False, gated: bool = False) -> Repo:
        """A new repository with the Hub's own first commit."""
        key = "datasets/" * (kind == "dataset") + repo_id
        self.repos[key] = Repo(repo_id, kind, private, gated)
        return self.repos[key]

    def add_model(self, repo_id: str, folder: Path, private: bool = False, gated: bool = False) -> Repo:
        """A model whose second commit holds the files of the folder."""
        return _fill(self.add(repo_id, "model", private, gated), folder)

    def add_dataset(self, repo_id: str, folder: Path, private: bool = False, gated: bool = False) -> Repo:
        """A dataset whose second commit holds the files of the folder."""
        return _fill(self.add(repo_id, "dataset", private, gated), folder)

    def add_space(self, repo_id: str, hardware: str) -> dict:
        """A Space that runs on that hardware: what the Hub tells of its runtime."""
        self.spaces[repo_id] = {"stage": "RUNNING", "hardware": {"current": hardware, "requested": hardware}, "gcTimeout": None}
        return self.spaces[repo_id]

    def fail_next(self, name: str, how: int | str = 500, times: int = 1, at_byte: int = 0) -> None:
        """Make the next requests of that name fail. Names are those in `hub_wire.ROUTES`.

        `how` is a status or one of the faults that `hub_wire` names; a hang-up in "lfs" or "resolve" comes `at_byte` of the object.
        """
        self.faults.append(Fault(name, how, times, at_byte))

    def fault(self, name: str) -> Fault | None:
        """The fault that waits for a request of that name, counted down."""
        found = next((fault for fault in self.faults if fault.name == name and fault.times), None)
        if found:
            found.times -= 1
        return found


def _fill(repo: Repo, folder: Path) -> Repo:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repo.commit("files", ATTRIBUTES | files)
    return repo
