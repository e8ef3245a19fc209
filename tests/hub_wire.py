"""The wire protocol of the small Hub: which request is which, and what the real client wants to hear.

Of the protocol it knows what huggingface_hub 2.4 and datasets 5 ask for. What there is to serve, and what is to go
wrong, is in `hub_server`.
"""

import base64
import hashlib
import json
import re
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

HANG_UP, TAKE_AND_HANG_UP, DRIP, LATE, SPOIL = "hang up", "take it, then hang up", "drip", "late", "spoil"
"""Faults beside a status: the line goes dead before, or after, the request has done its work; the answer comes so slowly that
it never ends, or two seconds late; a download's bytes are others than its hash says.
"""

LARGE = re.compile(r".*\.(safetensors|bin|parquet)$|.*tokenizer\.json$")
"""Files that travel as LFS objects, as a new repository's .gitattributes says on the Hub."""


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str = "", message: str = ""):
        self.status, self.code, self.message = status, code, message


KIND = r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)"
FILE = r"/(?:(?P<kind>dataset)s/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
ROUTES = [(method, name, re.compile(pattern)) for method, name, pattern in (
    ("GET", "whoami", "/api/whoami-v2"),
    ("GET", "hardware", "/api/spaces/hardware"),
    ("GET", "runtime", r"/api/spaces/(?P<repo>[^/]+/[^/]+)/runtime"),
    ("POST", "pause", r"/api/spaces/(?P<repo>[^/]+/[^/]+)/pause"),
    ("POST", "create", "/api/repos/create"),
    ("POST", "validate", "/api/validate-yaml"),
    ("GET", "search", r"/api/(?P<kind>model|dataset)s"),
    ("GET", "auth_check", KIND + "/auth-check"),
    ("GET", "tree", KIND + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?"),
    ("POST", "paths", KIND + "/paths-info/(?P<revision>[^/]+)"),
    ("POST", "preupload", KIND + "/preupload/(?P<revision>[^/]+)"),
    ("POST", "commit", KIND + "/commit/(?P<revision>[^/]+)"),
    ("GET", "info", KIND + "(?:/revision/(?P<revision>[^/]+))?"),
    ("POST", "batch", r"/(?:(?P<kind>dataset)s/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    ("PUT", "lfs", "/lfs/(?P<oid>[0-9a-f]{64})"),
    ("POST", "complete", "/lfs/(?P<oid>[0-9a-f]{64})/complete"),
    ("POST", "verify", "/lfs/(?P<oid>[0-9a-f]{64})/verify"),
    ("HEAD", "metadata", FILE),
    ("GET", "resolve", FILE),
)]


class Handler(BaseHTTPRequestHandler):
    """One method per route; each returns JSON, or answers by itself and returns None."""

    hub = None  # the server binds a subclass to itself
    fault = None
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        address = urlsplit(self.path)
        path, self.query = unquote(address.path), parse_qs(address.query)
        self.hub.requests.append((self.command, path))
        self.user = None
        for its_method, name, pattern in ROUTES:
            if its_method == self.command and (match := pattern.fullmatch(path)):
                self.answer(name, match.groupdict())
                return
        self.body()
        self.send(404, {"error": "no such route"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815

    def answer(self, name: str, found: dict[str, str | None]) -> None:
        fault = self.fault = self.hub.fault(name)
        if fault and fault.how == DRIP:
            self.drip()
            return
        if fault and fault.how == HANG_UP and name != "resolve":
            self.rfile.read(fault.at_byte)
            self.close_connection = True
            return
        data = self.body()
        if fault and fault.how == LATE:
            self.hub.closed.wait(2)
            fault = self.fault = None
        if fault and isinstance(fault.how, int):
            self.send(fault.how, {"error": "a fault was asked for"})
            return
        try:
            self.user = self.sign_in()
            reply = getattr(self, name)(data, **{key: value for key, value in found.items() if value is not None})
        except Refused as refused:
            told = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self.send(refused.status, {"error": refused.message}, {k: v for k, v in told.items() if v})
            return
        if fault:
            self.close_connection = True
        elif reply is not None:
            self.send(200, reply)

    def drip(self) -> None:
        """Answer a byte at a time, with a header that has no end."""
        self.close_connection = True
        with suppress(OSError):  # nobody listens any more
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Patience: ")
            while not self.hub.closed.wait(0.2):
                self.wfile.write(b".")

    # --- accounts and rights ---------------------------------------------------------------------------------

    def sign_in(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refused(401, message="Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def readable(self, repo: str, kind: str = "model"):
        """A private repository looks missing to others; a missing one looks private to strangers."""
        found = self.hub.repos.get("datasets/" * (kind == "dataset") + repo)
        mine = self.user is not None and self.user.owns(repo)
        if found is None or (found.private and not mine):
            raise Refused(404 if self.user else 401, "RepoNotFound", "Repository not found")
        return found

    def writable(self, repo: str, kind: str = "model"):
        found = self.readable(repo, kind)
        self.must_write(repo)
        return found

    def must_write(self, repo: str) -> None:
        if self.user is None:
            raise Refused(401, message="Log in first")
        if self.user.role != "write" or not self.user.owns(repo):
            raise Refused(403, message=f"You don't have the rights to write to {repo}")

    def whoami(self, data: bytes) -> dict:
        if self.user is None:
            raise Refused(401, message="Invalid username or password.")
        organisations = [{"name": name, "type": "org", "roleInOrg": "write"} for name in self.user.organisations]
        return {"type": "user", "name": self.user.name, "orgs": organisations,
                "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": self.user.role}}}

    def hardware(self, data: bytes) -> list[dict]:
        return self.hub.hardware

    def runtime(self, data: bytes, repo: str) -> dict:
        space = self.hub.spaces.get(repo)
        if space is None or self.user is None or not self.user.owns(repo):
            raise Refused(404, "RepoNotFound", "Repository not found")
        return space

    def pause(self, data: bytes, repo: str) -> dict:
        self.runtime(data, repo)
        self.must_write(repo)
        self.hub.spaces[repo]["stage"] = "PAUSED"
        return self.hub.spaces[repo]

    # --- repositories ----------------------------------------------------------------------------------------

    def create(self, data: bytes) -> dict:
        asked = json.loads(data)
        owner = asked.get("organization") or (self.user.name if self.user else "")
        repo, kind = f"{owner}/{asked['name']}", asked.get("type") or "model"
        self.must_write(repo)
        key = "datasets/" * (kind == "dataset") + repo
        if key in self.hub.repos:
            self.send(409, {"error": "You already created this repo", "url": f"{self.hub.url}/{key}"})
            return None
        self.hub.add(repo, kind, private=asked.get("visibility") == "private")
        return {"url": f"{self.hub.url}/{key}"}

    def info(self, data: bytes, kind: str, repo: str, revision: str = "main") -> dict:
        found = self.readable(repo, kind)
        commit = self.revision(found, revision)
        card = card_data(commit.files.get("README.md", b"").decode())
        return {"_id": repo, "id": repo, "author": repo.split("/")[0], "sha": commit.oid, "private": found.private,
                "gated": "manual" if found.gated else False, "disabled": False, "cardData": card,
                "tags": card.get("tags", []), "siblings": [{"rfilename": path} for path in commit.files]}

    def search(self, data: bytes, kind: str) -> list[dict]:
        wanted, most = self.query.get("search", [""])[0].lower(), int(self.query.get("limit", ["100"])[0])
        mine = [repo for repo in self.hub.repos.values() if repo.kind == kind and wanted in repo.id.lower()
                and (not repo.private or self.user is not None and self.user.owns(repo.id))]
        return [{"_id": repo.id, "id": repo.id, "private": repo.private, "downloads": 0, "likes": 0, "tags": []} for repo in mine][:most]

    def auth_check(self, data: bytes, kind: str, repo: str) -> dict:
        """Whether whoever asks may read the files, and not only what is told of them."""
        found = self.readable(repo, kind)
        if found.gated and not (self.user and self.user.owns(repo)):
            raise Refused(403 if self.user else 401, "GatedRepo", f"Access to {repo} is restricted")
        return {}

    def revision(self, repo, name: str):
        commit = repo.revision(name)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {name}")
        return commit

    def tree(self, data: bytes, kind: str, repo: str, revision: str, path: str = "") -> list:
        files = self.revision(self.readable(repo, kind), revision).files
        inside = {name: content for name, content in files.items() if not path or name.startswith(path + "/")}
        if path and not inside:
            raise Refused(404, "EntryNotFound", "Entry not found")
        if self.query.get("recursive", ["false"])[0].lower() == "true":
            return [entry(name, content) for name, content in inside.items()]
        depth = path.count("/") + 1 if path else 0
        folders = {"/".join(name.split("/")[: depth + 1]) for name in inside if name.count("/") > depth}
        return ([{"type": "directory", "path": name, "oid": blob_id(name.encode()), "size": 0} for name in sorted(folders)]
                + [entry(name, content) for name, content in inside.items() if name.count("/") == depth])

    def paths(self, data: bytes, kind: str, repo: str, revision: str) -> list:
        files = self.revision(self.readable(repo, kind), revision).files
        sent = parse_qs(data.decode()) if b"paths=" in data else json.loads(data)
        return [entry(name, files[name]) for name in sent["paths"] if name in files]

    def resolve(self, data: bytes, repo: str, revision: str, path: str, kind: str = "model") -> None:
        found = self.readable(repo, kind)
        if found.gated and not (self.user and self.user.owns(repo)):
            raise Refused(403 if self.user else 401, "GatedRepo", f"Access to {repo} is restricted")
        commit = self.revision(found, revision)
        if path not in commit.files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        content = commit.files[path]
        headers = {"ETag": f'"{entry_oid(path, content)}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if self.fault and self.fault.how == SPOIL:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.hub.ranges:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self.send(206, content[first : last + 1], headers)
        else:
            self.send(200, content, headers)

    metadata = resolve

    # --- uploads ---------------------------------------------------------------------------------------------

    def validate(self, data: bytes) -> dict | None:
        try:
            found = card_data(json.loads(data)["content"])
            problems = [] if isinstance(found, dict) else ["The metadata is not a mapping"]
        except yaml.YAMLError as error:
            problems = [str(error)]
        if problems:
            self.send(400, {"errors": [{"message": text} for text in problems], "warnings": []})
            return None
        return {"errors": [], "warnings": []}

    def preupload(self, data: bytes, kind: str, repo: str, revision: str) -> dict:
        files = self.writable(repo, kind).files(revision)
        return {"files": [{"path": (path := file["path"]), "uploadMode": "lfs" if LARGE.match(path) else "regular",
                           "shouldIgnore": False, "oid": entry_oid(path, files[path]) if path in files else None}
                          for file in json.loads(data)["files"]]}

    def batch(self, data: bytes, repo: str, kind: str = "model") -> dict:
        self.writable(repo, kind)
        return {"transfer": "basic", "objects": [self.upload(wanted) for wanted in json.loads(data)["objects"]]}

    def upload(self, wanted: dict) -> dict:
        """How one object is to be sent; nothing if it is here already."""
        href, size = f"{self.hub.url}/lfs/{wanted['oid']}", self.hub.part_size
        if wanted["oid"] in self.hub.objects:
            return wanted
        action = {"href": href}
        if size and wanted["size"] > size:
            parts = {str(n): f"{href}?part={n}" for n in range(1, -(-wanted["size"] // size) + 1)}
            action = {"href": href + "/complete", "header": {"chunk_size": str(size), **parts}}
        return wanted | {"actions": {"upload": action, "verify": {"href": href + "/verify"}}}

    def lfs(self, data: bytes, oid: str) -> None:
        key = oid + "".join(":" + part for part in self.query.get("part", []))
        self.hub.objects[key] = data
        self.send(200, b"", {"ETag": hashlib.md5(data).hexdigest()})

    def complete(self, data: bytes, oid: str) -> dict:
        parts = json.loads(data)["parts"]
        self.hub.objects[oid] = b"".join(self.hub.objects.pop(f"{oid}:{part['partNumber']}") for part in parts)
        return {}

    def verify(self, data: bytes, oid: str) -> dict:
        if hashlib.sha256(self.hub.objects.get(oid, b"")).hexdigest() != oid:
            del self.hub.objects[oid]
            raise Refused(422, message="The object is damaged")
        return {}

    def commit(self, data: bytes, kind: str, repo: str, revision: str) -> dict:
        found = self.writable(repo, kind)
        files, title = dict(found.files(revision)), ""
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, found.commits[-1].oid):
                    raise Refused(412, message="The branch has moved on")
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                files = {path: content for path, content in files.items() if not (path + "/").startswith(value["path"] + "/")}
        made = found.commit(title, files)
        address = "datasets/" * (kind == "dataset") + repo
        return {"success": True, "commitOid": made.oid, "commitUrl": f"{self.hub.url}/{address}/commit/{made.oid}"}

    # --- the wire --------------------------------------------------------------------------------------------

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def send(self, status: int, content: bytes | dict | list, headers: dict[str, str] | None = None) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(payload))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            broken_off = self.fault is not None and self.fault.how == HANG_UP
            self.wfile.write(payload[: self.fault.at_byte] if broken_off else payload)

    def log_message(self, *words) -> None:
        """The tests' output stays theirs."""


def card_data(readme: str) -> dict:
    """The YAML metadata at the top of a README."""
    found = re.match(r"---\r?\n(.*?)\r?\n---", readme, re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry_oid(path: str, content: bytes) -> str:
    """What the client compares: the SHA-256 of a large file, git's blob id of a small one."""
    return hashlib.sha256(content).hexdigest() if LARGE.match(path) else blob_id(content)


def entry(path: str, content: bytes) -> dict:
    """A file as the tree shows it."""
    made = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    if LARGE.match(path):
        made["lfs"] = {"oid": entry_oid(path, content), "size": len(content), "pointerSize": 130}
    return made
