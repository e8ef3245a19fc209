"""A request that goes no further."""

from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """Why it goes no further, as the answer that it gets: a status, words, and headers by name."""

    def __init__(self, status: int, words: str, **headers: str):
        self.status, self.words, self.headers = status, words, headers
        super().__init__(words)

    def response(self) -> Response:
        """The answer."""
        return JSONResponse({"detail": self.words, "error": self.words}, self.status, self.headers)
