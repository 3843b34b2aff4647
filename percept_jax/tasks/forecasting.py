"""Forecasting: real values, for each example or for each time step."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks.base import Batch, Outputs, OutputSpec, Scale, Spec, Sums, Task
from percept_jax.tasks.losses import OBJECTIVES

# The error is in the units of the data set.
RMSE = Metric("rmse", False, "#.4g", lambda sums: math.sqrt(sums["squared_error"] / sums["values"]))


def _outputs(spec: Spec) -> Outputs:
    *steps, features = spec.features["target"].shape
    return Outputs(features, steps[0] if steps else None, len(spec.words), values=True)


def _targets(features: Mapping[str, Array], outputs: Outputs, scale: Scale, dtype: Any) -> Array:
    """Returns the normalized values `[..., features]`; 0 for a position without a value."""
    values = features["target"]
    mean, inv_std = (jnp.expand_dims(each, range(values.ndim - 1)) for each in (scale.mean, scale.inv_std))
    return jnp.nan_to_num((values - mean) * inv_std).astype(dtype)


def _mask(features: Mapping[str, Array]) -> Array | None:
    """Returns whether each time step has a value: NaN stands for none."""
    values = features["target"]
    return ~jnp.isnan(values).any(-1) if values.ndim == 3 else None


def _eval_sums(outputs: Array, batch: Batch, mask: Array, present: Array) -> Sums:
    inv_std = jnp.expand_dims(batch.scale.inv_std, range(outputs.ndim - 1))
    errors = jnp.where(mask[..., None], (outputs - batch.targets) / inv_std, 0)
    return {"squared_error": jnp.sum(errors**2), "values": mask.sum() * outputs.shape[-1]}


def _prediction(outputs: np.ndarray, probabilities: np.ndarray, names: OutputSpec, top_k: int) -> dict[str, Any]:
    """Returns the values `[(time,) features]` in the units of the data set."""
    return {"values": (outputs / np.array(names.target_inv_std) + np.array(names.target_mean)).tolist()}


def _line(prediction: Mapping[str, Any]) -> str:
    return f"  {np.round(prediction['values'], 4).tolist()}"


FORECASTING = Task(
    name="forecasting",
    suits=lambda spec: "target" in spec.features,
    outputs=_outputs,
    objectives={"squared_error": OBJECTIVES["squared_error"]},
    targets=_targets,
    distributions=False,
    mask=_mask,
    train_sums=lambda outputs, batch: {},
    eval_sums=_eval_sums,
    metrics=(LOSS, RMSE),
    selects=("loss",),
    prediction=_prediction,
    line=_line,
)
