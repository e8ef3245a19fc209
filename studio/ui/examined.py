"""An examination as HTML: the verdict, what was recognised, each finding with examples, lengths, single pairs.

Pure functions that know neither Gradio nor how an examination is made.
"""

from typing import Any

from studio import differences
from studio.examination import Examination, Lengths, Spread
from studio.preferences.findings import Finding
from studio.preferences.pairs import in_full
from studio.preview import Tokens
from studio.shelf import Shelf
from studio.summary import Summary
from studio.ui import parts

LIGHTS = {"ready": "good", "ready with losses": "warn", "not ready": "bad"}
WORDS = {"bad": "fix this", "warn": "look at this", "hint": "good to know"}
SIGNS = {"bad": "bad", "warn": "warn", "hint": "info"}
EXAMPLES = 2
"""Pairs shown under each finding."""
PART_NAMES = {"prompt": "Question", "chosen": "Better answer", "rejected": "Worse answer"}
SHOWN = 20_000
"""Characters of one text."""
COMPARED = 4000
"""Longest answers, in words, whose differences are marked; beyond it comparing takes longer than reading."""


def at_work(summary: Summary) -> str:
    """Where the examination stands."""
    far = f": {summary.progress.done:,} {summary.progress.unit}" if summary.progress else ""
    return parts.progress(None, None, f"{(summary.phase or 'starting').capitalize()}{far}")


def told(found: Examination, shelf: Shelf) -> str:
    """The verdict, what was recognised, and the findings."""
    words = " ".join(filter(None, (f"{found.name}: {found.account}", found.recognised, found.edited)))
    held_out = f"{found.held_out:,} of the pairs will be held out to measure honestly." if found.held_out else "None will be held out."
    top = (f'<p class="verdict">{parts.mark(LIGHTS[found.verdict], found.verdict)} <span>{parts.text(found.sentence)}</span></p>'
           f"<p>{parts.text(words)} {held_out}</p>")
    findings = "".join(finding_card(finding, shelf) for finding in found.findings)
    return parts.card("What the doctor says", top + f'<div class="findings">{findings}</div>', level=2)


def finding_card(finding: Finding, shelf: Shelf) -> str:
    """One finding: how grave, what it is, and examples to unfold."""
    examples = [pair for number in finding.rows[: 2 * EXAMPLES] if (place := shelf.place_of(number)) is not None
                for pair in [shelf[place]]][:EXAMPLES]
    unfold = (f'<details><summary>{"Examples" if len(examples) > 1 else "Example"}</summary>'
              f'{"".join(numbered_pair(pair) for pair in examples)}</details>') if examples else ""
    return (f'<div class="finding">{parts.mark(SIGNS[finding.weight], WORDS[finding.weight])}'
            f'<p>{parts.text(finding.words)}</p>{unfold}</div>')


# --- lengths ----------------------------------------------------------------------------------------------------------


def lengths_card(lengths: Lengths | None, why_not: str, pairs: int) -> str:
    """How long the pairs are and what the maximum length cuts off, told from some of so many."""
    if lengths is None:
        return parts.card("Lengths in tokens", parts.note("info", why_not), level=2) if why_not else ""
    rows = [(PART_NAMES[name], f"{spread.median:,}", f"{spread.most:,}", f"{spread.longest:,}") for name, spread in lengths.parts.items()]
    bars = "".join(_bars(PART_NAMES[name], spread, lengths.edges) for name, spread in lengths.parts.items())
    table = parts.table(("Part", "Half are below", "95 of 100 below", "Longest"), rows)
    return parts.card("Lengths in tokens", f"{_cut(lengths, pairs)}{table}" + f'<div class="histograms">{bars}</div>', level=2)


def _cut(lengths: Lengths, pairs: int) -> str:
    of = f"Measured on all {pairs:,} pairs. " if lengths.measured == pairs else f"Measured on {lengths.measured:,} pairs drawn at random. "
    cut = [(lengths.chosen_cut, "lose the end of the better answer"), (lengths.rejected_cut, "lose the end of the worse answer"),
           (lengths.lost, "leave nothing to learn and are left out")]
    told = "; ".join(f"{_share(share)} {what}" for share, what in cut if share)
    if not told:
        return parts.note("good", f"{of}Every pair fits into {lengths.max_length:,} tokens.")
    return parts.note("warn", f"{of}At {lengths.max_length:,} tokens {told}.")


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def _bars(name: str, spread: Spread, edges: list[int]) -> str:
    """A histogram as bars of HTML; each says its stretch and count."""
    most = max(spread.counts) or 1
    bars = "".join(f'<span style="height: {100 * count / most:.0f}%" title="up to {edge:,} tokens: {count:,}"></span>'
                   for count, edge in zip(spread.counts, edges, strict=True))
    said = f"{name}: half below {spread.median:,} tokens, the longest {spread.longest:,}"
    return (f'<figure class="histogram"><div class="bars" role="img" aria-label="{parts.text(said)}">{bars}</div>'
            f'<figcaption>{parts.text(name)}<span class="quiet"> 0 – {edges[-1]:,} tokens</span></figcaption></figure>')


# --- single pairs -----------------------------------------------------------------------------------------------------


def numbered_pair(pair: dict[str, Any]) -> str:
    """A pair as bubbles under its row's number, with what differs between the answers marked."""
    better, worse = marked(shortened(parts.spoken(pair["chosen"])), shortened(parts.spoken(pair["rejected"])))
    prompt = [turn | {"content": shortened(in_full(turn))} for turn in pair["prompt"]]
    tools = listed_tools(pair.get("tools") or [])
    return f'<p class="quiet">Row {pair["number"]:,}{tools}</p>' + parts.pair_card(prompt, better, worse)


def listed_tools(tools: list[dict[str, Any]]) -> str:
    """The names of the tools that a pair lists, as markup; nothing where it lists none."""
    names = ", ".join(str((tool.get("function") or tool).get("name", "")) for tool in tools)
    return f" · tools: {parts.text(shortened(names))}" if names else ""


def shortened(text: str) -> str:
    """A text as far as a page can show it, and how much more there is."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} … and {len(text) - SHOWN:,} more characters"


def marked(better: str, worse: str) -> tuple[str, str]:
    """Both answers as markup, with the words that the other does not have in <mark>."""
    left, right = _words(better), _words(worse)
    if len(left) + len(right) > COMPARED:
        return parts.text(better), parts.text(worse)
    same = [*differences.same(left, right), (len(left), len(right), 0)]
    return _around(left, [(one, size) for one, _, size in same]), _around(right, [(other, size) for _, other, size in same])


def _words(text: str) -> list[str]:
    """Words with the white space after them, so that joined they are the text."""
    words, start = [], 0
    for at in range(1, len(text)):
        if text[at - 1].isspace() and not text[at].isspace():
            words.append(text[start:at])
            start = at
    return [*words, text[start:]]


def _around(words: list[str], same: list[tuple[int, int]]) -> str:
    made, at = [], 0
    for start, size in same:
        if start > at:
            made.append(f"<mark>{parts.text(''.join(words[at:start]))}</mark>")
        made.append(parts.text("".join(words[start : start + size])))
        at = start + size
    return "".join(made)


# --- as the model reads it --------------------------------------------------------------------------------------------

LEGEND = (("shared", "question, the same for both"), ("scored", "answer, scored"), ("cut", "cut off at the maximum length"))


def as_read(tokens: Tokens) -> str:
    """Both texts as the model reads them, token by token, coloured by what becomes of them."""
    legend = " ".join(f'<span class="token {kind}">{words}</span>' for kind, words in LEGEND)
    counts = f"{len(tokens.chosen):,} and {len(tokens.rejected):,} tokens, {tokens.prompt:,} of them the question. Template {tokens.seal}."
    return (f'<p class="quiet">{counts}</p><p class="legend">{legend}</p><div class="columns">'
            f'<div><h3>Better</h3>{_tokens(tokens.chosen, tokens)}</div><div><h3>Worse</h3>{_tokens(tokens.rejected, tokens)}</div></div>')


def _tokens(texts: list[str | None], tokens: Tokens) -> str:
    def token(place: int, told: str | None) -> str:
        kind = "cut" if place >= tokens.max_length else "shared" if place < tokens.prompt else "scored"
        if told is None:  # a token of its own, whose character stands in the one before
            return f'<span class="token {kind} more" title="One more token of the character before it" aria-hidden="true">+</span>'
        return f'<span class="token {kind}">{parts.text(told).replace(chr(10), "↵" + chr(10))}</span>'

    made = "".join(token(place, told) for place, told in enumerate(texts))
    split = any(told is None for told in texts)
    legend = '<p class="quiet">A character that takes several tokens stands in the first; each further one is a “+”.</p>' if split else ""
    return f'<p class="tokens" dir="auto">{made}</p>{legend}'
