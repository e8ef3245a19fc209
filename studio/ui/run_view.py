"""What there is to see of a run, and all that it depends on: worked out at each look, shown anew only when it is another one."""

from dataclasses import dataclass

from studio import about, jobs, pulse
from studio.jobs import Status
from studio.readings import Reading
from studio.runs import Run
from studio.ui import overlay_card
from studio.ui.studio import Studio


@dataclass(frozen=True)
class View:
    """A run as somebody sees it. `key` holds all that what is shown depends on; `counts` are the charts' rows of runs laid over it."""

    run: Run
    reading: Reading
    status: Status | None
    stopping: bool
    place: int
    before: Run | None
    silence: int
    laid_over: tuple[Run, ...]
    counts: tuple[tuple[str, int], ...]
    title: str
    trouble: str

    @property
    def key(self) -> tuple:
        return (str(self.run.folder), self.reading.version, self.status, self.stopping, self.place, str(self.before and self.before.name),
                self.silence, self.counts, self.title, self.trouble)

    @property
    def stop_word(self) -> str:
        return "Stopping after this step …" if self.reading.summary.phase == "training" else "Stopping …"


def view(studio: Studio, run: Run, beats: pulse.Pulse, laid_over: list[Run]) -> View:
    """What there is to see of a run, and of those laid over it."""
    reading, job = studio.reading(jobs.of(run)), jobs.of(run)
    status = jobs.status(job, reading.said)
    place, before = studio.place_in_line(run) if status == "queued" else (0, None)
    silence = beats.silence(run.folder) if status in jobs.ALIVE else 0
    silence = round(silence) if silence >= pulse.SILENCE else 0  # else every tick would be another one
    counts = tuple(overlay_card.counts(studio, laid_over).items())
    return View(run, reading, status, status in jobs.ALIVE and job.stop_file.exists(), place, before, silence, tuple(laid_over),
                counts, about.of(run).title, studio.queue.trouble(run))
