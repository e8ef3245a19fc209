"""The page as it is served: Gradio's application behind the guard, with what a person downloads."""

import gradio as gr
from fastapi import FastAPI, Request
from gradio.context import LocalContext
from starlette.types import ASGIApp

from studio.access import AccessError, Visitor
from studio.doors import VISITOR, Doors, Sessions
from studio.guard import LARGEST_UPLOAD, Guard
from studio.ui import downloads, sessions, uploading
from studio.ui.charts import PLOTLY
from studio.ui.page import build
from studio.ui.studio import Studio
from studio.ui.theme import launch_options

WAITING_EVENTS = 300
"""Events that may wait in line before the next one is turned away."""
AT_ONCE = 10
"""Concurrent events per listener. Gradio's default is one, so a slow event of one user would block everyone else."""
LOOKS_FOR_EVENTS = 0.02
"""Seconds between looks at that line while it is empty. Gradio's own thousandth keeps an idle studio busy: 6 % of a core."""
LOOKS_FOR_PROGRESS = 1.0
"""Seconds between looks for progress bars, of which this page has none; Gradio's own hundredth costs 1 % of a core."""


def visitor_of_event(pages: Sessions) -> Visitor:
    """Who set off the event that this thread handles. Raises AccessError for nobody the guard let in, or on another's page."""
    request = LocalContext.request.get(None)
    asked = getattr(request, "request", None) or request  # Gradio wraps it, but not for a component's own functions
    visitor = asked.scope.get(VISITOR) if asked is not None else None
    if visitor is None:
        raise AccessError("Nobody is signed in. Open the studio's page again.")
    pages.claim(getattr(request, "session_hash", None) if request is not asked else None, visitor)
    return visitor


def served(studio: Studio, doors: Doors, temporary) -> ASGIApp:
    """The whole application. `temporary` is where uploads arrive."""
    page = build(studio).queue(max_size=WAITING_EVENTS, default_concurrency_limit=AT_ONCE)
    page._queue.sleep_when_free = LOOKS_FOR_EVENTS
    page._queue.progress_update_sleep_when_free = LOOKS_FOR_PROGRESS
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(downloads.routes(studio))
    app.include_router(uploading.routes(studio.home, temporary))  # in front of Gradio's own
    # The guard has let nobody else through; Gradio asks again for each of its own addresses.
    gr.mount_gradio_app(app, page, "/", auth_dependency=lambda request: _name(request), show_error=True, ssr_mode=False,
                        run_history=False, footer_links=[], max_file_size=LARGEST_UPLOAD, **launch_options())
    # Validators look for a session's state in the page's own application, which mounting (6.31) leaves another one.
    page.app = app.routes[-1].app
    sessions.bound(page.app, page)
    page.has_launched = True  # Gradio's own look at the paths of files is for pages that it launched; the guard's comes before it
    return Guard(app, doors, frozenset({PLOTLY}), temporary, waiting=lambda name: _waiting(page, name))


def _waiting(page: gr.Blocks, name: str) -> int:
    """How many events of a visitor wait in Gradio's line."""
    return sum(event.username == name for line in page._queue.event_queue_per_concurrency_id.values() for event in line.queue)


def _name(request: Request) -> str | None:
    visitor = request.scope.get(VISITOR)
    return (visitor.name or "here") if visitor else None
