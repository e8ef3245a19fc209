"""A QLoRA run as a user has it, and what follows: stopped, resumed, asked, merged, written as GGUF; short of memory; beside others.

Every part drives the studio's own processes: the terminal, its queue and workers, the chat's process, the merge and GGUF jobs. This
process never opens the card, so that everything on it belongs to one of them.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file

from studio import events, gguf_file, gpu, jobs, runs
from studio.candidates import BASE, Candidate
from studio.chat import Answers, Chat, Sampling
from studio.gguf_file import GGUFRequest
from studio.practice import PAIRS
from studio.runs import Run
from studio.settings import Settings
from studio.summary import Summary
from tests.card import attempts
from tests.card.findings import apart, left
from tests.card.models import saved
from tests.jobs_at_work import heard, log_of, said, until

STEPS, STOP_AFTER, SHORT_AT = 10, 3, 4
"""Optimizer steps of a run; those after which it is stopped; the step at which the second run finds too little memory."""
LOSS_OFF = 0.02
"""Relative. How far the losses of the two runs may be apart: on a card, sums in another order and bfloat16 move them."""
QUANTIZATION_OFF = 0.01
"""Relative. How far a weight of 8 bits with a scale for each 32 may be from the merged one."""
FOREIGN_BYTES = 1 << 30
FOREIGN = f"""
import sys, torch
held = torch.zeros({FOREIGN_BYTES}, dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""
HOOK = "import sys\nsys.path.insert(0, {project!r})\nfrom tests.card import attempts\nattempts.begin()\n"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def end_to_end(asked, say, device) -> None:
    """All parts, in the order in which a user meets them. A part that fails is a finding, and the next one is tried."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the time box's end: what was started is ended below
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it, and they hand that on
    with tempfile.TemporaryDirectory() as scratch, closing(Studio(asked, device, Path(scratch))) as studio:
        def part(words: str, work: Callable[..., None], *given) -> None:
            with say.tried(f"end to end: {words}") as found:
                work(studio, *given, found)

        part("model and pairs made", Studio.prepare)
        part("QLoRA run stopped by Ctrl-C in the terminal", stopped)
        part("resumed from its checkpoint", resumed)
        part("chat with base and tuned", chatted)
        short = studio.terminal("short", **{attempts.SHORT_AT: str(SHORT_AT)})  # on the card, while what follows computes on the CPU
        beside = threading.Thread(target=part, args=("foreign process named", named), daemon=True)
        beside.start()
        part("merged", merged)
        part("GGUF written and read back", written)
        part("out of memory relieved", relieved, short)
        beside.join(max(1.0, left(asked)))


class Studio:
    """Two folders of runs with the same settings, and every process that was started for them."""

    def __init__(self, asked, device, folder: Path):
        self.asked, self.on_card, self.folder = asked, device.type == "cuda", folder
        self.settings = folder / "settings.yaml"
        self.foreign: subprocess.Popen | None = None
        self._terminals: list[subprocess.Popen] = []
        hook = folder / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK.format(project=str(jobs.PROJECT)), encoding="utf-8")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(hook), os.environ.get("PYTHONPATH"))))

    def prepare(self, found: dict) -> None:
        """Write model, pairs and settings; on a card, start the foreign process."""
        if self.on_card:
            self.foreign = subprocess.Popen([sys.executable, "-c", FOREIGN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        settings = settings_on(self.folder, self.on_card)
        self.settings.write_text(settings.to_yaml(), encoding="utf-8")
        found |= {"model": settings.model.name, "quantization": settings.model.quantization, "pairs": settings.data.rows}

    def terminal(self, room: str, **environment: str) -> subprocess.Popen:
        """The studio in a terminal of its own, as a user starts it, on the folder of runs of that name."""
        with open(self.folder / f"{room}.log", "w", encoding="utf-8") as log:
            self._terminals.append(subprocess.Popen(
                [sys.executable, "-m", "studio.terminal", str(self.settings), "--runs", str(self.folder / room)], cwd=jobs.PROJECT,
                env=os.environ | {"COLUMNS": "120"} | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT))
        return self._terminals[-1]

    def run(self, room: str) -> Run:
        """The run in that folder. Raises AssertionError if there is none."""
        found = runs.listed(self.folder / room)
        assert found, f"The terminal made no run: {self.printed(room)}"
        return found[0]

    def printed(self, room: str) -> str:
        """The end of what the terminal printed."""
        log = self.folder / f"{room}.log"
        return log.read_text(encoding="utf-8", errors="replace")[-600:] if log.is_file() else "it was not started"

    def exit_code(self, process: subprocess.Popen) -> int:
        """How a process ends, waited for as long as the stage has time left. Raises subprocess.TimeoutExpired."""
        return process.wait(max(1.0, left(self.asked)))

    def wait(self, happened: Callable[[], object]) -> object:
        """Wait for something to become true, at most as long as the stage has time left; what it became."""
        return until(happened, max(1.0, left(self.asked)))

    def ended(self, run: Run, kind: str = "train") -> str:
        """Wait for a job's end. Raises AssertionError, with the end of its log, unless it finished or was stopped."""
        how = self.wait(lambda: (status := jobs.status(jobs.of(run, kind))) in jobs.OVER and status)
        assert how in ("finished", "stopped"), f"{kind} {how}: {Summary(said(run, kind)).failure or log_of(run, kind)[-800:]}"
        return how

    def close(self) -> None:
        """End every process that was started here and still works."""
        for process in (*self._terminals, *filter(None, [self.foreign])):
            process.kill()
            process.wait()
        for room, kind in itertools.product(("first", "short"), ("train", "merge", "gguf")):
            for run in runs.listed(self.folder / room):
                if (job := jobs.of(run, kind)).folder.is_dir():
                    jobs.end(job)


def settings_on(folder: Path, on_card: bool, shape: str = "mid") -> Settings:
    """QLoRA of a model made here: on a card a Llama of 0.4 billion random weights, else the practice model."""
    model, source, size = {"name": "practice", "device": "cpu"}, {"source": "practice", "rows": 120}, {"batch_size": 4, "accumulation": 4}
    if on_card:
        model = {"name": str(saved(shape, folder / "model")), "device": "gpu"}
        source = {"source": str(long_pairs(folder / "pairs.jsonl", 400)), "rows": 400}
        size = {"batch_size": 8, "accumulation": 4}
    return Settings(model=model | {"quantization": "nf4"}, data=source | {"held_out": 0.1},
                    training=size | {"max_steps": STEPS, "learning_rate": 1e-3, "max_length": 1024, "optimizer": "paged_adamw_8bit",
                                     "checkpoint_every": 2},
                    evaluation={"every": STEPS, "batch_size": 8, "prompts": QUESTION[0]["content"]})


def long_pairs(path: Path, count: int, answers: int = 24) -> Path:
    """Pairs of a few hundred tokens an answer: the practice pairs' questions, each with many of their answers in a row."""
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            following = [rows[(number * 7 + place) % len(rows)] for place in range(answers)]
            sides = {side: [{"role": "assistant", "content": " ".join(row[side][-1]["content"] for row in following)}]
                     for side in ("chosen", "rejected")}
            file.write(json.dumps({"prompt": rows[number]["prompt"]} | sides) + "\n")
    return path


def stopped(studio: Studio, found: dict) -> None:
    """Start a run and press Ctrl-C after a few steps: the terminal leaves at once, and the run keeps its step."""
    terminal = studio.terminal("first")
    studio.wait(lambda: runs.listed(studio.folder / "first") or terminal.poll() is not None)
    run = studio.run("first")
    studio.wait(lambda: len(heard(run, events.Stepped)) >= STOP_AFTER or jobs.status(jobs.of(run)) in jobs.OVER)
    terminal.send_signal(signal.SIGINT)
    found |= {"exit code": studio.exit_code(terminal), "ended": studio.ended(run)}
    summary = Summary(said(run))
    found |= facts(run, summary) | {"checkpoint": run.last_checkpoint}
    assert found["ended"] == "stopped", f"It was not stopped but {found['ended']}: {studio.printed('first')}"
    assert found["exit code"] == 130, studio.printed("first")
    assert run.adapter.is_dir() and STOP_AFTER <= run.last_checkpoint == summary.step < STEPS


def resumed(studio: Studio, found: dict) -> None:
    """Let the queue resume the run, as the page does: it takes the steps that are left, once each."""
    run, queue = studio.run("first"), jobs.Queue(studio.folder / "first", poll_seconds=0.1).open()
    try:
        queue.resume(run)
        found["ended"] = studio.ended(run)
    finally:
        queue.close()
    summary, again = Summary(said(run)), heard(run, events.Resumed)
    found |= facts(run, summary) | {"from step": [event.step for event in again], "took the steps": [one["step"] for one in attempts.read(run.folder)],
                                    "held out, base": summary.held_out("base"), "held out, tuned": summary.held_out("tuned")}
    assert found["ended"] == "finished"
    assert found["from step"] == [heard(run, events.Stopped)[0].step]
    assert [one.step for one in summary.steps] == found["took the steps"] == list(range(1, STEPS + 1))


def facts(run: Run, summary: Summary) -> dict:
    """What a run said of itself: where it computed, how it takes its passes, its losses, its peak memory."""
    started = heard(run, events.Started)
    return {"device": started[-1].device if started else None, "steps": summary.step, "memory_gb": round((summary.memory or 0) / 1e9, 2),
            "loss": [round(one.metrics["loss"], 5) for one in summary.steps], "seconds in the worker": summary.seconds_taken,
            "notes": [event.text for event in heard(run, events.Noted)]}


def chatted(studio: Studio, found: dict) -> None:
    """Ask base and tuned the same question, in the process that the page's chat starts."""
    run, answers = studio.run("first"), Answers()
    with closing(Chat(idle_seconds=60)) as chat:
        for answers in chat.ask(run, (BASE, Candidate(run.name)), (QUESTION, QUESTION), Sampling(temperature=0, max_new_tokens=48)):
            assert answers.done or left(studio.asked) > 0, "The stage's time is over."
        found |= {"ready": asdict(chat.ready), "in one batch": answers.together, "base": answers.first[:300], "tuned": answers.second[:300]}
    assert answers.done and answers.first and answers.second, "One of them said nothing."
    assert answers.first != answers.second, "Ten steps changed nothing that can be heard."


def merged(studio: Studio, found: dict) -> None:
    """Merge the adapter into the base in 16 bits; the job itself compares what both say."""
    run = studio.run("first")
    jobs.request(jobs.of(run, "merge"), "{}\n")
    found["ended"] = studio.ended(run, "merge")
    tensors = load_file(run.merged / "model.safetensors")
    found |= {"notes": [event.text for event in said(run, "merge") if isinstance(event, events.Noted)], "tensors": len(tensors),
              "gb": round(sum(one.nbytes for one in tensors.values()) / 1e9, 3), "types": sorted({str(one.dtype) for one in tensors.values()})}
    assert found["ended"] == "finished" and found["types"] == ["torch.bfloat16"]


def written(studio: Studio, found: dict) -> None:
    """Write the merged model as a GGUF file of 8 bits, and compare what the gguf library reads with the merged weights."""
    run = studio.run("first")
    jobs.request(jobs.of(run, "gguf"), GGUFRequest(precision="q8_0").to_yaml())
    found["ended"] = studio.ended(run, "gguf")
    path = gguf_file.of(run)
    assert path is not None, "The job wrote no GGUF file."
    found["notes"] = [event.text for event in said(run, "gguf") if isinstance(event, events.Noted)]
    found |= {"gb": round(path.stat().st_size / 1e9, 3)} | read_back(path, load_file(run.merged / "model.safetensors"))
    assert found["architecture"] == "llama" and found["tensors"] == found["tensors of the merged model"]
    assert found["furthest off"] < QUANTIZATION_OFF


def read_back(path: Path, weights: dict[str, torch.Tensor]) -> dict:
    """What the gguf library finds in a file, and how far its numbers are from a Llama's weights; rotary rows, which GGUF orders
    differently, are left out."""
    reader = gguf.GGUFReader(path)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1000)
    ours = {names.get_name(name, (".weight",)): weight for name, weight in weights.items()}
    off = {}
    for tensor in reader.tensors:
        if not tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            numbers = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
            off[tensor.name] = apart(numbers, ours[tensor.name].reshape(numbers.shape))
    furthest = max(off, key=off.get)
    return {"architecture": reader.get_field("general.architecture").contents(), "tensors": len(reader.tensors),
            "tensors of the merged model": len(weights), "types": sorted({tensor.tensor_type.name for tensor in reader.tensors}),
            "vocabulary": len(reader.get_field("tokenizer.ggml.tokens").contents()), "compared": len(off), "furthest off": off[furthest],
            "of": furthest}


def relieved(studio: Studio, terminal: subprocess.Popen, found: dict) -> None:
    """A run of the same settings that runs out of memory in a step: it takes the same pairs again in smaller passes, and ends as the
    first run did."""
    found["exit code"] = studio.exit_code(terminal)
    run = studio.run("short")
    found["ended"] = studio.ended(run)
    tries, whole = attempts.read(run.folder), attempts.read(studio.run("first").folder)
    short = [one for one in tries if one["step"] == SHORT_AT]
    found |= {"error": short[0].get("error") if short else None, "injected": not studio.on_card, "attempts at the step": len(short),
              "tokens of a pass": [one["tokens"] for one in short], "passes": [one["passes"] for one in short], "recomputed layers": [one["recomputed"] for one in short],
              "repairs": [event.text for event in heard(run, events.Repaired)], **facts(run, Summary(said(run)))}
    assert found["ended"] == "finished" and found["exit code"] == 0, studio.printed("short")
    assert len(short) > 1 and "OutOfMemoryError" in short[0]["error"] and found["repairs"], "Memory did not run out."
    assert all(one["pairs"] == short[0]["pairs"] for one in short), "The step was taken again with other pairs."
    assert short[-1]["tokens"] < short[0]["tokens"] or short[-1]["recomputed"] > short[0]["recomputed"]
    taken, wanted = ([one for one in each if "loss" in one] for each in (tries, whole))
    assert [one["pairs"] for one in taken] == [one["pairs"] for one in wanted], "The two runs did not take the same pairs."
    assert len(short[-1]["passes"]) > len(wanted[SHORT_AT - 1]["passes"]) or short[-1]["recomputed"] > short[0]["recomputed"]
    found["losses apart"] = max(abs(one["loss"] - two["loss"]) / abs(two["loss"]) for one, two in zip(taken, wanted, strict=True))
    adapters = [load_file(each.adapter / "adapter_model.safetensors") for each in (run, studio.run("first"))]
    found["adapters apart"] = apart(*(torch.cat([one[name].flatten() for name in sorted(one)]) for one in adapters))
    assert found["losses apart"] < LOSS_OFF


def named(studio: Studio, found: dict) -> None:
    """Let the studio name a process that is not its own and holds memory on the card, while a run of its own computes there."""
    if studio.foreign is None:
        found["left out"] = "there is no card"
        return
    found["holds"] = studio.foreign.stdout.readline().strip()
    run = studio.wait(lambda: next(iter(runs.listed(studio.folder / "short")), None))
    studio.wait(lambda: heard(run, events.Stepped) or jobs.status(jobs.of(run)) in jobs.OVER)
    others = gpu.others()
    found |= {"driver's answer": gpu._asked(gpu.APPS), "others": [asdict(one) for one in others], "in words": gpu.others_in_words(others),
              "cards": [asdict(card) for card in gpu.cards()], "foreign process": studio.foreign.pid}
    if not found["driver's answer"]:
        found["left out"] = "the driver lists no processes here, as in a container with process numbers of its own"
        return
    assert studio.foreign.pid in [one.pid for one in others], "The foreign process is not named by its number."
    assert json.loads((run.folder / "worker.json").read_text(encoding="utf-8"))["pid"] not in [one.pid for one in others], "The studio's own worker is."
