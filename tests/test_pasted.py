"""A token pasted where none belongs is refused under its field and stands in no file, and in no address that is sent to the Hub."""

import random
import string

import pytest

from studio import about, adoption, collected, pasted, questions, runs, votes
from studio.candidates import BASE, Candidate
from studio.catalogue import Catalogue
from studio.errors import SettingsError, StudioError
from studio.export import ExportRequest
from studio.gguf_file import GGUFRequest
from studio.preferences.pairs import Pair
from studio.section import Section
from studio.settings import Settings, choices
from studio.share import PushRequest
from tests.jobs_at_work import practice

LETTERS = string.ascii_letters + string.digits


DRAW = random.Random(7)
"""Begun alike in each process: tests are named by what they try, and two processes must find the same ones."""


def drawn(length: int) -> str:
    return "".join(DRAW.choices(LETTERS, k=length))


TOKENS = ["hf_" + drawn(34), "hf_" + drawn(34).lower(), f"owner/hf_{drawn(34)}", f"hf_{drawn(34)}/name", "github_pat_" + drawn(40), "ghp_" + drawn(36),
          "sk-" + drawn(40), "wandb_v1_" + drawn(60), "AKIA" + "ABCDEFGH12345678"]
TEXT_FIELDS = [choice.name for choice in choices() if choice.kind is str and not choice.options]


@pytest.mark.fault("T92")
@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_every_text_field_of_the_form_refuses_a_token_under_itself(field):
    assert len(TEXT_FIELDS) > 10
    for token in TOKENS:
        with pytest.raises(SettingsError) as refused:
            practice(**{field: token})
        assert set(refused.value.problems) == {field} and "token" in refused.value.problems[field]
        assert token not in str(refused.value)


@pytest.mark.fault("T92")
@pytest.mark.parametrize("request_of", [PushRequest, lambda repo: ExportRequest(to="hub", repo=repo)])
@pytest.mark.parametrize("token", [*TOKENS, DRAW.randbytes(20).hex()])
def test_a_repository_to_push_to_is_no_token(request_of, token):
    """It would become the name of a repository that everybody sees."""
    with pytest.raises(SettingsError) as refused:
        request_of(repo=token)
    assert set(refused.value.problems) == {"repo"} and "looks like a token or key" in refused.value.problems["repo"]
    assert token not in str(refused.value)


def test_whatever_is_declared_as_a_choice_is_looked_at():
    """A new request cannot forget it."""
    for kind in (PushRequest, ExportRequest, GGUFRequest, Settings):
        assert issubclass(kind, Section) and "_holds_no_token" in kind.__pydantic_decorators__.field_validators


@pytest.mark.fault("T92")
def test_nothing_else_that_is_kept_takes_one(tmp_path):
    run, token = runs.create(tmp_path, practice()), TOKENS[0]
    turn = {"role": "user", "content": "a question"}
    pair = Pair([turn], [{"role": "assistant", "content": f"use {token}"}], [{"role": "assistant", "content": "no"}])
    for keep in (lambda: about.write(run, token, ""), lambda: about.write(run, "", f"the key is {token}."), lambda: questions.keep(tmp_path, token),
                 lambda: questions.keep(tmp_path, "a question", f"You know {token}"), lambda: collected.add(tmp_path, pair, run.name),
                 lambda: votes.add(run, (BASE, Candidate(run.name, 4)), 1, token)):
        with pytest.raises(StudioError, match="looks like a token or key"):
            keep()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


@pytest.mark.fault("T92")
def test_one_is_not_sent_to_the_hub_as_a_name(this_hub):
    for token in TOKENS:
        assert Catalogue().like(token) == []
        with pytest.raises(StudioError, match="token"):
            adoption.found(token)
    assert not this_hub.requests


@pytest.mark.parametrize("text", ["HuggingFaceTB/SmolLM2-135M", "hf_hub/models", "What is a hf_token?", "sk-learn/iris", "owner/token-of-love", "How do I keep "
                                  "my password safe?", "eyJ", "a" * 40, "mlabonne/orpo-dpo-mix-40k", "task-1234567890-abcdefghijkl"])
def test_a_name_or_question_that_only_speaks_of_tokens_is_taken(text):
    assert not pasted.is_token(text)


def test_a_commit_is_a_revision_and_no_key():
    commit = DRAW.randbytes(20).hex()
    assert practice(**{"model.revision": commit, "data.revision": commit}).model.revision == commit
