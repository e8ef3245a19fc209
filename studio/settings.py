"""Every choice of a run, declared once: type, limits, default and caption.

The form, its checks, the presets, settings.yaml and the API are derived from these classes.
A `Settings` that exists can run as far as it can be known without the machine and the Hub;
building one raises a `SettingsError` that holds all complaints at once, by field name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from pydantic.fields import FieldInfo

from studio import fingerprints, names, plain_yaml
from studio.complaints import problems_of
from studio.errors import DataError, SettingsError
from studio.preferences import edits, mix
from studio.section import Section

PRACTICE = names.PRACTICE

BASIC = {"basic": True}
"""Marks the fields that the form shows unfolded."""
OF_DATA = {"of_data": True}
"""Marks fields outside the data section that belong to the data all the same: no preset touches them, and each source has its own."""
HIDDEN = {"hidden": True}
"""Marks fields that the studio fills by itself; they travel with the settings."""


def _as_a_switch(value: Any) -> Any:
    """YAML reads on and off as true and false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class ModelSettings(Section):
    """Model"""

    name: Annotated[str, Field(min_length=1, title="Base model", json_schema_extra=BASIC), AfterValidator(names.model)] = PRACTICE
    """A model on the Hub (owner/name), a folder by its full path, or "practice" for the tiny one that ships with us."""
    revision: Annotated[str, AfterValidator(names.revision), Field(title="Model revision")] = ""
    """Branch, tag or commit. Empty takes the newest."""
    quantization: Annotated[Literal["none", "nf4", "int8"],
                            Field(title="Quantization", json_schema_extra=BASIC)] = "none"
    """Precision of the frozen base. nf4 (QLoRA) needs about a quarter of the memory of 16 bits and is somewhat slower."""
    double_quantization: Annotated[bool, Field(title="Double quantization")] = True
    """Quantizes nf4's own constants too: saves about 0.4 bits a weight, costs nothing you would notice."""
    compute_dtype: Annotated[Literal["auto", "bfloat16", "float16", "float32"], Field(title="Compute type")] = "auto"
    """Precision of the arithmetic. auto takes bfloat16 where the card has it, float16 on older cards, float32 on a CPU."""
    template: Annotated[Literal["own", "chatml"], Field(title="Chat template")] = "own"
    """How turns are written as text. own is the model's; chatml gives ChatML to a base model that has none. No token is added: where
    the base lacks <|im_end|>, turns end with its own end-of-text token."""
    device: Annotated[Literal["auto", "gpu", "cpu"], Field(title="Device")] = "auto"
    """Where to compute. auto takes the GPU if there is one; gpu refuses to start without."""
    offload_embeddings: Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_a_switch), Field(title="Offload embeddings")] = "auto"
    """Keeps the embedding matrix and the head in RAM and copies them to the GPU as they are needed: the same result with 2 GB less
    of the GPU for 8 billion weights, but more time. auto does so only where the run would not fit otherwise."""


def _as_edits(text: str) -> str:
    """The edits as they are written back; raises ValueError for what is none."""
    try:
        return "; ".join(map(str, edits.parse(text)))
    except DataError as error:
        raise ValueError(str(error)) from error


def _as_fingerprints(text: str) -> str:
    """The fingerprints as they are written back; raises ValueError for what is none."""
    return "\n".join(map(str, fingerprints.parse(text)))


def _as_sources(text: str) -> str:
    """The further sources as they are written back; raises ValueError for what is none."""
    try:
        parts = mix.parse(text)
        for part in parts:
            names.source(part.source)
            names.revision(part.revision)
        return "\n".join(map(str, parts))
    except DataError as error:
        raise ValueError(str(error)) from error


class DataSettings(Section):
    """Data"""

    source: Annotated[str, Field(min_length=1, title="Preference pairs", json_schema_extra=BASIC), AfterValidator(names.source)] = PRACTICE
    """A dataset on the Hub (owner/name), a JSONL, JSON, CSV, TSV, Parquet, Arrow or Excel file, or "practice" for those that ship here."""
    subset: Annotated[str, Field(title="Subset")] = ""
    """The Hub dataset's configuration, or the sheet of an Excel workbook. Empty takes the default, or the sheet with the pairs."""
    encoding: Annotated[str, Field(title="Encoding")] = ""
    """Of a text file that is not UTF-8, such as cp1252 or koi8-r. Empty lets the studio recognise it."""
    split: Annotated[str, Field(min_length=1, title="Split")] = "train"
    """Which split of the dataset to use."""
    revision: Annotated[str, AfterValidator(names.revision), Field(title="Dataset revision")] = ""
    """Branch, tag or commit. Empty takes the newest."""
    rows: Annotated[int | None, Field(ge=2, title="Rows", json_schema_extra=BASIC)] = None
    """How many pairs to draw at random. Empty takes all; fewer are faster and teach less."""
    seed: Annotated[int, Field(ge=0, lt=2**32, title="Data seed")] = 42
    """Decides which rows are drawn and held out. The same seed gives the same rows."""
    held_out: Annotated[float, Field(ge=0, le=0.5, title="Held-out share", json_schema_extra=BASIC)] = 0.05
    """Share of the pairs kept away from training to measure honestly; at least 10 where a fifth of them allows it. 0 measures nothing."""
    prompt_column: Annotated[str, Field(title="Prompt column")] = ""
    """Column with the question. Empty lets the studio recognise it."""
    chosen_column: Annotated[str, Field(title="Chosen column")] = ""
    """Column with the better answer. Empty lets the studio recognise it."""
    rejected_column: Annotated[str, Field(title="Rejected column")] = ""
    """Column with the worse answer. Empty lets the studio recognise it."""
    vote_column: Annotated[str, Field(title="Vote column")] = ""
    """Column that says which of two answers is better (A or B, their columns' names, 1 or 2). The two columns above are then the
    first and the second answer. Empty lets the studio recognise it."""
    weight: Annotated[float, Field(gt=0, le=mix.MOST, title="Weight")] = 1.0
    """How much of these pairs is taken: 0.5 draws half of them, 2 trains on each twice. To balance them with further sources."""
    also: Annotated[str, AfterValidator(_as_sources), Field(title="Further sources")] = ""
    """Mixed in, one a line: owner/name, split test, weight 0.5. What can be said of each: weight, subset, split, revision,
    encoding, and the columns with prompt, chosen, rejected and vote."""
    leave_out: Annotated[bool, Field(title="Leave out unusable rows")] = False
    """Rows that are no pair, such as one with an empty answer, stop a run unless this is ticked. They are counted either way."""
    edits: Annotated[str, AfterValidator(_as_edits), Field(title="Edits")] = ""
    """What is changed before training, as the doctor's buttons write it: drop duplicates; drop 17, 203; swap 12; drop source = web."""
    edits_for: Annotated[str, AfterValidator(_as_fingerprints), Field(title="Edits made for", json_schema_extra=HIDDEN)] = ""
    """The data that the edits were made for, by their content or commit. A run refuses to apply the edits to other data."""

    @property
    def parts(self) -> list[mix.Part]:
        """All sources, the main one first."""
        first = mix.Part(self.source, self.weight, self.subset, self.split, self.revision,
                         self.prompt_column, self.chosen_column, self.rejected_column, self.vote_column, self.encoding)
        return [first, *mix.parse(self.also)]


class AdapterSettings(Section):
    """Adapter"""

    rank: Annotated[int, Field(ge=1, le=1024, title="Rank", json_schema_extra=BASIC)] = 16
    """Width of the adapter. Higher learns more and costs memory."""
    alpha: Annotated[int, Field(ge=1, le=4096, title="Alpha")] = 32
    """Strength of the adapter: its output is scaled by alpha / rank. Twice the rank is a good start."""
    dropout: Annotated[float, Field(ge=0, lt=1, title="Dropout")] = 0.0
    """Share of the adapter's inputs dropped at random while training. A little helps against memorising small sets."""
    target_modules: Annotated[str, Field(min_length=1, title="Target modules")] = "all-linear"
    """Layers that get an adapter: all-linear, or names separated by commas such as q_proj, v_proj. Fewer cost less."""
    bias: Annotated[Literal["none", "all", "lora_only"], Field(title="Bias")] = "none"
    """Whether biases are trained too. none keeps base and adapter cleanly apart."""
    start_from: Annotated[str, AfterValidator(names.run), Field(title="Start from")] = ""
    """Name of a run of yours whose adapter this one begins with. Empty begins afresh. Base, rank and target modules must be the same."""


def _as_a_word(value: Any) -> Any:
    """Settings files of the first version say true or false."""
    return {True: "full", False: "none"}.get(value, value) if isinstance(value, bool) else value


class TrainingSettings(Section):
    """Training"""

    beta: Annotated[float, Field(gt=0, le=10, title="Beta", json_schema_extra=BASIC)] = 0.1
    """Weight of the preference part of the loss (lambda in the ORPO paper). Higher pushes harder away from rejected answers."""
    learning_rate: Annotated[float, Field(gt=0, le=1, title="Learning rate", json_schema_extra=BASIC)] = 8e-6
    """Size of each step. Too high forgets what the model knew; too low learns nothing. 5e-6 to 5e-5 suits most adapters."""
    schedule: Annotated[Literal["linear", "cosine", "constant", "constant_with_warmup"], Field(title="Schedule")] = "linear"
    """How the learning rate falls towards the end."""
    warmup_steps: Annotated[float, Field(ge=0, title="Warm-up")] = 0.1
    """Steps over which the learning rate rises from zero; below 1 a share of all steps. More than half of a run is shortened to a tenth."""
    max_length: Annotated[int, Field(ge=16, le=1_000_000, title="Maximum length", json_schema_extra=BASIC)] = 1024
    """Tokens of question and answer together. Longer pairs are cut at the end; memory grows with it."""
    batch_size: Annotated[int, Field(ge=1, le=1024, title="Batch", json_schema_extra=BASIC)] = 2
    """Pairs per batch: the NLL is averaged over a batch. Does not affect memory, because passes are sized to what is free."""
    accumulation: Annotated[int, Field(ge=1, le=4096, title="Accumulation")] = 4
    """Batches gathered before each optimizer step. Costs no memory; batch x accumulation is the effective batch."""
    nll_on: Annotated[Literal["sequence", "completion"], Field(title="Learn to tell")] = "sequence"
    """What the likelihood part of the loss covers. sequence is question and answer, as in the paper's code; completion the answer only."""
    epochs: Annotated[float, Field(gt=0, le=1000, title="Epochs", json_schema_extra=BASIC)] = 1.0
    """How often each pair is seen. One to three; more tends to memorise."""
    max_steps: Annotated[int | None, Field(ge=1, title="Maximum steps")] = None
    """Ends after so many optimizer steps, whatever the epochs say. Empty: no limit."""
    optimizer: Annotated[Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor"],
                         Field(title="Optimizer")] = "adamw_torch"
    """Who takes the steps. The 8-bit ones save a little memory, of the adapter alone, and take longer; the paged ones survive short
    peaks on a GPU with less than 12 GB."""
    weight_decay: Annotated[float, Field(ge=0, le=1, title="Weight decay")] = 0.0
    """Pull of the adapter's weights towards zero."""
    max_grad_norm: Annotated[float, Field(gt=0, title="Gradient clipping")] = 1.0
    """Longest gradient that is applied. Guards against single bad batches."""
    gradient_checkpointing: Annotated[Literal["auto", "full", "none"], BeforeValidator(_as_a_word),
                                      Field(title="Gradient checkpointing")] = "auto"
    """Recomputes activations instead of keeping them: much less memory, up to a third slower. auto takes smaller passes and then
    recomputes as many layers as the free memory asks for; full all of them; none keeps everything."""
    checkpoint_every: Annotated[float, Field(ge=0, title="Checkpoint every")] = 0.2
    """Steps between checkpoints, from which a run that was stopped or cut off goes on exactly; below 1 a share of the run, 0 for none."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=1000, title="Checkpoints kept")] = 2
    """How many of the latest stay on the disk. Each takes about three times the adapter."""
    push_checkpoints_to: Annotated[str, AfterValidator(names.repository), Field(title="Checkpoints to the Hub")] = ""
    """A private repository of yours that gets each checkpoint, so that a run survives its machine. Empty keeps them here only."""
    seed: Annotated[int, Field(ge=0, lt=2**32, title="Training seed")] = 42
    """Start of all random numbers while training: order of pairs, adapter's first weights, dropout."""
    report_to: Annotated[Literal["none", "wandb", "tensorboard", "trackio"], Field(title="Report to")] = "none"
    """Sends curves, held-out results and settings to a tracker too, in a folder inside the run's; its package must be installed."""


class EvaluationSettings(Section):
    """Evaluation"""

    every: Annotated[float, Field(gt=0, title="Measure every")] = 0.2
    """Steps between measurements of the held-out pairs; below 1 it is a share of the run."""
    keep: Annotated[Literal["last", "best"], Field(title="Keep")] = "last"
    """Whose weights become the adapter: the last step's, or those of the measurement with the lowest held-out loss, which guards against
    memorising. A run that is stopped keeps its last."""
    batch_size: Annotated[int, Field(ge=1, le=1024, title="Batch when measuring")] = 2
    """Pairs measured at once."""
    prompts: Annotated[str, StringConstraints(strip_whitespace=False), Field(title="Prompts to sample", json_schema_extra=OF_DATA)] = ""
    """Questions, one a line, asked at every measurement; each costs a large model some seconds. Empty takes three of the data's."""


class Settings(Section):
    """What a person chose for one run."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    def __init__(self, /, **sections: Any):
        try:
            super().__init__(**sections)
        except ValidationError as error:
            raise SettingsError(problems_of(error)) from None

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.model.quantization == "nf4" and self.adapter.bias == "all":
            raise ValueError("adapter.bias: Biases of a 4-bit base cannot be trained. Choose none or lora_only.")
        if self.model.offload_embeddings == "on" and (trained := names.outside_layers(self.adapter.target_modules)):
            raise ValueError(f"model.offload_embeddings: An adapter on {' and '.join(trained)} needs the matrix on the GPU. "
                             "Choose auto or off, or change Target modules.")
        return self

    @classmethod
    def from_form(cls, /, **values: Any) -> Self:
        """Settings from {"training.beta": 0.1, ...}. Raises SettingsError with every complaint."""
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            section, _, choice = name.partition(".")
            sections.setdefault(section, {})[choice] = value
        return cls(**sections)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Settings from a YAML text. Raises SettingsError, also for a text that is not YAML."""
        return cls(**plain_yaml.mapping(text))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Settings from a YAML file. Raises SettingsError, also for what is no file of text."""
        return cls.from_yaml(plain_yaml.of_file(path))

    def to_yaml(self) -> str:
        """All values as YAML, in the order of the form; `from_yaml` gives the same Settings back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True, width=100)

    def to_form(self) -> dict[str, Any]:
        """All values by field name: {"training.beta": 0.1, ...}."""
        return {f"{section}.{choice}": value
                for section, choices in self.model_dump().items() for choice, value in choices.items()}


DATA = "data"
"""The section of which all belongs to the data."""


class Choice:
    """One field as the form sees it: name ("training.beta"), label, caption, default, kind and options.

    `of_data` says that its meaning depends on the source of the pairs: a preset leaves it, and each source has its own.
    """

    def __init__(self, section: str, name: str, info: FieldInfo):
        self.section, self.name = section, f"{section}.{name}"
        self.label, self.caption, self.default = info.title or name, " ".join((info.description or "").split()), info.default
        marks = info.json_schema_extra or {}
        self.basic, self.hidden = bool(marks.get("basic")), bool(marks.get("hidden"))
        self.of_data = section == DATA or bool(marks.get("of_data"))
        self.options = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
        self.optional = type(None) in get_args(info.annotation)
        self.kind = next((kind for kind in (bool, int, float, str) if info.annotation is kind
                          or kind in get_args(info.annotation)), str)


def choices() -> Iterator[Choice]:
    """Every choice of a run, in the order of the form."""
    for section, info in Settings.model_fields.items():
        for name, field_info in info.annotation.model_fields.items():
            yield Choice(section, name, field_info)
