"""Single pairs: any of them by number or by its words, as bubbles, as the model reads it, and with another text if need be."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from studio import differences, preview, runs
from studio.errors import SettingsError, StudioError
from studio.settings import Settings
from studio.shelf import Shelf
from studio.ui import doctor_card, examined, form, parts
from studio.ui.doctor_card import Doctor
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse

LINE_END = re.compile(r"(\r\n|\r|\n)")
COMPARED = 2000
"""Lines of a text before and after that are compared, to find those that are as they were."""
Texts = tuple[str, str, str]
"""The last turns of question, better and worse answer."""


def looked_up(folder: Path, number: int | None, search: str = "", after: int = -1) -> tuple[int, str]:
    """The place of the wanted pair and the pair as HTML: by its row's number, or the next one that holds the words."""
    shelf = Shelf(folder)
    if not len(shelf):
        return -1, ""
    place = shelf.search(search.strip(), after) if search.strip() else shelf.place_of(int(number or 0))
    if place is None:
        words = f"No pair holds “{search.strip()}”." if search.strip() else (
            f"Row {int(number or 0):,} is no pair, or not among those that can be looked at. The rows go from "
            f"{shelf.numbers[0]:,} to {shelf.numbers[-1]:,}.")
        return after, parts.note("info", words)
    return place, examined.numbered_pair(shelf[place])


def beside(folder: Path, place: int, step: int) -> int:
    """The number of the row that stands so many places further; at the ends it stays."""
    numbers = Shelf(folder).numbers
    return numbers[min(max(0, place + step), len(numbers) - 1)]


def texts_of(folder: Path, place: int) -> Texts:
    """What can be rewritten of the pair at a place; empty texts where there is none."""
    shelf = Shelf(folder)
    if not 0 <= place < len(shelf):
        return "", "", ""
    pair = shelf[place]
    return tuple(pair[part][-1]["content"] for part in ("prompt", "chosen", "rejected"))


def rewriting(folder: Path, place: int, texts: Texts) -> str:
    """The edit that gives the pair these texts, or nothing if they are what it says. Raises StudioError for an empty one."""
    before = texts_of(folder, place)
    if not any(before):
        return ""
    texts = tuple(with_line_ends_of(was, text) for text, was in zip(texts, before, strict=True))
    if not all(text.strip() for text in texts):
        raise StudioError("One of the texts is empty. Write one, or drop the pair.")
    if texts[1].strip() == texts[2].strip():
        raise StudioError("Both answers are the same, and nothing can be learned from them. Let them differ, or drop the pair.")
    changed = {part: text for part, text, was in zip(("prompt", "chosen", "rejected"), texts, before, strict=True) if text != was}
    return f"rewrite {Shelf(folder).numbers[place]} {json.dumps(changed, ensure_ascii=False)}" if changed else ""


def with_line_ends_of(was: str, text: str) -> str:
    """A text that came back from a text field, with the line ends that it had: a browser makes all of them line feeds.

    Lines that are as they were end as they did; new ones end as most did.
    """
    pieces = LINE_END.split(was)
    before, ends_before, lines = pieces[0::2], pieces[1::2], LINE_END.split(text)[0::2]
    if "\r" not in was or before == lines:
        return was if before == lines else text
    ends = [Counter(ends_before).most_common(1)[0][0]] * (len(lines) - 1)
    for was_at, at, size in differences.same(before, lines) if len(before) + len(lines) <= COMPARED else ():
        for step in range(min(size, len(ends_before) - was_at, len(ends) - at)):
            ends[at + step] = ends_before[was_at + step]
    return "".join(line + end for line, end in zip(lines, [*ends, ""], strict=True))


def as_read(settings: Settings, folder: Path, place: int, token: str) -> Iterator[tuple[str, bool]]:
    """(HTML, whether more follows): a progress bar until the tokens are there, then the pair token by token or an error."""
    shelf = Shelf(folder)
    if not 0 <= place < len(shelf):
        yield parts.note("info", "Choose a row first: enter its number, or find it by its words."), False
        return
    try:
        for tokens in preview.look(settings, shelf[place], token or None, runs.owner_of_job(folder)):
            yield (parts.progress(None, None, "Making the tokens …"), True) if tokens is None else (examined.as_read(tokens), False)
    except StudioError as error:
        yield parts.note("bad", str(error)), False


def build(studio: Studio, doctor: Doctor, everything: form.Fields, token: gr.Textbox) -> None:
    """The components and their wiring."""
    with gr.Column(visible=False, elem_classes="browser", elem_id="browser") as browser:
        with gr.Row():
            number = gr.Number(label="Row", precision=0, value=1, minimum=0, info="Press Enter to see that row.", elem_id="pair-row")
            search = gr.Textbox(label="Find", info="Press Enter for the next pair that holds these words.", elem_id="pair-search")
        pair = gr.HTML(elem_id="pair", padding=False)
        with gr.Row():
            back = gr.Button("Previous pair", size="sm", elem_id="pair-before")
            forth = gr.Button("Next pair", size="sm", elem_id="pair-after")
            swap = gr.Button("Swap its answers", size="sm", elem_id="swap-pair")
            drop = gr.Button("Drop it", size="sm", elem_id="drop-pair")
            read = gr.Button("Show it as the model reads it", size="sm", elem_id="as-read")
            leave = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel-tokens")
        tokens = gr.HTML(elem_id="pair-tokens", padding=False)
        with gr.Accordion("Change its words", open=False, elem_id="rewrite"):
            asked = gr.Textbox(label="Question (its last turn)", lines=2, elem_id="rewrite-prompt")
            with gr.Row():
                better = gr.Textbox(label="Better answer", lines=4, elem_id="rewrite-chosen")
                worse = gr.Textbox(label="Worse answer", lines=4, elem_id="rewrite-rejected")
            save = gr.Button("Save the change", size="sm", elem_id="save-rewrite")
    place, folder, arrived = gr.State(-1), doctor.folder, gr.State("")
    shown, texts = [number, place, pair], [asked, better, worse]

    def arrive(folder: str, before: str, number: int | None) -> list[Any]:
        if folder == before:
            return [gr.skip()] * 8
        if not folder:
            return [folder, gr.Column(visible=False), *[gr.skip()] * 6]
        shelf = Shelf(Path(folder))
        if number is None or shelf.place_of(int(number)) is None:  # the row in view may be gone: the nearest takes its place
            number = min(shelf.numbers, key=lambda other: abs(other - int(number or 0)), default=None)
        return [folder, gr.Column(visible=len(shelf) > 0), *look(folder, number)]

    def look(folder: str, number: int | None) -> list[Any]:
        found, html = looked_up(Path(folder), number)
        return [number, found, html, *texts_of(Path(folder), found)]

    def find(folder: str, search: str, place: int) -> list[Any]:
        found, html = looked_up(Path(folder), None, search, place)
        numbers = Shelf(Path(folder)).numbers
        return [numbers[found] if 0 <= found < len(numbers) else gr.skip(), found, html, *texts_of(Path(folder), found)]

    def move(folder: str, place: int, step: int) -> list[Any]:
        return look(folder, beside(Path(folder), place, step))

    def read_it(folder: str, token: str, place: int, **values: Any) -> Iterator[tuple[str, gr.Button]]:
        try:
            settings = doctor_card.settings_of(studio, values)
        except SettingsError as error:
            yield parts.note("bad", form.in_words(error.problems)), gr.Button(visible=False)
            return
        for html, waits in as_read(settings, Path(folder), place, token):
            yield html, gr.Button(visible=waits)

    def rewrite(folder: str, place: int, *texts: str) -> str:
        try:
            return rewriting(Path(folder), place, texts)
        except StudioError as error:
            refuse("Not changed", error)
            return ""

    def of_this(verb: str) -> Any:
        return lambda folder, place: f"{verb} {Shelf(Path(folder)).numbers[place]}" if place >= 0 else ""

    doctor.follow(arrive, [folder, arrived, number], [arrived, browser, *shown, *texts])
    number.submit(look, [folder, number], [*shown, *texts], trigger_mode="always_last", **PRIVATE)
    search.submit(find, [folder, search, place], [*shown, *texts], trigger_mode="always_last", **PRIVATE)
    back.click(lambda folder, place: move(folder, place, -1), [folder, place], [*shown, *texts], **PRIVATE)
    forth.click(lambda folder, place: move(folder, place, 1), [folder, place], [*shown, *texts], **PRIVATE)
    reading = read.click(read_it, [folder, token, place], [tokens, leave], inputs_kwargs=everything, **PRIVATE)
    gr.on([leave.click, pair.change], lambda: ("", gr.Button(visible=False)), None, [tokens, leave], cancels=[reading], **QUIET)
    doctor.edit(swap.click, of_this("swap"), [folder, place])
    doctor.edit(drop.click, of_this("drop"), [folder, place])
    doctor.edit(save.click, rewrite, [folder, place, *texts])
