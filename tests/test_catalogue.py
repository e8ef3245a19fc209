"""Datasets are looked up on the Hub while a person types; a Hub that is slow or away does not hold the typing up."""

import socket
import time

import pytest

from studio.catalogue import Catalogue, is_a_name


@pytest.fixture
def hub(hub, monkeypatch):
    """The client reads the endpoint when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    return hub


def asked(hub) -> int:
    return sum(path == "/api/datasets" for _, path in hub.requests)


def test_datasets_whose_names_match_are_found_and_asked_for_once(hub):
    for name in ("ada/orpo-pairs", "ada/other", "grace/orpo-mix"):
        hub.add(name, "dataset")
    catalogue = Catalogue()
    assert [name for name, _ in catalogue.like(" orpo ")] == ["ada/orpo-pairs", "grace/orpo-mix"]
    catalogue.like("orpo")
    assert asked(hub) == 1 and catalogue.like("nobody has this") == []


def test_private_datasets_are_found_with_their_owner_s_token_only_and_not_remembered(hub):
    token = hub.add_user("ada")
    hub.add("ada/secret-pairs", "dataset", private=True)
    catalogue = Catalogue()
    assert catalogue.like("secret") == []
    assert [name for name, _ in catalogue.like("secret", token)] == ["ada/secret-pairs"]
    assert catalogue.like("secret") == []


@pytest.mark.parametrize("text", ["", "ab", "/home/ada/pairs", "./pairs", "~/pairs", "my pairs.jsonl", "C.CSV", "\\\\share\\x"])
def test_a_path_is_not_looked_up(text):
    assert not is_a_name(text)


def test_a_hub_that_fails_is_left_alone_for_a_while(hub):
    hub.fail_next("search", 500, times=50)
    catalogue = Catalogue()
    assert catalogue.like("orpo") == []
    before = asked(hub)
    assert before > 0 and catalogue.like("orpo-other") == [] and asked(hub) == before


def test_a_hub_that_does_not_answer_costs_a_few_seconds_once(monkeypatch):
    with socket.socket() as deaf:  # takes the connection and says nothing
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setattr("studio.catalogue.SECONDS", 0.3)
        catalogue, began = Catalogue(), time.monotonic()
        assert catalogue.like("orpo") == [] and catalogue.like("orpo2") == [] and time.monotonic() - began < 3
