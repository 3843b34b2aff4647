"""Experiment: one training run, described in full, composed of the groups of knobs that are declared beside their code.

The command line, the run's identity, the traced arguments of the compiled step and the help text are all made from these
fields. The knobs of one model only are fields of its Flax module instead (see `percept_jax.models`).
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
from percept_jax.tasks.losses import LossConfig
from percept_jax.training.optim import OptimConfig
from percept_jax.validation import check_text, check_type, check_within


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network, and its arithmetic."""

    model: str = knob("lenet5", "static", "model", "network to train (see `list`)")
    dtype: Literal["float32", "bfloat16", "float64"] = knob(
        "float32", "static", "model", "arithmetic; parameters are float32 under bfloat16, float64 turns on x64"
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long is trained, on how much at a time, from where."""

    batch_size: int | Literal["all"] = knob(
        64, "static", "training", "examples a step, over all devices; all: the whole training split", "[1, 1000000]"
    )
    epochs: float = knob(0.0, "traced", "training", "length in passes over the training split (this or --steps)", "[0, inf)")
    steps: int = knob(0, "traced", "training", "length in steps (this or --epochs)", "[0, 2147483647]")
    dropout_rate: float = knob(0.0, "traced", "training", "share of hidden activations that is dropped", "[0, 1)")
    seed: int = knob(0, "traced", "training", "initial weights, order of examples and every other draw", "[0, 4294967295]")
    init_from: str = knob(
        "", "static", "training", "weights to start from: a run directory, or a safetensors file, PyTorch's names too"
    )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """When a run is looked at, and where it happens."""

    stop_after: float = knob(
        0.0,
        "static",
        "run",
        "stop after so many epochs without a new best validation accuracy; 0: never",
        "[0, inf)",
    )
    eval_every: int = knob(0, "static", "run", "steps between validations; 0: once an epoch", "[0, inf)")
    checkpoint_every: int = knob(0, "infra", "run", "steps between checkpoints; 0: at validations, 10 s apart", "[0, inf)")
    log_every: int = knob(10, "infra", "run", "steps averaged in one line of training metrics", "[1, inf)")
    devices: int = knob(0, "infra", "run", "devices to train on; 0: all of this process", "[0, inf)")
    data_dir: str = knob("", "infra", "run", "TFDS folder; empty: $TFDS_DATA_DIR, else data/ in the repository")
    run_dir: str = knob("", "infra", "run", "where results go; empty: runs/<experiment>/<id> in the repository")
    extend: str = knob(
        "",
        "infra",
        "run",
        "run directory of the same experiment with fewer steps, to go on from bit for bit (constant schedule)",
    )
    fresh: bool = knob(False, "infra", "run", "start anew where the run directory already holds this run")


# The fields of a dataclass begin with those of its last base.
@dataclasses.dataclass(frozen=True)
class Experiment(RunConfig, OptimConfig, LossConfig, TrainingConfig, AugmentationConfig, ReaderConfig, DataConfig, ModelConfig):
    """One training run, described in full."""

    knobs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Values for fields of the chosen model's module, by name; absent ones keep the module's defaults."""

    def __post_init__(self) -> None:
        # 1, 1.0 and NumPy's 1 are one experiment.
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
        """Raises UsageError, naming the flag, where a value has the wrong type, is out of range, or contradicts another."""
        for name, declared in KNOBS.items():
            value = getattr(self, name)
            check_type(name, value, TYPES[name])
            if TYPES[name] is str:
                check_text(name, value)
            if TYPES[name] is float and self.dtype != "float64":
                if value > float(np.finfo(np.float32).max):
                    raise UsageError(f"{value} is too large for float32", name)
                # As the step will see it: 0.99999999999 is 1.
                value = float(np.float32(value))
            for number in value if isinstance(value, tuple) else (value,):
                if declared.within and number != "all":
                    check_within(name, number, declared.within)
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
_TRACED = [(name, np.ndarray) for name, k in KNOBS.items() if k.role == "traced" and name != "epochs"]
# Its fields follow from the knobs, which no type checker sees.
HParams = NamedTuple("HParams", _TRACED)  # pyright: ignore[reportArgumentType]


def stack_hparams(experiments: Sequence[Experiment], steps: int) -> HParams:
    """HParams of arrays `[trials]`: fixed dtypes, since an int where a float was would compile the step again."""
    real = experiments[0].real_dtype
    dtypes = {name: real if TYPES[name] is float else np.int32 for name in HParams._fields} | {"seed": np.uint32}
    columns = {name: [getattr(e, name) for e in experiments] for name in HParams._fields} | {"steps": [steps] * len(experiments)}
    return HParams(**{name: np.array(column, dtypes[name]) for name, column in columns.items()})
