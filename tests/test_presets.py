"""Presets: each file loads, says when to use it, and could be built."""

import re

import pytest

from studio import fit
from studio.presets import FIRST, all_presets
from studio.settings import PRACTICE, Settings
from tests.model_shapes import shape_of

PRESETS = list(all_presets().values())
NAMES = [preset.name for preset in PRESETS]


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_a_preset_is_whole_settings_and_says_when_to_use_it(preset):
    assert isinstance(preset.settings, Settings)
    assert preset.purpose.startswith(("To ", "For ")) and preset.purpose.endswith(".")


def test_the_presets_a_person_needs_are_there_and_the_practice_comes_first():
    assert NAMES[0] == FIRST
    assert NAMES[1:] == ["gpu-8gb", "gpu-8gb-7b", "gpu-12gb", "gpu-16gb", "gpu-24gb", "gpu-48gb", "gpu-80gb", "llama-3-8b-tutorial"]


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset.name != FIRST], ids=NAMES[1:])
def test_a_preset_fits_the_card_that_it_is_for_by_the_formula_with_pairs_as_long_as_it_allows(preset):
    """A sixteenth of the card is the driver's and the screen's."""
    [memory] = re.findall(r"(\d+) GB", preset.purpose)
    settings, kind = preset.settings, "cuda before Ampere" if "T4" in preset.purpose else "cuda"
    assert fit.fit(settings, shape_of(settings.model.name), int(memory) * 10**9 * 15 // 16, kind).verdict == "fits"


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_a_preset_could_be_built(preset, tmp_path):
    """All that the engine makes of it without weights: quantization, adapter and trainer arguments."""
    from studio.engine import model
    from studio.engine.orpo.arguments import arguments

    # The card is not needed to see that the libraries accept what they would be told.
    settings = preset.settings.model_copy(update={"model": preset.settings.model.model_copy(update={"device": "cpu"})})
    quantization = model.quantization_config(settings.model)
    assert (quantization is not None) == (settings.model.quantization != "none")
    assert model.lora_config(settings.adapter).r == settings.adapter.rank
    told = arguments(settings, tmp_path)
    assert told.learning_rate == settings.training.learning_rate and told.optim == settings.training.optimizer


def test_the_tutorial_preset_has_the_tutorials_values():
    told = all_presets()["llama-3-8b-tutorial"].settings
    assert told.model.name == "meta-llama/Meta-Llama-3-8B"
    assert (told.model.quantization, told.model.double_quantization, told.model.template) == ("nf4", True, "chatml")
    assert (told.data.source, told.data.rows, told.data.seed, told.data.held_out) == ("mlabonne/orpo-dpo-mix-40k", 1000, 42, 0.01)
    assert (told.adapter.rank, told.adapter.alpha, told.adapter.dropout, told.adapter.bias) == (16, 32, 0.05, "none")
    training = told.training
    assert (training.learning_rate, training.beta, training.schedule, training.warmup_steps) == (8e-6, 0.1, "linear", 10)
    assert (training.batch_size, training.accumulation, training.max_length, training.epochs) == (2, 4, 1024, 1)
    assert training.optimizer == "paged_adamw_8bit"
    assert told.evaluation.every == 0.2


def test_the_practice_preset_needs_neither_network_nor_gpu():
    practice = all_presets()[FIRST].settings
    assert practice.model.name == practice.data.source == PRACTICE
    assert practice.model.device == "auto" and practice.model.quantization == "none"
