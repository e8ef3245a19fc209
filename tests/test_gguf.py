"""A merged model as a GGUF file: it says what the merged model says, in llama.cpp as well, or it is refused."""

import json

import gguf as library
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from studio import events, gguf_file, parcel, runs, usage
from studio.engine import gguf
from studio.engine.ggml import shape, tensors, vocabulary
from studio.engine.stopping import StopRequested
from studio.engine.worker import Desk
from studio.errors import SettingsError, StudioError
from studio.gguf_file import GGUFRequest
from studio.runs import Run
from tests.jobs_at_work import practice, said

TEXTS = ["What is the capital of France? It's Paris, isn't it?", "Ärger über 12345 Züge\n\n\tund 3.14159  Pi …", "我想在apple工作 42天～",
         "    def f(x):\r\n        return x**2 # 'll  DON'T", "🚀🙂 naïve café 한국어 العربية ½ ²", " trailing  ", "<|im_start|>user\nHi<|im_end|>\n"]
TEMPLATE = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
ROWS = 640
SIZES = {"vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "initializer_range": 0.2, "max_position_embeddings": 512}
SCALED = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}


def splitting(words: str):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def digits():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])


FAMILIES = {
    "Llama 2's shape, GPT-2's words": (LlamaConfig(**SIZES, tie_word_embeddings=True), lambda: pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt-2"),
    "Llama 3.1": (LlamaConfig(**SIZES, head_dim=32, rope_parameters=SCALED), lambda: splitting(vocabulary.WORDS["llama-bpe"]), "llama-bpe"),
    "SmolLM": (LlamaConfig(**SIZES), digits, "smollm"),
    "Mistral Nemo": (MistralConfig(**SIZES, head_dim=32, sliding_window=None), lambda: splitting(vocabulary.WORDS["tekken"]), "tekken"),
    "Qwen2": (Qwen2Config(**SIZES), lambda: splitting(vocabulary.WORDS["qwen2"]), "qwen2"),
    "Qwen3": (Qwen3Config(**SIZES, head_dim=32), lambda: splitting(vocabulary.WORDS["qwen2"]), "qwen2")}


def tokenizer_of(words, normalizer=None, **options) -> PreTrainedTokenizerFast:
    alphabet = Tokenizer(models.BPE(**options))
    alphabet.pre_tokenizer, alphabet.decoder = words, decoders.ByteLevel()
    if normalizer:
        alphabet.normalizer = normalizer
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=alphabet, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def merged(root, config, tokenizer, dtype=torch.bfloat16) -> Run:
    """A run whose merged model is one of that shape, with random weights."""
    run = runs.create(root, practice())
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros, which would hide what is done to them
                weight.add_(torch.randn_like(weight) / 4)
    model.to(dtype).save_pretrained(run.merged)
    tokenizer.save_pretrained(run.merged)
    rows = [{"prompt": [{"role": "user", "content": text}], "chosen": [], "rejected": []} for text in TEXTS]
    run.held_out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return run


def desk_of(run: Run, precision="16") -> Desk:
    folder = run.job(gguf_file.KIND)
    folder.mkdir(exist_ok=True)
    (folder / gguf_file.REQUEST).write_text(GGUFRequest(precision=precision).to_yaml(), encoding="utf-8")
    return Desk(folder)


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=list(FAMILIES))
def family(request, tmp_path_factory):
    """A run of one family, and the name of its tokenizer's way."""
    config, words, named = request.param
    return merged(tmp_path_factory.mktemp("runs"), config, tokenizer_of(words())), named


@pytest.fixture
def run(tmp_path):
    config, words, _ = FAMILIES["Llama 3.1"]
    return merged(tmp_path, config, tokenizer_of(words()))


def in_words(run: Run) -> str:
    return events.last(said(run, gguf_file.KIND), events.Noted).text


def left(run: Run) -> list[str]:
    return sorted(path.name for path in run.job(gguf_file.KIND).glob("*.gguf")) + sorted(path.name for path in run.job(gguf_file.KIND).glob(".*.gguf"))


# --- what is in the file --------------------------------------------------------------------------------------------


@pytest.mark.fault("T87")
@pytest.mark.parametrize(("precision", "named"), [("16", "BF16"), ("q8_0", "Q8_0")])
def test_the_file_says_what_the_merged_model_says(family, precision, named):
    run, way = family
    assert gguf.write(desk_of(run, precision)) is None
    assert gguf_file.of(run).name == f"{run.name}-{named}.gguf" and left(run) == [gguf_file.of(run).name]
    assert ("differ by at most 0.0000, and the likeliest one is the same 7 of 7 times" in in_words(run)) == (precision == "16")
    fields = library.GGUFReader(gguf_file.of(run)).fields
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE and fields["tokenizer.ggml.pre"].contents() == way
    assert fields["tokenizer.ggml.tokens"].contents()[-1] == f"[PAD{ROWS - 1}]" and len(fields["tokenizer.ggml.tokens"].data) == ROWS


@pytest.mark.fault("T87")
@pytest.mark.parametrize("precision", ["16", "q8_0"])
def test_llama_cpp_reads_the_same_tokens_and_says_the_same(family, precision):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it is built from source.")
    run, _ = family
    gguf.write(desk_of(run, precision))
    tokenizer = gguf.vocabulary.read(run.merged, run.name)
    model = AutoModelForCausalLM.from_pretrained(run.merged, dtype=torch.float32)
    theirs = llama_cpp.Llama(str(gguf_file.of(run)), n_ctx=256, logits_all=True, verbose=False, n_threads=2)
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == ids
        theirs.reset()
        theirs.eval(ids)
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        heard = torch.tensor(theirs.scores[: len(ids)]).log_softmax(-1)
        # llama.cpp rounds what goes into a product to the precision of the weights.
        assert (heard - expected).abs().mean() < (0.05 if precision == "16" else 0.15) < expected.std() / 8


def test_a_model_in_float16_is_written_in_float16(tmp_path):
    config, words, _ = FAMILIES["Qwen2"]
    run = merged(tmp_path, config, tokenizer_of(words()), torch.float16)
    gguf.write(desk_of(run))
    assert gguf_file.of(run).name.endswith("-F16.gguf") and "differ by at most 0.0000" in in_words(run)


def test_rows_that_are_no_whole_blocks_keep_16_bits(tmp_path):
    config = LlamaConfig(**SIZES | {"intermediate_size": 100})
    run = merged(tmp_path, config, tokenizer_of(digits()))
    gguf.write(desk_of(run, "q8_0"))
    types = {tensor.name: tensor.tensor_type.name for tensor in library.GGUFReader(gguf_file.of(run)).tensors}
    assert types["blk.0.ffn_down.weight"] == "F16" and types["blk.0.ffn_up.weight"] == "Q8_0" and types["output_norm.weight"] == "F32"


def test_the_file_answers_by_the_snippet_of_its_card(run, monkeypatch, capsys):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it is built from source.")
    gguf.write(desk_of(run))
    monkeypatch.chdir(run.job(gguf_file.KIND))
    exec(usage.of_file("", gguf_file.of(run).name).replace("max_tokens=256", "max_tokens=4"), {})
    assert capsys.readouterr().out.strip()


def test_the_file_is_handed_on_with_a_card_that_says_what_was_measured(run):
    with pytest.raises(StudioError, match="No GGUF file was written of this run yet"):
        parcel.contents(run, "gguf", "ada/tuned")
    gguf.write(desk_of(run))
    contents = parcel.contents(run, "gguf", "ada/tuned")
    readme = contents.pop("README.md").decode()
    assert contents == {f"{run.name}-BF16.gguf": gguf_file.of(run)} and parcel.size(run, "gguf") == gguf_file.of(run).stat().st_size
    assert "library_name: gguf" in readme and "A GGUF file for llama.cpp, made from" in readme
    assert "The file says what the merged model says" in readme and "llama-server -hf ada/tuned" in readme
    assert f'Llama.from_pretrained(repo_id="ada/tuned", filename="{run.name}-BF16.gguf", n_ctx=0)' in readme


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_file_that_says_something_else_is_not_kept(run, monkeypatch):
    gguf.write(desk_of(run))
    before = gguf_file.of(run).read_bytes()
    monkeypatch.setattr(tensors, "_as_pairs", lambda weight, heads: weight)
    with pytest.raises(StudioError, match=r"does not say what the merged model says.*Nothing was kept; choose 16 bits"):
        gguf.write(desk_of(run, "q8_0"))
    assert gguf_file.of(run).read_bytes() == before and left(run) == [gguf_file.of(run).name]


CONFIGS = {
    "another kind": (lambda config: setattr(config, "model_type", "gemma2"), "kind gemma2 are not written as GGUF; llama, mistral, qwen2, qwen3 are"),
    "another activation": (lambda config: setattr(config, "hidden_act", "gelu"), "its activation is not SiLU"),
    "biases": (lambda config: setattr(config, "attention_bias", True), "queries and keys have biases"),
    "another scaling": (lambda config: config.rope_parameters.update(rope_type="yarn"), "positions are scaled in the way yarn")}


@pytest.mark.parametrize(("change", "told"), CONFIGS.values(), ids=list(CONFIGS))
def test_a_network_that_llama_cpp_would_compute_otherwise_is_refused(change, told):
    config = LlamaConfig(**SIZES)
    change(config)
    with pytest.raises(StudioError, match=f"{told}.*llama.cpp's own converter"):
        shape.kind(config)


WAYS = {
    "other words": lambda: tokenizer_of(splitting(r"\p{N}{1,2}|\s+")), "words that are dropped": lambda: tokenizer_of(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(vocabulary.WORDS["qwen2"]), "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])),
    "words taken apart twice": lambda: tokenizer_of(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(vocabulary.WORDS["qwen2"]), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])),
    "a space before": lambda: tokenizer_of(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "lower case": lambda: tokenizer_of(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Lowercase()),
    "whole words": lambda: tokenizer_of(pre_tokenizers.ByteLevel(add_prefix_space=False), ignore_merges=True),
    "no bytes": lambda: tokenizer_of(pre_tokenizers.Whitespace())}


@pytest.mark.parametrize("make", WAYS.values(), ids=list(WAYS))
def test_a_tokenizer_that_llama_cpp_might_read_otherwise_is_refused_and_nothing_is_left(tmp_path, make):
    run = merged(tmp_path, LlamaConfig(**SIZES), make())
    with pytest.raises(StudioError, match="takes texts apart in a way that the studio does not write.*Take the merged model|makes no tokens of plain words"):
        gguf.write(desk_of(run))
    assert left(run) == []


def test_a_model_of_another_kind_is_refused_before_anything_of_it_is_loaded(run):
    config = json.loads((run.merged / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (run.merged / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(StudioError, match="Models of the kind own are not written as GGUF"):
        gguf.write(desk_of(run))


def test_what_is_missing_is_told(run, tmp_path):
    (run.merged / "tokenizer.json").write_text("[", encoding="utf-8")
    with pytest.raises(StudioError, match="tokenizer.json of merged cannot be read"):
        vocabulary.described(run.merged)
    with pytest.raises(StudioError, match="has not been merged yet. Merge it first"):
        gguf.write(desk_of(runs.create(tmp_path, practice())))
    with pytest.raises(StudioError, match=r"needs \d+.* GB are free on its disk"):
        gguf.refuse_if_short(10**18, run.folder)
    with pytest.raises(SettingsError):
        GGUFRequest(precision="q2_k")


def test_a_job_that_is_asked_to_stop_leaves_the_file_before_as_it_was(run):
    gguf.write(desk_of(run))
    before = gguf_file.of(run).read_bytes()
    desk = desk_of(run, "q8_0")
    (desk.folder / "stop").touch()
    with pytest.raises(StopRequested):  # which the shell of every job says as Stopped
        gguf.write(desk)
    assert gguf_file.of(run).read_bytes() == before and left(run) == [gguf_file.of(run).name]


def test_another_precision_takes_the_place_of_the_one_before_and_a_link_is_no_result(run):
    gguf.write(desk_of(run))
    gguf.write(desk_of(run, "q8_0"))
    assert [path.name for path in run.job(gguf_file.KIND).glob("*.gguf")] == [f"{run.name}-Q8_0.gguf"]
    gguf_file.of(run).unlink()
    (run.job(gguf_file.KIND) / "x.gguf").symlink_to("/etc/hostname")
    assert gguf_file.of(run) is None
