"""What a person chooses when taking the cleaned pairs elsewhere, and the job that does it, from the page's side.

The job's folder lies in that of the examination, whose request.yaml says which pairs and which edits.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from studio import events, jobs, plain_yaml
from studio.complaints import problems_of
from studio.errors import SettingsError, StudioError
from studio.jobs import Job
from studio.section import Section
from studio.share import FILE, PushRequest


class ExportRequest(Section):
    """Export"""

    to: Annotated[Literal["jsonl", "parquet", "hub"], Field(title="To")] = "jsonl"
    """JSONL can be read by eye and by everything; Parquet is several times smaller; hub makes a dataset on the Hugging Face Hub."""
    repo: Annotated[str, Field(title="Repository")] = ""
    """Where on the Hub: a name of your choice, or owner/name for an organisation you may write to."""
    private: Annotated[bool, Field(title="Private")] = True
    """Only you, or your organisation, can see it. It can be made public on the Hub at any time."""
    overwrite: Annotated[bool, Field(title="Replace")] = False
    """Allows replacing the files of a dataset that another tool made. Its history keeps them."""

    def __init__(self, /, **choices: Any):
        try:
            super().__init__(**choices)
        except ValidationError as error:
            raise SettingsError(problems_of(error)) from None

    @model_validator(mode="after")
    def _repo_can_be_a_name(self) -> Self:
        if self.to == "hub":
            PushRequest(repo=self.repo)  # raises SettingsError about the same field
        return self

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The request that `to_yaml` wrote. Raises SettingsError, also for a text that is not YAML."""
        return cls(**plain_yaml.mapping(text))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The request from a YAML file. Raises SettingsError."""
        return cls.from_yaml(plain_yaml.of_file(path))

    def to_yaml(self) -> str:
        """All choices as YAML; `from_yaml` gives the same request back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def job_of(examined: Job) -> Job:
    """The job that exports what was examined."""
    return Job("export", examined.folder / "export")


def begin(examined: Job, request: ExportRequest, secrets: dict[str, str] | None = None) -> Job:
    """Ask for an export; what an earlier one left is replaced. Raises StudioError, a BusyError while one is under way."""
    if not (examined.folder / FILE).is_file():
        raise StudioError("These pairs have not been examined, or it was too long ago. Examine them again, then export.")
    job = job_of(examined)
    jobs.request(job, request.to_yaml(), secrets)
    return job


def result(job: Job) -> Path | None:
    """The finished file of the latest export, or None while there is none and where it went to the Hub."""
    saved = events.last(events.read(job.log), events.Saved)
    path = job.folder / saved.path if saved else None
    return path if path and path.is_file() else None
