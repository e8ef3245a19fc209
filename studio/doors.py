"""The ways in: a key in the printed address for the person at this machine, a name and a password for everyone else."""

import asyncio
import hmac
import re
import socket
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import psutil
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from studio.access import DAYS, LOCAL, AccessError, Passes, Users, Visitor
from studio.attempts import Attempts
from studio.refused import Refused

VISITOR = "studio.visitor"
"""Where a request's scope holds its visitor."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?")
PAGE = Path(__file__).resolve().parent.parent / "assets" / "door.html"
LARGEST_FORM, FORM_SECONDS = 4096, 30
SESSIONS = 10_000

FORM = """<form method="post" action="/login">
<label for="name">Name</label><input id="name" name="username" autocomplete="username" autocapitalize="none" required autofocus>
<label for="password">Password</label><input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Sign in</button></form>"""
KEY_NEEDED = ("<p>This studio opens by the address that it printed in the terminal when it started: it ends in <code>?key=…</code>. "
              "Open that one; this browser is remembered then.</p>")
NO_USERS = ("<p>Nobody can sign in yet. On a Space, add a secret named <code>ORPO_STUDIO_PASSWORD</code> under Settings; elsewhere "
            "run <code>python app.py --add-user NAME</code>. Then start the studio again.</p>")


class Sessions:
    """Which visitor each page (Gradio's session hash) belongs to: nobody else gets its events or what it remembers."""

    def __init__(self):
        self._names: OrderedDict[str, str] = OrderedDict()
        self._naming = threading.Lock()

    def claim(self, session: str | None, visitor: Visitor) -> None:
        """Whoever comes first has it. Raises AccessError if that was somebody else."""
        if not session:
            return
        with self._naming:
            name = self._names.setdefault(session, visitor.name)
            self._names.move_to_end(session)
            while len(self._names) > SESSIONS:
                self._names.popitem(last=False)
        if name != visitor.name:
            raise AccessError("This page belongs to somebody else. Open your own.")

    def refuse_others(self, request: Request, visitor: Visitor | None) -> None:
        """Raises Refused for a stream that belongs to somebody else's page."""
        named = request.query_params.get("session_hash") or (
            request.url.path.rpartition("/")[2] if "/heartbeat/" in request.url.path else "")
        try:
            if visitor is not None:
                self.claim(named, visitor)
        except AccessError as error:
            raise Refused(403, str(error)) from error


@dataclass
class Doors:
    """Who may come in, and under which names the studio is known.

    A named studio is for users with passwords, wherever they are; any other only for whoever has its key, on this machine.
    """

    home: Path
    named: bool
    hosts: frozenset[str]
    port: int
    key: str = ""
    proxies: tuple[str, ...] = ()
    """Addresses and networks of the proxies that end TLS in front of the studio: what they say of a request is believed."""
    framed_by: str = "'none'"
    """Which sites may show the page inside theirs, as CSP says it."""
    users: Users = field(init=False)
    sessions: Sessions = field(default_factory=Sessions)
    _attempts: Attempts = field(init=False)

    def __post_init__(self):
        self.users = Users(self.home)
        self._attempts = Attempts(self.users)
        self._passes = Passes(self.home, self.users, self.named)

    @property
    def cookie(self) -> str:
        """Cookies know no ports: each studio of a machine has one of its own."""
        return f"orpo-studio-{self.port}"

    @property
    def proxied(self) -> bool:
        """Whether the browser speaks TLS to a proxy in front of the studio."""
        return bool(self.proxies)

    def is_here(self, host: str) -> bool:
        """Whether a Host header names this studio."""
        found = HOST.fullmatch(host.lower())
        return found is not None and found[1].strip("[]").rstrip(".") in self.hosts

    def scheme(self, request: Request) -> str:
        """How the visitor's browser reaches the studio."""
        return request.url.scheme if self.proxied else "http"

    def is_unknown_proxy(self, request: Request) -> bool:
        """Whether a request came through a proxy, behind which the studio is, at an address that it was not told of."""
        return self.proxied and request.headers.get("x-forwarded-proto", "").strip() == "https" and request.url.scheme == "http"

    def visitor(self, request: Request) -> Visitor | None:
        """Who asks, by the pass in the cookie, or by the key that a script sends as a bearer; None for a stranger."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if not self.named and kind.lower() == "bearer" and self._is_key(given):
            return LOCAL
        return self._passes.read(request.cookies.get(self.cookie, ""))

    async def answer(self, request: Request) -> Response | None:
        """The answer to somebody who comes in or goes; None for all other requests. Raises Refused."""
        path, posted = request.url.path.rstrip("/"), request.method == "POST"
        if path == "/login":
            return await self._sign_in(request) if posted else self._page(FORM if self.users else NO_USERS)
        if path == "/logout" and posted:
            answer = RedirectResponse("/login" if self.named else "/", 303)
            self._passes.end(request.cookies.get(self.cookie, ""))  # whoever copied it is out as well
            answer.delete_cookie(self.cookie, path="/")
            return answer
        if not path and not posted and not self.named and self._is_key(request.query_params.get("key", "")):
            rest = request.url.remove_query_params("key").query  # the key does not stay in the address
            return self._admitted(RedirectResponse(f"/?{rest}" if rest else "/", 303), LOCAL)
        return None

    def closed(self, request: Request) -> Response:
        """What a stranger gets."""
        if request.method == "POST" or "text/html" not in request.headers.get("accept", ""):
            words = "Sign in first." if self.named else "The studio's key is needed: it is in the address that was printed at its start."
            return JSONResponse({"detail": words, "error": words}, 401)
        return RedirectResponse("/login", 303) if self.named else self._page(KEY_NEEDED, 401)

    async def _sign_in(self, request: Request) -> Response:
        """Check a name and a password."""
        if int(request.headers["content-length"]) > LARGEST_FORM:
            raise Refused(413, "A name and a password are not that long.")
        try:
            form = await asyncio.wait_for(request.form(max_files=0, max_fields=4), FORM_SECONDS)
        except TimeoutError:
            raise Refused(408, "Name and password did not arrive in time. Try again.", Connection="close") from None
        name, password = (str(form.get(field, "")) for field in ("username", "password"))
        address = request.client.host if request.client else ""
        try:
            visitor = await self._attempts.check(name, password, address) if self.named else None
        except Refused as refused:
            return self._refused_sign_in(request, refused.status, refused.words)
        if visitor is None:
            return self._refused_sign_in(request, 401, "Name and password do not belong together.")
        to_page = "text/html" in request.headers.get("accept", "")
        return self._admitted(RedirectResponse("/", 303) if to_page else JSONResponse({"success": True}), visitor)

    def _refused_sign_in(self, request: Request, status: int, words: str) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return self._page(f'<p class="wrong" role="alert">{escape(words)}</p>{FORM}', status)
        return JSONResponse({"detail": words, "error": words}, status)

    def _admitted(self, answer: Response, visitor: Visitor) -> Response:
        framed = self.framed_by != "'none'"  # a cookie inside another site's page must say so
        answer.set_cookie(self.cookie, self._passes.issue(visitor), max_age=DAYS * 24 * 3600, path="/", httponly=True,
                          secure=self.proxied, samesite="none" if framed else "strict")
        if framed:  # Python's own cookies know the word from 3.14 on
            answer.headers["set-cookie"] += "; Partitioned"
        return answer

    def _page(self, inside: str, status: int = 200) -> Response:
        text = Template(PAGE.read_text(encoding="utf-8")).substitute(inside=inside)
        return HTMLResponse(text, status, headers={"Cache-Control": "no-store"})

    def _is_key(self, given: str) -> bool:
        return bool(self.key) and hmac.compare_digest(given.encode(), self.key.encode())


def names_of(host: str) -> frozenset[str]:
    """The names under which a studio is known that listens on `host`: on all addresses, those of this machine."""
    if host not in ("0.0.0.0", "::", ""):
        return LOOPBACK | {host.lower()} if host in LOOPBACK else frozenset({host.lower()})
    own = {address.address.partition("%")[0].lower() for addresses in psutil.net_if_addrs().values() for address in addresses
           if address.family in (socket.AF_INET, socket.AF_INET6)}
    return LOOPBACK | own | {socket.gethostname().lower(), socket.getfqdn().lower()}
