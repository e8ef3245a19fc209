"""Texts of growing length against every pattern, comparison and mark-up that sees foreign text: the time grows as the text does."""

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path
from re import _constants as codes  # the compiler's own names for the parts of a pattern
from re import _parser

import pytest

from studio import differences
from studio.preferences.findings import Seen
from studio.preferences.near import NearDuplicates
from studio.preferences.pairs import Pair
from studio.redaction import redact
from studio.ui import examined, pair_browser

PROJECT = Path(__file__).resolve().parent.parent
MODULES = [*sorted((PROJECT / "studio").rglob("*.py")), PROJECT / "app.py"]
CALLS = {"compile", "search", "match", "fullmatch", "sub", "split", "findall", "finditer"}
SHORT, LONG = 2_000, 8_000
"""Characters of the two texts. Four times the text may take eight times as long at most, or next to nothing."""
NOTHING = 0.02
"""Seconds in which no growth can be told."""


def patterns() -> dict[str, tuple[re.Pattern, str]]:
    """Every regular expression of the project, by where it stands: those that modules hold, and those written into a call; and how it is used."""
    found = {}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {node.lineno: use_of(node.targets[0].id) for node in ast.walk(tree)
                 if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and "re.compile" in ast.unparse(node.value)}
        constants: dict[str, object] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = texts(node.value, constants)
                if len(value) == 1:
                    constants[node.targets[0].id] = value[0]
        for node in ast.walk(tree):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
            if is_call and node.func.value.id == "re" and node.func.attr in CALLS and node.args:
                flags = re.IGNORECASE * ("IGNORECASE" in ast.unparse(node)) | re.DOTALL * ("DOTALL" in ast.unparse(node))
                for number, text in enumerate(texts(node.args[0], constants)):
                    place = f"{path.relative_to(PROJECT)}:{node.lineno}" + (f".{number}" if number else "")
                    found[place] = (re.compile(text, flags), node.func.attr if node.func.attr != "compile" else named.get(node.lineno, "sub"))
    from studio import redaction

    return found | {f"redaction {number}": (pattern, "sub") for number, (pattern, _) in enumerate(redaction.PATTERNS)}


ALL = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)


def use_of(name: str) -> str:
    """How a pattern of that name is used wherever the project names it: from the text's beginning only, or anywhere in it."""
    uses = set(re.findall(rf"\b{re.escape(name)}\.(match|fullmatch|search|sub|split|findall|finditer|subn)\(", ALL))
    return uses.pop() if len(uses) == 1 else "match" if uses == {"match", "fullmatch"} else "sub"


def texts(node: ast.expr, constants: dict[str, object]) -> list[str]:
    """The texts that an expression can be, as far as it says so itself or by constants of its module."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return [node.value if isinstance(node.value, str) else node.value.decode("latin-1")]
    if isinstance(node, ast.Name) and isinstance(constants.get(node.id), str):
        return [constants[node.id]]
    if isinstance(node, ast.JoinedStr):
        made = ""
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            known = texts(inner, constants)
            made += known[0] if known else r"[a-z0-9_.-]{1,80}"
        return [made]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [one + other for one in texts(node.left, constants) for other in texts(node.right, constants)]
    return []


def example(parsed) -> str:
    """A short text that the parts of a pattern match, as good as can be told without solving it."""
    return "".join(_one(operator, argument) for operator, argument in parsed)


CATEGORY = {codes.CATEGORY_DIGIT: "7", codes.CATEGORY_NOT_DIGIT: "a", codes.CATEGORY_WORD: "a", codes.CATEGORY_NOT_WORD: "-",
            codes.CATEGORY_SPACE: " ", codes.CATEGORY_NOT_SPACE: "a"}


def _one(operator, argument) -> str:
    if operator is codes.LITERAL:
        return chr(argument)
    if operator is codes.NOT_LITERAL:
        return "a" if argument != ord("a") else "b"
    if operator is codes.ANY:
        return "a"
    if operator is codes.IN:
        return _member(argument)
    if operator in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        return example(argument[2]) * min(max(argument[0], 1), 40)
    if operator is codes.SUBPATTERN:
        return example(argument[3])
    if operator is codes.ATOMIC_GROUP:
        return example(argument)
    if operator is codes.BRANCH:
        return example(argument[1][0])
    return ""


def _member(argument) -> str:
    negated = argument[0][0] is codes.NEGATE
    if negated:
        outside = re.compile("[^" + "".join(re.escape(_one_of(item)) for item in argument[1:]) + "]")
        return next(character for character in "a7 -_.\n\x1b" if outside.match(character))
    return _one_of(argument[0])


def _one_of(item) -> str:
    kind, value = item
    return chr(value) if kind is codes.LITERAL else chr(value[0]) if kind is codes.RANGE else CATEGORY.get(value, "a")


def attacks(pattern: re.Pattern) -> Iterator[tuple[str, str, str]]:
    """Beginning, what is repeated without end, and an end that does not fit: for each repetition in a pattern, and for the whole."""
    yield "", example(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)) or "a", "\0"
    for before, repeated in _repetitions(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE), ""):
        for character in {repeated, *repeated} if len(repeated) < 8 else {repeated}:
            for end in ("", "\0", "!"):
                yield before, character, end
            yield "", before + character, "\0"


def _repetitions(parsed, before: str) -> Iterator[tuple[str, str]]:
    for operator, argument in parsed:
        if operator in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            if argument[1] > 100:
                yield before, example(argument[2]) or "a"
            yield from _repetitions(argument[2], before)
        elif operator is codes.SUBPATTERN:
            yield from _repetitions(argument[3], before)
        elif operator is codes.ATOMIC_GROUP:
            yield from _repetitions(argument, before)
        elif operator is codes.BRANCH:
            for branch in argument[1]:
                yield from _repetitions(branch, before)
        elif operator in (codes.ASSERT, codes.ASSERT_NOT):
            yield from _repetitions(argument[1], before)
        before += _one(operator, argument)


def grown(before: str, repeated: str, end: str, length: int) -> str:
    return before + repeated * (length // len(repeated)) + end


def seconds(work, text: str, tries: int = 2) -> float:
    """Of the fastest of some tries: another process may have been in the way of the others."""
    best = 1e9
    for _ in range(tries):
        begun = time.process_time()
        work(text)
        best = min(best, time.process_time() - begun)
        if best > 5:
            break
    return best


FOUND = patterns()


def test_the_project_s_patterns_are_all_found():
    assert len(FOUND) > 60 and {"redaction 0", "redaction 7"} <= FOUND.keys()


@pytest.mark.fault("T86")
@pytest.mark.parametrize("place", FOUND)
def test_a_pattern_takes_time_in_proportion_to_the_text(place, tries):
    pattern, use = FOUND[place]
    work = {"match": pattern.match, "fullmatch": pattern.fullmatch, "search": pattern.search}.get(use, lambda text: pattern.sub("", text))
    count = 0
    for before, repeated, end in dict.fromkeys(attacks(pattern)):
        count += 1
        short = seconds(work, grown(before, repeated, end, SHORT // 8), tries=1)
        assert short < 1, f"{SHORT // 8:,} characters of {(before, repeated, end)!r} take {short:.1f} s."
        if seconds(work, grown(before, repeated, end, LONG), tries=1) > NOTHING:
            long, middle = (seconds(work, grown(before, repeated, end, length)) for length in (LONG, SHORT))
            assert long < 8 * max(middle, NOTHING / 8), f"{(before, repeated, end)!r}: {middle:.3f} s, four times as long {long:.3f} s."
    tries(count)


@pytest.mark.fault("T86")
@pytest.mark.parametrize("text", ["authorization" + "\x1b[0m" * 60_000, "authorization:" + "\x1b[1;31m" * 40_000 + "x", "password" + "\x1b[0m" * 30_000 + "=" + "\x1b[0m" * 30_000,
                                  "cookie" + " " * 200_000, "token=" * 40_000, "eyJ" + "a." * 100_000, "bearer " * 30_000, "://" + "a" * 200_000],
                         ids=["colours", "colours after the colon", "both", "blanks", "names", "dots", "schemes", "address"])
def test_a_quarter_of_a_megabyte_is_redacted_in_a_moment(text):
    assert seconds(redact, text) < 1


def test_what_is_redacted_stays_so_between_colours():
    secret = "Zm9vYmFyYmF6MTIz4"
    for text in (f"authorization\x1b[0m: \x1b[31mBearer \x1b[1m{secret}", f"password\x1b[0m=\x1b[32m'{secret}'", f'"token\x1b[0m": "{secret}"',
                 f"Authorization: \x1b[0m\x1b[1m{secret}", f"\x1b[1mpassword\x1b[0m={secret}", f"\x1b[mBearer {secret}", f"\x1b[1mBasic {secret}"):
        assert secret not in redact(text)


# --- comparisons ------------------------------------------------------------------------------------------------------

WORDS = examined.COMPARED // 2
HARD = {"one word": ("a " * WORDS, "a " * WORDS), "one word and another": ("a " * WORDS, "a b " * (WORDS // 2)),
        "every second one": ("a x " * (WORDS // 2), "a y " * (WORDS // 2)), "turned round": ("a b " * (WORDS // 2), "b a " * (WORDS // 2)),
        "nothing in common": (" ".join(map(str, range(WORDS))), " ".join(map(str, range(WORDS, 2 * WORDS))))}


@pytest.mark.fault("T86")
@pytest.mark.parametrize("texts", HARD.values(), ids=HARD.keys())
def test_the_differences_of_two_answers_are_marked_in_a_moment(texts):
    assert seconds(lambda _: examined.marked(*texts), "") < 1, "difflib takes two minutes for some of these."
    assert seconds(lambda _: pair_browser.with_line_ends_of(texts[0].replace(" ", "\r\n"), texts[1].replace(" ", "\n")), "") < 1


@pytest.mark.parametrize(("left", "right", "wanted"), [
    ("abcde", "abxde", [(0, 0, 2), (3, 3, 2)]), ("", "abc", []), ("abc", "", []), ("abc", "abc", [(0, 0, 3)]), ("abc", "xyz", []),
    ("xaby", "abz", [(1, 0, 2)]), ("aXbXc", "abc", [(0, 0, 1), (2, 1, 1), (4, 2, 1)])])
def test_what_two_sequences_have_in_common(left, right, wanted):
    assert differences.same(left, right) == wanted


def test_as_much_is_found_in_common_as_there_is():
    import random

    dice = random.Random(7)
    for _ in range(300):
        left, right = ("".join(dice.choices("abc", k=dice.randrange(12))) for _ in range(2))
        table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]  # the textbook's way
        for one, first in enumerate(left):
            for other, second in enumerate(right):
                table[one + 1][other + 1] = table[one][other] + 1 if first == second else max(table[one][other + 1], table[one + 1][other])
        blocks = differences.same(left, right)
        assert sum(size for *_, size in blocks) == table[-1][-1]
        assert all(left[one : one + size] == right[other : other + size] for one, other, size in blocks)
        assert all(a[0] + a[2] <= b[0] and a[1] + a[2] <= b[1] for a, b in zip(blocks, blocks[1:], strict=False))


@pytest.mark.fault("T86")
def test_near_repeats_take_the_same_time_for_each_pair_however_alike_all_of_them_are():
    def see(count: int) -> float:
        check, begun = NearDuplicates(), time.process_time()
        for number in range(count):
            text = " ".join(f"word{(number * 7 + place) % 40}" for place in range(60)) + f" {number}"
            check.see(Seen(number, Pair([{"role": "user", "content": "Say it"}], [{"role": "assistant", "content": text}],
                                        [{"role": "assistant", "content": "no"}]), False))
        return time.process_time() - begun

    few, many = see(500), see(2000)
    assert many < 8 * max(few, 0.02)
