"""What a card says of its model beyond the results: what it was made from, under which licence, from which data, with which curves."""

import io
import json
import math

import pytest
import yaml
from PIL import Image

from studio import card, curves, events, jobs, licences, lineage, parcel, runs
from studio.engine.hub import licence
from studio.jobs import Queue
from studio.runs import Run
from studio.summary import Summary
from studio.ui import share_tab
from studio.ui.studio import Studio
from tests.jobs_at_work import practice

LLAMA = {"license": "llama3.1", "license_link": "LICENSE"}


def trained(root, stated: dict | None = None, **changes) -> Run:
    """The log and settings of a run, as a card reads them; its base is on the Hub."""
    run = runs.create(root, practice(**{"model.name": "acme/base", "data.source": "acme/pairs", "data.also": "acme/more"} | changes))
    for event in (
            events.Started(device="cpu", versions={"torch": "2.13.0"}),
            events.Gathered(stated if stated is not None else LLAMA, {"acme/pairs": "a" * 40, "acme/more": "b" * 40},
                            {"English": 700, "German": 200, "Cyrillic script": 90, "Thai": 2}, 1000),
            events.Planned(pairs=30, held_out=8, steps=3),
            events.Evaluated(0, "base", {"rewards/accuracies": 0.5, "rewards/margins": 0.01, "loss": 2.6, "n": 8}),
            *(events.Stepped(step, {"loss": 3.0 - step / 2, "rewards/margins": step / 100}, memory=10**9) for step in (1, 2, 3)),
            events.Evaluated(3, "tuned", {"rewards/accuracies": 0.875, "rewards/margins": 0.05, "loss": 1.7, "n": 8}), events.Finished()):
        events.append(jobs.of(run).log, event)
    return run


def written(run: Run) -> Run:
    run.job("gguf").mkdir()
    (run.job("gguf") / f"{run.name}-Q8_0.gguf").write_bytes(b"GGUF")
    return run


def told(run: Run, what="adapter", repo="ada/tuned", stated=None) -> tuple[dict, str]:
    """The metadata and the text of a card."""
    _, metadata, text = card.render(run, what, repo, stated).split("---", 2)
    return yaml.safe_load(metadata), text


# --- what it was made from ----------------------------------------------------------------------------------------------


def test_a_gguf_file_is_not_a_quantized_base_but_a_finetune_of_it(tmp_path):
    metadata, _ = told(written(trained(tmp_path)), "gguf")
    assert (metadata["base_model"], metadata["base_model_relation"]) == ("acme/base", "finetune")


def test_a_gguf_file_is_the_quantized_merged_model_where_that_is_public(tmp_path):
    run = written(trained(tmp_path))
    run.merged.mkdir(parents=True)
    lineage.note_pushed(run, "merged", "ada/Llama-tuned", private=False)
    metadata, _ = told(run, "gguf", "ada/Llama-tuned-GGUF")
    assert (metadata["base_model"], metadata["base_model_relation"]) == ("ada/Llama-tuned", "quantized")
    assert told(run, "merged")[0]["base_model"] == "acme/base"
    lineage.note_pushed(run, "gguf", "ada/Llama-tuned", private=False)  # it takes the merged model's place
    assert told(run, "gguf", "ada/Llama-tuned")[0]["base_model_relation"] == "finetune"
    lineage.note_pushed(run, "merged", "ada/secret", private=True)
    assert "ada/secret" not in card.render(run, "gguf", "ada/x")


@pytest.mark.parametrize(("what", "words"), [
    ("adapter", "The adapter on the base in 16 bits, as the code below loads it, was not measured"),
    ("merged", "This model, merged into the base in 16 bits, was not measured"),
    ("gguf", "This file, made from the base in 16 bits, was not measured")])
def test_results_on_a_quantized_base_are_said_to_be_that_one_s(tmp_path, what, words):
    run = written(trained(tmp_path, **{"model.quantization": "nf4"}))
    text = told(run, what)[1]
    assert "Both were measured with the base in 4 bits (NF4), as it was trained." in text and words in text
    assert "was not measured" not in told(written(trained(tmp_path)), what)[1]


# --- data, languages, settings, curves ----------------------------------------------------------------------------------


def test_the_card_names_the_commit_of_every_dataset_the_languages_and_the_settings(tmp_path):
    metadata, text = told(trained(tmp_path, **{"training.push_checkpoints_to": "ada/private-checkpoints"}))
    assert f"acme/pairs](https://huggingface.co/datasets/acme/pairs) at commit `{'a' * 40}`" in text
    assert f"Mixed in: acme/more at commit `{'b' * 40}`" in text
    assert metadata["language"] == ["en", "de"], "a script that many languages share names none, and two answers of a thousand do not count"
    assert "English 71%, German 20%, Cyrillic script 9% (it could be told of 992 of 1000 looked at)" in text
    assert "| Setting | Value |" in text and "| Held-out share | 0.2 |" in text and "| Learning rate |" in text and "| Data seed | 42 |" in text
    assert "private-checkpoints" not in text


def test_the_curves_are_a_picture_that_travels_with_the_card_and_is_the_same_each_time(tmp_path):
    run = trained(tmp_path)
    assert f"]({curves.FILE})" in told(run)[1]
    content = card.files(run)[curves.FILE]
    assert content == card.files(run)[curves.FILE]
    image = Image.open(io.BytesIO(content)).convert("RGB")
    assert image.size == (curves.WIDTH, curves.HEIGHT)
    found = set(image.getdata())
    assert (0x47, 0x63, 0xD0) in found and (0xC2, 0x57, 0x1A) in found, "a line of training and a point of what was held out"


def test_a_falling_loss_falls_in_the_picture(tmp_path):
    def height(losses) -> list[int]:
        said = [events.Stepped(step, {"loss": loss}) for step, loss in enumerate(losses, start=1)]
        image = Image.open(io.BytesIO(curves.png(Summary(said)))).convert("RGB")
        pixels = ((x, y, image.getpixel((x, y))) for x in range(curves.WIDTH // 2) for y in range(curves.TOP - 5, curves.HEIGHT))
        blue = [(x, y) for x, y, (red, _, blue) in pixels if blue - red > 100]
        return [y for _, y in (min(blue), max(blue))]

    first, last = height([3.0, 2.0, 1.0])
    assert first < last
    first, last = height([1.0, 2.0, 3.0])
    assert first > last


@pytest.mark.parametrize("values", [[math.nan, 1.0], [None, None], [0.0, 0.0], [-1e-9, 1e9], [1e-300, 2e-300], [5.0, 5.0]])
def test_odd_numbers_have_a_picture_too(values):
    said = [events.Stepped(step, {"loss": value, "rewards/margins": value}) for step, value in enumerate(values, start=1)]
    assert Image.open(io.BytesIO(curves.png(Summary(said)))).size == (curves.WIDTH, curves.HEIGHT)


def test_a_run_without_a_line_to_draw_shows_no_picture(tmp_path):
    run = runs.create(tmp_path, practice())
    assert card.files(run) == {} and curves.FILE not in card.render(run, "adapter", "ada/x")


@pytest.mark.parametrize(("low", "high", "marks"), [(0.1, 2.9, [0, 1, 2, 3]), (0, 100, [0, 25, 50, 75, 100]), (-0.02, 0.05, [-0.02, 0, 0.02, 0.04, 0.06])])
def test_axes_have_round_numbers(low, high, marks):
    assert curves.ticks(low, high) == pytest.approx(marks)


# --- licences -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stated", "shown", "prefix", "notice"), [
    ({"license": "llama3"}, "Built with Meta Llama 3", "Llama 3", "Meta Llama 3 is licensed under the Meta Llama 3 Community License"),
    ({"license": "llama3.1"}, "Built with Llama", "Llama", "Llama 3.1 is licensed under the Llama 3.1 Community License"),
    ({"license": "llama3.2"}, "Built with Llama", "Llama", "Llama 3.2 is licensed under the Llama 3.2 Community License"),
    ({"license": "llama3.3"}, "Built with Llama", "Llama", "Llama 3.3 is licensed under the Llama 3.3 Community License"),
    ({"license": "other", "license_name": "llama4"}, "Built with Llama", "Llama", "Llama 4 is licensed under the Llama 4 Community License"),
    ({"license": "llama2"}, "", "", "LLAMA 2 Community License"), ({"license": "gemma"}, "", "", "Gemma Terms of Use"),
    ({"license": "other", "license_name": "qwen-research"}, "Built with Qwen", "", "")])
def test_what_a_licence_asks_for_stands_in_the_card_and_travels_as_a_notice(tmp_path, stated, shown, prefix, notice):
    run = trained(tmp_path, stated)
    metadata, text = told(run)
    assert metadata["license"] == stated["license"] and "inherited from the base" in text
    assert (f"**{shown}**" in text) == bool(shown) and ("Built with" in text) == bool(shown)
    assert (f"begins with “{prefix}”" in text) == bool(prefix)
    assert notice in card.files(run).get("NOTICE", b"").decode() and ("NOTICE" in card.files(run)) == bool(notice)


@pytest.mark.parametrize(("stated", "repo", "fits"), [
    ("llama3", "ada/Llama-3-poet", True), ("llama3", "ada/Llama_3_poet", True), ("llama3", "ada/Llama-poet", False), ("llama3", "Llama/poet", False),
    ("llama3.1", "ada/Llama-poet", True), ("llama3.1", "Llama3.1-poet", True), ("llama3.1", "ada/poet-Llama", False), ("gemma", "ada/poet", True)])
def test_a_repository_s_name_is_looked_at_as_the_licence_asks(tmp_path, stated, repo, fits):
    run = trained(tmp_path, {"license": stated})
    assert licences.of({"license": stated}).fits(repo) == fits
    assert ("begins with" in told(run, "merged", repo)[1]) == (not fits)
    noted = share_tab.naming(Studio(tmp_path, Queue(tmp_path)), run, repo)
    assert ("note-good" in noted) == (fits and stated != "gemma") and ("such as Llama" in noted) == (stated != "gemma")


def test_a_free_licence_asks_for_nothing_and_an_unknown_one_to_be_read(tmp_path):
    assert "Read what it asks" not in told(trained(tmp_path, {"license": "apache-2.0"}))[1]
    assert "Licence: my-own, inherited from the base. Read what it asks of models" in told(
        trained(tmp_path, {"license": "other", "license_name": "my-own"}))[1]
    assert "it was not known when this was written" in told(trained(tmp_path, {}))[1]
    assert share_tab.naming(Studio(tmp_path, Queue(tmp_path)), None, "x") == ""


def test_a_licence_s_link_leads_to_the_base_from_anywhere(tmp_path):
    assert told(trained(tmp_path))[0]["license_link"] == "https://huggingface.co/acme/base/blob/main/LICENSE"


def test_a_licence_that_is_asked_for_at_the_push_comes_before_the_one_written_down(tmp_path):
    assert told(trained(tmp_path), stated={"license": "mit"})[0]["license"] == "mit"


def test_a_hub_that_does_not_answer_leaves_a_licence_unknown():
    from huggingface_hub import HfApi

    assert licence(HfApi(endpoint="http://127.0.0.1:9"), "acme/base") == {}
    assert licence(HfApi(endpoint="http://127.0.0.1:9"), None) == {}


def test_what_is_handed_on_holds_card_curves_and_notice(tmp_path):
    run = trained(tmp_path)
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert set(parcel.contents(run, "adapter", "x")) == {"README.md", "curves.png", "NOTICE", "adapter_config.json"}


# --- what a run writes down ---------------------------------------------------------------------------------------------


def test_a_training_writes_down_commits_languages_and_the_base_s_licence(tmp_path, this_hub, monkeypatch):
    from studio.engine import material, tokens, vocabulary
    from studio.engine.worker import Desk

    readme = b"---\nlicense: other\nlicense_name: llama4\n---\n"
    this_hub.add("acme/base").commit("card", {"README.md": readme})
    settings = practice(**{"data.rows": 40})
    tokenizer = vocabulary.load_tokenizer(settings.model)
    monkeypatch.setattr(tokens, "CACHE", tmp_path / "tokens")
    (tmp_path / "job").mkdir()
    material.gather(settings, tokenizer, Desk(tmp_path / "job"))
    found = events.last(events.read(tmp_path / "job" / events.FILE), events.Gathered)
    assert found.looked_at == 40 and set(found.languages) <= {"English"} and found.licence == {} and found.commits == {}
    from huggingface_hub import HfApi

    assert licence(HfApi(endpoint=this_hub.url), "acme/base") == {"license": "other", "license_name": "llama4"}
