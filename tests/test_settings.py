"""Settings: declared once, complete complaints, the same through YAML, form and preset."""

import pytest

from studio.errors import SettingsError
from studio.settings import Settings, choices


def complaints(**values):
    with pytest.raises(SettingsError) as refused:
        Settings.from_form(**values)
    return refused.value.problems


def test_the_defaults_can_run():
    assert Settings() == Settings.from_form()


def test_yaml_gives_the_same_settings_back():
    settings = Settings.from_form(**{"training.learning_rate": 3e-7, "data.rows": 17, "evaluation.prompts": "Wer?\nWas: #1 „ja“"})
    assert Settings.from_yaml(settings.to_yaml()) == settings


def test_the_form_gives_the_same_settings_back():
    settings = Settings.from_form(**{"adapter.rank": 4, "model.quantization": "nf4"})
    assert Settings.from_form(**settings.to_form()) == settings


def test_all_complaints_come_at_once_and_name_their_fields():
    found = complaints(**{"training.batch_size": 0, "training.beta": -1, "data.held_out": 0.9, "model.name": " "})
    assert set(found) == {"training.batch_size", "training.beta", "data.held_out", "model.name"}


def test_a_batch_of_zero_is_told_what_to_enter():
    assert complaints(**{"training.batch_size": 0})["training.batch_size"] == "0 is out of range. Enter at least 1."


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "many", None, "", [1]])
def test_what_is_no_number_is_refused_in_words(value):
    text = complaints(**{"training.learning_rate": value})["training.learning_rate"]
    assert "Enter" in text and text.count(".") >= 1


def test_an_unknown_choice_lists_the_known_ones():
    assert "'nf4'" in complaints(**{"model.quantization": "nf5"})["model.quantization"]


def test_a_setting_that_does_not_exist_is_named():
    assert complaints(**{"training.optimiser": "x"}) == {"training.optimiser": "There is no such setting. Remove it."}


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words", "1: 2", "\x00", "!!python/object:os.system {}",
                                  "training: 7", "training: {beta: {}}", "&a [*a]"])
def test_a_file_without_settings_is_refused(text):
    with pytest.raises(SettingsError):
        Settings.from_yaml(text)


def test_a_setting_that_contradicts_another_is_refused():
    assert "adapter.bias" in complaints(**{"model.quantization": "nf4", "adapter.bias": "all"})


def test_settings_do_not_change():
    with pytest.raises(Exception, match="frozen"):
        Settings().training.beta = 1


@pytest.mark.parametrize("choice", list(choices()), ids=lambda choice: choice.name)
def test_every_choice_has_a_label_and_a_caption_that_says_something(choice):
    assert choice.label[0].isupper()
    assert len(choice.caption.split()) >= 4 and choice.caption.rstrip().endswith(".")


def test_the_choices_are_the_settings():
    assert [choice.name for choice in choices()] == list(Settings().to_form())


@pytest.mark.parametrize(("written", "means"), [("true", "full"), ("false", "none"), ("auto", "auto")])
def test_checkpointing_may_be_written_as_the_first_version_did(written, means):
    assert Settings.from_yaml(f"training: {{gradient_checkpointing: {written}}}").training.gradient_checkpointing == means


def test_yaml_is_read_by_a_safe_loader():
    import yaml

    from studio import plain_yaml

    assert issubclass(plain_yaml._Loader, yaml.SafeLoader | yaml.CSafeLoader)
