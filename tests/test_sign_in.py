"""Signing in and out: guesses are stopped whatever address is made up, nobody who is right is kept out, and out means out."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import httpx
import pytest

from studio.access import LOCAL, Passes, Users, Visitor
from studio.attempts import AT_ONCE, WAITING_EACH, WRONG_EACH, WRONG_FROM_ONE_ADDRESS, Attempts
from studio.jobs import PROJECT
from studio.refused import Refused
from studio.throttle import Window, network
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor as Browser

PASSWORD = "password of {}".format
SPACE = {"SPACE_ID": "anna/studio", "SPACE_HOST": "anna-studio.hf.space", "ORPO_STUDIO_PASSWORD": PASSWORD("owner")}
AS_A_SPACE = {"Host": "anna-studio.hf.space", "X-Forwarded-Proto": "https"}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    studio = StudioProcess(tmp_path_factory.mktemp("space") / "runs", SPACE).start()
    yield studio
    studio.kill()


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """A studio behind a proxy on this machine, which is not the Hub's."""
    home = tmp_path_factory.mktemp("behind") / "runs"
    home.mkdir()
    for name in ("anna", "bert", "carl"):
        Users(home).add(name, PASSWORD(name))
    studio = StudioProcess(home, arguments=("--behind-proxy",)).start()
    yield studio
    studio.kill()


def attempt(studio, name: str, password: str, forwarded: str, headers=None) -> int:
    told = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"} | (headers or {})
    return httpx.post(studio.url + "/login", data={"username": name, "password": password}, headers=told, timeout=60).status_code


@pytest.mark.fault("T84")
@pytest.mark.parametrize("made_up", ["203.0.113.{}, 198.51.100.7", "203.0.113.{}, 10.0.0.{}, 198.51.100.7, 10.16.3.80", "10.1.1.{}, 198.51.100.7, 10.16.3.80"])
def test_on_a_space_a_made_up_first_address_is_no_new_one(space, made_up, tries):
    """The Hub's outermost proxy appends what it sees, 198.51.100.7; proxies behind it have private addresses."""
    where = made_up.count(",")  # each case from an address of its own
    seen = f"198.51.10{where}.7"
    guesses = [made_up.replace("{}", str(place)).replace("198.51.100.7", seen) for place in range(60)]
    answers = [attempt(space, f"owner{where}", f"guess {place}", forwarded, AS_A_SPACE) for place, forwarded in enumerate(guesses)]
    tries(len(answers))
    assert answers.count(401) == WRONG_EACH and answers[WRONG_EACH:] == [429] * (60 - WRONG_EACH)


@pytest.mark.fault("T84")
def test_behind_a_proxy_the_right_password_is_not_found_after_sixty_tries(behind, tries):
    answers = [attempt(behind, "carl", f"guess {place}", f"203.0.113.{place}, 192.168.7.7") for place in range(60)]
    answers.append(attempt(behind, "carl", PASSWORD("carl"), "203.0.113.99, 192.168.7.7"))
    tries(len(answers))
    assert answers[:WRONG_EACH] == [401] * WRONG_EACH and set(answers[WRONG_EACH:]) == {429}
    assert attempt(behind, "carl", PASSWORD("carl"), "192.168.7.8") == 200, "Carl himself, elsewhere, is not kept out."


@pytest.mark.fault("T84")
def test_thirty_right_sign_ins_from_one_office_do_not_lock_it_out(behind, tries):
    """Sixteen one after the other, then twenty at once: more than the wrong ones that an address has."""
    assert [attempt(behind, ("anna", "bert")[place % 2], PASSWORD(("anna", "bert")[place % 2]), "192.168.9.9") for place in range(16)] == [200] * 16
    answers = []
    people = [threading.Thread(target=lambda: answers.append(attempt(behind, "anna", PASSWORD("anna"), "192.168.9.9"))) for _ in range(20)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    tries(36)
    assert answers == [200] * 20


@pytest.mark.fault("T84")
def test_many_names_from_one_address_are_stopped_and_who_was_right_there_still_comes_in(behind, tries):
    assert attempt(behind, "anna", PASSWORD("anna"), "192.168.5.5") == 200
    answers = [attempt(behind, f"name{place}", "password", "192.168.5.5") for place in range(WRONG_FROM_ONE_ADDRESS + 10)]
    tries(len(answers))
    assert answers.count(401) == WRONG_FROM_ONE_ADDRESS and answers[-1] == 429
    assert attempt(behind, "anna", PASSWORD("anna"), "192.168.5.5") == 200 and attempt(behind, "bert", PASSWORD("bert"), "192.168.5.6") == 200


def test_a_proxy_that_the_studio_was_not_told_of_is_named(tmp_path):
    Users(tmp_path).add("anna", PASSWORD("anna"))
    studio = StudioProcess(tmp_path, arguments=("--proxy", "192.0.2.0/24")).start()
    try:
        answer = httpx.get(studio.url + "/login", headers={"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"})
        assert answer.status_code == 403 and "--proxy 127.0.0.1" in answer.text
    finally:
        studio.kill()


@pytest.mark.fault("T83")
def test_of_many_sign_ins_at_once_few_are_checked_and_somebody_elsewhere_is_next(tmp_path):
    at_work, most, order = [], [], []

    class Slow(Users):
        def check(self, name, password):
            at_work.append(name)
            most.append(len(at_work))
            time.sleep(0.01)
            at_work.remove(name)
            order.append(name)
            return Visitor(name)

    async def all_of_them():
        attempts = Attempts(Slow(tmp_path))
        crowd = [asyncio.create_task(attempts.check(f"name{place}", "x", "192.0.2.1")) for place in range(240)]
        await asyncio.sleep(0)
        await attempts.check("anna", "x", "192.0.2.2")
        return await asyncio.gather(*crowd, return_exceptions=True)

    answers = asyncio.run(all_of_them())
    turned_away = [answer for answer in answers if isinstance(answer, Refused)]
    assert max(most) <= AT_ONCE and order.index("anna") <= 2
    assert len(turned_away) == 240 - WAITING_EACH and {answer.status for answer in turned_away} == {503}


def test_an_address_of_ipv6_is_its_network_s():
    assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("192.0.2.2")


def test_a_window_forgets_by_a_clock_that_nobody_sets(monkeypatch):
    window, now = Window(2, 10), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert [window.add("a"), window.add("a"), window.add("a"), window.add("b")] == [True, True, False, True]
    monkeypatch.setattr(time, "time", lambda: 0.0)
    now[0] += 11
    assert window.add("a") and not window.is_full("a")


# --- out --------------------------------------------------------------------------------------------------------------


def test_a_copied_pass_is_worth_nothing_after_sign_out_also_in_a_restarted_studio(behind):
    told = {"X-Forwarded-For": "192.168.3.3", "X-Forwarded-Proto": "https"}
    browser = Browser(behind.url, told)
    cookie = browser.http.post("/login", data={"username": "bert", "password": PASSWORD("bert")}).headers["set-cookie"].split(";")[0]
    other = browser.http.post("/login", data={"username": "bert", "password": PASSWORD("bert")}).headers["set-cookie"].split(";")[0]

    def status(copied: str) -> int:
        return httpx.get(behind.url + "/config", headers=told | {"Cookie": copied}).status_code

    assert status(cookie) == status(other) == 200
    assert httpx.post(behind.url + "/logout", headers=told | {"Cookie": cookie}).status_code == 303
    assert status(cookie) == 401 and status(other) == 200, "Another browser of the same person stays in."
    behind.kill()
    behind.start()
    assert status(cookie) == 401 and status(other) == 200


def test_a_pass_that_has_ended_is_known_to_every_studio_on_the_folder(tmp_path):
    users = Users(tmp_path)
    users.add("anna", PASSWORD("anna"))
    one, other = Passes(tmp_path, users, named=True), Passes(tmp_path, users, named=True)
    given = one.issue(Visitor("anna"))
    assert other.read(given)
    other.end(given)
    other.end("no pass")
    assert one.read(given) is other.read(given) is None
    opened = Passes(tmp_path, users, named=False)
    mine = opened.issue(LOCAL)
    opened.end(mine)
    assert opened.read(mine) is None and opened.read(opened.issue(LOCAL)) == LOCAL


@pytest.mark.parametrize("back", [3600, 86400 * 400])
def test_a_clock_set_back_signs_nobody_out(tmp_path, monkeypatch, back):
    users = Users(tmp_path)
    users.add("anna", PASSWORD("anna"))
    passes = Passes(tmp_path, users, named=True)
    given, now = passes.issue(Visitor("anna")), time.time()
    monkeypatch.setattr(time, "time", lambda: now - back)
    assert passes.read(given) == Visitor("anna")
    monkeypatch.setattr(time, "time", lambda: now + 31 * 86400)
    assert passes.read(given) is None, "It is good for thirty days all the same."


@pytest.mark.parametrize("key", ["x", "secret", "aaaaaaaaaaaaaaaaaaaaaaaa"])
def test_a_key_that_can_be_guessed_is_refused_at_the_start(tmp_path, key):
    refused = subprocess.run([sys.executable, "app.py", "--runs", str(tmp_path), "--port", "1"], cwd=PROJECT, capture_output=True, text=True, timeout=60,
                             env=os.environ | {"ORPO_STUDIO_KEY": key})
    assert refused.returncode != 0 and "can be guessed" in refused.stderr and "Traceback" not in refused.stderr and key not in refused.stdout
