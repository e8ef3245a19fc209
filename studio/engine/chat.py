"""Base and tuned answering side by side from one loaded model: python -m studio.engine.chat RUN [--idle SECONDS].

One JSON object a line. The first line in holds the secrets, {"token": "hf_..."} or {}. Then come questions, each side
with a talk of its own, and cancellations, which end an answer after the present token:

    {"id": 1, "base": [messages], "tuned": [messages], "sampling": {"temperature": 0.7, ...}}
    {"cancel": 1}

Lines out, where an answer's lines hold all its text so far:

    {"ready": {"device": "cpu", "seconds": 2.1, "together": true, "because": ""}}
    {"id": 1, "base": "The capital", "tuned": "Happy to"}
    {"id": 1, "done": true}
    {"id": 1, "error": "two sentences"}     no answer to this one; the next may be asked
    {"error": "two sentences"}              the process ends: nothing could be loaded, or nobody foresaw this

The process ends when its input does, at once, and when nobody has asked for the idle seconds.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from studio.chat import IDLE_SECONDS, Ready, Sampling
from studio.engine import turn
from studio.engine.line import Inbox, Wire
from studio.engine.worker import Desk
from studio.errors import StudioError, explain
from studio.preferences.pairs import Message
from studio.redaction import redact
from studio.runs import Run

# The libraries are imported inside functions: stdout must be out of their reach first, and the end of the input heard.

UPDATE_SECONDS = 0.05
"""Answers are told no more often: faster than anyone reads, and each telling decodes the whole answer."""

SIDES = {"base": "__base__", "tuned": "default"}
"""Who speaks, with PEFT's name for its adapter."""


@dataclass
class Answer:
    """One side's tokens so far."""

    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def text(self, tokenizer) -> str:
        """As text without special tokens; while it grows, a character that is not whole yet waits."""
        text = tokenizer.decode(self.tokens, skip_special_tokens=True)
        return text if self.ended else text.rstrip("\ufffd")


class Transcript:
    """What generate() streams into, for any number of sides: transformers' own streamers take one only."""

    def __init__(self, tokenizer, stops: set[int], tell: Callable[..., None]):
        self.answers = {side: Answer() for side in SIDES}
        self.speaking: tuple[str, ...] = tuple(SIDES)
        self._tokenizer, self._stops, self._tell, self._told_at = tokenizer, stops, tell, 0.0

    def put(self, tokens) -> None:
        """Take the next token of each speaking side, shape (sides,). The prompts, which come first, are passed over."""
        if tokens.dim() > 1:
            return
        for side, token in zip(self.speaking, tokens.tolist(), strict=True):
            answer = self.answers[side]
            answer.ended = answer.ended or token in self._stops  # what follows in its row is padding
            if not answer.ended:
                answer.tokens.append(token)
        if time.monotonic() - self._told_at >= UPDATE_SECONDS:
            self._say()

    def end(self) -> None:
        """Tell what the speaking sides said to the last character."""
        for side in self.speaking:
            self.answers[side].ended = True
        self._say()

    def _say(self) -> None:
        self._told_at = time.monotonic()
        self._tell(**{side: answer.text(self._tokenizer) for side, answer in self.answers.items()})


class Duet:
    """Base and tuned in one: the base's weights once, and in a batch of two the adapter on the second row only.

    Each row is what that side says alone; only int8 rounds a batch as one: there log-probabilities move, by less than 0.1.
    """

    def __init__(self, run: Run, token: str | None = None, consent: frozenset[str] = frozenset()):
        """Load both. Raises StudioError if the run has no adapter."""
        if not run.adapter.is_dir():
            raise StudioError(f"There is no adapter in {run.folder}. Choose a run that has finished or was stopped.")
        from transformers import GenerationConfig

        from studio.engine import adapter, model, vocabulary

        adapter.check(run, token)
        # The adapter's own copy of the tokenizer: its template is the trained one, byte for byte.
        self.tokenizer = vocabulary.read(run.adapter, run.name, padding_side="left")
        base = model.load_base(adapter.pinned(run), self.tokenizer, token, consent=consent)
        stops = base.generation_config.eos_token_id
        self.stops = {self.tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
        # Only what a person chose decides: nothing of the model's own sampling is left to slip in.
        base.generation_config = GenerationConfig(eos_token_id=sorted(self.stops), pad_token_id=self.tokenizer.pad_token_id)
        biases = [(weight, weight.detach().clone()) for name, weight in base.named_parameters() if name.endswith("bias")]
        self.model = model.worn(base, run.adapter).eval()
        self._base_biases = [(weight, before) for weight, before in biases if not weight.equal(before)]
        self.in_turn_because = "The biases were trained too." if self._base_biases else self._mixing_fails()
        if self.in_turn_because and not self._base_biases:
            # PEFT leaves the hooks of a batch that failed in the layers: they are made anew.
            self.model = model.worn(self.model.unload(), run.adapter).eval()

    @property
    def device(self) -> str:
        """What it computes on: "cpu" or a card's name."""
        import torch

        return torch.cuda.get_device_name(self.model.device) if self.model.device.type == "cuda" else "cpu"

    def answer(self, talks: dict[str, list[Message]], sampling: Sampling, tell: Callable[..., None],
               stop: Callable[[], bool] = lambda: False) -> None:
        """Answer each side's talk, telling base= and tuned= as they grow; `stop` is asked after each token.

        Raises StudioError for a talk that the template refuses or that is too long, and when the GPU's memory is short.
        """
        import torch

        prompts = {side: self._prompt(talks[side], sampling) for side in SIDES}
        transcript = Transcript(self.tokenizer, self.stops, tell)
        try:
            if not self.in_turn_because:
                self._speak(prompts, sampling, transcript, stop, adapter_names=list(SIDES.values()))
                return
            with self._as_base():
                self._speak({"base": prompts["base"]}, sampling, transcript, stop)
            self._speak({"tuned": prompts["tuned"]}, sampling, transcript, stop)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise StudioError("The GPU's memory does not hold this chat beside whatever else is on the card. "
                              "Start a new chat, shorten the longest answer, or wait for the training to end.") from error

    def _speak(self, prompts: dict[str, str], sampling: Sampling, transcript: Transcript,
               stop: Callable[[], bool], **adapters) -> None:
        import torch
        from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

        inputs = self.tokenizer(list(prompts.values()), add_special_tokens=False, padding=True, return_tensors="pt")
        ids = inputs["input_ids"].to(self.model.device)
        chosen = {"do_sample": False}
        if sampling.temperature:
            chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        # The prompts do not count: padding, in the shorter one, would be penalized as if it had been said.
        penalty = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty), prompt_ignore_length=ids.shape[1])
        torch.seed() if sampling.seed is None else torch.manual_seed(sampling.seed)
        transcript.speaking = tuple(prompts)
        with torch.no_grad():
            self.model.generate(
                input_ids=ids, attention_mask=inputs["attention_mask"].to(ids.device), max_new_tokens=sampling.max_new_tokens,
                streamer=transcript, logits_processor=LogitsProcessorList([penalty]),
                stopping_criteria=[lambda ids, scores: torch.full((len(ids),), stop(), device=ids.device)],
                **chosen, **adapters)

    def _prompt(self, talk: list[Message], sampling: Sampling) -> str:
        """The talk as text, up to where the answer begins. Raises StudioError if the model cannot take it."""
        from studio.engine.rendering import Refusal, render

        try:
            text = render(self.tokenizer, talk, add_generation_prompt=True)
        except Refusal as error:
            raise StudioError(f"The model's chat template refuses this talk: {error}. Start a new chat.") from error
        tokens = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and tokens + sampling.max_new_tokens > limit:
            raise StudioError(
                f"This chat of {tokens} tokens and an answer of up to {sampling.max_new_tokens} exceed the {limit} that the "
                "model can take. Start a new chat, or shorten the longest answer.")
        return text

    @contextmanager
    def _as_base(self) -> Iterator[None]:
        """The model as it was before training: PEFT switches the adapter off, but trained biases only we can undo."""
        tuned = [(weight, weight.detach().clone()) for weight, _ in self._base_biases]
        _put(self._base_biases)
        try:
            with self.model.disable_adapter():
                yield
        finally:
            _put(tuned)

    def _mixing_fails(self) -> str:
        """Why base and tuned cannot share a batch, in PEFT's words; empty when they can."""
        import torch

        ids = torch.tensor([[self.tokenizer.eos_token_id]] * len(SIDES), device=self.model.device)
        try:
            with torch.no_grad():
                self.model(input_ids=ids, adapter_names=list(SIDES.values()))
        except (ValueError, TypeError, NotImplementedError) as error:
            return str(error)
        return ""


def _put(weights: list[tuple]) -> None:
    for weight, value in weights:
        weight.data.copy_(value)


def main() -> int:
    """The process, from the secrets to its end. Returns the exit code: 1 when it could not go on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS)
    asked = parser.parse_args()
    wire = Wire()
    desk = Desk(asked.run, json.loads(sys.stdin.readline() or "{}"))
    inbox = Inbox().open()
    began = time.monotonic()
    try:
        held = turn.take(desk.folder, "chat")  # noqa: F841 (until this process ends)
        duet = Duet(Run(desk.folder), desk.token, desk.consent)
        wire.say(ready=asdict(Ready(duet.device, round(time.monotonic() - began, 1), not duet.in_turn_because,
                                    duet.in_turn_because)))
        while (question := inbox.next(asked.idle)) is not None:
            converse(wire, inbox, duet, question)
        return 0
    except BaseException as error:  # after an unforeseen one CUDA may be unusable: a fresh process is sure to be sound
        print(redact(traceback.format_exc(), desk.secrets.values()), file=sys.stderr, flush=True)
        wire.say(error=redact(explain(error, getattr(error, "studio_repo", "The repository")), desk.secrets.values()))
        return 1


def converse(wire: Wire, inbox: Inbox, duet: Duet, question: dict) -> None:
    """Answer one question over the wire."""
    asked = question["id"]
    try:
        if not inbox.is_cancelled(asked):
            duet.answer({side: question[side] for side in SIDES}, Sampling(**question["sampling"]),
                        lambda **texts: wire.say(id=asked, **texts), lambda: inbox.is_cancelled(asked))
        wire.say(id=asked, done=True)
    except StudioError as error:
        wire.say(id=asked, error=str(error))


if __name__ == "__main__":
    os._exit(main())  # an orderly end could not be: a thread still holds stdin
