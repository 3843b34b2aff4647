"""Counting: how many ones there are in a small image, a number that the folder of the image tells."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks.base import Batch, Outputs, OutputSpec, Scale, Spec, Sums, Task
from percept_jax.tasks.losses import Objective


def poisson(outputs: Array, targets: Array) -> Array:
    """The negative log-likelihood `[batch]` of counts `[batch, 1]` under Poisson rates exp(outputs), less log(count!)."""
    return (jnp.exp(outputs) - targets * outputs).sum(-1)


def _targets(features: Mapping[str, Array], outputs: Outputs, scale: Scale, dtype: Any) -> Array:
    return features["label"][:, None].astype(dtype)


def _off_by(outputs: Array, batch: Batch) -> Array:
    return jnp.abs(jnp.exp(outputs[:, 0]) - batch.targets[:, 0])


def _median(totals: Mapping[str, Any]) -> float:
    return float(np.median(totals["off_by"]))


def _prediction(outputs: np.ndarray, probabilities: np.ndarray, names: OutputSpec, top_k: int) -> dict[str, Any]:
    return {"count": float(np.exp(outputs[0]))}


def _counts(classes: Sequence[str]) -> bool:
    return list(classes) == [str(i) for i in range(len(classes))]


def _eval_sums(outputs: Array, batch: Batch, present: Array) -> Sums:
    return {"right": jnp.sum((_off_by(outputs, batch) < 0.5) & present)}


def _suits(spec: Spec) -> bool:
    return spec.kind == "images" and _counts(spec.classes)


COUNTING = Task(
    name="counting",
    suits=_suits,
    outputs=lambda spec: Outputs(1),
    objectives={"counting": Objective(poisson, None)},
    targets=_targets,
    distributions=False,
    mask=None,
    train_sums=lambda outputs, batch: {"off_by": _off_by(outputs, batch).sum()},
    eval_sums=_eval_sums,
    eval_rows=lambda outputs, batch: {"off_by": _off_by(outputs, batch)},
    metrics=(
        LOSS,
        Metric("right", True, "z.4f", lambda totals: totals["right"] / totals["examples"], of="examples"),
        Metric("median_error", False, "#.4g", _median),
    ),
    selects=("median_error",),
    prediction=_prediction,
    line=lambda prediction: f"  {prediction['count']:.2f}",
)
