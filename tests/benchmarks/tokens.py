"""Tokenizing 40,000 pairs of about 600 tokens: `python -m tests.benchmarks.tokens`, against TRL's own preparation.

TRL tokenizes row by row; it is timed on a sample of the same pairs and its rate compared. Both must give the same ids.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from studio.engine import tokens
from studio.engine.vocabulary import load_tokenizer
from studio.practice import conversations
from studio.preferences.pairs import Pair
from studio.settings import ModelSettings
from tests.reference import reference_rows

RESULTS = Path(__file__).parent / "results"
SAMPLE = 500


def main() -> None:
    parser = argparse.ArgumentParser(description="Time tokenizing.")
    parser.add_argument("--pairs", type=int, default=40_000)
    count = parser.parse_args().pairs
    tokenizer, found = load_tokenizer(ModelSettings()), made(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        ours, encoded = timed(lambda: tokens.tokenize(found, tokenizer, 2048, Path(folder)))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        again, _ = timed(lambda: tokens.tokenize(found, tokenizer, 2048, Path(folder)))
        reference, rows = timed(lambda: reference_rows(tokenizer, found[:SAMPLE], 2048))
        for one, other in zip(encoded.at(range(SAMPLE)), rows, strict=True):
            assert np.array_equal(one.chosen, other["chosen_input_ids"]) and np.array_equal(one.rejected, other["rejected_input_ids"])
            assert one.prompt == other["chosen_labels"].count(-100)
    size = encoded.lengths[:, 1:].sum() / len(encoded)
    result = {"pairs": count, "tokens_a_pair": round(float(size)), "seconds": round(ours, 1), "seconds_again": round(again, 1),
              "memory_grown_bytes": grown * 1024, "trl_pairs_per_second": round(SAMPLE / reference, 1),
              "pairs_per_second": round(count / ours, 1), "times_trl": round(count / ours / (SAMPLE / reference), 1)}
    print(json.dumps(result, indent=1))
    (RESULTS / "tokens.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def made(count: int) -> list[Pair]:
    """Pairs of about 600 tokens, both answers together with their prompts: several practice talks strung together."""
    rng, talks = random.Random(0), conversations(0)
    answers = [message["content"] for _ in range(3000) for message in next(talks) if message["role"] == "assistant"]

    def text(sentences: int) -> str:
        return " ".join(rng.choices(answers, k=sentences))

    return [Pair([{"role": "user", "content": text(8)}], [{"role": "assistant", "content": text(14)}],
                 [{"role": "assistant", "content": text(14)}]) for _ in range(count)]


def timed(work):
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
