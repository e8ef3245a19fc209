"""Models, adapters and checkpoints that mean harm: refused in words, or used for what is plain in them; nothing of theirs runs."""

import importlib.util
import json
import pickle
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from studio import jobs, parcel, runs
from studio.engine import adapter, checkpoints, rendering, snapshot
from studio.engine.duet import Duet
from studio.engine.examine import examine
from studio.engine.look import look
from studio.engine.merge import merge
from studio.engine.model import load_base
from studio.engine.push import push
from studio.engine.rendering import Refusal, render
from studio.engine.vocabulary import load_tokenizer
from studio.engine.worker import Desk
from studio.errors import StudioError, explain
from studio.examination import FILE as EXAMINED
from studio.jobs import Queue
from studio.preferences.pairs import Pair
from studio.runs import Run
from studio.settings import ModelSettings
from studio.share import FILE, PushRequest
from tests.jobs_at_work import ended, log_of, practice, said
from tests.tiny_models import saved, tiny_model
from tests.tiny_run import tiny_base, tuned_run
from tests.traps import MODULES, PICKLES, asks_for_its_code, change, lay

PAIR = Pair([{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A sound tiny model."""
    return tiny_base(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def trained(plain, tmp_path_factory):
    """A sound run on it."""
    return tuned_run(tmp_path_factory.mktemp("runs"), plain)


@pytest.fixture
def base(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "base")


@pytest.fixture
def run(trained, base, tmp_path):
    """The run on a base of its own, to be spoiled."""
    copied = Run(shutil.copytree(trained.folder, tmp_path / trained.name))
    settings = copied.settings.model_copy(update={"model": ModelSettings(name=str(base))})
    (copied.folder / "settings.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    adapter.sign(copied.adapter, replace(adapter.origin(copied.adapter), name=str(base)))
    return Run(copied.folder)


@pytest.fixture
def canary(tmp_path):
    """Fails the test if anything has touched it."""
    canary = tmp_path / "canary"
    yield canary
    assert not canary.exists(), "Something of the trap was run."


def desk_of(run: Run, kind: str, **files: str) -> Desk:
    """A desk in the folder of a job."""
    run.job(kind).mkdir(exist_ok=True)
    for name, text in files.items():
        (run.job(kind) / f"{name}.yaml").write_text(text, encoding="utf-8")
    return Desk(run.job(kind), {"token": "hf_not-needed-so-far"})


USES = {"chat": Duet, "merge": lambda run: merge(desk_of(run, "merge")),
        "push": lambda run: push(desk_of(run, "push", request=PushRequest(repo="tuned").to_yaml()))}


def refusals(run: Run, uses=tuple(USES)) -> list[str]:
    """What each use of the run's adapter is refused with, in words."""
    told = []
    for use in uses:
        with pytest.raises(StudioError) as refused:
            USES[use](run)
        told.append(str(refused.value))
    return told


def test_the_traps_are_traps(base, tmp_path):
    """Whoever unpickles or imports what is laid here touches the canary."""
    lay(base, tmp_path / "canary")
    for name in (*PICKLES, *MODULES):
        (tmp_path / "canary").unlink(missing_ok=True)
        if name in PICKLES:
            pickle.loads((base / name).read_bytes())
        else:
            spec = importlib.util.spec_from_file_location("trap", base / name)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        assert (tmp_path / "canary").exists(), name


@pytest.mark.fault("T61")
def test_a_model_full_of_traps_is_examined_trained_resumed_merged_and_asked_and_none_goes_off(base, tmp_path, canary):
    """Its weights are safetensors and transformers knows its kind: all else that it brings is left alone."""
    asks_for_its_code(lay(base, canary))
    queue = Queue(tmp_path / "runs", poll_seconds=0.1).open()
    settings = practice(**{"model.name": str(base), "training.max_steps": 2, "training.checkpoint_every": 1, "training.max_length": 128})
    examined = tmp_path / "examined"
    examined.mkdir()
    (examined / FILE).write_text(settings.to_yaml(), encoding="utf-8")
    examine(Desk(examined))
    assert json.loads((examined / EXAMINED).read_text(encoding="utf-8"))["lengths"]
    assert "error" not in look({"settings": settings.model_dump(), "pair": PAIR.row()})
    run = queue.add(settings)
    assert ended(run) == "finished", log_of(run)
    shutil.rmtree(run.checkpoints / "step-00000002", ignore_errors=True)
    for folder in (run.folder, run.adapter, run.checkpoints, *run.checkpoints.iterdir()):
        lay(folder, canary)
    queue.resume(run)
    assert ended(run) == "finished", log_of(run)
    queue.close()
    assert "Resumed" in [type(event).__name__ for event in said(run)]
    lay(run.adapter, canary)
    merge(desk_of(run, "merge"))
    assert {path.suffix for path in run.merged.iterdir()} <= {".safetensors", ".json", ".jinja"}
    Duet(run).answer([PAIR.prompt, PAIR.prompt], sampling(), lambda texts: None)


def sampling():
    from studio.chat import Sampling

    return Sampling(max_new_tokens=2)


# --- what is refused --------------------------------------------------------------------------------------------------


def index(folder: Path, file: object) -> None:
    """Let an index name a file of weights."""
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / snapshot.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"a": file}}), encoding="utf-8")


def header(folder: Path, length: int, text: bytes = b"{}") -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + text)


SPOILED = {
    "code of its own": (lambda folder: change(asks_for_its_code(folder) / "config.json", model_type="trap"), "needs to run code of its own"),
    "a kind nobody knows": (lambda folder: change(folder / "config.json", model_type="trap"), "no model that this studio's transformers knows"),
    "pickles only": (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors weights"),
    "an index that names a pickle": (lambda folder: index(folder, "pytorch_model.bin"), "names 'pytorch_model.bin' as a file of its weights"),
    "an index that leaves the folder": (lambda folder: index(folder, "../../x.safetensors"), "names '../../x.safetensors' as a file of its weights"),
    "an index with a full path": (lambda folder: index(folder, "/etc/x.safetensors"), "names '/etc/x.safetensors' as a file of its weights"),
    "an index of no texts": (lambda folder: index(folder, {"x": 1}), "as a file of its weights"),
    "an index that names what is not there": (lambda folder: index(folder, "gone.safetensors"), "lacks gone.safetensors"),
    "weights of its own choice": (lambda folder: change(folder / "config.json", transformers_weights="pytorch_model.bin"), "names weights of its own choice"),
    "an adapter that names another base": (lambda folder: (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}'), "is an adapter and not a model"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[1]"), "cannot be read"),
    "a config of brackets": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "cannot be read"),
    "a config of 20 MB": (lambda folder: (folder / "config.json").write_text(" " * 20_000_000 + "{}"), "cannot be read"),
    "a header longer than the file": (lambda folder: header(folder, 2**62), "safetensors file"),
    "a header that is no JSON": (lambda folder: header(folder, 4, b"\xff\xff\xff\xff"), "safetensors file"),
    "weights cut off": (lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000]), "safetensors file"),
    "a config deeper than the weights": (lambda folder: change(folder / "config.json", num_hidden_layers=3), "of the weights that its config asks for"),
    "a config wider than the weights": (lambda folder: change(folder / "config.json", hidden_size=96), "of another size"),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED)
@pytest.mark.fault("T61", "T60")
def test_a_base_is_refused_for(base, canary, spoil, words):
    tokenizer = load_tokenizer(ModelSettings(name=str(base)))
    spoil(lay(base, canary))
    (base / "__init__.py").unlink()
    with pytest.raises(Exception) as refused:  # noqa: PT011 (whatever it is, the person reads its explanation)
        load_base(ModelSettings(name=str(base)), tokenizer)
    told = explain(refused.value, "trap/base")
    assert words in told and told.count(". ") >= 1 and "full story" not in told, told


@pytest.mark.parametrize(("changes", "words"), [
    ({"tokenizer_class": "TrapTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_trap.TrapTokenizer", None]}}, "needs to run code of its own"),
    ({"chat_template": [{"name": "../../../x", "template": "hi"}, {"name": "y", "template": "{{ 1 }}"}]}, "has no chat template"),
], ids=["code of its own", "templates named as paths"])
@pytest.mark.fault("T61")
def test_a_tokenizer_is_refused_for(base, canary, changes, words):
    lay(base, canary)
    (base / "chat_template.jinja").unlink()
    change(base / "config.json", model_type="trap")
    change(base / "tokenizer_config.json", **changes)
    with pytest.raises(Exception) as refused:
        load_tokenizer(ModelSettings(name=str(base)))
    assert words in explain(refused.value, "trap/base")


@pytest.mark.fault("T61")
def test_checkpoints_with_damage_links_or_paths_are_passed_over(tmp_path, canary):
    sound = checkpoints.write(tmp_path / "checkpoints", 1, {}, {"adapter": {"a": torch.ones(2)}}, {"state": {}})
    for step, manifest in enumerate(('{"format": 1, "files": {"../../x": {}}}', "[" * 100_000, "[]", '{"format": 1, "step": 6, "identity": {}, "files": {"rng_state.pth": {"bytes": 1, "sha256": ""}}}'), start=3):
        folder = shutil.copytree(sound.folder, sound.folder.with_name(f"step-{step:08d}"))
        lay(folder, canary)
        (folder / checkpoints.MANIFEST).write_text(manifest, encoding="utf-8")
    linked = shutil.copytree(sound.folder, sound.folder.with_name("step-00000002"))
    manifest = json.loads((linked / checkpoints.MANIFEST).read_text(encoding="utf-8")) | {"step": 2}
    (linked / checkpoints.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (linked / "adapter.safetensors").unlink()
    (linked / "adapter.safetensors").symlink_to(sound.folder / "adapter.safetensors")
    found, skipped = checkpoints.newest(tmp_path / "checkpoints")
    assert found.step == 1 and len(skipped) == 5


# --- adapters ---------------------------------------------------------------------------------------------------------


def rewrite(run: Run, change_weights) -> None:
    weights = load_file(run.adapter / adapter.WEIGHTS)
    change_weights(weights)
    save_file(weights, run.adapter / adapter.WEIGHTS, metadata={"format": "pt"})


def not_a_number(weights: dict) -> None:
    next(iter(sorted(weights.items())))[1].view(-1)[3] = float("nan")


@pytest.mark.fault("T16")
def test_one_number_that_is_none_is_named_by_whoever_would_use_it(run):
    rewrite(run, not_a_number)
    name = sorted(load_file(run.adapter / adapter.WEIGHTS))[0]
    for told in refusals(run):
        assert f"{name} in adapter/adapter_model.safetensors holds numbers that are not finite" in told


@pytest.mark.fault("T16")
def test_a_merged_model_with_such_a_number_is_not_pushed(run):
    run.merged.mkdir(parents=True)
    shutil.copy(run.adapter / "chat_template.jinja", run.merged)
    save_file({"lm_head.weight": torch.tensor([1.0, float("inf")])}, run.merged / "model.safetensors")
    with pytest.raises(StudioError, match="lm_head.weight in merged/model.safetensors holds numbers that are not finite"):
        push(desk_of(run, "push", request=PushRequest(repo="tuned", what="merged").to_yaml()))


SWAPPED = {
    "a pickle instead of safetensors": (lambda run: (run.adapter / adapter.WEIGHTS).unlink(), "holds no safetensors weights"),
    "a configuration that names a module": (lambda run: change(run.adapter / adapter.CONFIG, auto_mapping={"parent_library": "modeling_trap"}), "something else than the LoRA adapter"),
    "a configuration with a core of its own": (lambda run: change(run.adapter / adapter.CONFIG, megatron_config={"x": 1}, megatron_core="trap"), "something else than the LoRA adapter"),
    "another kind of adapter": (lambda run: change(run.adapter / adapter.CONFIG, peft_type="PROMPT_TUNING"), "something else than the LoRA adapter"),
    "a configuration of brackets": (lambda run: (run.adapter / adapter.CONFIG).write_text("[" * 100_000), "cannot be read"),
    "another base's name": (lambda run: adapter.sign(run.adapter, snapshot.Origin("other/base", "", "")), "was trained on other/base"),
    "a spoiled note of its base": (lambda run: (run.adapter / adapter.FILE).write_text('{"name": 1}'), "its base is not known"),
}


@pytest.mark.parametrize(("swap", "words"), SWAPPED.values(), ids=SWAPPED)
@pytest.mark.fault("T61", "T45b")
def test_chat_merge_and_push_refuse_an_adapter_with(run, canary, swap, words):
    lay(run.adapter, canary)
    swap(run)
    assert all(words in told for told in refusals(run))


def other_weights(base: Path) -> None:
    tiny = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        next(tiny.parameters()).add_(1e-2)
    settings = (base / "generation_config.json").read_bytes()
    tiny.generation_config = GenerationConfig()  # the base's own may not be saved again
    tiny.save_pretrained(base)
    (base / "generation_config.json").write_bytes(settings)


def other_shape(base: Path, **changes) -> None:
    saved_tokenizer = {path.name: path.read_bytes() for path in base.glob("*token*")}
    saved(tiny_model("llama", **({"vocab_size": 300, "hidden_size": 64} | changes)), base)
    for name, content in saved_tokenizer.items():
        (base / name).write_bytes(content)


@pytest.mark.parametrize("exchange", [
    other_weights, lambda base: other_shape(base, num_hidden_layers=4), lambda base: other_shape(base, vocab_size=400),
    lambda base: change(base / "config.json", rope_theta=7.0), lambda base: change(base / "config.json", num_hidden_layers=1)],
    ids=["other weights of the same shape", "a deeper base", "a larger vocabulary", "other positions", "fewer layers used"])
@pytest.mark.fault("T45b")
def test_chat_merge_and_push_refuse_a_base_under_the_old_name_that_has_become(run, base, exchange):
    exchange(base)
    assert all("no longer has the weights that this adapter was trained on" in told for told in refusals(run))


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda weights: weights.pop(sorted(weights)[0]), "only some of the parts"),
    (lambda weights: weights.update({sorted(weights)[0].replace("layers.0", "layers.7"): torch.ones(2)}), "no place there"),
    (lambda weights: weights.update({sorted(weights)[0]: torch.ones(4, 4)}), "other sizes")], ids=["missing", "too many", "of another size"])
@pytest.mark.fault("T45b")
def test_parts_of_an_adapter_that_do_not_apply_are_told_also_where_no_base_was_written_down(run, spoil, words):
    (run.adapter / adapter.FILE).unlink()
    rewrite(run, spoil)
    assert all(words in told for told in refusals(run, ("chat", "merge")))


def test_a_sound_adapter_is_let_through_also_one_of_an_older_version(run):
    adapter.check(run)
    (run.adapter / adapter.FILE).unlink()
    adapter.check(run)
    Duet(run)


def test_what_is_a_link_is_not_published(run, tmp_path):
    (run.adapter / "vocab.json").symlink_to("/etc/hostname")
    with pytest.raises(StudioError, match="is a link to somewhere else"):
        parcel.contents(run, "adapter", "ada/tuned")


@pytest.mark.slow
@pytest.mark.fault("T45b")
def test_an_adapter_meets_the_commit_it_was_trained_on_wherever_the_branch_has_gone(hub, plain, tmp_path):
    repo = hub.add_model("someone/tiny", plain)
    run = runs.create(tmp_path / "runs", practice(**{"model.name": "someone/tiny", "training.max_steps": 2}))
    jobs.start(jobs.of(run))
    assert ended(run) == "finished", log_of(run)
    assert adapter.origin(run.adapter).commit == repo.commits[-1].oid
    moved = shutil.copytree(plain, tmp_path / "moved")
    other_weights(moved)
    hub.add_model("someone/tiny", moved).commits[:0] = repo.commits
    jobs.request(jobs.of(run, "merge"), "")
    assert ended(run, "merge") == "finished", log_of(run, "merge")
    was = load_file(plain / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(load_file(run.merged / "model.safetensors")["model.embed_tokens.weight"], was)


# --- templates --------------------------------------------------------------------------------------------------------

ENDLESS = {
    "loops within loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "texts that double": "{% set n = namespace(x='xxxxxxxx') %}{% for a in range(999) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a text of a terabyte": "{{ 'x' * 10 ** 12 }}",
    "a long text": "{% for a in range(99999) %}{{ 'x' * 99 }}{% endfor %}",
    "a power": "{{ 9 ** (9 ** 9) }}", "squares": "{% set n = namespace(x=9) %}{% for a in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "lists within lists": "{% set n = namespace(x=[1]) %}{% for a in range(999) %}{% set n.x = n.x + n.x %}{% endfor %}"}
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}", "{{ self._TemplateReference__context }}", "{{ messages.append(1) }}",
    "{{ ''|attr('__class__') }}", "{{ raise_exception.__globals__ }}", "{{ strftime_now.__globals__['os'].system('touch CANARY') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "{{ ('{0.__cl' ~ 'ass__}').format_map({'0': 1}) }}",
    "{% import 'os' as os %}", "{% include '/etc/hostname' %}", "{{ range(10 ** 12)|list }}", "{% for i in range(10 ** 12) %}{% endfor %}",
    "{{ joiner.__init__.__globals__ }}", "{{ namespace.__init__.__globals__ }}", "{{ (messages|map(attribute='__class__')|list)[0].__base__ }}"]


@pytest.fixture
def tokenizer(plain):
    return load_tokenizer(ModelSettings(name=str(plain)))


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.fault("T61")
def test_a_template_without_an_end_is_ended(tokenizer, template, monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 1.0)
    tokenizer.chat_template = template
    with pytest.raises((StudioError, Refusal)) as refused:
        render(tokenizer, PAIR.prompt)
    assert re.search("was ended after|multiplies what is too large", str(refused.value))


@pytest.mark.parametrize("template", ESCAPES)
@pytest.mark.fault("T61")
def test_a_template_reaches_nothing_but_the_talk(tokenizer, template, canary):
    tokenizer.chat_template = template.replace("CANARY", str(canary))
    try:
        text = render(tokenizer, PAIR.prompt)
    except Refusal:
        return
    assert not text.strip() or "Undefined" in text or "object" not in text and "class" not in text and "function" not in text, text


def test_rendering_leaves_timers_and_limits_as_they_were(tokenizer):
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    heard_at = signal.getitimer(signal.ITIMER_REAL)[0]
    render(tokenizer, [PAIR.prompt] * 3)
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)) == before
    assert not heard_at or 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= heard_at


@pytest.mark.fault("T61")
def test_an_endless_template_ends_an_examination_and_a_run_in_words(base, tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 0.5)
    # Sound for a single question, so that it is only found out at work.
    (base / "chat_template.jinja").write_text("{% if messages|length > 1 %}" + ENDLESS["loops within loops"] + "{% endif %}{{ messages[0].content }}")
    settings = practice(**{"model.name": str(base)})
    told = look({"settings": settings.model_dump(), "pair": PAIR.row()})
    assert "was ended after 0.5 seconds" in told["error"]
    (tmp_path / FILE).write_text(settings.to_yaml(), encoding="utf-8")
    examine(Desk(tmp_path))
    found = json.loads((tmp_path / EXAMINED).read_text(encoding="utf-8"))
    assert any("was ended after" in finding["words"] for finding in found["findings"]), found["findings"]


def test_only_one_module_renders_templates():
    """And no page: there nothing could end it."""
    project = Path(rendering.__file__).parents[2]
    rendering_them = [path.name for path in (project / "studio").rglob("*.py") if ".apply_chat_template(" in path.read_text(encoding="utf-8")]
    assert sorted(rendering_them) == ["practice.py", "rendering.py", "script.py", "usage.py"], "a script and a card's snippet quote it; the practice model is made with its own template"
    assert not [path for path in [*(project / "studio").glob("*.py"), *(project / "studio" / "ui").glob("*.py")] if "import jinja2" in path.read_text(encoding="utf-8")]
