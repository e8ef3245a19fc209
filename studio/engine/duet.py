"""Two candidates answering the same question from one loaded base: in one batch where that can be, else in turn."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from studio import collector, names, runs, seal
from studio.candidates import BASE, Candidate, Pair
from studio.chat import Sampling
from studio.engine import bounds
from studio.errors import StudioError
from studio.preferences.pairs import Message
from studio.runs import Run

# The libraries are imported inside functions: see chat.py.

SECONDS = 60
"""For the tokens of a talk: a tokenizer that needs longer will not come back."""
UPDATE_SECONDS = 0.05
"""Answers are told no more often: faster than anyone reads, and each telling decodes the whole answer."""

LEAST_FREE = 10**9
"""Bytes of a card that a chat is to have for its conversations, beside the base: a guess."""

UNREAD = "This model's chat template leaves out {0}: both answer as if it were not there."

ADAPTERS = ("candidate-0", "candidate-1")
"""What PEFT is told to call the adapter of each."""
NO_ADAPTER = "__base__"
"""PEFT's name for none."""


@dataclass
class Answer:
    """One candidate's tokens so far."""

    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def text(self, tokenizer) -> str:
        """As text without special tokens; while it grows, a character that is not whole yet waits."""
        text = tokenizer.decode(self.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text if self.ended else text.rstrip("\ufffd")


class Transcript:
    """What generate() streams into, for two that speak at once or in turn: transformers' own streamers take one only."""

    def __init__(self, tokenizer, stops: set[int], tell: Callable[[list[str]], None]):
        self.answers = (Answer(), Answer())
        self.speaking: Sequence[int] = (0, 1)
        self._tokenizer, self._stops, self._tell, self._told_at = tokenizer, stops, tell, 0.0

    def put(self, tokens) -> None:
        """Take the next token of each who speaks, shape (speaking,). The prompts, which come first, are passed over."""
        if tokens.dim() > 1:
            return
        for place, token in zip(self.speaking, tokens.tolist(), strict=True):
            answer = self.answers[place]
            answer.ended = answer.ended or token in self._stops  # what follows in its row is padding
            if not answer.ended:
                answer.tokens.append(token)
        if time.monotonic() - self._told_at >= UPDATE_SECONDS:
            self._say()

    def end(self) -> None:
        """Tell what those who speak said to the last character."""
        for place in self.speaking:
            self.answers[place].ended = True
        self._say()

    def _say(self) -> None:
        self._told_at = time.monotonic()
        self._tell([answer.text(self._tokenizer) for answer in self.answers])


class Duet:
    """The base's weights once, and in a batch of two each candidate's adapter on its own row.

    Each row is what that candidate says alone; only int8 rounds a batch as one: there log-probabilities move, by less than 0.1.
    """

    def __init__(self, run: Run, token: str | None = None, consent: frozenset[str] = frozenset()):
        """Load the run's base, and let base and run sit down. Raises StudioError if the run has no adapter."""
        if not run.adapter.is_dir():
            raise StudioError(f"There is no adapter in {run.folder}. Choose a run that has finished or was stopped.")
        from transformers import GenerationConfig

        from studio.engine import adapter, model, vocabulary

        self.run, self._token = run, token
        adapter.check(run, token)
        # The adapter's own copy of the tokenizer: its template is the trained one, byte for byte.
        self.tokenizer = vocabulary.read(run.adapter, run.name, padding_side="left")
        self._base = model.load_base(adapter.pinned(run), self.tokenizer, token, consent=consent)
        stops = self._base.generation_config.eos_token_id
        self.stops = {self.tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
        # Only what a person chose decides: nothing of the model's own sampling is left to slip in.
        self._base.generation_config = GenerationConfig(eos_token_id=sorted(self.stops), pad_token_id=self.tokenizer.pad_token_id)
        self._biases = [(weight, weight.detach().clone()) for name, weight in self._base.named_parameters() if name.endswith("bias")]
        self._base.eval().requires_grad_(False)
        self._offload()
        self.model, self.pair, self.in_turn_because = self._base, None, ""
        self.seat((BASE, Candidate(run.name)))
        collector.settle()

    @property
    def device(self) -> str:
        """What it computes on: "cpu" or a card's name."""
        import torch

        return torch.cuda.get_device_name(self.model.device) if self.model.device.type == "cuda" else "cpu"

    def _offload(self) -> None:
        """Keep embedding and head in RAM where the run's settings ask for it, or with auto where the card has little memory left."""
        from studio.engine.orpo import memory, offload

        wanted, trained = self.run.settings.model.offload_embeddings, names.outside_layers(self.run.settings.adapter.target_modules)
        if wanted == "off" or trained or not offload.is_possible(self._base) or offload.why_not(self._base):
            return
        if wanted == "on" or memory.free_bytes(self._base.device) < LEAST_FREE:
            offload.to_ram(self._base)

    # --- who answers --------------------------------------------------------------------------------------------------

    def seat(self, pair: Pair) -> None:
        """Let these two be who answers. Raises StudioError for one that is not there, not sound, or of another base or template."""
        if pair == self.pair:
            return
        self.pair = None
        self._undress()
        for candidate in filter(None, map(self._run_of, pair)):
            self._refuse_a_stranger(candidate)
        self.in_turn_because = self._mixing_fails(pair)
        if self.in_turn_because:
            self._undress()
        self.pair = pair

    def _run_of(self, candidate: Candidate) -> Run | None:
        """The run whose adapter a candidate has: one of the same room; None for the base."""
        return runs.find(self.run.folder.parent, candidate.run) if candidate.run else None

    def _refuse_a_stranger(self, run: Run) -> None:
        from studio.engine import adapter
        from studio.engine.orpo import offload

        if not run.adapter.is_dir():
            raise StudioError(f"Run {run.name} has no adapter. Choose a run that has finished or was stopped.")
        adapter.check(run, self._token)
        adapter.refuse_other_base(run, self._base.origin, "Choose a run that was trained on this one.")
        if (trained := names.outside_layers(run.settings.adapter.target_modules)) and offload.bytes_in_ram(self._base):
            raise StudioError(f"Run {run.name} has an adapter on {' and '.join(trained)}, and this chat keeps that matrix in RAM. "
                              "Open a chat of that run instead.")
        if seal.of(run.adapter) != seal.of(self.run.adapter):
            raise StudioError(f"Run {run.name} was trained with another chat template than {self.run.name}, "
                              "and one talk is written with one. Choose a run with the same template.")

    def _dress(self, candidate: Candidate, name: str) -> None:
        """Add a candidate's adapter, if it has one, to those that the model has."""
        from studio.engine import checkpoints, model

        run = self._run_of(candidate)
        if run is None:
            return
        self.model = model.worn(self.model, run.adapter, name).eval()
        if candidate.step is not None:
            model.set_back(self.model, checkpoints.of_step(run.checkpoints, candidate.step), name)

    def _undress(self) -> None:
        """The base as it was: without any adapter, and with its own biases, which an adapter may have replaced."""
        if self.model is not self._base:
            self.model = self.model.unload().eval()
        for weight, before in self._biases:
            weight.data.copy_(before)

    def _mixing_fails(self, pair: Pair) -> str:
        """Why the pair cannot share a batch, in PEFT's words; empty when it can, and then both are dressed for it."""
        import torch
        from peft import PeftConfig

        if any(run and PeftConfig.from_pretrained(run.adapter).bias != "none" for run in map(self._run_of, pair)):
            return "The biases were trained too."  # and the layers have one bias for all rows
        for candidate, name in zip(pair, ADAPTERS, strict=True):
            self._dress(candidate, name)
        ids = torch.tensor([[self.tokenizer.eos_token_id]] * len(pair), device=self.model.device)
        try:
            with torch.no_grad():
                self.model(input_ids=ids, adapter_names=self._adapters(pair))
        except (ValueError, TypeError, NotImplementedError) as error:
            return str(error)
        return ""

    def _adapters(self, pair: Pair) -> list[str]:
        return [name if candidate.run else NO_ADAPTER for candidate, name in zip(pair, ADAPTERS, strict=True)]

    @contextmanager
    def _alone(self, candidate: Candidate) -> Iterator[None]:
        self._dress(candidate, ADAPTERS[0])
        try:
            yield
        finally:
            self._undress()

    # --- what they answer ---------------------------------------------------------------------------------------------

    def answer(self, talks: Sequence[list[Message]], sampling: Sampling, tell: Callable[[list[str]], None],
               stop: Callable[[], bool] = lambda: False, note: Callable[[str], None] = lambda words: None) -> None:
        """Answer each one's talk, telling both texts as they grow; `stop` is asked after each token, and `note` is told once what
        the chat template leaves out of what was asked.

        Raises StudioError for a talk that the template refuses or that is too long, and when the GPU's memory is short.
        """
        import torch

        prompts = [self._prompt(talk, sampling, self._run_of(candidate) or self.run)
                   for talk, candidate in zip(talks, self.pair, strict=True)]
        if unread := _unread(talks, prompts):
            note(UNREAD.format(" and ".join(unread)))
        transcript = Transcript(self.tokenizer, self.stops, tell)
        try:
            if not self.in_turn_because:
                self._speak(prompts, sampling, transcript, stop, adapter_names=self._adapters(self.pair))
                return
            for place, candidate in enumerate(self.pair):
                transcript.speaking = (place,)
                with self._alone(candidate):
                    self._speak([prompts[place]], sampling, transcript, stop)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise StudioError("The GPU's memory does not hold this chat beside whatever else is on the card. "
                              "Start a new chat, shorten the longest answer, or wait for the training to end.") from error

    def _speak(self, prompts: list[str], sampling: Sampling, transcript: Transcript, stop: Callable[[], bool], **adapters) -> None:
        import torch
        from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

        inputs = self.tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
        ids = inputs["input_ids"].to(self.model.device)
        chosen = {"do_sample": False}
        if sampling.temperature:
            chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        # The prompts do not count: padding, in the shorter one, would be penalized as if it had been said.
        penalty = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty), prompt_ignore_length=ids.shape[1])
        torch.seed() if sampling.seed is None else torch.manual_seed(sampling.seed)
        with torch.no_grad():
            self.model.generate(
                input_ids=ids, attention_mask=inputs["attention_mask"].to(ids.device), max_new_tokens=sampling.max_new_tokens,
                streamer=transcript, logits_processor=LogitsProcessorList([penalty]),
                stopping_criteria=[lambda ids, scores: torch.full((len(ids),), stop(), device=ids.device)],
                **chosen, **adapters)

    def _prompt(self, talk: list[Message], sampling: Sampling, run: Run) -> str:
        """The talk as text, as the pairs of a run had it, with that run's date, up to where the answer begins.

        Raises StudioError if the model cannot take it.
        """
        from studio.engine.asking import Asker
        from studio.engine.rendering import Refusal

        try:
            text = Asker(run, self.tokenizer).prompt(talk)
        except Refusal as error:
            raise StudioError(f"The model's chat template refuses this talk: {error}. Start a new chat.") from error
        with bounds.bounded("Making tokens of this chat with the model's tokenizer", SECONDS):
            tokens = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and tokens + sampling.max_new_tokens > limit:
            raise StudioError(
                f"This chat of {tokens} tokens and an answer of up to {sampling.max_new_tokens} exceed the {limit} that the "
                "model can take. Start a new chat, or shorten the longest answer.")
        return text


def _unread(talks: Sequence[list[Message]], prompts: Sequence[str]) -> list[str]:
    """Which of the system prompt and the question do not stand in the text that a model reads, blanks around them aside."""
    named = {"system": "the system prompt", "user": "the question"}
    asked = [(turn, text) for talk, text in zip(talks, prompts, strict=True) for turn in (talk[0], talk[-1])]
    return list(dict.fromkeys(named[turn["role"]] for turn, text in asked
                              if turn["role"] in named and turn["content"].strip() not in text))
