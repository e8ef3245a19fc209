"""What one user fetched from the Hub lies in this machine's cache; another user gets it only with a right of their own."""

import json
import subprocess
import sys

import pytest

from studio import credentials, hub_access
from studio.errors import StudioError
from studio.jobs import PROJECT
from studio.practice import MODEL
from studio.settings import ModelSettings
from studio.shape import LARGEST_CONFIG, Shapes
from tests.hub_server import Hub

FETCH = """
import json, sys
from studio.engine import snapshot, sources
from studio.preferences.mix import Part
from studio.settings import ModelSettings
asked, answers = json.load(sys.stdin), {}
for what, repo, token in asked:
    try:
        if what == "model":
            answers[what + " " + repo] = str(snapshot.of(ModelSettings(name=repo), token) / "config.json")
        else:
            answers[what + " " + repo] = [line.values["prompt"] for line in sources.opened(Part(repo), token).lines]
    except Exception as error:
        answers[what + " " + repo] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    pairs = tmp_path_factory.mktemp("pairs")
    (pairs / "train.jsonl").write_text(json.dumps({"prompt": "a secret", "chosen": "b", "rejected": "c"}) + "\n", encoding="utf-8")
    with Hub() as hub:
        for name, closed in (("private", {"private": True}), ("gated", {"gated": True}), ("open", {})):
            hub.add_model(f"ada/{name}", MODEL, **closed)
            hub.add_dataset(f"ada/{name}-pairs", pairs, **closed)
        yield hub


@pytest.fixture(scope="module")
def fetched(hub, tmp_path_factory):
    """Fetches as a user's worker would: by name of the user, token and address of the Hub; all have one cache."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def fetch(owner: str, token: str | None, repos: tuple[str, ...] = ("private", "gated", "open"), url: str = hub.url) -> dict:
        asked = [[what, f"ada/{repo}{'-pairs' * (what == 'data')}", token] for repo in repos for what in ("model", "data")]
        done = subprocess.run([sys.executable, "-c", FETCH], input=json.dumps(asked), cwd=PROJECT, capture_output=True, text=True, timeout=200,
                              env=credentials.environment(owner) | {"HF_ENDPOINT": url, "HF_HOME": cache, "HF_HUB_DISABLE_XET": "1"})
        assert done.stdout, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    fetch.token = hub.add_user("ada")
    first = fetch("anna", fetch.token)
    assert all(isinstance(answer, list) or answer.endswith("config.json") for answer in first.values()), first
    return fetch


@pytest.mark.fault("T81")
def test_what_a_user_fetched_with_their_token_is_not_handed_to_another_without_one(hub, fetched):
    answers = fetched("bert", None)
    assert all("StudioError" in answers[f"model ada/{name}"] for name in ("private", "gated")), answers
    assert all("StudioError" in answers[f"data ada/{name}-pairs"] for name in ("private", "gated")), answers
    assert answers["model ada/open"].endswith("config.json") and answers["data ada/open-pairs"] == ["a secret"], "What is public stays open."


@pytest.mark.fault("T81")
def test_another_s_token_and_one_that_has_expired_open_nothing_more(hub, fetched):
    for token in (hub.add_user("bert"), "hf_" + "x" * 34):
        answers = fetched("bert", token, ("private", "open"))
        assert "StudioError" in answers["model ada/private"] and "StudioError" in answers["data ada/private-pairs"], answers
        assert answers["model ada/open"].endswith("config.json"), answers


@pytest.mark.fault("T81")
def test_without_the_hub_the_person_at_this_machine_uses_the_cache_and_a_user_is_told_why_not(fetched):
    nowhere = "http://127.0.0.1:9"
    assert fetched("", None, ("private",), nowhere)["model ada/private"].endswith("config.json")
    assert "cannot be asked now whether ada/private is open to you" in fetched("anna", fetched.token, ("private",), nowhere)["model ada/private"]


@pytest.mark.parametrize(("repo", "told"), [("ada/private", "not found"), ("ada/gated", "gated"), ("ada/missing", "not found")])
def test_a_refusal_says_what_to_do(this_hub, repo, told):
    this_hub.add_model("ada/private", MODEL, private=True)
    this_hub.add_model("ada/gated", MODEL, gated=True)
    with pytest.raises(StudioError, match=told):
        hub_access.refuse_without(repo, "model")
    with pytest.raises(StudioError, match=told):
        Shapes(from_cache=False).find(ModelSettings(name=repo))


def test_a_config_that_is_none_is_not_fetched_while_its_name_is_typed(this_hub, tmp_path):
    (tmp_path / "config.json").write_bytes(b" " * (LARGEST_CONFIG + 1))
    this_hub.add_model("eve/huge", tmp_path)
    for from_cache in (True, False):  # the person at this machine, and a user
        with pytest.raises(StudioError, match="config.json of eve/huge has 10 MB, which no model's has"):
            Shapes(from_cache).find(ModelSettings(name="eve/huge"))
    assert not [path for method, path in this_hub.requests if method == "GET" and "eve/huge/resolve" in path]
