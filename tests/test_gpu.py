"""The same run on a CUDA card: what only a card can show."""

import pytest

from studio import events, gpu, jobs, runs
from tests.jobs_at_work import ended, heard, log_of, practice

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpu.cards(), reason="this machine has no NVIDIA card")]


@pytest.mark.parametrize(("quantization", "optimizer"), [("none", "adamw_torch"), ("nf4", "paged_adamw_8bit"), ("int8", "adamw_8bit")])
def test_a_run_computes_on_the_card_and_says_how_much_memory_it_took(tmp_path, quantization, optimizer):
    run = runs.create(tmp_path, practice(**{"model.device": "gpu", "model.quantization": quantization,
                                            "training.optimizer": optimizer, "training.gradient_checkpointing": "full"}))
    jobs.start(jobs.of(run))
    assert ended(run) == "finished", log_of(run)
    assert heard(run, events.Started)[0].device != "cpu"
    assert heard(run, events.Stepped)[-1].memory > 0


def test_the_card_is_named_with_its_memory():
    card = gpu.cards()[0]
    assert card.total > card.used >= 0 and card.name in gpu.in_words([card])
