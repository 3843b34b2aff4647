"""Experiment: every knob that each run has, declared once, with its type, default, help, role and range.

The command line, the run's identity, the traced arguments of the compiled step and the help text are all made from these
fields. The knobs of one model only are fields of its Flax module instead (see `percept_jax.models`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_type_hints

import numpy as np

from percept_jax import models
from percept_jax.errors import UsageError
from percept_jax.validation import check_text, check_type, check_within

Role = Literal["static", "traced", "infra"]


class Knob(NamedTuple):
    """What is declared about one flag beside its type and default; `within` is an interval such as "[0, 1)"."""

    help: str
    role: Role
    group: str
    within: str = ""


def _knob(default: Any, role: Role, group: str, help: str, within: str = "") -> Any:
    return dataclasses.field(default=default, metadata={"knob": Knob(help, role, group, within)})


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One training run, described in full.

    Roles: `static` values shape the compiled program (or the choice of the best step), `traced` ones enter it as
    arguments, `infra` ones say where and how the run happens. The first two make up the run's identity.
    """

    model: str = _knob("lenet5", "static", "model", "network to train (see `list`)")
    dtype: Literal["float32", "bfloat16", "float64"] = _knob(
        "float32", "static", "model", "arithmetic; parameters are float32 under bfloat16, float64 turns on x64"
    )

    dataset: str = _knob(
        "digits",
        "static",
        "data",
        "data set (see `list`), or folder:PATH, a sub-folder of images a class; npz:, tagged: or text:FILE, sequences",
    )
    train_split: str = _knob(
        "",
        "static",
        "data",
        "examples to train on, as a TFDS slice: train[:90%], train+extra; empty: train less what is held out",
    )
    validation_split: str = _knob(
        "", "static", "data", "examples to choose the best step on; empty: validation, else held out of train"
    )
    test_split: str = _knob("", "static", "data", "examples to report on; empty: test, else held out of train")
    image_size: int = _knob(0, "static", "data", "pixels a side that images are resized to; 0: as the model wants", "[0, 4096]")
    stored_size: int = _knob(
        0, "static", "data", "pixels a side before images are cropped, in the middle unless in training; 0: no crop", "[0, 4096]"
    )
    normalize: Literal["standard", "unit", "none", "imagenet"] = _knob(
        "standard",
        "static",
        "data",
        "inputs: zero mean and unit variance per channel over the training split; pixels from 0 to 1; as they are; "
        "or by ImageNet's means and deviations, as torchvision's weights want it (but GoogLeNet's)",
    )
    max_bad_records: int = _knob(
        0,
        "static",
        "data",
        "skip up to so many images or records that cannot be read; unless 0, all are decoded at every start to find them",
        "[0, inf)",
    )
    sequence_length: int = _knob(128, "static", "data", "text: characters in one example", "[2, 1000000]")
    ahead: int = _knob(
        0, "static", "data", "series: each step's target is the value so many steps later; 0: none", "[0, 1000000]"
    )
    horizon: int = _knob(
        0, "static", "data", "series: the last so many steps are forecast from those before; 0: none", "[0, 1000000]"
    )

    random_crop: int = _knob(0, "static", "augmentation", "pad by this many pixels, then crop anywhere", "[0, 4096]")
    random_flip: bool = _knob(False, "static", "augmentation", "mirror left and right, every other time")
    rotation: float = _knob(0.0, "static", "augmentation", "turn by up to this many degrees", "[0, 180]")
    scale: float = _knob(0.0, "static", "augmentation", "enlarge or shrink by up to this share", "[0, 1)")
    shear: float = _knob(0.0, "static", "augmentation", "slant by up to this many degrees", "[0, 90)")
    brightness: float = _knob(0.0, "static", "augmentation", "brighten or darken by up to this share", "[0, inf)")
    contrast: float = _knob(0.0, "static", "augmentation", "raise or lower the contrast by up to this share", "[0, inf)")
    saturation: float = _knob(0.0, "static", "augmentation", "raise or lower the saturation by up to this share", "[0, inf)")
    pca_color: float = _knob(
        0.0, "static", "augmentation", "deviation of AlexNet's shifts along the principal colours", "[0, inf)"
    )
    cutout: int = _knob(0, "static", "augmentation", "blank a square of this many pixels a side, anywhere", "[0, 4096]")
    crop_area: float = _knob(
        0.0,
        "static",
        "augmentation",
        "crop at least this share of the area, of sides 3:4 to 4:3, and resize it to what the model sees; 0: never",
        "[0, 1]",
    )
    mixup: float = _knob(
        0.0, "static", "augmentation", "mix pairs of examples by shares out of Beta(this, this); 1 is uniform", "[0, inf)"
    )

    batch_size: int | Literal["all"] = _knob(
        64, "static", "training", "examples a step, over all devices; all: the whole training split", "[1, 1000000]"
    )
    epochs: float = _knob(0.0, "traced", "training", "length in passes over the training split (this or --steps)", "[0, inf)")
    steps: int = _knob(0, "traced", "training", "length in steps (this or --epochs)", "[0, 2147483647]")
    loss: Literal["softmax_cross_entropy", "binary_cross_entropy", "quadratic", "perceptron", "squared_error"] = _knob(
        "softmax_cross_entropy",
        "static",
        "training",
        "objective; binary: one logistic output a class; quadratic: half the squared error of sigmoid outputs; perceptron: "
        "by how much the best wrong class is ahead; squared_error: of values, to forecast",
    )
    optimizer: Literal["sgd", "nesterov", "adam", "adamw", "rmsprop"] = _knob(
        "sgd", "static", "training", "gradient descent with heavy-ball or Nesterov momentum, or scaled by past gradients"
    )
    schedule: Literal["constant", "cosine", "step", "exponential"] = _knob(
        "constant",
        "static",
        "training",
        "learning rate after the warm-up: constant, a half cosine to 0, times --decay_rate at each of --decay_at, or smoothly "
        "down to --decay_rate of it at the end",
    )
    learning_rate: float = _knob(0.1, "traced", "training", "step size", "(0, inf)")
    decay_rate: float = _knob(0.1, "traced", "training", "factor of the step and the exponential schedule", "(0, 1]")
    decay_at: tuple[float, ...] = _knob(
        (0.5, 0.75), "static", "training", "where the step schedule decays, as shares of the steps after the warm-up", "(0, 1)"
    )
    warmup_steps: int = _knob(0, "traced", "training", "the learning rate rises linearly over this many steps", "[0, 2147483647]")
    momentum: float = _knob(0.9, "traced", "training", "share of the last update that is kept; beta1 of Adam", "[0, 1)")
    beta2: float = _knob(0.999, "traced", "training", "share kept of the mean squared gradient: Adam, AdamW, RMSProp", "[0, 1)")
    epsilon: float = _knob(1e-8, "traced", "training", "added to the root of that mean: Adam, AdamW, RMSProp", "(0, inf)")
    clip_norm: float = _knob(0.0, "traced", "training", "the gradient is scaled down to at most this norm; 0: never", "[0, inf)")
    weight_decay: float = _knob(
        0.0, "traced", "training", "L2 penalty: this times a kernel is added to its gradient; under adamw to its step", "[0, inf)"
    )
    ema_decay: float = _knob(
        0.0, "static", "training", "share a step keeps of a running mean of weights, then evaluated; 0: off", "[0, 1)"
    )
    dropout_rate: float = _knob(0.0, "traced", "training", "share of hidden activations that is dropped", "[0, 1)")
    label_smoothing: float = _knob(0.0, "traced", "training", "share of the target spread evenly over the classes", "[0, 1)")
    seed: int = _knob(0, "traced", "training", "initial weights, order of examples and every other draw", "[0, 4294967295]")

    init_from: str = _knob(
        "", "static", "training", "weights to start from: a run directory, or a safetensors file, PyTorch's names too"
    )
    freeze: str = _knob(
        "",
        "static",
        "training",
        "parameters that stay: layers or patterns such as conv1,layer1_* (see --dry_run); batch norm's running statistics "
        "stay with them, but training still normalises by the batch",
    )
    lr_scale: str = _knob("", "static", "training", "factors of the learning rate by layer, such as head=10,conv*=0.1")

    stop_after: float = _knob(
        0.0,
        "static",
        "run",
        "stop after so many epochs without a new best validation accuracy; 0: never",
        "[0, inf)",
    )
    eval_every: int = _knob(0, "static", "run", "steps between validations; 0: once an epoch", "[0, inf)")
    checkpoint_every: int = _knob(0, "infra", "run", "steps between checkpoints; 0: at validations, 10 s apart", "[0, inf)")
    log_every: int = _knob(10, "infra", "run", "steps averaged in one line of training metrics", "[1, inf)")
    devices: int = _knob(0, "infra", "run", "devices to train on; 0: all of this process", "[0, inf)")
    data_dir: str = _knob("", "infra", "run", "TFDS folder; empty: $TFDS_DATA_DIR, else data/ in the repository")
    run_dir: str = _knob("", "infra", "run", "where results go; empty: runs/<experiment>/<id> in the repository")
    extend: str = _knob(
        "",
        "infra",
        "run",
        "run directory of the same experiment with fewer steps, to go on from bit for bit (constant schedule)",
    )
    fresh: bool = _knob(False, "infra", "run", "start anew where the run directory already holds this run")
    fresh_cache: bool = _knob(False, "infra", "run", "read the data's files again, whatever the cache in --data_dir says")

    knobs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Values for fields of the chosen model's module, by name; absent ones keep the module's defaults."""

    def __post_init__(self) -> None:
        for name, hint in TYPES.items():  # 1, 1.0 and NumPy's 1 are one experiment
            value = getattr(self, name)
            value = value.item() if isinstance(value, np.generic) else value
            value = value.__fspath__() if hasattr(value, "__fspath__") else value
            whole = isinstance(value, int) and not isinstance(value, bool)
            value = tuple(value) if isinstance(value, list) else value
            object.__setattr__(self, name, float(value) if hint is float and whole else value)
        knobs = {name: tuple(value) if isinstance(value, list) else value for name, value in self.knobs.items()}
        object.__setattr__(self, "knobs", knobs)

    def validate(self) -> None:
        """Raises UsageError, naming the flag, where a value has the wrong type, is out of range, or contradicts another."""
        for name, knob in KNOBS.items():
            value = getattr(self, name)
            check_type(name, value, TYPES[name])
            if TYPES[name] is str:
                check_text(name, value)
            if TYPES[name] is float and self.dtype != "float64":
                if value > float(np.finfo(np.float32).max):
                    raise UsageError(f"{value} is too large for float32", name)
                value = float(np.float32(value))  # as the step will see it: 0.99999999999 is 1
            for number in value if isinstance(value, tuple) else (value,):
                if knob.within and number != "all":
                    check_within(name, number, knob.within)
        if list(self.decay_at) != sorted(set(self.decay_at)) or (self.schedule == "step" and not self.decay_at):
            raise UsageError("give rising shares, such as 0.5,0.75", "decay_at")
        if bool(self.epochs) == bool(self.steps):
            raise UsageError("give either --epochs or --steps", "epochs")
        models.check(self.model, self.knobs)
        if self.dropout_rate and not models.has_dropout(models.module_class(self.model)):
            raise UsageError(f"{self.model} has no dropout", "dropout_rate")

    def batch(self, train_examples: int) -> int:
        """Examples a step, over a training split of this size."""
        return train_examples if self.batch_size == "all" else self.batch_size

    def total_steps(self, train_examples: int) -> int:
        """Steps of the whole run over a training split of this size, at least one. Raises UsageError beyond int32."""
        steps = self.steps or max(1, round(self.epochs * train_examples / self.batch(train_examples)))
        if steps > np.iinfo(np.int32).max:
            raise UsageError(f"{self.epochs} are {steps} steps; at most 2147483647 are possible", "epochs")
        return steps

    def validation_steps(self, train_examples: int) -> int:
        """Steps between validations, over a training split of this size."""
        return self.eval_every or max(1, round(train_examples / self.batch(train_examples)))

    @property
    def real_dtype(self) -> np.dtype:
        """What hyperparameters and pixel statistics are kept in: float64 under float64 arithmetic, else float32."""
        return np.dtype("float64" if self.dtype == "float64" else "float32")

    def science(self) -> dict[str, Any]:
        """Every static and traced value by flag name, then the chosen model's knobs: what decides the result."""
        values = {name: getattr(self, name) for name, knob in KNOBS.items() if knob.role != "infra"}
        return values | {k.name: self.knobs.get(k.name, k.default) for k in models.knobs(self.model)}

    def idle(self) -> list[str]:
        """Flags that are set, and that another one keeps from doing anything: a line each."""
        reasons = {
            "beta2": ("optimizer", ("adam", "adamw", "rmsprop")),
            "epsilon": ("optimizer", ("adam", "adamw", "rmsprop")),
            "decay_rate": ("schedule", ("step", "exponential")),
            "decay_at": ("schedule", ("step",)),
        }
        set_here = [name for name in reasons if getattr(self, name) != DEFAULTS[name]]
        idle = [(name, by) for name in set_here for by, ones in [reasons[name]] if getattr(self, by) not in ones]
        return [f"--{name} does nothing under --{by}={getattr(self, by)}" for name, by in idle]

    def chosen(self) -> dict[str, Any]:
        """The part of `science()` that is not the default: a knob added tomorrow leaves today's runs their identity."""
        defaults = DEFAULTS | {k.name: k.default for k in models.knobs(self.model)}
        return {name: value for name, value in self.science().items() if value != defaults[name]}


TYPES = {name: hint for name, hint in get_type_hints(Experiment).items() if name != "knobs"}
KNOBS: dict[str, Knob] = {f.name: f.metadata["knob"] for f in dataclasses.fields(Experiment) if f.metadata}
DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Experiment) if f.metadata}

# The traced values, as the compiled step receives them. `epochs` has been turned into steps by then.
HParams = NamedTuple("HParams", [(name, np.ndarray) for name, k in KNOBS.items() if k.role == "traced" and name != "epochs"])


def stack_hparams(experiments: Sequence[Experiment], steps: int) -> HParams:
    """HParams of arrays `[trials]`: fixed dtypes, since an int where a float was would compile the step again."""
    real = experiments[0].real_dtype
    dtypes = {name: real if TYPES[name] is float else np.int32 for name in HParams._fields} | {"seed": np.uint32}
    columns = {name: [getattr(e, name) for e in experiments] for name in HParams._fields} | {"steps": [steps] * len(experiments)}
    return HParams(**{name: np.array(column, dtypes[name]) for name, column in columns.items()})
