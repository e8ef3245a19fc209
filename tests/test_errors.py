"""Known failures of the libraries become two sentences; tokens are blotted out."""

import errno
from types import SimpleNamespace

import pytest

from studio.errors import KNOWN, DataError, explain, redact


class GatedRepoError(Exception):
    """Named as the Hub client's."""


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class HfHubHTTPError(Exception):
    """Named as the Hub client's, with its answer's status."""

    def __init__(self, status: int, text: str):
        self.response = SimpleNamespace(status_code=status)
        super().__init__(text)


def test_a_gated_model_is_told_where_to_ask_for_access():
    told = explain(GatedRepoError("403"), "meta-llama/Meta-Llama-3-8B")
    assert "huggingface.co/meta-llama/Meta-Llama-3-8B" in told and "Request access" in told


def test_the_telling_error_behind_a_wrapper_is_found():
    try:
        try:
            raise OutOfMemoryError("CUDA out of memory")
        except OutOfMemoryError as inner:
            raise RuntimeError("while training") from inner
    except RuntimeError as error:
        assert "ran out of memory" in explain(error)


@pytest.mark.parametrize(("status", "words"), [(500, "a problem of its own"), (503, "a problem of its own"),
                                               (429, "limiting requests"), (401, "did not accept the token")])
@pytest.mark.fault("T40")
def test_an_answer_of_the_hub_is_known_by_its_status_and_not_by_digits_in_its_address(status, words):
    told = explain(HfHubHTTPError(status, "for url http://127.0.0.1:42950/api (Request ID: Root=1-401-403-402-500)"))
    assert words in told


def test_our_own_errors_speak_for_themselves():
    assert explain(DataError("It is empty. Choose another.")) == "It is empty. Choose another."


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_a_full_disk(number):
    assert explain(OSError(number, "x")).startswith("The disk is full.")


def test_an_unknown_error_is_named_and_points_to_the_log():
    assert explain(ZeroDivisionError("division by zero")) == "ZeroDivisionError: division by zero. The full story is in the worker's log."


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.exception}-{known.fragment}")
@pytest.mark.fault("T75")
def test_every_known_failure_says_what_happened_and_what_to_do(known):
    words = known.words.format(repo="owner/name")
    assert words.count(". ") >= 1 and words.endswith(".")
    assert "please" not in words.lower() and "invalid" not in words.lower()


@pytest.mark.parametrize("text", ["hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "Authorization: Bearer abcdef0123456789",
                                  "url?token=hf_abcdefghijklmnop&x"])
@pytest.mark.fault("T65")
def test_tokens_are_blotted_out(text):
    assert "[token]" in redact(text) and "abcdef" not in redact(text)


@pytest.mark.parametrize("text", ["pad_token", "token count 34", "hf_hub_download failed"])
@pytest.mark.fault("T65")
def test_words_about_tokens_stay(text):
    assert redact(text) == text
