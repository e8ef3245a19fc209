"""A reload finds the form, the edits and the tab again, and says what of an older version's draft could not be kept."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from studio import drafts, fingerprints, presets, source_choices
from studio.errors import StudioError
from studio.settings import Settings
from studio.source_choices import SOURCE, Identity
from studio.ui import form, news, parts, source_card
from studio.ui.mirror import Mirror
from studio.ui.source_card import SourceCard
from studio.ui.studio import QUIET, Studio

PAGE_ID = """(() => {
  const name = "orpo-studio-page";
  try {
    const last = localStorage.getItem(name);
    if (!sessionStorage.getItem(name)) {
      const drawn = crypto.getRandomValues(new Uint8Array(16));
      sessionStorage.setItem(name, Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join(""));
    }
    localStorage.setItem(name, sessionStorage.getItem(name));
    return [sessionStorage.getItem(name), last ?? ""];
  } catch { return ["", ""]; }  // a browser that keeps nothing
})()"""
"""This page's id, which outlives a reload, and that of the browser's page that was used last: a new page begins with its draft."""

TAB_OF_ADDRESS = """() => {
  const wanted = new URLSearchParams(location.search).get("tab");
  const tab = (id) => document.querySelector(`[role=tab][data-tab-id="${CSS.escape(id)}"]`);
  const untouched = tab("data")?.ariaSelected === "true";
  return wanted && untouched && tab(wanted) ? {__type__: "update", selected: wanted} : {__type__: "update"};
}"""

UNTOUCHED = """(parcel, ...now) => {
  const { values, usual, ofData } = JSON.parse(parcel);
  const touched = now.map((value, place) => value !== usual[place] && (usual[place] !== null || Boolean(value)));
  const dataTouched = ofData.some((place) => touched[place]);
  return values.map((value, place) => touched[place] || (dataTouched && ofData.includes(place)) || value === now[place]
    ? {__type__: "update"} : value);
}"""
"""What somebody has changed while the page still arrived stays, and data are taken up as a whole or not at all."""

ADDRESS_OF_TAB = """() => {{
  const opening = window.orpoTab === undefined && {is_first};  // a page begins with its first tab, which nobody has chosen
  window.orpoTab = {tab};
  if (opening) return;
  const address = new URL(location);
  address.searchParams.set("tab", {tab});
  history.replaceState(history.state, "", address);
}}"""


def tab_in_address(page: gr.Blocks, tabs: gr.Tabs, each: list[gr.Tab]) -> None:
    """The tab in front stands in the address, so that a reload, or a link, finds it."""
    page.load(None, None, tabs, js=TAB_OF_ADDRESS, **QUIET)
    for tab in each:
        js = ADDRESS_OF_TAB.format(tab=json.dumps(tab.id), is_first=json.dumps(tab is each[0]))
        tab.select(None, None, None, js=js, **QUIET)


def restored(studio: Studio, pages: list[Any]) -> tuple[drafts.Draft, str]:
    """The draft to begin with, complete and as the visitor may have it, and what is to be said of it."""
    usual = presets.all_presets()[presets.FIRST].settings.to_form()
    draft = drafts.found(studio.root, *pages)
    if draft is None:
        return drafts.Draft(usual, preset=presets.FIRST), ""
    values, dropped = usual | draft.values, list(draft.dropped)
    if gone := _gone(studio, values):
        dropped.append(gone)
        values |= {name: usual[name] for name in source_choices.OF_DATA}
        draft = drafts.Draft(values, preset=draft.preset)
    told = f"Taken up again, except what cannot be any more: {'; '.join(dropped)}." if dropped else ""
    return drafts.Draft(values, draft.history, draft.preset if draft.preset in presets.all_presets() else presets.FIRST), told


def _gone(studio: Studio, values: dict[str, Any]) -> str:
    """What is to be said where the pairs are a file that is not there any more, or not the visitor's."""
    path = fingerprints.path_of(values[SOURCE])
    if path is None:
        return ""
    try:
        studio.permitted(Settings.from_form(**{SOURCE: values[SOURCE]}))
        return "" if path.is_file() else f"{path.name}, which is not there any more, with all that was chosen for it"
    except StudioError:
        return f"{Path(values[SOURCE]).name}, which is not open to you"


def build(page: gr.Blocks, studio: Studio, card: SourceCard, everything: form.Fields, preset: gr.Dropdown, purpose: gr.Markdown,
          now: Mirror) -> None:
    """The wiring; `now` is the mirror of the whole form.

    It also sees to it that numbers that begin empty stay so: Gradio 6.31 shows 0 for one in a folded part that is unfolded.
    """
    this, last, parcel = (gr.Textbox(visible="hidden", elem_id=elem_id) for elem_id in ("page-id", "last-page-id", "draft"))
    usual = presets.all_presets()[presets.FIRST].settings.to_form()

    def restore(whose: Identity | None, *pages: str) -> list[Any]:
        draft, told = restored(studio, list(pages))
        brought = {"values": [draft.preset, *(draft.values[name] for name in everything)],
                   "usual": [presets.FIRST, *(usual[name] for name in everything)],
                   "ofData": [place for place, name in enumerate(everything, 1) if name in source_choices.OF_DATA]}
        if whose is not None:  # somebody was faster and has chosen data already
            return [gr.skip(), gr.skip(), gr.skip(), json.dumps(brought)]
        whose = source_choices.identity(draft.values, source_card.permitted(studio))
        return [whose, draft.history, parts.note("warn", told) if told else "", json.dumps(brought)]

    def keep(this: str, last: str, whose: Identity | None, history: list, preset: str, text: str) -> None:
        values = now.said(text)
        if whose is None or values is None:  # not yet restored: what stands in the form is nobody's
            return
        if whose.supersedes(values):  # this source, still with the choices of the one before
            return
        drafts.keep(studio.root, this, values, history, preset)
        if source_choices.identity(values, source_card.permitted(studio)) == whose:
            source_choices.keep(studio.root, whose, values, history)

    numbers = [field for field in everything.values() if isinstance(field, gr.Number) and field.value is None]
    emptied = page.load(lambda: dict.fromkeys(numbers), None, numbers, **QUIET)
    restoring = form.fill(emptied.then, restore, [card.whose, this, last], [*card.outputs, parcel],
                          given=f"[given[0], ...{PAGE_ID}]", **QUIET)
    shown = [preset, *everything.values()]
    restoring.then(None, [parcel, *shown], shown, js=UNTOUCHED, **QUIET)
    known = presets.all_presets()
    news.own(preset.change).change(lambda name: known[name].purpose if name in known else gr.skip(), preset, purpose, **QUIET)
    news.own(preset.change, now.text.change).change(keep, [this, last, card.whose, card.history, preset, now.text], None,
                                                    js=f"(...given) => [...{PAGE_ID}, ...given.slice(2)]", **QUIET)
