"""Small files as people have them, each with its right outcome: read as a run would read it, or examined as the page would."""

from pathlib import Path

import pytest

from studio.engine import data
from studio.errors import DataError
from studio.preferences import doctor
from studio.settings import DataSettings

CASES = Path(__file__).parent / "cases"
TALKS = [("How do I prune a rose bush?", "Cut out the dead wood first, then shape it in late winter.", "Just cut it all."),
         ("What is a leap year?", "A year of 366 days, with the 29th of February added.", "A year that leaps."),
         ("Name a river in Spain.", "The Ebro runs through Spain.", "The Danube."),
         ("How long do I boil an egg?", "Eight minutes for a firm yolk.", "Until it is done.")]


def stream_of(name, **settings):
    return data.Stream(DataSettings(source=str(CASES / name), **settings))


def said(seen):
    return tuple(seen.pair.__getattribute__(part)[-1]["content"] for part in ("prompt", "chosen", "rejected"))


FOUR = ["openai_preference.jsonl", "llamafactory_v1.jsonl", "json_in_cells.csv", "swift_messages.jsonl", "nameless_index.csv", "lists_by_column.json",
        "saved_to_disk", "saved_to_disk/data-00000-of-00001.arrow", "marks_system_user.jsonl", "marks_end.jsonl", "readme_sheet_first.xlsx",
        "header_in_plain_words.xlsx"]


@pytest.mark.parametrize("name", FOUR)
def test_the_four_pairs_come_out_of_every_file(name):
    stream = stream_of(name)
    assert [said(seen) for seen in stream] == TALKS
    assert stream.account.in_words() == "All 4 rows are usable pairs."


@pytest.mark.parametrize(("name", "system"), [("openai_preference.jsonl", "You help in a garden shop."), ("swift_messages.jsonl", "Be kind."),
                                              ("marks_system_user.jsonl", "You are fair.")])
def test_the_system_turn_comes_with_them(name, system):
    assert {seen.pair.prompt[0]["content"] for seen in stream_of(name)} == {system}


@pytest.mark.parametrize("name", ["votes_beside_model_names.jsonl", "votes_by_aspect.jsonl"])
def test_a_vote_makes_pairs_of_the_answers_and_never_of_names(name):
    stream = stream_of(name)
    found = [said(seen) for seen in stream]
    one, two, _, four = TALKS
    assert found == [one, (two[0], two[2], two[1]), four]
    assert stream.account.in_words() == "3 of 4 rows are usable pairs. Left out: 1 has a tie, or no vote for one of the two answers (row 3)."


def test_the_vote_of_another_aspect_can_be_named():
    with pytest.raises(DataError, match="“tone_explanation” is named as the vote between “output_a” and “output_b”, but what it holds"):
        stream_of("votes_by_aspect.jsonl", vote_column="tone_explanation")
    stream = stream_of("votes_by_aspect.jsonl", vote_column="overall_quality_preference", chosen_column="output_b", rejected_column="output_a")
    assert "the answers from “output_b” and “output_a”" in stream.in_words()


def test_each_worse_answer_is_a_pair_of_its_own_and_this_is_said():
    stream = stream_of("several_rejected.jsonl")
    found = [said(seen) for seen in stream]
    assert found == [(*talk[:2], worse) for talk in TALKS for worse in (talk[2], "I do not know.", "?")]
    assert stream.account.in_words() == "4 rows hold 12 pairs, as each worse answer of a row makes a pair of its own; all are usable."
    assert "Each worse answer of a row makes a pair of its own." in stream.in_words()


def test_earlier_turns_stand_before_the_question_so_that_the_pairs_are_no_repeats():
    found = list(stream_of("history_column.jsonl"))
    assert [[turn["content"] for turn in seen.pair.prompt] for seen in found] == [[asked, answered, "And what comes next?"] for asked, answered, _ in TALKS]
    assert not {"duplicates", "near-duplicates", "repeated-questions"} & {finding.name for finding in doctor.examine(found)}


def test_words_for_nothing_are_found_in_their_rows():
    found = {finding.name: finding for finding in doctor.examine(stream_of("missing_as_words.csv"))}
    assert found["missing-words"].rows == (6, 7) and found["missing-words"].weight == "warn"  # the lines of the file: row 8 is an answer


def test_what_is_not_used_or_chosen_is_said():
    assert "Column 1 has no name in the header and is not used." in stream_of("nameless_index.csv").in_words()
    assert "“Pairs” is read, not “Read me”. To read another, enter its name as the subset." in stream_of("readme_sheet_first.xlsx").in_words()
    with pytest.raises(DataError, match="No column for chosen and rejected was recognised; the columns are Preference pairs"):
        stream_of("readme_sheet_first.xlsx", subset="read me")
    with pytest.raises(DataError, match="has no sheet “Third” with content; there are “Read me”, “Pairs”"):
        stream_of("readme_sheet_first.xlsx", subset="Third")
    assert "“chosen”, “rejected” hold lists or turns that were written as text" in stream_of("json_in_cells.csv").in_words()
