"""Where a page's uploads arrive: in a folder of their sender's, with no more than what the page itself would send."""

import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

import gradio_client.utils
from fastapi import APIRouter, Request
from gradio.route_utils import GradioMultiPartParser
from gradio.routes import file_upload_statuses
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from studio import uploads
from studio.doors import VISITOR
from studio.guard import LARGEST_UPLOAD, UPLOAD
from studio.refused import Refused

MOST_FILES = 20
"""In one upload."""
UNUSED_SECONDS = 3600
"""After which an upload that no event took goes: a page takes each at once."""
EMPTY_SECONDS = 60
"""After which a folder of which the files were taken goes; before, they may be just arriving."""


def routes(temporary: Path) -> APIRouter:
    """The address of uploads, in place of Gradio's own, which keeps everybody's in one folder. Progress is told there as before."""
    router = APIRouter()

    @router.post(UPLOAD)
    @router.post(UPLOAD + "/")
    async def upload(request: Request, upload_id: str | None = None) -> Response:
        own = uploads.arriving(temporary, request.scope[VISITOR].name)
        forget_unused(own)
        batch = own / secrets.token_hex(8)
        batch.mkdir(parents=True)
        arrived = False
        try:
            paths = await _received(request, batch, upload_id)
            arrived = bool(paths)
            return JSONResponse([str(path) for path in paths])
        except Refused as refused:
            return refused.response()
        except MultiPartException as error:
            return JSONResponse({"detail": error.message, "error": error.message}, 413 if "maximum allowed size" in error.message else 400)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            if not arrived:
                shutil.rmtree(batch, ignore_errors=True)

    return router


async def _received(request: Request, batch: Path, upload_id: str | None) -> list[Path]:
    """The files of a request, streamed into a folder. Raises MultiPartException for what is no upload of files."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise MultiPartException("This is not an upload. Send files as multipart/form-data.")
    if upload_id:
        file_upload_statuses.track(upload_id)
    parser = GradioMultiPartParser(request.headers, request.stream(), max_files=MOST_FILES, max_fields=0, upload_dir=batch,
                                   upload_id=upload_id, upload_progress=file_upload_statuses if upload_id else None,
                                   max_file_size=LARGEST_UPLOAD)
    try:
        found = (await parser.parse()).getlist("files")
    except BaseException:
        if upload_id:  # or its progress is waited for until the page closes
            file_upload_statuses.set_done(upload_id)
        raise
    finally:
        for file in parser._files_to_close_on_error:
            file.close()
    paths = []
    for file in found:
        path = batch / _name(file.filename, {path.name for path in paths})
        Path(file.file.name).rename(path)
        paths.append(path)
    return paths


def _name(given: str | None, taken: set[str]) -> str:
    """What an uploaded file is called: the last part of its name, visible, and of no other file in the same upload."""
    name = gradio_client.utils.strip_invalid_filename_characters(Path(given or "").name).lstrip(".") or "upload"
    return name if name not in taken else f"{len(taken)}-{name}"


def forget_unused(own: Path) -> None:
    """Remove uploads of a visitor that no event has taken."""
    for batch in own.iterdir() if own.is_dir() else ():
        with suppress(OSError):
            unchanged = time.time() - batch.lstat().st_mtime
            if unchanged > UNUSED_SECONDS or (unchanged > EMPTY_SECONDS and not any(batch.iterdir())):
                shutil.rmtree(batch, ignore_errors=True)
