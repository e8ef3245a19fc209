"""Runs whose machine is gone, found again on the Hub by the repository of their checkpoints."""

import os

import gradio as gr

from studio import adoption
from studio.errors import StudioError
from studio.ui import parts, token_field
from studio.ui.choices import Radio
from studio.ui.studio import PRIVATE, Studio, refuse

REPOSITORY = os.environ.get("ORPO_STUDIO_CHECKPOINTS", "")
"""Where a Space, whose disk is emptied at each restart, finds its runs again."""
WORDS = ("A run that pushed its checkpoints to the Hub can go on here: enter the repository, and it is brought back as one that "
         "was stopped at its last checkpoint.")
NOTHING = "There is no run with a whole checkpoint in {repo}. Check the name, or wait until the run has pushed one."


def build(studio: Studio, started: gr.State) -> None:
    """The components and their wiring; a run that is brought back comes into view through `started`."""
    with gr.Accordion("Bring back a run from the Hub", open=bool(REPOSITORY), elem_id="adoption"):
        gr.Markdown(WORDS)
        with gr.Row(elem_classes="fields"):
            repo = gr.Textbox(REPOSITORY, label="Repository of checkpoints", placeholder="owner/name", elem_id="adoption-repo")
            token = token_field.build("adoption-token", "That may read it. Kept in memory, never written.")
        look = gr.Button("Look for runs", size="sm", elem_id="adoption-look")
        choice = Radio([], label="Runs with a checkpoint", visible=False, elem_id="adoption-runs")
        bring = gr.Button("Bring it back", variant="primary", size="sm", visible=False, elem_id="adoption-bring")
        told = gr.HTML(elem_id="adoption-told", padding=False)

    def search(repo: str, token: str) -> tuple[gr.Radio, gr.Button, str]:
        try:
            there = adoption.found((repo or "").strip(), token)
        except StudioError as error:
            return gr.Radio(visible=False), gr.Button(visible=False), parts.note("bad", str(error))
        named = [(f"{one.name}, after step {one.step}", one.name) for one in there]
        words = "" if there else parts.note("info", NOTHING.format(repo=repo))
        return gr.Radio(named, value=named[0][1] if named else None, visible=bool(named)), gr.Button(visible=bool(named)), words

    def bring_back(repo: str, token: str, name: str | None) -> str:
        try:
            wanted = next((one for one in adoption.found((repo or "").strip(), token) if one.name == name), None)
            if wanted is None:
                raise StudioError("This run is no longer there. Look for runs again.")
            return adoption.bring_back(studio.root, wanted, token, studio.permitted).name
        except StudioError as error:
            return refuse("Not brought back", error)

    look.click(search, [repo, token], [choice, bring, told], **PRIVATE)
    repo.submit(search, [repo, token], [choice, bring, told], **PRIVATE)
    bring.click(bring_back, [repo, token, choice], started, **PRIVATE)


def look_on_arrival(page: gr.Blocks, studio: Studio) -> None:
    """On a studio that has a repository of checkpoints and no runs, say so at once."""
    if REPOSITORY:
        page.load(lambda: gr.Info(f"This studio is empty, and {REPOSITORY} may hold runs: look under Runs.")
                  if not studio.runs() else None, None, None, **PRIVATE)
