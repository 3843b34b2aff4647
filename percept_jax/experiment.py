"""Experiment: the full description of one training run, composed of the groups of knobs that are declared beside their code.

The command line, the run's identity, the traced arguments of the compiled step and the help text are derived from these fields.
A knob of only one model is a field of its Flax module instead (see `percept_jax.models`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_type_hints

import numpy as np

from percept_jax import models
from percept_jax.data.augment import AugmentationConfig
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.spec import DataConfig
from percept_jax.errors import UsageError
from percept_jax.knobs import Knob, knob
from percept_jax.tasks import TaskConfig
from percept_jax.tasks.losses import LossConfig
from percept_jax.training.optim import OptimConfig
from percept_jax.validation import check_text, check_type, check_within


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and its precision."""

    model: str = knob("lenet5", "static", "model", "network to train (see `list`)")
    dtype: Literal["float32", "bfloat16", "float64"] = knob(
        "float32",
        "static",
        "model",
        "precision of the computation; with bfloat16 the parameters are float32, float64 enables x64",
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The batch size, the length of training, the seed and the initial weights."""

    batch_size: int | Literal["all"] = knob(
        64, "static", "training", "examples per step, over all devices; all: the whole training split", "[1, 1000000]"
    )
    epochs: float = knob(0.0, "traced", "training", "length in passes over the training split (this or --steps)", "[0, inf)")
    steps: int = knob(0, "traced", "training", "length in steps (this or --epochs)", "[0, 2147483647]")
    dropout_rate: float = knob(0.0, "traced", "training", "fraction of hidden activations that are dropped", "[0, 1)")
    seed: int = knob(
        0,
        "traced",
        "training",
        "seed of the initial weights, the order of examples and all other random numbers",
        "[0, 4294967295]",
    )
    init_from: str = knob(
        "", "static", "training", "initial weights: a run directory, or a safetensors file, also with PyTorch's names"
    )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Validation, checkpoints, logs, devices and folders."""

    stop_after: float = knob(
        0.0,
        "static",
        "run",
        "stop after this many epochs without a new best validation; 0: never",
        "[0, inf)",
    )
    eval_every: int = knob(0, "static", "run", "steps between validations; 0: one epoch", "[0, inf)")
    checkpoint_every: int = knob(
        0, "infra", "run", "steps between checkpoints; 0: at validations, at least 10 s apart", "[0, inf)"
    )
    log_every: int = knob(10, "infra", "run", "steps that one line of training metrics averages", "[1, inf)")
    devices: int = knob(0, "infra", "run", "number of devices to train on; 0: all", "[0, inf)")
    data_dir: str = knob("", "infra", "run", "folder of the data sets; empty: $TFDS_DATA_DIR, else data/ in the repository")
    run_dir: str = knob("", "infra", "run", "folder for the results; empty: runs/<experiment>/<id> in the repository")
    extend: str = knob(
        "",
        "infra",
        "run",
        "run directory of the same experiment with fewer steps, to continue bit for bit (only with a constant schedule)",
    )
    fresh: bool = knob(False, "infra", "run", "start over, and replace the run in the run directory")


# The fields are in the order from the last base to the first.
@dataclasses.dataclass(frozen=True)
class Experiment(
    RunConfig, OptimConfig, LossConfig, TrainingConfig, AugmentationConfig, ReaderConfig, DataConfig, TaskConfig, ModelConfig
):
    """The full description of one training run."""

    knobs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Values for fields of the model's Flax module, by name; fields that are absent keep the module's defaults."""

    def __post_init__(self) -> None:
        # 1, 1.0 and NumPy's 1 give the same experiment.
        for name, hint in TYPES.items():
            value = getattr(self, name)
            value = value.item() if isinstance(value, np.generic) else value
            value = value.__fspath__() if hasattr(value, "__fspath__") else value
            whole = isinstance(value, int) and not isinstance(value, bool)
            value = tuple(value) if isinstance(value, list) else value
            object.__setattr__(self, name, float(value) if hint is float and isinstance(value, int) and whole else value)
        knobs = {name: tuple(value) if isinstance(value, list) else value for name, value in self.knobs.items()}
        object.__setattr__(self, "knobs", knobs)

    def validate(self) -> None:
        """Raises UsageError, naming the flag, if a value has the wrong type, is out of range, or contradicts another."""
        for name, declared in KNOBS.items():
            value = getattr(self, name)
            check_type(name, value, TYPES[name])
            if TYPES[name] is str:
                check_text(name, value)
            if TYPES[name] is float and self.dtype != "float64":
                if value > float(np.finfo(np.float32).max):
                    raise UsageError(f"{value} is too large for float32", name)
                # Check the float32 value that the step uses: 0.99999999999 becomes 1.
                value = float(np.float32(value))
            for number in value if isinstance(value, tuple) else (value,):
                if declared.within and number != "all":
                    check_within(name, number, declared.within)
        if list(self.decay_at) != sorted(set(self.decay_at)) or (self.schedule == "step" and not self.decay_at):
            raise UsageError("give increasing fractions, such as 0.5,0.75", "decay_at")
        if bool(self.epochs) == bool(self.steps):
            raise UsageError("give either --epochs or --steps", "epochs")
        models.check(self.model, self.knobs)
        if self.dropout_rate and not models.has_dropout(models.module_class(self.model)):
            raise UsageError(f"{self.model} has no dropout", "dropout_rate")

    def batch(self, train_examples: int) -> int:
        """Returns the number of examples per step, for a training split of this size."""
        return train_examples if self.batch_size == "all" else self.batch_size

    def total_steps(self, train_examples: int) -> int:
        """Returns the number of steps, at least one, for a training split of this size. Raises UsageError beyond int32."""
        steps = self.steps or max(1, round(self.epochs * train_examples / self.batch(train_examples)))
        if steps > np.iinfo(np.int32).max:
            raise UsageError(f"{self.epochs} epochs are {steps} steps; at most 2147483647 are possible", "epochs")
        return steps

    def validation_steps(self, train_examples: int) -> int:
        """Returns the number of steps between validations, for a training split of this size."""
        return self.eval_every or max(1, round(train_examples / self.batch(train_examples)))

    @property
    def real_dtype(self) -> np.dtype:
        """The dtype of hyperparameters and pixel statistics: float64 if `dtype` is float64, else float32."""
        return np.dtype("float64" if self.dtype == "float64" else "float32")

    def science(self) -> dict[str, Any]:
        """Returns what decides the result: every static and traced value by flag name, then the knobs of the model."""
        values = {name: getattr(self, name) for name, knob in KNOBS.items() if knob.role != "infra"}
        return values | {k.name: self.knobs.get(k.name, k.default) for k in models.knobs(self.model)}

    def idle(self) -> list[str]:
        """Returns a line for each flag that is set but has no effect because of another flag."""
        reasons = {
            "beta2": ("optimizer", ("adam", "adamw", "rmsprop")),
            "epsilon": ("optimizer", ("adam", "adamw", "rmsprop")),
            "decay_rate": ("schedule", ("step", "exponential")),
            "decay_at": ("schedule", ("step",)),
        }
        set_here = [name for name in reasons if getattr(self, name) != DEFAULTS[name]]
        idle = [(name, by) for name in set_here for by, needed in [reasons[name]] if getattr(self, by) not in needed]
        return [f"--{name} has no effect with --{by}={getattr(self, by)}" for name, by in idle]

    def chosen(self) -> dict[str, Any]:
        """Returns the non-default part of `science()`, so that a new knob does not change the identity of old runs."""
        defaults = DEFAULTS | {k.name: k.default for k in models.knobs(self.model)}
        return {name: value for name, value in self.science().items() if value != defaults[name]}


TYPES = {name: hint for name, hint in get_type_hints(Experiment).items() if name != "knobs"}
KNOBS: dict[str, Knob] = {f.name: f.metadata["knob"] for f in dataclasses.fields(Experiment) if f.metadata}
DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Experiment) if f.metadata}

# The traced values, as the compiled step receives them. `epochs` has been converted to steps by then.
_TRACED = [(name, np.ndarray) for name, k in KNOBS.items() if k.role == "traced" and name != "epochs"]
# Its fields are made from the knobs, so a type checker does not see them.
HParams = NamedTuple("HParams", _TRACED)  # pyright: ignore[reportArgumentType]


def stack_hparams(experiments: Sequence[Experiment], steps: int) -> HParams:
    """Returns HParams of arrays `[trials]`. Their dtypes are fixed, because another dtype would compile the step again."""
    float_dtype = experiments[0].real_dtype
    dtypes = {name: float_dtype if TYPES[name] is float else np.int32 for name in HParams._fields} | {"seed": np.uint32}
    columns = {name: [getattr(e, name) for e in experiments] for name in HParams._fields} | {"steps": [steps] * len(experiments)}
    return HParams(**{name: np.array(column, dtypes[name]) for name, column in columns.items()})
