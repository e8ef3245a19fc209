"""The guard, asked over real HTTP by browsers of other sites, by strangers, and by too many."""

import json
import os
import re
import socket
import stat
import threading

import httpx
import pytest

from studio import guard, runs
from studio.access import Users
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor

REFUSED_SETTINGS = {"data": [{"training": {"surprise": 1}}]}
"""Handed to /start, these come back with a complaint by the function itself: it has been reached."""
START = "/gradio_api/call/start"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = StudioProcess(tmp_path_factory.mktemp("studio") / "runs").start()
    yield studio
    studio.kill()


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    home = tmp_path_factory.mktemp("named") / "runs"
    home.mkdir()
    Users(home).add("anna", "password of anna", admin=True)
    Users(home).add("bert", "password of bert")
    studio = StudioProcess(home).start()
    yield studio
    studio.kill()


@pytest.fixture
def http(studio):
    with httpx.Client(base_url=studio.url, headers=studio.headers, timeout=20) as client:
        yield client


# --- from where ---------------------------------------------------------------------------------------------------------


def origins(port: int) -> list[str | None]:
    """Who may say to have asked; without one it was no browser's page."""
    return [None, f"http://127.0.0.1:{port}", f"http://localhost:{port}", "http://evil.example", "null", f"http://127.0.0.1:{port + 1}",
            f"https://127.0.0.1:{port}", f"http://evil.127.0.0.1:{port}", f"http://127.0.0.1:{port}.evil.example", "", "http://127.0.0.1"]


def hosts(port: int) -> dict[str, bool]:
    """Hosts, and whether the studio is known under them."""
    return {f"127.0.0.1:{port}": True, f"localhost:{port}": True, f"LOCALHOST:{port}": True, f"[::1]:{port}": True, "127.0.0.1": True,
            f"192.168.1.7:{port}": False, "evil.example": False, f"127.0.0.1.evil.example:{port}": False, f"evil.example@127.0.0.1:{port}": False,
            "": False, f"127.0.0.1:{port}, evil.example": False, "0x7f000001": False, "2130706433": False}


@pytest.mark.fault("T49")
def test_only_the_studio_s_own_page_under_its_own_name_gets_anything_done(http, studio, tries):
    """Every Origin with every Host, by every way in which something can be asked for."""
    ways = [("GET", "/config", {}), ("OPTIONS", START, {}), ("POST", START, {"json": REFUSED_SETTINGS}),
            ("POST", "/gradio_api/upload", {"files": {"files": ("pairs.jsonl", b"{}")}}),
            ("POST", "/gradio_api/queue/join", {"json": {"data": [{}], "fn_index": 0, "session_hash": "x"}}),
            ("GET", "/gradio_api/heartbeat/x", {})]
    temporary = list((studio.runs / "temporary").rglob("*"))
    wrong = []
    for origin in origins(studio.port):
        for host, here in hosts(studio.port).items():
            for method, path, body in ways:
                same = origin in (None, f"http://{host.lower()}")
                if method == "OPTIONS" or not (here and same):
                    tries(1)
                    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
                    with http.stream(method, path, headers=headers, **body) as answer:
                        if answer.status_code not in (400, 403, 405, 421) or "access-control-allow-origin" in answer.headers:
                            wrong.append((origin, host, method, path, answer.status_code))
    assert not wrong
    assert list((studio.runs / "temporary").rglob("*")) == temporary and not runs.listed(studio.runs)


@pytest.mark.parametrize("origin", [True, False])
def test_the_studio_s_own_page_is_answered(http, studio, origin):
    headers = {"Origin": studio.url} if origin else {}
    assert http.get("/config", headers=headers).status_code == 200
    called = http.post(START, json=REFUSED_SETTINGS, headers=headers).raise_for_status().json()["event_id"]
    assert "no such setting" in http.get(f"{START}/{called}", headers=headers).text


@pytest.mark.fault("T49")
def test_a_request_without_a_host_or_with_two_is_refused(studio, tries):
    for lines in (b"GET /config HTTP/1.0\r\n", b"GET /config HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nHost: evil.example\r\n" % studio.port):
        tries(1)
        with socket.create_connection(("127.0.0.1", studio.port), timeout=10) as raw:
            raw.sendall(lines + b"Authorization: Bearer " + studio.key.encode() + b"\r\nConnection: close\r\n\r\n")
            assert b" 200 " not in raw.recv(200)


@pytest.mark.fault("T50")
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(("path", "body"), [
    ("/gradio_api/upload", {"files": {"files": ("x.jsonl", b"{}")}}),
    (START, {"content": json.dumps(REFUSED_SETTINGS), "headers": {"Content-Type": "text/plain"}}),
    ("/login", {"data": {"username": "x", "password": "y"}}),
    ("/logout", {"data": {}}),
])
def test_a_form_on_another_site_does_nothing_even_without_an_origin(http, site, path, body):
    body = body | {"headers": body.get("headers", {}) | {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}}
    answer = http.post(path, **body)
    assert answer.status_code == 403 and "Another site" in answer.text


def test_a_link_on_another_site_leads_to_the_page_and_nowhere_else(http):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert http.get("/", headers=headers).status_code == 200
    assert http.get("/config", headers=headers).status_code == 403
    assert http.get("/", headers=headers | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403


# --- who ------------------------------------------------------------------------------------------------------------------

ADDRESSES = [("GET", path) for path in sorted(guard.GET - {"/login", "/robots.txt", "/favicon.ico"})] + [
    ("GET", "/gradio_api/heartbeat/x"), ("GET", "/gradio_api/call/start/x"), ("GET", "/downloads/0123456789abcdef"),
    ("GET", "/downloads/runs/some-run/adapter"), ("GET", "/assets/x.js"),
    *(("POST", path) for path in sorted(guard.POST - {"/login", "/logout"})), ("POST", START), ("POST", "/gradio_api/run/predict")]


@pytest.mark.fault("T48")
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"Cookie": "orpo-studio-0=x"}])
def test_without_the_key_every_address_is_closed(studio, headers, tries):
    with httpx.Client(base_url=studio.url, headers=headers) as stranger:
        for method, path in ADDRESSES:
            tries(1)
            assert stranger.request(method, path).status_code == 401, path


def test_a_stranger_s_browser_is_told_where_the_key_is(studio):
    answer = httpx.get(studio.url, headers={"Accept": "text/html"})
    assert answer.status_code == 401 and "printed in the terminal" in answer.text


def test_the_printed_address_lets_a_browser_in_and_the_key_leaves_the_address_bar(studio):
    with httpx.Client(base_url=studio.url) as browser:
        arrived = browser.get("/?run=a-run&key=" + studio.key)
        assert arrived.status_code == 303 and arrived.headers["location"] == "/?run=a-run"
        cookie = arrived.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and studio.key not in cookie
        assert browser.get("/config").status_code == 200
        assert browser.post("/logout").status_code == 303
        assert browser.get("/config").status_code == 401


@pytest.mark.fault("T52")
@pytest.mark.parametrize("query", ["_target_url=//evil.example", "next=https://evil.example", "next=////evil", "next=/%5Cevil", "/evil.example"])
def test_coming_in_leads_to_this_page_only(studio, query):
    location = httpx.get(f"{studio.url}/?key={studio.key}&{query}").headers["location"]
    assert location.startswith("/?")
    assert httpx.get(f"{studio.url}//evil.example?key={studio.key}").status_code == 404


@pytest.mark.fault("T48")
def test_a_user_signs_in_and_out(named):
    browser = Visitor(named.url).sign_in("bert", "password of bert")
    assert browser.http.get("/config").status_code == 200
    browser.http.post("/logout")
    assert browser.http.get("/config").status_code == 401
    arrived = httpx.get(named.url, headers={"Accept": "text/html"})
    assert arrived.status_code == 303 and arrived.headers["location"] == "/login"


def test_a_key_opens_nothing_where_users_sign_in(named):
    assert httpx.get(f"{named.url}/?key={named.key}").status_code == 401
    assert httpx.get(named.url + "/config", headers=named.headers).status_code == 401


@pytest.mark.fault("T53")
def test_sixty_wrong_passwords_at_once_are_stopped_after_five_and_others_still_get_in(named, tries):
    answers = []

    def attempt(place: int) -> None:
        answers.append(httpx.post(named.url + "/login", data={"username": "mallory", "password": f"guess {place}"}, timeout=60).status_code)

    attempts = [threading.Thread(target=attempt, args=(place,)) for place in range(25)]
    for thread in attempts:
        thread.start()
    for thread in attempts:
        thread.join()
    tries(len(attempts))
    assert sorted(set(answers)) == [401, 429] and answers.count(401) == 5
    assert Visitor(named.url).sign_in("anna", "password of anna").http.get("/config").status_code == 200


# --- what is there --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T54")
def test_no_file_is_served_that_is_not_the_page_s(http, studio, tmp_path, tries):
    secret = studio.runs / "a-run" / "settings.yaml"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("a secret", encoding="utf-8")
    (studio.runs / "temporary" / "link").symlink_to(secret)
    paths = ["/etc/passwd", str(secret), "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", str(studio.runs / ".secret"),
             str(studio.runs / "temporary" / "link"), "app.py", "http://127.0.0.1:9/x", f"{guard.__file__}/../../app.py", "studio/guard.py"]
    for path in paths:
        for way in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/gradio_api/proxy=", "/static/", "/assets/", "/downloads/", "/svelte/",
                    "/gradio_api/custom_component/x/y/z/"):
            tries(1)
            answer = http.get(way + path, follow_redirects=True)
            assert answer.status_code in (400, 401, 403, 404, 422), (way, path, answer.status_code)
            assert "a secret" not in answer.text and "root:" not in answer.text
    secret.unlink()
    secret.parent.rmdir()


def test_the_one_file_that_the_charts_need_is_served(http):
    (path,) = set(re.findall(r'[^"]+/plotly\.min\.js', http.get("/config").text))
    assert len(http.get(f"/gradio_api/file={path}").content) > 1_000_000


@pytest.mark.fault("T51")
@pytest.mark.parametrize("path", ["/gradio_api/vibe-code", "/monitoring", "/monitoring/summary", "/gradio_api/deep_link", "/gradio_api/runs", "/dev/reload",
                                  "/gradio_api/dev/reload", "/logout", "/docs", "/openapi.json", "/gradio_api/run-history/records", "/token",
                                  "/gradio_api/token", "/gradio_api/profiling/traces", "/login/huggingface", "/gradio_api/mcp/"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_what_gradio_offers_beside_the_page_is_not_there(http, method, path):
    if (method, path) == ("POST", "/logout"):
        pytest.skip("That is how one leaves.")
    assert http.request(method, path).status_code in (404, 411)


@pytest.mark.fault("T51")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_is_started_by_following_a_link(http, studio, method):
    for path in (START, "/gradio_api/queue/join", "/gradio_api/run/start", "/gradio_api/upload", "/gradio_api/component_server", "/gradio_api/cancel"):
        assert http.request(method, path, params={"data": json.dumps([{}])}).status_code in (404, 405, 422), path
    assert not runs.listed(studio.runs)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "SURPRISE"])
def test_other_methods_are_not_answered(http, method):
    assert http.request(method, "/").status_code == 405


def test_every_answer_tells_the_browser_to_trust_nothing_else(http, studio):
    for answer in (http.get("/"), http.get("/config"), httpx.get(studio.url + "/login"), http.get("/nowhere"), httpx.get(studio.url)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "same-origin" and answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers


# --- how much ---------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T9")
@pytest.mark.parametrize(("path", "length"), [("/gradio_api/upload", guard.LARGEST_UPLOAD + 1), ("/gradio_api/upload", 10 * 1024**3),
                                              ("/gradio_api/queue/join", guard.LARGEST_BODY + 1), ("/login", 5000)])
def test_what_is_one_byte_too_large_is_refused_before_it_is_sent(studio, path, length):
    files = list((studio.runs / "temporary").rglob("*"))
    with socket.create_connection(("127.0.0.1", studio.port), timeout=2) as raw:  # refused in less than two seconds
        raw.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\nAuthorization: Bearer {studio.key}\r\n"
                    f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    assert list((studio.runs / "temporary").rglob("*")) == files


def test_what_does_not_say_how_long_it_is_is_refused(http):
    assert http.post("/gradio_api/queue/join", content=iter([b"{}"])).status_code == 411


@pytest.mark.fault("T53")
def test_too_many_requests_are_told_to_wait_and_the_page_still_answers(tmp_path, tries):
    """With smaller limits over a longer time: a machine that is busy itself answers more slowly than the real ones allow."""
    for name in ("anna", "bert"):
        Users(tmp_path).add(name, f"password of {name}")
    limits = "import runpy; from studio import guard; guard.ASKED, guard.FETCHED = (60, 600), (80, 600); "
    studio = StudioProcess(tmp_path, program=("-c", limits + "runpy.run_path('app.py', run_name='__main__')")).start()
    try:
        bert, anna = (Visitor(studio.url).sign_in(name, f"password of {name}") for name in ("bert", "anna"))
        asked = [bert.http.post("/gradio_api/cancel", json={"session_hash": "x", "fn_index": 0, "event_id": "x"}) for _ in range(70)]
        fetched = [bert.http.get("/theme.css") for _ in range(90)]
        tries(len(asked) + len(fetched))
        for answers, most in ((asked, 60), (fetched, 80)):
            assert [answer.status_code == 429 for answer in answers] == [place >= most for place in range(len(answers))]
            assert answers[-1].headers["Retry-After"] and "too many requests" in answers[-1].text
        assert anna.http.get("/config", timeout=2).status_code == 200, "Somebody else is not held up."
    finally:
        studio.kill()


def test_the_real_limits_leave_a_person_room_and_a_flood_none():
    for most, seconds in (guard.ASKED, guard.UPLOADED, guard.FETCHED, guard.PAGES):
        assert 1 <= most / seconds <= 200


@pytest.mark.fault("T53")
def test_too_many_open_streams_are_turned_away(studio, http, tries):
    opened = []
    try:
        for place in range(guard.STREAMS_EACH + 5):
            tries(1)
            raw = socket.create_connection(("127.0.0.1", studio.port), timeout=10)
            raw.sendall(f"GET /gradio_api/heartbeat/session{place} HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\n"
                        f"Authorization: Bearer {studio.key}\r\n\r\n".encode())
            opened.append((raw, raw.recv(40)))
        turned_away = [place for place, (_, answer) in enumerate(opened) if b" 429 " in answer]
        assert turned_away == list(range(guard.STREAMS_EACH, guard.STREAMS_EACH + 5))
        assert http.get("/config", timeout=2).status_code == 200
    finally:
        for raw, _ in opened:
            raw.close()


def test_runs_and_uploads_are_for_nobody_else_on_the_machine(studio, http):
    http.post("/gradio_api/upload", files={"files": ("pairs.jsonl", b"{}")}).raise_for_status()
    everything = [studio.runs / "temporary" / str(studio.port), *(studio.runs / "temporary").rglob("*"), studio.runs / ".secret"]
    assert len(everything) > 3
    for path in everything:
        assert stat.S_IMODE(os.lstat(path).st_mode) & 0o077 == 0 or path.is_symlink(), path
