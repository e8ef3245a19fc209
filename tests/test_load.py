"""What arrives is bounded by what arrives: bodies, values, half-sent requests, sign-ins. Others are answered within a second meanwhile."""

import http.client
import json
import resource
import socket
import threading
import time
from contextlib import suppress

import httpx
import psutil
import pytest

from studio import bodies, connections
from studio.access import Users
from studio.refused import Refused
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor

JOIN = "/gradio_api/queue/join"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    home = tmp_path_factory.mktemp("studio") / "runs"
    home.mkdir()
    for name in ("anna", "bert"):
        Users(home).add(name, f"password of {name}")
    studio = StudioProcess(home, output=home.parent / "output.txt").start()
    yield studio
    studio.kill()


@pytest.fixture(scope="module")
def anna(studio):
    return Visitor(studio.url).sign_in("anna", "password of anna")


@pytest.fixture(scope="module")
def bert(studio):
    return Visitor(studio.url).sign_in("bert", "password of bert")


class Meanwhile:
    """How long answers to somebody else take while something else goes on, and how much memory the studio has at most."""

    def __init__(self, studio, visitor):
        self.studio, self.visitor, self.waits, self.most = studio, visitor, [0.0], 0
        self._over = threading.Event()

    def _look(self) -> None:
        process = psutil.Process(self.studio.process.pid)
        while not self._over.wait(0.05):
            begun = time.monotonic()
            self.visitor.http.get("/gradio_api/app_id").raise_for_status()
            self.waits.append(time.monotonic() - begun)
            self.most = max(self.most, process.memory_info().rss)

    @property
    def slowest(self) -> float:
        """Seconds in which 95 of 100 answers came: this machine has other work, too."""
        return sorted(self.waits)[int(0.95 * len(self.waits))] if len(self.waits) > 20 else sorted(self.waits)[-2:][0]

    def __enter__(self):
        self.before = psutil.Process(self.studio.process.pid).memory_info().rss
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()


def raw(studio, visitor, head: str) -> socket.socket:
    """A connection of a visitor on which a request's head was sent."""
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.http.cookies.items())
    connection = socket.create_connection(("127.0.0.1", studio.port), timeout=20)
    connection.sendall(f"{head}\r\nHost: 127.0.0.1:{studio.port}\r\nCookie: {cookies}\r\n\r\n".encode())
    return connection


def answer_to(connection: socket.socket, pieces=()) -> bytes:
    """What comes back while pieces are sent; nothing more is sent once the other side has closed."""
    try:
        for piece in pieces:
            connection.sendall(piece)
    except OSError:
        pass
    try:
        return connection.recv(2000)
    except OSError:
        return b""


# --- bodies -------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T83")
@pytest.mark.parametrize("path", [JOIN, "/gradio_api/upload", "/gradio_api/call/start", "/gradio_api/component_server"])
@pytest.mark.parametrize("announced", ["Transfer-Encoding: chunked", "Content-Length: 20\r\nTransfer-Encoding: chunked"])
def test_a_body_in_chunks_is_not_taken_whatever_was_announced(studio, anna, bert, path, announced):
    """210 MB, of which the old studio kept all in memory, or on the disk."""
    files = list((studio.runs / "temporary").rglob("*"))
    with Meanwhile(studio, bert) as meanwhile:
        connection = raw(studio, anna, f"POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n{announced}")
        piece = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
        answer_to(connection, [piece] * 210)
        connection.close()
    assert list((studio.runs / "temporary").rglob("*")) == files
    assert meanwhile.most - meanwhile.before < 30e6


@pytest.mark.fault("T83")
def test_an_upload_that_is_longer_than_announced_or_breaks_off_leaves_nothing(studio, anna):
    start = b'--x\r\nContent-Disposition: form-data; name="files"; filename="pairs.jsonl"\r\n\r\n'
    for announced, sent in ((20, [start + b"x" * 2**20]), (2**20, [start + b"x" * 1000])):
        connection = raw(studio, anna, f"POST /gradio_api/upload HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {announced}")
        for piece in sent:
            with suppress(OSError):
                connection.sendall(piece)
        time.sleep(0.3)
        connection.close()
    time.sleep(0.5)
    assert not [path for path in (studio.runs / "temporary").rglob("*") if path.is_file()]


def test_a_form_that_is_no_file_is_not_gathered_in_memory(studio, anna):
    answer = anna.http.post("/gradio_api/upload", files={"files": (None, b"x" * 2**20)})
    assert answer.status_code == 400
    assert anna.http.post("/gradio_api/component_server", files={"x": ("x", b"x")}).status_code == 415


@pytest.mark.fault("T83")
@pytest.mark.parametrize("body", [b"[" + b"[]," * 2_600_000 + b"[]]", b"[" * 4_000_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
                                  b'["' + b"\\" * 7_000_000, b'[{"data":"' + b'[],{}' * 100_000 + b'"},' + b"1," * 100_000 + b"1]"],
                         ids=["empty lists", "depth", "mappings in each other", "a text without an end", "values behind a text"])
def test_json_of_too_many_values_or_levels_is_refused_and_nobody_waits(studio, anna, bert, body):
    with Meanwhile(studio, bert) as meanwhile:
        answer = anna.http.post(JOIN, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413), answer.text[:200]
    assert meanwhile.slowest < 1 and meanwhile.most - meanwhile.before < 100e6


@pytest.mark.parametrize(("value", "right"), [(["[" * 1000], True), ({"text": ',{}[]":' * 5000}, True), ([[0] * 100] * 190, True),
                                              ([[0] * 100] * 210, False), ("[" * 41, False), ("[" * 40 + "]" * 40, True)])
def test_values_are_counted_outside_texts(value, right):
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    if right:
        bodies._refuse_structure(body)
    else:
        with pytest.raises(Refused):
            bodies._refuse_structure(body)


@pytest.mark.parametrize("body", ["[1]".encode("utf-16"), "[1]".encode("utf-32"), b"\xef\xbb\xbf[1]", b"[1", b"", b"\xff"])
def test_what_is_not_json_in_utf_8_is_refused(studio, anna, body):
    assert anna.http.post(JOIN, content=body, headers={"Content-Type": "application/json"}).status_code == 400


# --- connections --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T83")
def test_half_sent_requests_keep_nobody_out_and_fill_no_log(studio, anna, bert, tries):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    lines = len(studio.output.read_bytes().splitlines())
    opened = []
    try:
        with Meanwhile(studio, bert) as meanwhile:
            for _ in range(1100):
                connection = socket.create_connection(("127.0.0.1", studio.port), timeout=10)
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: ")
                opened.append(connection)
            tries(len(opened))
            begun = time.monotonic()
            for _ in range(5):
                assert httpx.get(studio.url + "/login", timeout=10).status_code == 200
            newcomer = (time.monotonic() - begun) / 5
        assert len(psutil.Process(studio.process.pid).net_connections()) <= connections.MOST + 20
        assert newcomer < 1 and meanwhile.slowest < 1
        time.sleep(connections.HEAD_SECONDS + 1)
        assert len(psutil.Process(studio.process.pid).net_connections()) < 50, "They are let go."
    finally:
        for connection in opened:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(studio.output.read_bytes().splitlines()) - lines < 100


@pytest.mark.fault("T83")
def test_connections_on_which_nothing_more_is_asked_keep_nobody_out(studio, bert, tries):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    opened = []
    try:
        with Meanwhile(studio, bert) as meanwhile:
            for place in range(1100):
                here = (f"127.0.{2 + place // 200}.{1 + place % 200}", 0)  # each address has a rate of its own
                connection = socket.create_connection(("127.0.0.1", studio.port), timeout=10, source_address=here)
                opened.append(connection)
                connection.sendall(f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\n\r\n".encode())
                assert b" 200 " in connection.recv(2000)
            tries(len(opened))
            begun = time.monotonic()
            assert httpx.get(studio.url + "/login", timeout=10).status_code == 200
            newcomer = time.monotonic() - begun
        assert len(psutil.Process(studio.process.pid).net_connections()) <= connections.MOST + 20
        assert newcomer < 1 and meanwhile.slowest < 1
    finally:
        for connection in opened:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault("T83")
def test_a_connection_is_kept_while_a_page_is_quiet(studio):
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=20)
    for wait in (0, connections.HEAD_SECONDS + 1):  # longer than for half a request, and than a page that looks every five seconds
        time.sleep(wait)
        connection.request("GET", "/login")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        assert connection.sock, "http.client has to connect anew."
    connection.close()


@pytest.mark.fault("T83")
def test_a_second_request_that_stays_half_sent_is_let_go_as_well(studio, anna):
    with raw(studio, anna, "GET /gradio_api/app_id HTTP/1.1") as connection:
        assert b" 200 " in connection.recv(2000)
        connection.sendall(b"GET /gradio_api/app_id HTTP/1.1\r\nX-Half: ")
        connection.settimeout(connections.HEAD_SECONDS + 5)
        begun, heard = time.monotonic(), b"x"
        try:
            while heard:
                heard = connection.recv(2000)
        except ConnectionResetError:
            pass
        assert time.monotonic() - begun < connections.HEAD_SECONDS + 4


@pytest.mark.fault("T83")
def test_requests_that_make_no_sense_write_a_bounded_log(studio, tries):
    lines = len(studio.output.read_bytes().splitlines())
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", studio.port), timeout=10) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            connection.recv(100)
    tries(300)
    assert len(studio.output.read_bytes().splitlines()) - lines <= connections.LINES + 5


# --- sign-ins -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T83")
def test_240_sign_ins_at_once_take_little_memory_and_hold_up_nobody(studio, bert, tries):
    answers = []

    def sign_in(place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=120)  # httpx would be busier than the studio
        connection.request("POST", "/login", f"username=name{place % 3}&password=wrong", {"Content-Type": "application/x-www-form-urlencoded"})
        answers.append(connection.getresponse().status)

    with Meanwhile(studio, bert) as meanwhile:
        crowd = [threading.Thread(target=sign_in, args=(place,)) for place in range(240)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
    tries(len(answers))
    assert set(answers) <= {401, 429, 503} and answers.count(401) <= 15
    assert meanwhile.slowest < 1 and meanwhile.most - meanwhile.before < 250e6
    assert psutil.Process(studio.process.pid).memory_info().rss - meanwhile.before < 60e6, "Memory is back."
