"""The table of faults: python -m pytest -p tests.faults -m fault. Which test proves which case, how often it was tried, what came out.

A test names the cases it proves with @pytest.mark.fault("T19"), and counts what it tries with the fixture `tries`.
"""

from collections import defaultdict
from pathlib import Path

TABLE = Path(__file__).parent / "faults.md"
CASES = {
    "T1": "a file with BOM, CRLF and blank lines", "T2": "text in another encoding", "T3": "a file cut off, empty, or something else",
    "T4": "cells such as NA, null, 001, quotes and newlines", "T5": "doubled headers, other separators, ragged rows",
    "T6": "every kind of Parquet column", "T7": "damaged Parquet, a workbook that is none", "T8": "rows that are no pair",
    "T9": "compressed bombs, an upload one byte too large", "T10": "cells that a spreadsheet takes for formulas",
    "T11": "questions that leave no room for an answer", "T12": "answers that are the same, also after the cut",
    "T13": "a tokenizer without padding or template", "T13b": "text from right to left, joined emoji, a million characters",
    "T14": "a learning rate that blows up", "T15": "a gradient that is no number", "T16": "an adapter with one NaN",
    "T17": "memory that runs out in a step", "T18": "memory that runs out while measuring or saving", "T18b": "the longest rows tried first",
    "T18c": "a chat while a training computes",
    "T19": "a kill at every point of a save, files of any length", "T20": "a full disk at checkpoint, log, save, merge",
    "T21": "too little space before the start, a folder that cannot be written", "T22": "a kill at any step",
    "T23": "resuming with other data, base, template, batch or rank", "T24": "a worker that dies by a signal or exits",
    "T24b": "many kills of worker and server", "T24c": "a torn line, garbage in the log",
    "T25": "every client gone, ten megabytes printed", "T26": "a reload, a second browser", "T27": "a worker that hangs",
    "T28": "twenty Starts at once, two servers", "T29": "Stop twice, while starting, after the end", "T30": "clocks and file times set",
    "T31": "a server killed while training", "T32": "a stale, foreign or damaged record of a worker", "T33": "no process left after an end",
    "T34": "a worker that does not leave", "T35": "a foreign process on the GPU", "T36": "many writers and readers",
    "T37": "a log or tracker that cannot be written",
    "T38": "a token that is wrong, read-only or mistyped", "T39": "a model that is gated, private, missing", "T40": "a Hub that fails or cannot be reached",
    "T41": "a push that dies at any point", "T42": "a sign-in that expires", "T43": "a Space restarted with an empty disk",
    "T44": "a download cut and resumed",
    "T45": "a merge of a 4-bit adapter", "T45b": "an adapter of another base", "T45c": "another template than was trained with",
    "T46": "a stranger at every event, file and address", "T47": "a forged sign-in of the Hub", "T48": "no key, no password, beyond this machine",
    "T49": "every Origin with every Host", "T50": "a form on another site", "T51": "a change by following a link",
    "T52": "a redirect to elsewhere", "T53": "too many requests, streams, passwords", "T54": "files that are not the page's",
    "T55": "texts that want to be paths, in every field", "T56": "texts that want to be commands", "T57": "texts that want to be options",
    "T58": "texts that want to be addresses", "T59": "paths of this machine as a model", "T60": "pickled weights", "T61": "hostile models, adapters, checkpoints",
    "T62": "remote code", "T63": "hostile presets and run folders",
    "T64": "a canary token through every path", "T65": "what looks like a token, and what does not", "T66": "fields for secrets",
    "T67": "markup in models, data, logs and answers", "T68": "deleting a run",
    "T73": "libraries missing or too old", "T74": "gates over the code", "T75": "every refusal says what to do", "T76": "the tests' closed network",
    "T79": "a file named by its path where an upload is expected", "T80": "a run from the Hub with the settings of others",
    "T81": "what another user fetched with a token", "T82": "a page that dies while it starts a worker",
    "T83": "bodies past every limit, half-sent requests, many sign-ins", "T84": "made-up addresses, many names, many right sign-ins",
    "T85": "one odd run folder among others", "T86": "texts of growing length against every pattern",
    "T87": "what left the studio, read by other programs and versions", "T88": "a base, a template, texts or defaults that do not suit",
    "T89": "a kill at any moment of merge, GGUF, examination, export", "T90": "thousands of ticks, hundreds of sessions and watchers",
    "T91": "a taken port, a worker that cannot be written down", "T92": "a token in any field, Cancel while starting, a foreign tokenizer",
}
STARRED = {"T11", "T15", "T19", "T20", "T22", "T25", "T28", "T30", "T31", "T41", "T46", "T49", "T55", "T61", "T64", "T79", "T80", "T82", "T90"}
"""The cases that every test run tries; the others' slow tests have a run of their own."""


class Table:
    """What was tried of each case, and whether it held."""

    def __init__(self, whole: bool):
        self.whole = whole
        self.tests, self.tries, self.failed, self.skipped = (defaultdict(int) for _ in range(4))

    def pytest_collection_modifyitems(self, items) -> None:
        for item in items:
            cases = [case for mark in item.iter_markers("fault") for case in mark.args]
            assert set(cases) <= set(CASES), f"{item.nodeid} names a case that is not in the table: {cases}"
            item.user_properties.append(("cases", cases))

    def pytest_runtest_logreport(self, report) -> None:
        noted = list(report.user_properties)
        cases = {case for name, value in noted if name == "cases" for case in value}
        counted = sum(value for name, value in noted if name == "tries") or 1
        for case in cases:
            if report.failed:
                self.failed[case] += 1
            elif report.skipped:
                self.skipped[case] += 1
            elif report.when == "call":
                self.tests[case] += 1
                self.tries[case] += counted

    def result(self, case: str) -> str:
        if self.failed[case]:
            return f"{self.failed[case]} failed"
        return "held" if self.tests[case] else "skipped here" if self.skipped[case] else "no test"

    def lines(self) -> list[str]:
        """The table as Markdown."""
        rows = [f"| {case}{' ★' if case in STARRED else ''} | {stimulus} | {self.tests[case] or ''} | {self.tries[case] or ''} | {self.result(case)} |"
                for case, stimulus in CASES.items()]
        return ["| case | stimulus | tests | tries | result |", "|---|---|---|---|---|", *rows]

    def pytest_terminal_summary(self, terminalreporter) -> None:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(self.lines()))
        held = sum(self.result(case) == "held" for case in CASES)
        told = f"{held} of {len(CASES)} cases held, {sum(self.tries.values()):,} tries."
        terminalreporter.write_line(told)
        if self.whole:
            TABLE.write_text(f"# Faults\n\nWritten by `make faults`. {told} ★: tried by every `make test`.\n\n"
                             + "\n".join(self.lines()) + "\n", encoding="utf-8")


def pytest_configure(config) -> None:
    """The table is written by a run of everything, and not of a few tests that somebody looked at."""
    asked = config.option
    whole = asked.markexpr == "fault" and not (asked.keyword or asked.collectonly) and [Path(name).resolve() for name in config.args] == [TABLE.parent]
    config.pluginmanager.register(Table(whole), "faults")
