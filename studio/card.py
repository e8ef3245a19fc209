"""The model card of a run: metadata the Hub can read, and what a person needs to trust, use and repeat it.

It says the same whenever it is asked (no dates, no paths of this machine), so that pushing twice changes nothing.
"""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from studio import begun, curves, events, licences, seal, usage, votes
from studio.candidates import Candidate
from studio.held_out import compared, flattered
from studio.jobs import of
from studio.lineage import base_commit, hub_base, hub_dataset, is_on_hub, pushed_merged
from studio.preferences import edits
from studio.runs import Run
from studio.settings import PRACTICE, choices
from studio.summary import Summary, duration, percent, size, span
from studio.usage import What

MADE = {"adapter": "A LoRA adapter for", "merged": "A full model in 16 bits, made from", "gguf": "A GGUF file for llama.cpp, made from"}
LIBRARY = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}
PROVEN_BY = {"merged": "merge", "gguf": "gguf"}
"""The job that measured its own result."""

TAG = "orpo-studio"
"""Marks a repository as made by the studio: only such a one is overwritten without asking."""

CODES = {"English": "en", "German": "de", "French": "fr", "Spanish": "es", "Italian": "it", "Portuguese": "pt", "Dutch": "nl",
         "Greek": "el", "Armenian": "hy", "Hebrew": "he", "Bengali": "bn", "Tamil": "ta", "Telugu": "te", "Thai": "th",
         "Georgian": "ka", "Korean": "ko", "Japanese": "ja", "Chinese": "zh"}
"""Languages as the Hub writes them. Scripts that many languages share are named in the text only."""
LANGUAGE_SHARE, LANGUAGE_ANSWERS = 0.05, 3
"""From which share on, and from how many answers, a language is the model's."""
BITS = {"nf4": "4 bits (NF4)", "int8": "8 bits"}

METRICS = {"rewards/accuracies": "Preference accuracy", "rewards/margins": "Reward margin"}

CURVES = {"loss": "Loss", "nll_loss": "Loss of the chosen answer", "rewards/margins": "Reward margin"}

UNSAID = {"model.name", "model.revision", "model.device", "model.offload_embeddings", "training.report_to", "training.push_checkpoints_to"}
"""Settings that are said elsewhere in the card, that change nothing about the result, or that name what is private."""
SAID_TOO = {"data.rows", "data.seed", "data.held_out", "data.leave_out", "evaluation.every", "evaluation.keep"}
"""Those of other sections that decide the result."""

CITATION = """## Citation

```bibtex
@misc{hong2024orpo,
  title         = {ORPO: Monolithic Preference Optimization without Reference Model},
  author        = {Jiwoo Hong and Noah Lee and James Thorne},
  year          = {2024},
  eprint        = {2403.07691},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CL}
}
```
"""


def render(run: Run, what: What, repo: str, licence: dict[str, str] | None = None) -> str:
    """The README of `repo`. `licence` is the base's, as in its own card: license, license_name, license_link."""
    summary = Summary(events.read(of(run).log))
    licence = _stated(run, summary, licence)
    parts = [_what_it_is(run, what, repo), _licence(run, licence, repo), _proof(run, what), _results(run, summary, what),
             _votes(run, summary), usage.section(run, what, repo, _base(run)), _data(run, summary), _training(summary), _settings(run),
             _software(summary), CITATION]
    return f"---\n{metadata(run, what, repo, licence).to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part)


def files(run: Run, licence: dict[str, str] | None = None) -> dict[str, bytes]:
    """What goes with the card: the curves that it shows, and the notice that the base's licence asks for."""
    summary = Summary(events.read(of(run).log))
    terms, picture = licences.of(_stated(run, summary, licence)), curves.png(summary)
    return ({curves.FILE: picture} if picture else {}) | (
        {licences.FILE: f"{terms.notice}\n".encode()} if terms and terms.notice else {})


def metadata(run: Run, what: What, repo: str, licence: dict[str, str] | None = None) -> ModelCardData:
    """What the Hub reads of the card."""
    source, quantized = hub_dataset(run), run.settings.model.quantization != "none"
    summary = Summary(events.read(of(run).log))
    measured, codes = summary.held_out("tuned"), [CODES[name] for name in _languages(summary) if name in CODES]
    related = _related(run, what, repo)
    return ModelCardData(language=codes or None,
        library_name=LIBRARY[what], pipeline_tag="text-generation",
        tags=["orpo", "qlora" if quantized else "lora", "preference-optimization", TAG],
        datasets=[source] if source else None, model_name=repo.split("/")[-1],
        eval_results=_eval_results(run, measured), **related, **_stated(run, summary, licence))


def _stated(run: Run, summary: Summary, licence: dict[str, str] | None) -> dict[str, str]:
    """The base's licence, asked for now or written down when the run began, with a link that leads there from anywhere."""
    if run.settings.model.name == PRACTICE:
        return {"license": "apache-2.0"}
    stated = licence or licences.recorded(summary.said)
    link = stated.get("license_link", "")
    if link and "://" not in link:
        stated = stated | {"license_link": f"https://huggingface.co/{hub_base(run)}/blob/main/{link.removeprefix('./')}"}
    return stated


def _related(run: Run, what: What, repo: str) -> dict[str, str]:
    """What it was made from, and how. A file is a quantized merged model, never a quantized base: that was not tuned."""
    base, merged = hub_base(run), pushed_merged(run)
    if what == "gguf" and merged and merged != repo:
        return {"base_model": merged, "base_model_relation": "quantized"}
    return {"base_model": base, "base_model_relation": "adapter" if what == "adapter" else "finetune"} if base else {}


def _languages(summary: Summary) -> dict[str, int]:
    """The languages of the better answers with their numbers, those that are rare left out."""
    found = events.last(summary.said, events.Gathered)
    counts = found.languages if found else {}
    return {name: count for name, count in counts.items() if count >= max(LANGUAGE_ANSWERS, LANGUAGE_SHARE * sum(counts.values()))}


def plain(text: object) -> str:
    """Any text as one line of Markdown that shows exactly that text."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$])", r"\\\1", " ".join(str(text).split()))


def _eval_results(run: Run, measured: dict[str, float | None] | None) -> list[EvalResult] | None:
    if not measured:
        return None
    data = run.settings.data
    return [EvalResult(task_type="text-generation", dataset_type=hub_dataset(run) or "preference-pairs",
                       dataset_name=f"{_source(run)} (held out)", dataset_split=data.split,
                       metric_type=name, metric_name=f"{words} on held-out pairs", metric_value=measured[name])
            for name, words in METRICS.items() if measured.get(name) is not None]


def _source(run: Run) -> str:
    return _name_of(run.settings.data.source)


def _name_of(source: str) -> str:
    """A source by a name that says nothing about this machine."""
    return "the practice pairs of ORPO Studio" if source == PRACTICE else source if is_on_hub(source) else Path(source).name


def _base(run: Run) -> str:
    if hub_base(run):
        return f"[{plain(hub_base(run))}](https://huggingface.co/{hub_base(run)})"
    if run.settings.model.name == PRACTICE:
        return "the practice model of ORPO Studio (`assets/practice/model`)"
    return f"a local model named {plain(Path(run.settings.model.name).name)}"


def _what_it_is(run: Run, what: What, repo: str) -> str:
    commit = base_commit(run)
    at = f" at commit `{commit}`" if commit else ""
    return (f"# {plain(repo.split('/')[-1])}\n\n{MADE[what]} {_base(run)}{at}, fine-tuned on preference pairs with "
            f"[ORPO](https://arxiv.org/abs/2403.07691) in ORPO Studio.")


def _proof(run: Run, what: What) -> str:
    """What a merge or the writing of a file measured of its own result."""
    noted = events.last(events.read(of(run, PROVEN_BY[what]).log), events.Noted) if what in PROVEN_BY else None
    return plain(noted.text) if noted else ""


def _licence(run: Run, licence: dict[str, str], repo: str) -> str:
    """The base's licence, and what it asks to be shown."""
    terms = licences.of(licence)
    if not licence:
        return f"The licence of the base applies to it as well; it was not known when this was written: see {_base(run)}."
    name, link = plain(licence.get("license_name") or licence.get("license", "")), licence.get("license_link", "")
    linked = f"[{name}]({link})" if link.startswith("https://") else name
    shown = f"**{plain(terms.shown)}**\n\n" if terms and terms.shown else ""
    notice = f" {plain(terms.notice)}" if terms and terms.notice else ""
    read = " Read what it asks of models made from the base." if terms and not terms.shown and not terms.notice else ""
    wrong = f"\n\n{plain(terms.of_name())}" if terms and not terms.fits(repo) else ""
    return f"{shown}Licence: {linked}, inherited from the base.{notice}{read}{wrong}"


def _results(run: Run, summary: Summary, what: What) -> str:
    base, tuned = summary.held_out("base"), summary.held_out("tuned")
    if not tuned:
        return "## Results\n\nNo pairs were held out, so nothing was measured."
    rows = "\n".join(f"| {words} | {_figure(name, (base or {}).get(name))} | {_figure(name, tuned.get(name))} |"
                     for name, words in METRICS.items())
    return (f"## Results\n\nMeasured on {tuned.get('n', '?')} pairs that training did not see. Accuracy is the share in which "
            "the chosen answer is more likely, token for token, than the rejected one."
            f"{f' {flattered(summary)}' if summary.chosen_step else ''}{_measured_in(run, what)}\n\n"
            f"| | Base | Tuned |\n|---|---|---|\n{rows}{_certainty(summary)}")


def _measured_in(run: Run, what: What) -> str:
    """Of a base that was quantized for training: that the results are that one's."""
    bits = BITS.get(run.settings.model.quantization)
    if not bits:
        return ""
    made = {"adapter": "The adapter on the base in 16 bits, as the code below loads it, was",
            "merged": "This model, merged into the base in 16 bits, was", "gguf": "This file, made from the base in 16 bits, was"}[what]
    return f" Both were measured with the base in {bits}, as it was trained. {made} not measured, and can differ a little."


def _certainty(summary: Summary) -> str:
    """How far chance alone reaches, where base and tuned were measured pair by pair."""
    found = compared(summary)
    if found is None:
        return ""
    lowest, highest = found.margin_interval
    return (f"\n| 95 % interval of the accuracy | {span(found.before_interval)} | {span(found.after_interval)} |\n\n"
            f"{found.gained} pairs changed for the better and {found.lost} for the worse (exact sign test: p = {found.by_chance:.2g}). "
            f"The margin changed by {found.margin:+.4f} on average (95 % interval {lowest:+.4f} to {highest:+.4f}).")


def _votes(run: Run, summary: Summary) -> str:
    found = votes.tally(run, (Candidate(), Candidate(run.name).at(summary.said)))
    if not found.votes:
        return ""
    return ("## Blind votes\n\nSomebody asked base and tuned their own questions without knowing whose answer was whose. "
            f"{found.in_words()}")


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return percent(value) if name == "rewards/accuracies" else f"{value:.4f}"


def _data(run: Run, summary: Summary) -> str:
    data, plan = run.settings.data, summary.plan
    found = events.last(summary.said, events.Gathered)
    commits = found.commits if found else {}
    source = plain(_source(run))
    if hub_dataset(run):
        source = f"[{source}](https://huggingface.co/datasets/{hub_dataset(run)})"
    facts = [f"Source: {source}{_at(commits.get(data.source))}", data.subset and f"Subset: {plain(data.subset)}",
             f"Split: {plain(data.split)}", data.revision and f"Revision: {plain(data.revision)}",
             data.rows and f"Rows drawn at random: {data.rows} (seed {data.seed})",
             *(f"Mixed in: {plain(_name_of(part.source))}{_at(commits.get(part.source))}, weight {part.weight:g}"
               for part in data.parts[1:]),
             *(f"Edit: {plain(f'rewrite {min(edit.rows)}' if edit.texts else edit)}" for edit in edits.parse(data.edits)),
             plan and f"Pairs: {plan.pairs} to train on, {plan.held_out} held out", _answers_in(summary),
             plan and plan.template and f"Chat template: seal {plan.template}{_date(run, summary)}"]
    return "## Data\n\n" + "\n".join(f"- {fact}" for fact in facts if fact)


def _date(run: Run, summary: Summary) -> str:
    """What to say of a template that writes the day's date: elsewhere it writes another one."""
    template = run.adapter / seal.TEMPLATE
    if not template.is_file() or not begun.tells_the_time(template.read_text(encoding="utf-8")):
        return ""
    return f"; it writes today's date, which was {begun.moment(run, summary.said):%Y-%m-%d} throughout training"


def _at(commit: str | None) -> str:
    return f" at commit `{commit}`" if commit else ""


def _answers_in(summary: Summary) -> str:
    """The languages of the better answers in words, as far as they can be told."""
    languages, found = _languages(summary), events.last(summary.said, events.Gathered)
    if not languages:
        return ""
    listed = ", ".join(f"{name} {count / sum(languages.values()):.0%}" for name, count in languages.items())
    return f"Language of the better answers: {listed} (it could be told of {sum(found.languages.values())} of {found.looked_at} looked at)"


def _training(summary: Summary) -> str:
    if not summary.steps:
        return ""
    first, last = summary.steps[0].metrics, summary.steps[-1].metrics
    rows = [f"| {words} | {first[name]:.4f} | {last[name]:.4f} |" for name, words in CURVES.items()
            if first.get(name) is not None and last.get(name) is not None]
    picture = f"![Loss and reward margin by optimizer step]({curves.FILE})\n\n" if len(summary.steps) > 1 else ""
    return (f"## Training\n\n{summary.step} optimizer steps in {duration(summary.seconds_taken)} on {plain(summary.device)}, "
            f"with at most {size(summary.memory)} of memory.\n\n{picture}| | First step | Last step |\n|---|---|---|\n" + "\n".join(rows))


def _settings(run: Run) -> str:
    values = run.settings.to_form()
    rows = [f"| {choice.label} | {plain('–' if values[choice.name] in (None, '') else values[choice.name])} |" for choice in choices()
            if choice.name in SAID_TOO or choice.section in ("model", "adapter", "training") and choice.name not in UNSAID]
    return "## Settings\n\n| Setting | Value |\n|---|---|\n" + "\n".join(rows)


def _software(summary: Summary) -> str:
    started = events.last(summary.said, events.Started)
    versions = ", ".join(f"{plain(name)} {plain(version)}" for name, version in (started.versions if started else {}).items())
    return f"## Software\n\n{versions}" if versions else ""
