"""Classification: one label for each example."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks.base import Batch, Outputs, OutputSpec, Scale, Spec, Sums, Task
from percept_jax.tasks.losses import OBJECTIVES

# For more classes there is no confusion matrix.
CONFUSABLE = 1000

OF_CLASSES = {name: objective for name, objective in OBJECTIVES.items() if objective.probabilities}

ACCURACY = Metric("accuracy", True, "z.4f", lambda sums: sums["correct"] / sums["positions"], training=True, of="positions")
TOP5_ACCURACY = Metric(
    "top5_accuracy", True, "z.4f", lambda sums: sums["top5_correct"] / sums["positions"], shown=False, of="positions"
)


def outputs(spec: Spec) -> Outputs:
    """Returns a logit for each class, at each time step if each has a label."""
    shape = spec.features["label"].shape
    return Outputs(len(spec.classes), shape[0] if shape else None, len(spec.words))


def one_hot(features: Mapping[str, Array], outputs: Outputs, scale: Scale, dtype: Any) -> Array:
    """Returns labels `[...]` as distributions `[..., classes]`; all 0 for a position without a label."""
    return jax.nn.one_hot(features["label"], outputs.num_classes, dtype=dtype)


def count_correct(logits: Array, batch: Batch) -> Sums:
    """Returns the number of positions whose label is predicted; a position without a label never counts."""
    predicted = jax.lax.argmax(logits, logits.ndim - 1, jnp.int32)
    return {"correct": jnp.sum(predicted == batch.features["label"])}


def hits(logits: Array, batch: Batch, mask: Array) -> Array:
    """Returns whether each of the five likeliest classes is the label, bool `[..., 5]`; fewer if there are fewer classes."""
    return (_best(logits) == batch.features["label"][..., None]) & mask[..., None]


def _best(logits: Array) -> Array:
    return jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]


def count_confusion(logits: Array, batch: Batch, mask: Array) -> Sums:
    """Returns the confusion matrix, counts `[true class, predicted class]`; nothing for more than 1,000 classes."""
    classes = logits.shape[-1]
    if classes > CONFUSABLE:
        return {}
    counts = jnp.zeros((classes, classes), jnp.int32)
    return {"confusion": counts.at[batch.features["label"], _best(logits)[..., 0]].add(mask.astype(jnp.int32))}


def _eval_sums(logits: Array, batch: Batch, mask: Array, present: Array) -> Sums:
    hit = hits(logits, batch, mask)
    return {"correct": hit[..., 0].sum(), "top5_correct": hit.sum(), **count_confusion(logits, batch, mask)}


def _prediction(logits: np.ndarray, probabilities: np.ndarray, names: OutputSpec, top_k: int) -> dict[str, Any]:
    """Returns the likeliest classes of one example, ordered by logits, since probabilities may round to equal numbers."""
    best = (-logits).argsort(kind="stable")[:top_k]
    likeliest = [{"class": names.classes[c], "probability": float(probabilities[c])} for c in best]
    return {**likeliest[0], "top_k": likeliest}


def _line(prediction: Mapping[str, Any]) -> str:
    return "".join(f"  {guess['class']} {guess['probability']:.4f}" for guess in prediction["top_k"])


CLASSIFICATION = Task(
    name="classification",
    suits=lambda spec: "label" in spec.features and not spec.features["label"].shape,
    outputs=outputs,
    objectives=OF_CLASSES,
    targets=one_hot,
    distributions=True,
    mask=None,
    train_sums=count_correct,
    eval_sums=_eval_sums,
    metrics=(LOSS, ACCURACY, TOP5_ACCURACY),
    selects=("accuracy", "loss"),
    prediction=_prediction,
    line=_line,
)
