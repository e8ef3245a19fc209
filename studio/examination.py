"""The examination of a dataset: asked for by the page, made by a job, kept so that the same question is answered at once.

Its folder holds examination.json, written last, and the pairs as the edits leave them on a shelf.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from studio import jobs, uploads
from studio.jobs import Job
from studio.preferences.findings import Finding
from studio.settings import Settings

FILE, ENCODINGS = "examination.json", "encodings.json"
KEPT = 12
"""Examinations that are kept; going back to an earlier one by Undo costs nothing."""


@dataclass(frozen=True)
class Spread:
    """The lengths of one part of the pairs in tokens: three figures, and how many texts fall into each stretch of `edges`."""

    median: int
    most: int
    """What 95 of 100 stay below."""
    longest: int
    counts: list[int]


@dataclass(frozen=True)
class Lengths:
    """How long the pairs are in the model's tokens, measured on `measured` of them, and what a cut at `max_length` takes.

    `tokens` are those of an average pair, both texts, as far as the cut leaves them.
    Shares of all pairs: `chosen_cut` and `rejected_cut` lose the end of that answer, `lost` leave nothing to learn.
    """

    measured: int
    max_length: int
    tokens: float
    edges: list[int]
    parts: dict[str, Spread]
    chosen_cut: float
    rejected_cut: float
    lost: float


@dataclass(frozen=True)
class Examination:
    """What was found: how the rows were read, what became of them, the findings, the verdict and its sentence."""

    name: str
    recognised: str
    account: str
    edited: str
    pairs: int
    learned: int
    """Pairs that a run would learn from in an epoch, repeated ones counted again."""
    held_out: int
    shelved: int
    """Pairs that can be looked at; fewer than `pairs` where they would fill the disk."""
    verdict: str
    sentence: str
    findings: list[Finding] = field(default_factory=list)
    lengths: Lengths | None = None
    without_lengths: str = ""
    """Why there are none."""
    columns: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by value, for columns by which they can be told apart."""
    made_of: str = ""
    """Fingerprints of the examined sources: edits that are made for what is seen here are made for these."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> "Examination":
        values = json.loads(text)
        findings = [Finding(**{**finding, "rows": tuple(finding["rows"])}) for finding in values.pop("findings")]
        lengths = values.pop("lengths")
        if lengths:
            parts = {name: Spread(**spread) for name, spread in lengths.pop("parts").items()}
            lengths = Lengths(**lengths, parts=parts)
        return cls(**values, findings=findings, lengths=lengths)


# --- the job, from the page's side ------------------------------------------------------------------------------------


def concerns(name: str) -> bool:
    """Whether an examination depends on a field of the form."""
    return name.startswith("data.") or name in ("model.name", "model.revision", "model.template", "training.max_length")


def job_of(root: Path, settings: Settings) -> Job:
    """The job that examines these data for this model; the same question has the same folder."""
    asked = {name: value for name, value in settings.to_form().items() if concerns(name)}
    files = [Path(part.source) for part in settings.data.parts]
    # An upload has its content in its path, and may be gone when the examination has found it to be of no use.
    asked["files"] = [[file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file() and not uploads.is_kept(file)]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    return Job("examine", root / ".examined" / digest)


def encodings(job: Job, settings: Settings) -> tuple[Finding, ...]:
    """What an examination offers that ended because a file may be in several encodings: one for each reading, with a sample."""
    try:
        doubt = json.loads((job.folder / ENCODINGS).read_text(encoding="utf-8"))
        path, readings = doubt["path"], [tuple(map(str, reading)) for reading in doubt["readings"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(Finding("encoding", "bad", 0, "", (), "", f"Read it as {words.split(',')[0]}: “{sample}”",
                         *_set_to(settings, path, encoding))
                 for encoding, words, sample in readings)


def _set_to(settings: Settings, path: str, encoding: str) -> tuple[str, str]:
    """The field that names the encoding of that source, and what it is to say."""
    first, *others = settings.data.parts
    if first.source == path:
        return "data.encoding", encoding
    return "data.also", "\n".join(str(replace(part, encoding=encoding) if part.source == path else part) for part in others)


def begin(root: Path, settings: Settings, secrets: dict[str, str] | None = None) -> Job:
    """Ask for an examination; one that is there or under way is not asked for again. Raises StudioError."""
    job = job_of(root, settings)
    if jobs.status(job) not in (*jobs.ALIVE, "finished"):
        job.folder.mkdir(parents=True, exist_ok=True)
        _prune(job.folder)
        jobs.request(job, settings.to_yaml(), secrets)
    return job


def _prune(folder: Path) -> None:
    others = sorted((other for other in folder.parent.iterdir() if other != folder), key=lambda other: other.stat().st_mtime)
    for other in others[: max(0, len(others) - KEPT + 1)]:
        if not any(jobs.status(job) in jobs.ALIVE for job in (Job("examine", other), Job("export", other / "export"))):
            shutil.rmtree(other, ignore_errors=True)


def found(job: Job) -> Examination | None:
    """The examination that a job has made, or None while there is none."""
    try:
        return Examination.from_json((job.folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
