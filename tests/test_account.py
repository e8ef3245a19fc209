"""A Hub token as it is entered: what can be none is refused as what it is, and of the others the Hub says whose they are."""

import pytest

from studio import account, runs
from studio.errors import StudioError
from studio.jobs import Queue
from studio.practice import MODEL
from studio.ui import train_tab
from studio.ui.studio import Studio
from tests.jobs_at_work import practice
from tests.studio_at_work import StudioProcess
from tests.test_downloads import FETCH, fetched, is_whole
from tests.visitors import Visitor

TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
SPOILED = {f"Bearer {TOKEN}": "“Bearer” is not part", f'"{TOKEN}"': "quotation marks", f"'{TOKEN}'": "quotation marks", f"“{TOKEN}”": "quotation marks",
           f"{TOKEN[:9]} {TOKEN[9:]}": "a space or a line break", f"{TOKEN[:9]}\n{TOKEN[9:]}": "a space or a line break",
           f"{TOKEN}\u200b": "U+200B", f"{TOKEN[:9]}\x00{TOKEN[9:]}": "U+0000", "hf_tökén": "U+00F6"}


@pytest.mark.fault("T38")
@pytest.mark.parametrize("text", SPOILED)
def test_what_can_be_no_token_is_refused_as_what_it_is_and_is_not_repeated(text):
    told = account.complaint(text)
    assert SPOILED[text] in told and told.count(". ") == 1 and TOKEN[9:] not in told
    with pytest.raises(StudioError, match="Hub token: "):
        account.entered(text)


@pytest.mark.fault("T38")
@pytest.mark.parametrize("text", [TOKEN, f"  {TOKEN}", f"{TOKEN}\r\n"])
def test_blanks_around_a_token_do_not_matter(text):
    assert account.complaint(text) == "" and account.entered(text) == {"token": TOKEN}


@pytest.mark.parametrize("text", ["", "  ", None])
def test_an_empty_field_is_no_token(text):
    assert account.entered(text) == {} and account.in_words(text) == ("", "")


@pytest.mark.fault("T38")
def test_whose_a_token_is_and_what_it_may_do_is_told(this_hub):
    writes, reads = this_hub.add_user("ada"), this_hub.add_user("bob", role="read")
    assert account.in_words(writes, to_write=True) == ("good", "A token of ada that can write.")
    assert account.in_words(reads) == ("good", "A token of bob that can only read.")
    kind, words = account.in_words(reads, to_write=True)
    assert kind == "warn" and "create one with write access" in words


@pytest.mark.fault("T38", "T42")
def test_a_token_that_has_expired_is_told(this_hub):
    token = this_hub.add_user("ada")
    del this_hub.users[token]
    kind, words = account.in_words(token)
    assert kind == "bad" and "it has expired" in words and "or empty the field" in words


@pytest.mark.fault("T38", "T40")
@pytest.mark.parametrize("how", [429, 500])
def test_a_hub_that_does_not_answer_is_no_fault_of_the_token(this_hub, how):
    this_hub.fail_next("whoami", how)
    kind, words = account.in_words(this_hub.add_user("ada"))
    assert kind == "info" and "The token is tried when it is needed." in words


@pytest.mark.fault("T38")
def test_checkpoints_are_not_to_go_anywhere_with_a_token_that_only_reads(this_hub, tmp_path):
    studio = Studio(tmp_path, Queue(tmp_path))
    settings = practice(**{"training.push_checkpoints_to": "bob/checkpoints"})
    with pytest.raises(StudioError, match="can only read. To push, create one"):
        train_tab.begin(studio, settings, this_hub.add_user("bob", role="read"))
    assert runs.listed(tmp_path) == []


@pytest.mark.fault("T38")
def test_with_a_token_that_is_not_accepted_a_public_model_and_one_that_is_here_load_all_the_same(hub, tmp_path):
    hub.add_model("acme/tiny", MODEL)
    for way in ("fetched", "here"):
        done = fetched(hub, tmp_path / "home", {}, FETCH, TOKEN)
        assert done.returncode == 0, way + done.stderr
        assert is_whole(done.stdout.strip())
    hub.add_model("acme/tiny", MODEL, private=True)
    assert "it is private and no valid token was given" in fetched(hub, tmp_path / "another home", {}, FETCH, TOKEN).stderr


@pytest.mark.slow
@pytest.mark.fault("T38", "T66")
def test_the_page_tells_it_under_the_field_and_never_sends_the_token_back(hub, tmp_path, tries):
    token = hub.add_user("ada")
    studio = StudioProcess(tmp_path / "runs", {"HF_ENDPOINT": hub.url}).start()
    try:
        visitor = Visitor(studio.url, studio.headers)
        events = [event for event in visitor.events if event.name.startswith("try_token")]
        fields = {visitor.components[event.inputs[0]]["props"]["elem_id"] for event in events}
        assert fields == {"data-token", "train-token", "push-token", "adoption-token"}
        for event in events:
            assert "A token of ada that can write." in (told := visitor.call(event, [token])) and token not in told
            assert "quotation marks" in visitor.call(event, [f'"{token}"'])
        tries(2 * len(events))
    finally:
        studio.kill()
