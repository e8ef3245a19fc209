"""Stands before the page and answers for it: who may ask, from where, for which addresses, how much and how often.

A browser sends along whatever cookies it has with requests that other sites make, and a name that somebody points at
127.0.0.1 reaches a studio on this machine; so the Host must be ours, and an Origin the page's own. What the page does not need
(Gradio serves files, proxies addresses and keeps records as well) is not there.
"""

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio import bodies, doors, uploads
from studio.access import AccessError, Visitor
from studio.doors import Doors
from studio.refused import Refused
from studio.throttle import Window, network

API = "/gradio_api"
GET = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/user", "/login_check", "/login",
       *(API + path for path in ("/info", "/openapi.json", "/theme.css", "/app_id", "/startup-events", "/login_check", "/user",
                                 "/queue/data", "/queue/status", "/upload_progress"))}
GET_BELOW = ("/assets/", "/static/", "/svelte/", "/pwa_icon", "/downloads/", API + "/heartbeat/", API + "/call/")
POST = {"/login", "/logout", *(API + path for path in ("/queue/join", "/upload", "/component_server", "/cancel", "/reset"))}
POST_BELOW = (API + "/call/", API + "/run/", API + "/api/")
FILE = API + "/file="
STREAMS = (API + "/queue/data", API + "/heartbeat/", API + "/call/", API + "/upload_progress")
OPEN_TO_ALL = ("/login", "/logout", "/favicon.ico", "/robots.txt")

UPLOAD = API + "/upload"
LARGEST_UPLOAD = 2 * 1024**3
LARGEST_BODY = bodies.LARGEST

ASKED, UPLOADED, FETCHED, PAGES = (600, 10), (60, 60), (2000, 10), (200, 10)
"""How often in how many seconds one visitor may: change something or tick (a page ticks about five times a second, and a person may
have a dozen open), upload, fetch anything (a page is about 150 files), fetch what is worked out for each (the page itself)."""
WORKED_OUT = {"/", "/config", "/login", *(API + path for path in ("/info", "/openapi.json"))}
STREAMS_EACH, STREAMS_IN_ALL = 60, 400

POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; connect-src 'self'; worker-src 'self' blob:; "
          "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {framed_by}")
"""Gradio's page needs scripts in line and made on the spot; it needs nothing from elsewhere, and sends nothing there."""


@dataclass
class Guard:
    """The ASGI application around the page. `doors` knows who may come in; `files` may be fetched by whoever is in.

    The visitor of a request is left in its scope under VISITOR, for `visitor_of` in the events.
    """

    app: ASGIApp
    doors: Doors
    files: frozenset[Path]
    temporary: Path
    """Where uploads arrive, each visitor's in a folder of their own."""
    _intake: bodies.Intake = field(default_factory=bodies.Intake)
    _rates: dict[tuple[int, int], Window] = field(default_factory=lambda: {
        rate: Window(*rate) for rate in (ASKED, UPLOADED, FETCHED, PAGES)})
    _open: Counter = field(default_factory=Counter)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page speaks no WebSocket
            return await send({"type": "websocket.close", "code": 1008})
        request = Request(scope, receive)
        send = self._with_headers(send)
        try:
            self._refuse_strangers(request)
            self._refuse_addresses(request)
            self._refuse_size(request)
            visitor = await run_in_threadpool(self.doors.visitor, request)
            self._refuse_rates(request, visitor)
            answer = await self.doors.answer(request)
            if answer is not None:
                return await answer(scope, receive, send)
            if visitor is None and request.url.path not in OPEN_TO_ALL:
                return await self.doors.closed(request)(scope, receive, send)
            self.doors.sessions.refuse_others(request, visitor)
            scope[doors.VISITOR] = visitor
            with self._counted(request, visitor):
                return await self._through(request, receive, send)
        except Refused as refused:
            return await refused.response()(scope, receive, send)

    async def _through(self, request: Request, receive: Receive, send: Send) -> None:
        """Hand the request on, its body counted as it arrives and looked through: one place before all that could act on it."""
        if request.method != "POST":
            return await self.app(request.scope, receive, send)
        visitor, path = request.scope[doors.VISITOR], request.url.path.rstrip("/")
        if path == UPLOAD:
            return await self.app(request.scope, bodies.counted(receive, LARGEST_UPLOAD, self.temporary), send)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "The studio takes this as JSON only. Send it as application/json.")
        async with self._intake.body(receive, self._name(request, visitor)) as body:
            try:
                uploads.refuse_others(await bodies.parsed(body), uploads.arriving(self.temporary, visitor.name))
            except AccessError as error:
                raise Refused(403, str(error)) from error
            return await self.app(request.scope, bodies.again(body, receive), send)

    def _refuse_strangers(self, request: Request) -> None:
        """The Host must be a name of this studio, and whoever names an Origin must be this studio's own page."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self.doors.is_here(hosts[0]):
            raise Refused(421, "The studio is not known under this address. Open the one that it printed when it started.")
        origins = request.headers.getlist("origin")
        if self.doors.is_unknown_proxy(request):
            raise Refused(403, f"A proxy asks from {request.client.host}, which the studio was not told to believe. "
                               f"Start it with --proxy {request.client.host}.")
        own = f"{self.doors.scheme(request)}://{hosts[0]}".lower()
        if len(origins) > 1 or (origins and origins[0].lower() != own):
            raise Refused(403, "Another site asked for this, so it was not done. Open the studio's own page.")
        site = request.headers.get("sec-fetch-site", "none")
        arrives = request.method in ("GET", "HEAD") and request.headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not (arrives and request.url.path in ("/", "/login")):
            raise Refused(403, "Another site asked for this, so it was not done. Open the studio's own page.")

    def _refuse_addresses(self, request: Request) -> None:
        """Only what the page uses is there, and only by the method that it uses."""
        path, method = request.url.path, request.method
        if method not in ("GET", "HEAD", "POST"):
            raise Refused(405, "The studio does not answer this method.", Allow="GET, HEAD, POST")
        exact, below = (POST, POST_BELOW) if method == "POST" else (GET, GET_BELOW)
        tame = "//" not in path and "\\" not in path and ".." not in path.split("/")
        if path.startswith(FILE):
            if method == "POST" or Path(unquote(path.removeprefix(FILE))) not in self.files:
                raise Refused(403, "This file is not for the page.")
        elif not tame or not (path.rstrip("/") in exact or path in exact or path.startswith(below)):
            raise Refused(404, "There is nothing at this address.")

    def _refuse_size(self, request: Request) -> None:
        """Whatever is sent says how long it is, and is no longer than we take. Whether that was true is counted later."""
        if request.method != "POST":
            return
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or "transfer-encoding" in request.headers:
            raise Refused(411, "The request does not say how long it is (Content-Length).", **bodies.CLOSE)
        upload = request.url.path.rstrip("/") == UPLOAD
        most = LARGEST_UPLOAD if upload else LARGEST_BODY
        if len(length) > 15 or int(length) > most:
            raise bodies.too_large(most)
        if upload:
            bodies.refuse_full_disk(self.temporary, int(length))

    def _refuse_rates(self, request: Request, visitor: Visitor | None) -> None:
        who, path = self._name(request, visitor), request.url.path.rstrip("/") or "/"
        rates = [ASKED, *[UPLOADED] * (path == UPLOAD)] if request.method == "POST" else [FETCHED, *[PAGES] * (path in WORKED_OUT)]
        if not all(self._rates[rate].add(who) for rate in rates):
            raise Refused(429, "These are too many requests at once. Wait some seconds.", **{"Retry-After": "10"})

    @contextmanager
    def _counted(self, request: Request, visitor: Visitor | None):
        """Streams stay open for as long as a page does: not too many by one visitor, nor in all."""
        if request.method != "GET" or not request.url.path.startswith(STREAMS):
            yield
            return
        who = self._name(request, visitor)
        with self._counting:
            if self._open[who] >= STREAMS_EACH or self._open.total() >= STREAMS_IN_ALL:
                raise Refused(429, "Too many pages of this studio are open. Close some.", **{"Retry-After": "10"})
            self._open[who] += 1
        try:
            yield
        finally:
            with self._counting:
                self._open[who] -= 1

    @staticmethod
    def _name(request: Request, visitor: Visitor | None) -> str:
        return (visitor.name if visitor else "") or network(request.client.host if request.client else "")

    def _with_headers(self, send: Send) -> Send:
        policy = POLICY.format(framed_by=self.doors.framed_by)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]  # no other site may read an answer
                headers["Content-Security-Policy"] = policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"  # with none at all, a browser hides the Origin of our own forms
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Permissions-Policy"] = "camera=(), microphone=(), geolocation=()"
                if self.doors.framed_by == "'none'":
                    headers["X-Frame-Options"] = "DENY"
                    headers["Cross-Origin-Opener-Policy"] = "same-origin"
            await send(message)

        return sent

