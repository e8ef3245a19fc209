"""The words beside a run say what its numbers say: the held-out interval decides, and a name that matches no layer is named."""

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from studio import practice
from studio.engine.model import add_adapter
from studio.errors import StudioError
from studio.events import Evaluated, Planned, Stepped
from studio.jobs import Queue
from studio.settings import Settings
from studio.summary import Summary
from studio.ui import charts, explain
from studio.ui.fit_card import shown
from studio.ui.studio import Studio


def run(grown: list[float], rises: bool = True, accuracy: float = 1.0, before: float = 0.1, **looks) -> Summary:
    """A run whose training margin rises, and whose held-out margins have grown by so much, pair by pair."""
    steps = [Stepped(step, {"rewards/margins": 0.05 * step * (1 if rises else -1), "rewards/accuracies": accuracy}) for step in range(1, 21)]
    said = [Planned(100, len(grown), 20)]
    for step, model, margins in ((0, "base", [before] * len(grown)), (20, "tuned", [before + each for each in grown])):
        right = sum(margin > 0 for margin in margins) / len(margins)
        said.append(Evaluated(step, model, {"rewards/accuracies": right, "rewards/margins": sum(margins) / len(margins), "n": len(margins)},
                              margins if looks.get("one_by_one", True) else ()))
    return Summary([said[0], said[1], *steps, said[2]])


def told(summary: Summary) -> list[tuple[str, str]]:
    return [(remark.kind, remark.text) for remark in explain.remarks(summary)]


def test_a_margin_that_rises_in_training_and_falls_on_held_out_pairs_is_not_good_news():
    summary = run([-0.05 - at / 1000 for at in range(30)])
    (kind, text), *_ = told(summary)
    assert kind == "bad" and "has fallen by 0.0645 on the 30 held-out pairs (95 % interval -0.0" in text and "does not carry over" in text
    assert explain.verdict(summary).kind == "bad" and "The margin has shrunk" in explain.verdict(summary).text
    assert not [text for kind, text in told(summary) if kind == "good"]


def test_the_held_out_interval_decides_whatever_the_training_pairs_say():
    up, flat = [0.05 + at / 1000 for at in range(30)], [0.05 * (-1) ** at for at in range(30)]
    assert told(run(up))[0][0] == "good" and "has risen by 0.0645 on the 30 held-out pairs" in told(run(up))[0][1]
    assert told(run(up, rises=False))[0][0] == "good"
    assert told(run(flat))[0][0] == "warn" and "cannot be told from chance" in told(run(flat))[0][1]


def test_before_there_is_an_interval_nothing_is_called_good():
    up, down = run([0.05] * 30, one_by_one=False), run([-0.05] * 30, one_by_one=False)
    assert told(up)[0][0] == "info" and "on the 30 held-out pairs so far (0.1000 before, 0.1500 now)" in told(up)[0][1]
    assert told(down)[0][0] == "warn" and "but not on the 30 held-out pairs so far" in told(down)[0][1]
    alone = Summary([Planned(100, 0, 20), *run([0.1] * 3).steps])
    assert told(alone)[0] == ("info", "The margin is rising on the training pairs. Only held-out pairs show whether that carries over, "
                                      "and none are held out.")


def accuracies(base: float, tuned: float, count: int) -> Summary:
    measured = [Evaluated(step, model, {"rewards/accuracies": share, "n": count}) for step, model, share in
                ((0, "base", base), (20, "tuned", tuned))]
    return Summary([measured[0], *run([0.1] * 3).steps, measured[1]])


def test_memorising_needs_enough_pairs_and_a_base_that_did_as_well():
    def word(base, tuned, count):
        return [text for _, text in told(accuracies(base, tuned, count)) if "told apart perfectly" in text]

    assert "the 40 held-out ones in 60.0 % (base: 62.5 %): the model is memorising" in word(0.625, 0.6, 40)[0]
    assert "part of what it learns carries over" in word(0.3, 0.8, 40)[0] and "memorising" not in word(0.3, 0.8, 40)[0]
    assert word(1.0, 0.5, 4) == [] and word(0.9, 0.95, 40) == []  # 2 of 4 say nothing


def test_one_held_out_pair_is_said_to_measure_nothing():
    verdict = explain.verdict(accuracies(0.0, 1.0, 1))
    assert verdict.kind == "warn" and "one pair measures nothing" in verdict.text
    assert explain.verdict(accuracies(0.5, 0.75, 4)).kind == "info"


def test_the_loss_chart_says_how_the_held_out_loss_is_averaged():
    (panel,) = [panel for panel in charts.PANELS if panel.id == "loss"]
    assert "every token of all pairs weighs the same" in panel.caption


# --- target modules ---------------------------------------------------------------------------------------------------


def adapted(modules: str) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(practice.MODEL, trust_remote_code=False)
    return add_adapter(base, Settings.from_form(**{"adapter.target_modules": modules}))


@pytest.mark.parametrize(("modules", "named"), [
    ("q_proj, layernorm", "“layernorm” is no layer"), ("q_porj, v_proj", "“q_porj” is no layer"), ("q_proj, input_layernorm", "“input_layernorm”"),
    ("q_proj, all-linear", "“all-linear”"), ("proj", "“proj”"), ("a, b", "“a” and “b” are no layers")])
def test_a_target_module_that_the_model_does_not_have_is_named_by_the_run(modules, named):
    with pytest.raises(StudioError) as refused:
        adapted(modules)
    assert named in str(refused.value) and "it has down_proj, gate_proj, k_proj" in str(refused.value)


def test_target_modules_that_are_there_are_taken():
    for modules in ("all-linear", "q_proj,v_proj", "self_attn.q_proj, mlp.down_proj"):
        names = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in adapted(modules).named_parameters() if "lora_A" in name}
        assert names == ({"q_proj", "v_proj"} if "v_proj" in modules else {"q_proj", "down_proj"} if "mlp" in modules else
                         {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


def test_it_is_named_above_start_too(tmp_path):
    studio = Studio(tmp_path, Queue(tmp_path))

    def card(modules: str) -> str:
        return shown(studio, Settings.from_form(**{"adapter.target_modules": modules}).to_form())

    assert "this model has no layernorm" in card("q_proj, layernorm")
    assert "this model has no" not in card("q_proj, mlp.down_proj, lm_head") + card("all-linear")
