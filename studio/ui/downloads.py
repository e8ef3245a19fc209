"""Files that a person takes away: the cleaned pairs, a run's adapter, its merged model. Served outside Gradio, as they are large."""

import re
from collections.abc import Iterator
from itertools import islice

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from zipstream import ZipStream

from studio import export, parcel, runs
from studio.doors import VISITOR
from studio.errors import StudioError
from studio.jobs import Job
from studio.runs import Run
from studio.ui.studio import Studio
from studio.usage import What

PREFIX = "/downloads"
DIGEST = re.compile(r"[0-9a-f]{16}")
FRESH = {"Cache-Control": "no-store"}


def of_pairs(digest: str) -> str:
    """The address of the pairs that were exported from an examination."""
    return f"{PREFIX}/{digest}"


def of_run(run: Run, what: What) -> str:
    """The address of a run's adapter, merged model or GGUF file."""
    return f"{PREFIX}/runs/{run.name}/{what}"


def folder(run: Run, what: What) -> str:
    """The name of the folder in which they are packed."""
    return f"{run.name}-{what}"


def routes(studio: Studio) -> APIRouter:
    """Both addresses. The guard has let in whoever asks; each sees their own files only."""
    router = APIRouter(prefix=PREFIX)

    @router.get("/{digest}")
    def pairs(digest: str, request: Request) -> FileResponse:
        room = runs.room(studio.home, request.scope[VISITOR].name)
        path = export.result(export.job_of(Job("examine", room / ".examined" / digest))) if DIGEST.fullmatch(digest) else None
        if path is None or path.is_symlink():
            raise HTTPException(404, "There is no such file. Export the pairs again.")
        return FileResponse(path, filename=path.name, media_type="application/octet-stream", headers=FRESH)

    @router.get("/runs/{name}/{what}")
    def result(name: str, what: What, request: Request) -> Response:
        run = studio.find_for(request.scope[VISITOR], name)
        if run is None:
            raise HTTPException(404, "There is no such run. Choose one from the list.")
        try:
            if what == "gguf":  # one file as it is, of which a part can be asked for: a download that broke off goes on
                (file,) = parcel.paths(run, what)
                return FileResponse(file, filename=file.name, media_type="application/octet-stream", headers=FRESH)
            packed = zipped(run, what)
        except StudioError as error:
            raise HTTPException(404, str(error)) from None
        return StreamingResponse(_in_large_pieces(packed), media_type="application/zip", headers=FRESH | {
            "Content-Length": str(len(packed)), "Content-Disposition": f'attachment; filename="{folder(run, what)}.zip"'})

    return router


def _in_large_pieces(packed: ZipStream) -> Iterator[bytes]:
    """A megabyte at a time: every piece is fetched by a thread, and its own 64 kB take the page twice as much work."""
    pieces = iter(packed)
    while large := b"".join(islice(pieces, 16)):
        yield large


def zipped(run: Run, what: What) -> ZipStream:
    """What is handed on of a run, in a folder of its own: packed while it is read, of a length that is known before.

    Raises StudioError if there is nothing to hand on.
    """
    name = folder(run, what)
    packed = ZipStream(sized=True)  # weights do not get smaller
    for file, content in parcel.contents(run, what, name).items():
        if isinstance(content, bytes):
            packed.add(content, f"{name}/{file}")
        else:
            packed.add_path(content, f"{name}/{file}")
    return packed
