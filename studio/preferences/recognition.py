"""The format of rows by what their columns are called and hold: nothing is guessed that decides which answer is better."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from studio.errors import DataError
from studio.preferences import column_names, structure, transcripts, turns
from studio.preferences import tools as tool_lists
from studio.preferences.answers import (
    LISTS,
    Named,
    Ordered,
    Picked,
    Row,
    each,
    first,
    holds_text,
    implied,
    is_text,
    listed,
    named,
    ordered,
    says_something,
)
from studio.preferences.column_names import meaning, means, same, words
from studio.preferences.formats import Asked, Format
from studio.preferences.rated import SINGLES, Labelled, Rated, labelled, picked, rated
from studio.preferences.scored import Scored
from studio.preferences.structure import View, kind_of, mostly, view_of
from studio.preferences.voted import Pointed, Voted, marked, pointed, two_answers, voted

PROMPT_NAMES = ("prompt", "question", "instruction", "input", "query", "conversations", "conversation", "messages", "contents",
                "trajectory", "history", "context", "post")
SYSTEM_NAMES = ("system", "system_prompt", "system_message", "system_instruction")
IMAGE_NAMES = ("image", "images")
Answers = Named | Ordered | Picked | Voted | Scored | Pointed | Rated | Labelled


def recognise(names: Sequence[str], sample: Sequence[Row], asked: Asked = Asked()) -> Format:  # noqa: B008 - it cannot change
    """The format by column names and the values of the first rows, or as asked for.

    Raises DataError naming the columns that are there, what is missing, and what to do.
    """
    looks = [view_of(sample)]
    for look in looks:
        try:
            return _recognised(list(names), sample, asked, look)
        except DataError as error:
            refusal = error
        if look is looks[0] and (whole := view_of(sample, whole=True)) != look:
            with suppress(DataError):
                return _recognised(list(names), sample, asked, whole)
    raise refusal


def _recognised(own: list[str], sample: Sequence[Row], asked: Asked, view: View) -> Format:
    names, rows = _seen(own, sample, view)
    asked = Asked(*(_meant(name, own, names, rows) if name else "" for name in asked))
    if asked.chosen and asked.chosen == asked.rejected:
        raise DataError(f"The column “{asked.chosen}” is named for both answers. Name another for one of them.")
    answers = _answers(names, rows, asked)
    if several := _written_lists(answers, rows, asked):
        view = replace(view, written=view.written | several)
        names, rows = _seen(own, sample, view)
    taken = set(answers.columns().values())
    free = [name for name in names if name not in taken]
    tools = "" if isinstance(answers, Labelled) else tool_lists.column(free, rows)
    free = [name for name in free if name != tools]
    prompt = asked.prompt or _question(rows, free, answers)
    system, images = first(SYSTEM_NAMES, rows, free), first(IMAGE_NAMES, rows, free)
    found = Format(answers, prompt, _extra(prompt, free, rows), system, images, history=_history(prompt, free, rows),
                   tools=tools, insisted=bool(asked.prompt), view=view)
    return _settled(found, own, names, rows)


def _seen(own: list[str], sample: Sequence[Row], view: View) -> tuple[list[str], list[Row]]:
    """Columns and rows as the view shows them."""
    rows = []
    for row in sample:
        with suppress(DataError):
            rows.append(view.of(row))
    names = list(dict.fromkeys(name for row in rows for name in row)) if view.renames else own
    return names, rows


def _meant(name: str, own: list[str], names: list[str], rows: Sequence[Row]) -> str:
    """The column that a person named. Of a struct's name, the field with turns or text in it. Raises DataError if there is none."""
    if name in names:
        return name
    inner = [field for field in names if field.startswith(f"{name}.") and holds_text(field, rows)]
    found = [field for field in inner if any(kind_of(row.get(field)) == "turns" for row in rows)] or inner
    if not found:
        found = [column for column in names if same(column, name)]
    if len(found) != 1:
        raise DataError(f"There is no column “{name}”; the columns are {listed(names if inner else own)}. Name one of these.")
    return found[0]


# --- answers ----------------------------------------------------------------------------------------------------------


def _answers(names: list[str], sample: Sequence[Row], asked: Asked) -> Answers:
    if asked.vote:
        both = (asked.chosen, asked.rejected) if asked.chosen and asked.rejected else None
        found = picked(sample, names, asked.vote) or voted(sample, names, asked.vote, both)
        if found:
            return found
        raise DataError(f"“{asked.vote}” is named as the vote, but no two columns with answers were recognised; "
                        f"the columns are {listed(names)}. Name the two as the chosen and the rejected column under Data.")
    columns = named(sample, names, asked.chosen, asked.rejected)
    both = columns.chosen and columns.rejected
    if not asked.chosen and not asked.rejected:
        by = sample, names, columns.chosen, columns.rejected
        if found := pointed(*by) or marked(*by):
            return found
    if both and (asked.chosen or asked.rejected or (holds_text(columns.chosen, sample) and holds_text(columns.rejected, sample))):
        return columns
    if columns.rejected and not columns.chosen and holds_text(columns.rejected, sample) and (
            better := implied(sample, names, columns.rejected)):
        return Named(better, columns.rejected, implied=True)
    if not asked.chosen and not asked.rejected:
        prompt = first(PROMPT_NAMES, sample, names)
        found = (voted(sample, names) or rated(sample, names) or picked(sample, names) or ordered(sample, names)
                 or labelled(sample, names, prompt))
        if found:
            return found
    if both:
        return columns
    raise DataError(_missing(columns, names, sample))


def _written_lists(answers: Answers, sample: Sequence[Row], asked: Asked) -> frozenset[str]:
    """The columns with answers whose texts are lists of texts: several answers each, or a conversation's turns.

    An answer may be a list in JSON because the question asks for one. It is several answers where only the worse ones are
    lists, or where the question itself is written so.
    """
    columns = [name for role, name in answers.columns().items() if role.split()[0] in ("chosen", "rejected", "one", "other")]
    lists = [name for name in columns if _writes_texts(name, sample)]
    asks = [name for name in sample[0] if name not in columns and _writes_texts(name, sample)] if sample else []
    if asks and len(lists) == len(columns):
        return frozenset((*lists, *asks))
    others = [row.get(name) for name in columns if name not in lists for row in sample]
    alone = 0 < len(lists) < len(columns) and not any(structure.read_back(value) is not None for value in others)
    return frozenset(lists) if alone else frozenset()


def _writes_texts(name: str, sample: Sequence[Row]) -> bool:
    values = [row[name] for row in sample if row.get(name) not in (None, "")]
    return bool(values) and mostly(isinstance(value, str) and kind_of(structure.read_back(value)) == "texts" for value in values)


# --- the question and what stands before it ---------------------------------------------------------------------------


def _question(sample: Sequence[Row], free: list[str], answers: Answers) -> str:
    """The column with the question: one of the usual names, one whose name says so, or the only one with texts.

    One that shares a word with the answers' columns goes first: “orig_instruction” beside “orig_response_A”.
    """
    shared = {word for name in answers.columns().values() for word in words(name) if not column_names.meanings(word)}
    usual = [name for want in PROMPT_NAMES for name in free if same(name, want) or ("." in name and same(name.rsplit(".", 1)[1], want))]
    said = [name for name in free if name not in usual and means(name, "question") and not means(name, "about")]
    related = [name for name in said if shared & set(words(name)) - {"a", "b", "0", "1", "2"} and holds_text(name, sample)]
    for names in (related[:1] if len(related) == 1 else [], usual, said):
        if names and (found := max(names, key=lambda name: (holds_text(name, sample), "." not in name or _is_spaced(name, sample)))):
            return found
    return _only_text(sample, free, answers)


def _is_spaced(name: str, sample: Sequence[Row]) -> bool:
    """Whether the values are turns or texts of several words, as questions are and names of data sets are not."""
    def is_so(value: Any) -> bool:
        spaced = isinstance(value, str) and (len(value.split()) > 2 or bool(column_names.WITHOUT_SPACES.search(value)))
        return spaced or kind_of(value) == "turns"

    return mostly(is_so(row[name]) for row in sample if row.get(name) is not None)


def _only_text(sample: Sequence[Row], free: list[str], answers: Answers) -> str:
    """The one column left whose values somebody wrote, each its own, or are turns that end with a question.

    Nothing if there is none or a choice, or the answers tell the question.
    """
    with suppress(StopIteration, DataError):
        if any(turns.is_whole(turns.turns(value, "assistant")) for value in next(_values(answers, sample))):
            return ""

    asks = [name for name in free if mostly(_asks(row[name]) for row in sample if row.get(name) is not None)]
    if len(asks) == 1:
        return asks[0]

    def is_one(name: str) -> bool:
        values = [row[name] for row in sample if isinstance(row.get(name), str) and row[name].strip()]
        spaced = mostly(len(value.split()) > 1 or bool(column_names.WITHOUT_SPACES.search(value)) for value in values)
        return is_text(name, sample) and not means(name, "about") and spaced and len(set(values)) * 2 > len(values)

    found = [name for name in free if is_one(name)]
    return found[0] if len(found) == 1 else ""


def _asks(value: Any) -> bool:
    """Whether a value is turns of which the last is the user's."""
    with suppress(DataError):
        found = turns.turns(value, "assistant") if kind_of(value) == "turns" else []
        return bool(found) and found[-1]["role"] == "user"
    return False


def _extra(prompt: str, free: list[str], sample: Sequence[Row]) -> str:
    """The column “input” beside an instruction, if it holds texts."""
    more = first(("input",), sample, free) if same(prompt, "instruction") else ""
    return more if more and any(isinstance(row.get(more), str) for row in sample) else ""


def _history(prompt: str, free: list[str], sample: Sequence[Row]) -> str:
    """A column with the turns before the question: named so, and a list of turns or of questions with their answers."""
    for name in free:
        if name != prompt and (means(name, "history") or same(name, "context")):
            values = [row[name] for row in sample if row.get(name) not in (None, "", [], "[]")]
            if values and mostly(kind_of(value) in ("turns", "exchanges", "structs", *["texts"] * means(name, "history"))
                                 for value in values):
                return name
    return ""


# --- what only the values tell ----------------------------------------------------------------------------------------


def _settled(found: Format, own: list[str], names: list[str], sample: Sequence[Row]) -> Format:
    """The format with what only the values tell. Raises DataError if they hold no question, or labels that make no pair."""
    couples = list(_values(found.answers, sample))
    values = [value for couple in couples for value in each(couple[0])]
    several = any(len(list(each(answer))) > 1 for couple in couples for answer in couple) or len(couples) > len(sample)
    dialect = next(filter(None, (transcripts.dialect_of([value for value in column if isinstance(value, str)])
                                 for column in ([row.get(found.prompt) for row in sample], values))), "")
    answers = []
    for value in values:
        with suppress(DataError):
            answers.append(turns.turns(value, "assistant", dialect))
    whole = any(turns.is_whole(answer) for answer in answers)
    if not found.prompt and any(len(answer) == 1 for answer in answers) and not whole:
        raise DataError(f"No column with the question was recognised; the columns are {listed(names)}. "
                        "Name the prompt column under Data.")
    used = set(found.columns.values())
    unused = tuple(name for name in (names if found.view.renames else own) if name not in used)
    named_by_us = not found.insisted and found.prompt and not means(found.prompt, "question") and not any(
        same(found.prompt.rsplit(".", 1)[-1], name) for name in PROMPT_NAMES)
    return replace(found, dialect=dialect, whole=whole, unused=unused, proposed=bool(named_by_us), several=several)


def _values(answers: Answers, sample: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """The couples of answers, or the single ones, that the sample holds."""
    for row in sample:
        with suppress(DataError):
            found = answers.of(row)
            yield from found if isinstance(found, list) else [(found[0],)]


def _missing(columns: Named, names: list[str], sample: Sequence[Row]) -> str:
    """Why no two answers were recognised, and what to do."""
    there = f"the columns are {listed(names)}. "
    name_them = "ame the columns with the better and the worse answer under Data."
    missing = " and ".join(role for role, name in columns.columns().items() if not name)
    both, many, single = two_answers(sample, names), first(LISTS, sample, names), first(SINGLES, sample, names)
    if both:
        return (f"“{both[0][0]}” and “{both[0][1]}” hold two answers, but no column says which is better; {there}"
                f"Name the vote column, or n{name_them}")
    if called := next((both for both in column_names.two_of(names) if "model" in words(both[0]) and holds_text(both[0], sample)), None):
        such = next((row[called[0]] for row in sample if isinstance(row.get(called[0]), str)), "")
        return (f"“{called[0]}” and “{called[1]}” hold the names of models (such as “{such[:40]}”) and not what they answered, and no "
                f"other two columns with answers were recognised; {there}N{name_them}")
    if columns.chosen or columns.rejected:
        return f"No column for {missing} was recognised; {there}N{name_them}"
    if many and any(isinstance(row.get(many), list | tuple) for row in sample):
        return f"“{many}” holds several answers, but nothing rates them; {there}Add a list of ratings, or n{name_them}"
    if single and holds_text(single, sample):
        return (f"“{single}” holds single answers, which is data for supervised fine-tuning: there is no worse answer; {there}"
                f"Choose preference data, or n{name_them}")
    texts = [name for name in names if is_text(name, sample) and not means(name, "about") and not meaning(name).better]
    if len(texts) == 3 and says_something(texts[0], sample):
        return (f"No column for {missing} was recognised; {there}“{texts[0]}”, “{texts[1]}” and “{texts[2]}” hold texts, but which of "
                f"them is the better answer is not said. N{name_them}")
    return f"No column for {missing} was recognised; {there}N{name_them}"
