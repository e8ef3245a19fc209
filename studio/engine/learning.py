"""What a training job does once its pairs are tokenized: base and adapter, the steps, their checkpoints and measurements, the result."""

import math
import os
import random
import shutil
from contextlib import closing

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from studio import collector, events, plan, practice, questions, runs, seal, unfinished
from studio.begun import Begun
from studio.engine import adapter, checkpoints, evaluate, model, portable
from studio.engine.asking import Asker
from studio.engine.best import Best
from studio.engine.checkpoints import Checkpoint
from studio.engine.keeper import Keeper
from studio.engine.material import Material
from studio.engine.orpo import relief
from studio.engine.orpo import trainer as orpo
from studio.engine.orpo.trainer import BlownUpError, ORPOTrainer, TooLargeError
from studio.engine.rendering import Refusal
from studio.engine.reporter import Reporter
from studio.engine.sample import Sampler
from studio.engine.stopping import StopRequested
from studio.engine.trackers import Reports
from studio.engine.worker import Desk
from studio.errors import StudioError
from studio.preferences.pairs import Message
from studio.runs import Run
from studio.settings import PRACTICE, Settings

SAMPLED = 3
"""Questions of the data that are asked where a person chose none."""


def learn(desk: Desk, run: Run, tokenizer: PreTrainedTokenizerBase, material: Material, begun: Begun) -> events.Event | None:
    """From the base to the adapter. Returns Stopped if it was asked to end early, after saving what it had learned."""
    settings = run.settings
    base = model.load_base(settings.model, tokenizer, desk.token, consent=desk.consent, remark=lambda words: desk.say(events.Noted(words)))
    tuned = model.add_adapter(base, settings)
    if settings.adapter.start_from:
        model.begin_with(tuned, runs.find(run.folder.parent, settings.adapter.start_from))
    planned = plan.plan(settings, len(material.train), len(material.held_out), begun.rules)
    trainer = orpo.build(settings, tuned, tokenizer, material.train, desk.folder, planned.warmup)
    _repair(trainer, desk)
    for words in (trainer.in_words(), *planned.remarks):
        desk.say(events.Noted(words))
    examiner = Examiner(desk, run, trainer, material, begun)
    every = planned.measure_every if examiner.looks else None
    desk.say(events.Planned(planned.pairs, planned.held_out, planned.steps, seal.seal(tokenizer.chat_template),
                            material.system, begun.rules, begun.moment.isoformat(), every or 0))
    if material.system and questions.lines(settings.evaluation.prompts):
        desk.say(events.Noted("The prompts to sample are asked after the system prompt, which all pairs have in common."))
    keeper = Keeper(desk, run, trainer, material.train)
    checkpoint = keeper.newest()
    if settings.evaluation.keep == "best" and not len(material.held_out_tokens):
        desk.say(events.Noted("No pairs are held out, so no measurement is the best one: the last step's weights are kept."))
    with closing(Reports(desk, run, settings, after=checkpoint.step if checkpoint else 0)):
        return _begun(desk, run, trainer, tokenizer, examiner, keeper, checkpoint, planned)


def _begun(desk: Desk, run: Run, trainer: ORPOTrainer, tokenizer: PreTrainedTokenizerBase, examiner: "Examiner", keeper: Keeper,
           checkpoint: Checkpoint | None, planned: plan.Plan) -> events.Event | None:
    """From the measurement of the base, or a checkpoint, to the result."""
    collector.settle()
    if checkpoint is None:
        examiner.best.forget()
        examiner.measure(0, base=True)
    desk.enter("training")
    reporter = Reporter(desk, planned.measure_every if examiner.looks else None, examiner.look_between_steps,
                        keeper.keep, planned.checkpoint_every)
    trainer.add_callback(reporter)
    with closing(keeper):
        try:
            _train(trainer, checkpoint, tokenizer, run, desk)
        except StopRequested:
            reporter.stopped = True
        step = trainer.state.global_step
        desk.enter("saving")
        save(trainer.model, tokenizer, run)
        desk.say(events.Saved(step=step, path="adapter"))
        if reporter.stopped:
            return events.Stopped(step=step)
        _settle(desk, run, trainer, tokenizer, examiner, step)
    return None


def _settle(desk: Desk, run: Run, trainer: ORPOTrainer, tokenizer: PreTrainedTokenizerBase, examiner: "Examiner", step: int) -> None:
    """Measure the end; where the best measurement is to be kept and was an earlier one, let its weights be the adapter instead."""
    examiner.measure(step)
    best = examiner.best.kept if run.settings.evaluation.keep == "best" else None
    if best is not None and best.step != step:
        last, loss = examiner.last_loss, examiner.best.loss_of(best)
        model.set_back(trainer.model, best)
        desk.enter("saving")
        save(trainer.model, tokenizer, run)
        desk.say(events.Saved(step=best.step, path="adapter"))
        desk.say(events.Noted(f"The adapter is that of step {best.step}, where the held-out loss was lowest: {loss:.4f}, "
                              f"against {last:.4f} at the last step, {step}. The same pairs chose it and measure it, "
                              "which flatters it a little."))
        step = best.step
        examiner.measure(step)
    examiner.best.forget()
    examiner.sample(step)


def _repair(trainer: ORPOTrainer, desk: Desk) -> None:
    """Say what changes when memory runs out, and begin with what an earlier half of this run had to change."""
    before = events.last(events.read(desk.folder / events.FILE), events.Repaired)
    if before is not None:
        trainer.budget = min(trainer.budget, before.budget)
        trainer.recompute(max(trainer.recomputed, before.recomputed))
    trainer.on_relief = lambda words: desk.say(
        events.Repaired(trainer.state.global_step, words, trainer.budget, trainer.recomputed))


def _train(trainer: ORPOTrainer, checkpoint: Checkpoint | None, tokenizer, run: Run, desk: Desk) -> None:
    """Take the steps. If the numbers blow up, keep the adapter as it was before, unless nothing was learned yet."""
    try:
        trainer.go_on(checkpoint) if checkpoint else trainer.train()
    except (BlownUpError, TooLargeError) as error:
        if error.step == 0:
            raise
        save(trainer.model, tokenizer, run)
        desk.say(events.Saved(step=error.step, path="adapter"))
        raise StudioError(f"{error} The adapter of step {error.step}, the last sound one, was kept.") from error


class Examiner:
    """Measures the held-out pairs and samples answers, and says both."""

    def __init__(self, desk: Desk, run: Run, trainer: ORPOTrainer, material: Material, begun: Begun):
        self.desk, self.scorer, self.settings = desk, trainer.scorer, run.settings
        self.rows = material.held_out_tokens
        self.best, self.last_loss = Best(run, trainer.model), math.nan
        prompts = _prompts(run.settings, material)
        asker = Asker(run, trainer.processing_class, begun.moment)
        self._sampler: Sampler | None = Sampler(trainer.model, asker, trainer.processing_class, prompts, desk.stopping.heed)
        self.looks = bool(len(self.rows) or prompts)
        """Whether there is anything to look at: pairs held out, or prompts."""

    def measure(self, step: int, base: bool = False, pair_by_pair: bool = True) -> None:
        """Say what the held-out pairs give at this step, with the adapter or without; each pair's margin too, or only the means."""
        if not len(self.rows):
            return
        self.desk.enter("evaluating")
        found = evaluate.measure(
            self.scorer, self.rows, beta=self.settings.training.beta, base=base, batch_size=self.settings.evaluation.batch_size,
            progress=lambda done: self.desk.progress(done, len(self.rows), "held-out pairs"))
        self.desk.say(events.Evaluated(step, "base" if base else "tuned", found.metrics, found.margins if pair_by_pair else ()))
        self.last_loss = found.metrics["loss"]
        if self.settings.evaluation.keep == "best" and not base:
            self.best.offer(step, self.last_loss)

    def look_between_steps(self, step: int) -> None:
        """Measure and sample in the middle of training, which then goes on."""
        self.measure(step, pair_by_pair=False)
        self.sample(step)
        self.desk.enter("training")

    def sample(self, step: int) -> None:
        """Say what base and tuned answer to the fixed prompts. No run ends for want of a sample."""
        if self._sampler is None:
            return
        self.desk.enter("evaluating")
        try:
            for question, base, tuned in self._sampler.answers():
                self.desk.say(events.Sampled(step, question, base, tuned))
        except Exception as error:
            if not (relief.ran_out(error) or isinstance(error, Refusal)):
                raise
            self._sampler = None
            why = "memory is short" if relief.ran_out(error) else f"the chat template refuses a prompt ({error})"
            self.desk.say(events.Noted(f"From step {step} on no answers are sampled, because {why}. The run itself goes on."))
            relief.release()


def _prompts(settings: Settings, material: Material) -> list[list[Message]]:
    """The prompts that a person chose, after the system prompt that all pairs have, if there is one; else three questions of the data,
    for the practice pairs those that were made for it.
    """
    asked = questions.lines(settings.evaluation.prompts)
    if not asked and settings.data.source == PRACTICE:
        asked = list(practice.PROMPTS)
    if asked:
        opening = [{"role": "system", "content": material.system}] if material.system else []
        return [[*opening, {"role": "user", "content": text}] for text in asked]
    short = [pair.prompt for pair in material.questions if _turns_of(pair.prompt) == 1]
    longer = [pair.prompt for pair in material.questions if _turns_of(pair.prompt) > 1]
    return (random.Random(settings.data.seed).sample(short, min(SAMPLED, len(short))) + longer)[:SAMPLED]


def _turns_of(prompt: list[Message]) -> int:
    """The turns of a prompt, a system turn aside."""
    return sum(turn["role"] != "system" for turn in prompt)


def save(tuned: PeftModel, tokenizer, run: Run) -> None:
    """Write adapter and tokenizer beside and rename, so that adapter/ is whole when it is there.

    Raises StudioError for an adapter with a number that is not finite.
    """
    for name, weight in tuned.named_parameters():
        if weight.requires_grad and not torch.isfinite(weight).all():
            raise StudioError(f"The adapter's {name} holds numbers that are not finite, so it was not saved. "
                              "Lower the learning rate and start again.")
    draft = unfinished.named(run.folder, run.adapter.name)
    unfinished.remove(draft)
    tuned.save_pretrained(draft, save_embedding_layers=False)
    (draft / "README.md").unlink(missing_ok=True)  # PEFT's is a form to fill in; the studio writes its own when pushing
    portable.save_tokenizer(tokenizer, draft)
    adapter.sign(draft, tuned.get_base_model().origin)
    if run.adapter.exists():  # of a run that was stopped and went on
        for kind in ("merge", "gguf"):  # what was made from it is no longer this run's result
            shutil.rmtree(run.job(kind), ignore_errors=True)
        checkpoints.remove(run.adapter)
    os.replace(draft, run.adapter)
