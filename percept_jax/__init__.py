"""percept_jax: train and compare perception networks in JAX.

>>> from percept_jax import Experiment, train, load
>>> run = train(Experiment(model="lenet5", dataset="digits", epochs=20))
>>> run.result["test"]["accuracy"]
>>> load(run.path).predict(images).labels
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from percept_jax.api import load, train
    from percept_jax.experiment import Experiment

__all__ = ["Experiment", "load", "train"]


# Names are imported on first use, so that `import percept_jax` alone imports nothing heavy.
def __getattr__(name: str) -> Any:
    if name == "Experiment":
        from percept_jax.experiment import Experiment

        return Experiment
    if name in ("train", "load"):
        from percept_jax import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
