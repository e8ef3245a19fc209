"""A merged model as one GGUF file, for llama.cpp and the programs built on it: what is asked for, and where it lies."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from studio import plain_yaml
from studio.complaints import problems_of
from studio.errors import SettingsError
from studio.runs import Run
from studio.section import Section

KIND = "gguf"
REQUEST = "request.yaml"
Precision = Literal["16", "q8_0"]


class GGUFRequest(Section):
    """GGUF"""

    precision: Annotated[Precision, Field(title="Precision")] = "q8_0"
    """q8_0 keeps 8 bits and a scale for each 32 weights: half as large. 16 keeps the merged weights as they are."""

    def __init__(self, /, **choices: Any):
        try:
            super().__init__(**choices)
        except ValidationError as error:
            raise SettingsError(problems_of(error)) from None

    @classmethod
    def from_file(cls, path: Path) -> "GGUFRequest":
        """The request from a YAML file. Raises SettingsError."""
        return cls(**plain_yaml.mapping(plain_yaml.of_file(path)))

    def to_yaml(self) -> str:
        return f"precision: '{self.precision}'\n"


def of(run: Run) -> Path | None:
    """The file, if it was written. The latest one, where a job was killed before it could remove the one before."""
    found = [path for path in run.job(KIND).glob("[!.]*.gguf") if path.is_file() and not path.is_symlink()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
