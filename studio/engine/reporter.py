"""The trainer's callback: turns what the trainer says into events, and a stop file into a stop."""

import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from studio import events
from studio.engine.stopping import StopRequested
from studio.engine.worker import Desk

METRICS = {"loss", "nll_loss", "log_odds_ratio", "log_odds_chosen", "rewards/chosen", "rewards/rejected",
           "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "grad_norm", "learning_rate", "epoch"}


class Reporter(TrainerCallback):
    """Says each optimizer step, measures the held-out pairs when it is time, and ends the run when asked to."""

    def __init__(self, desk: Desk, every: int | None, measure: Callable[[int], None], keep: Callable[[int], None] = lambda step: None,
                 keep_every: int | None = None):
        """`measure` and `keep` (a checkpoint) are called with the step, every so many of them; None for never."""
        self.desk, self.every, self.measure, self.keep, self.keep_every = desk, every, measure, keep, keep_every
        self.stopped = False

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **_):
        """One Stepped per step, then a measurement when it is due."""
        metrics = {name: float(value) for name, value in (logs or {}).items() if name in METRICS}
        if "loss" not in metrics:
            return  # the summary at the end of the run
        self.desk.say(events.Stepped(state.global_step, metrics, peak_memory()))
        step, more_to_come = state.global_step, state.global_step < state.max_steps
        if self.every and not self.stopped and step % self.every == 0 and more_to_come:
            try:
                self.measure(step)
            except StopRequested:  # half a measurement is none; the step is kept
                self.stopped = control.should_training_stop = True
            finally:
                self.desk.stopping.phase = "training"
        if self.keep_every and more_to_come and (self.stopped or step % self.keep_every == 0):
            self.keep(step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_):
        """Ends after this step if the stop file is there."""
        if self.desk.asked_to_stop:
            self.stopped = control.should_training_stop = True


def peak_memory() -> int:
    """The most memory this process has held, in bytes: on the GPU if there is one, else in RAM."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands getrusage's figure on from the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
