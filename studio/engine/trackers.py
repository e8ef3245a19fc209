"""What a run says of its steps and its held-out pairs, told to Weights & Biases, TensorBoard or Trackio as well.

Each gets the metrics by the names that the Trainer's own callbacks use (train/loss, eval/loss, ...), the settings as its config,
the run's name, and a folder inside the run's. The callbacks of transformers are not used: they are never told of held-out pairs
that somebody else measures, write where the process happens to run, and close before the last measurement.
"""

import math
import netrc
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from studio import events, trackers
from studio.engine.reporter import METRICS
from studio.engine.worker import Desk
from studio.preferences import edits
from studio.redaction import redact
from studio.runs import Run
from studio.settings import Settings

PROJECT = "orpo-studio"
"""Where runs are gathered, unless WANDB_PROJECT says otherwise."""
LONGEST = 200
"""Characters of why a tracker failed."""


class Tracker(Protocol):
    """One tracker with its run open; `told` says where to look."""

    told: str

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Metrics by their full names, after so many optimizer steps."""

    def close(self) -> None:
        """No more will come."""


class WeightsAndBiases:
    """A W&B run, named and identified by the run's name, so that a resumed one goes on in it.

    Without a key, and without a login of this machine, it is written offline. Nothing of this machine's code, repository,
    output, arguments or packages goes with it.
    """

    def __init__(self, run: Run, config: Mapping[str, Any], key: str | None):
        os.environ |= {name: str(run.folder / "wandb") for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")}
        if not os.environ.get("WANDB_MODE"):  # an empty one is refused
            os.environ.pop("WANDB_MODE", None)
        import wandb

        offline = os.environ.get("WANDB_MODE", "") == "offline" or not (key or _logged_in())
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT, name=run.name, id=run.name, dir=str(run.folder), config=dict(config),
            resume=None if offline else "allow", mode="offline" if offline else None,
            settings=wandb.Settings(api_key=None if offline else key, console="off", disable_code=True, disable_git=True,
                                    x_disable_meta=True, x_save_requirements=False, silent=True))
        self._run.define_metric("train/global_step")
        self._run.define_metric("*", step_metric="train/global_step")
        self.told = ("Weights & Biases is written offline into the folder wandb of the run, since there is no key or it is set to be "
                     "offline. Send it with: wandb sync" if offline else f"Weights & Biases shows this run at {self._run.url}.")

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._run.log({**metrics, "train/global_step": step})

    def close(self) -> None:
        self._run.finish()


class TensorBoard:
    """Event files in the folder tensorboard of the run; the settings are a text there."""

    def __init__(self, run: Run, config: Mapping[str, Any], after: int):
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        # Of a run that goes on, what was written of steps that are taken again is void.
        self._writer = SummaryWriter(str(folder / run.name), purge_step=after + 1 if after else None)
        rows = "\n".join(f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in config.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", after)
        self.told = "TensorBoard reads the folder tensorboard of the run: tensorboard --logdir and that folder."

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Trackio:
    """A Trackio run in a database in the folder trackio of the run, on this machine alone: no Space is made, none is written to."""

    def __init__(self, run: Run, config: Mapping[str, Any]):
        for name in [name for name in os.environ if name.startswith("TRACKIO_")]:
            del os.environ[name]
        os.environ["TRACKIO_DIR"] = str(run.folder / "trackio")
        import trackio

        self._run = trackio.init(project=PROJECT, name=run.name, config=dict(config), resume="allow", embed=False, auto_log_gpu=False,
                                 auto_log_cpu=False)
        self._trackio = trackio
        self.told = f"Trackio writes into the folder trackio of the run. With TRACKIO_DIR set to it: trackio show --project {PROJECT}"

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._trackio.log(metrics, step=step)

    def close(self) -> None:
        self._trackio.finish()


class Reports:
    """Hears what a job says and hands steps and measurements on. A tracker that fails is said once and left out: no run ends for it."""

    def __init__(self, desk: Desk, run: Run, settings: Settings, after: int = 0):
        """`after` is the step after which the run goes on."""
        self._desk, self._step, self._tracker = desk, after, None
        name, config = settings.training.report_to, config_of(settings)
        opening: dict[str, Callable[[], Tracker]] = {
            "wandb": lambda: WeightsAndBiases(run, config, desk.secrets.get(trackers.KEY)),
            "tensorboard": lambda: TensorBoard(run, config, after), "trackio": lambda: Trackio(run, config)}
        self._name = trackers.WORDS.get(name, "")
        if name in opening:
            self._tracker = self._try(opening[name])
        if self._tracker is not None:
            desk.say(events.Noted(self._tracker.told))
            desk.listeners.append(self.hear)

    def hear(self, event: events.Event) -> None:
        """Hand on a step, or a measurement that the curves show too: of the tuned model, and of the base before the first step."""
        if isinstance(event, events.Stepped):
            self._step = event.step
            self._log("train", {name: value for name, value in event.metrics.items() if name in METRICS}, event.step)
        elif isinstance(event, events.Evaluated) and event.step >= self._step and (event.model == "tuned" or event.step == 0):
            self._log("eval", event.metrics, event.step)

    def close(self) -> None:
        """Write what is still to be written."""
        if self._tracker is not None:
            self._try(self._tracker.close)

    def _log(self, split: str, metrics: Mapping[str, float | None], step: int) -> None:
        named = {f"{split}/{name}": value for name, value in metrics.items() if value is not None and math.isfinite(value)}
        if self._tracker is not None:
            self._try(lambda: self._tracker.log(named, step))

    def _try(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except (Exception, SystemExit) as error:  # whatever a tracker raises
            self._tracker = None
            why = " ".join(redact(str(error), self._desk.secrets.values()).split())[:LONGEST] or type(error).__name__
            self._desk.say(events.Noted(f"{self._name} failed ({why}) and is left out from here on. "
                                        "The run itself goes on, and its curves are under Runs."))
            return None


def config_of(settings: Settings) -> dict[str, Any]:
    """The settings by field name; of rows that were rewritten their numbers, not their texts."""
    told = [f"rewrite {min(edit.rows)}" if edit.texts else str(edit) for edit in edits.parse(settings.data.edits)]
    return settings.to_form() | {"data.edits": "; ".join(told)}


def _logged_in() -> bool:
    """Whether this machine has a login for W&B that this process may use."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else [Path.home() / name for name in (".netrc", "_netrc")]
    for file in files:
        with suppress(OSError, netrc.NetrcParseError):
            if any("wandb" in host for host in netrc.netrc(str(file)).hosts):
                return True
    return False
