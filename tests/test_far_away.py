"""The studio beyond this machine: on a Space, in a network, behind a proxy."""

import socket

import httpx
import pytest

from studio.access import Users
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor

SPACE = {"SPACE_ID": "anna/studio", "SPACE_HOST": "anna-studio.hf.space"}
FROM_OUTSIDE = {"Host": "anna-studio.hf.space", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7", "Accept": "text/html"}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    studio = StudioProcess(tmp_path_factory.mktemp("space") / "runs", SPACE | {"ORPO_STUDIO_PASSWORD": "password of the owner"}).start()
    yield studio
    studio.kill()


def test_a_space_opens_to_the_password_in_its_secrets(space):
    told = {"username": "owner", "password": "password of the owner"}
    with httpx.Client(base_url=space.url, headers=FROM_OUTSIDE | {"Origin": "https://anna-studio.hf.space"}) as browser:
        arrived = browser.post("/login", data=told)
        assert arrived.status_code == 303
        cookie = arrived.headers["set-cookie"]
        assert all(part in cookie for part in ("Secure", "SameSite=none", "Partitioned", "HttpOnly")), "Else it is lost inside the Hub's page."
        asked = browser.get("/config", headers={"Cookie": cookie.split(";")[0]})
        assert asked.status_code == 200
        assert "frame-ancestors https://huggingface.co" in asked.headers["content-security-policy"]
        assert "x-frame-options" not in asked.headers


@pytest.mark.parametrize("changes", [{"Origin": "http://anna-studio.hf.space"}, {"Origin": "https://huggingface.co"}, {"Host": "evil.example"},
                                     {"Origin": "https://evil-anna-studio.hf.space"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_space_listens_to_its_own_page_only(space, changes):
    answer = httpx.post(space.url + "/login", data={"username": "owner", "password": "password of the owner"}, headers=FROM_OUTSIDE | changes)
    assert answer.status_code in (403, 421) and "set-cookie" not in answer.headers


@pytest.mark.slow
def test_a_restarted_space_with_the_same_password_knows_its_visitors(space):
    told = {"username": "owner", "password": "password of the owner"}
    cookie = httpx.post(space.url + "/login", data=told, headers=FROM_OUTSIDE).headers["set-cookie"].split(";")[0]
    space.kill()
    space.start()
    assert httpx.get(space.url + "/config", headers=FROM_OUTSIDE | {"Cookie": cookie}).status_code == 200


@pytest.mark.slow
def test_a_space_without_a_password_lets_nobody_in_and_says_what_to_do(tmp_path):
    studio = StudioProcess(tmp_path / "runs", SPACE).start()
    try:
        arrived = httpx.get(studio.url, headers=FROM_OUTSIDE, follow_redirects=False)
        assert arrived.status_code == 303
        told = httpx.get(studio.url + "/login", headers=FROM_OUTSIDE)
        assert "ORPO_STUDIO_PASSWORD" in told.text and "<form" not in told.text
        assert httpx.get(studio.url + "/config", headers=FROM_OUTSIDE | studio.headers | {"Accept": "*/*"}).status_code == 401
        assert httpx.post(studio.url + "/login", data={"username": "owner", "password": ""}, headers=FROM_OUTSIDE).status_code == 401
    finally:
        studio.kill()


@pytest.mark.fault("T48")
def test_in_a_network_the_studio_goes_by_the_machine_s_names_and_believes_no_forwarding(tmp_path):
    Users(tmp_path).add("anna", "password of anna")
    studio = StudioProcess(tmp_path, arguments=("--host", "0.0.0.0", "--name", "Studio.Example.org")).start()
    try:
        anna = Visitor(studio.url).sign_in("anna", "password of anna")
        names = {"127.0.0.1": 200, socket.gethostname(): 200, "studio.example.org": 200, "evil.example": 421, "203.0.113.7": 421}
        assert {name: anna.http.get("/config", headers={"Host": f"{name}:{studio.port}"}).status_code for name in names} == names
        forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
        wrong = [httpx.post(studio.url + "/login", data={"username": "anna", "password": "x"}, headers=forwarded | {"X-Forwarded-For": f"203.0.113.{n}"})
                 for n in range(7)]
        assert wrong[-1].status_code == 429, "A new address in a header is no new address."
        assert anna.http.post("/logout", headers=forwarded | {"Origin": f"https://127.0.0.1:{studio.port}"}).status_code == 403
    finally:
        studio.kill()


@pytest.mark.slow
def test_the_studio_listens_on_this_machine_only_unless_told_otherwise(tmp_path):
    studio = StudioProcess(tmp_path / "runs").start()
    try:
        own = [address for *_, (address, *_) in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET) if not address.startswith("127.")]
        for address in own:
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"http://{address}:{studio.port}/login", timeout=5)
    finally:
        studio.kill()


@pytest.mark.fault("T66")
def test_no_field_for_a_secret_is_ever_filled_by_the_studio(space):
    owner = Visitor(space.url, {"Host": "anna-studio.hf.space", "X-Forwarded-Proto": "https"})
    cookie = owner.http.post("/login", data={"username": "owner", "password": "password of the owner"}).headers["set-cookie"]
    owner.http.headers["Cookie"] = cookie.split(";")[0]
    secret = {number for number, component in owner.components.items() if component["props"].get("type") == "password"}
    assert len(secret) >= 3
    assert not any(owner.components[number]["props"].get("value") for number in secret)
    assert not [found["api_name"] for found in owner.config["dependencies"] if secret & set(found["outputs"])]
