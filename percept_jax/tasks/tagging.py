"""Tagging: a label for each time step of a sequence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import Array

from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks.base import Batch, OutputSpec, Sums, Task
from percept_jax.tasks.classification import (
    ACCURACY,
    OF_CLASSES,
    TOP5_ACCURACY,
    count_confusion,
    count_correct,
    hits,
    one_hot,
    outputs,
)

SEQUENCE_ACCURACY = Metric(
    "sequence_accuracy", True, "z.4f", lambda sums: sums["all_correct"] / sums["examples"], shown=False, of="examples"
)


def labeled(features: Mapping[str, Array]) -> Array:
    """Returns whether each time step has a label: -1 stands for none."""
    return features["label"] >= 0


def _eval_sums(logits: Array, batch: Batch, mask: Array, present: Array) -> Sums:
    hit = hits(logits, batch, mask)
    all_correct = (hit[..., 0] | ~mask).all(1) & present
    return {
        "correct": hit[..., 0].sum(),
        "top5_correct": hit.sum(),
        "all_correct": all_correct.sum(),
        **count_confusion(logits, batch, mask),
    }


def prediction(logits: np.ndarray, probabilities: np.ndarray, names: OutputSpec, top_k: int) -> dict[str, Any]:
    """Returns the likeliest class at each time step of one example."""
    return {"classes": [names.classes[label] for label in logits.argmax(-1)]}


def line(prediction: Mapping[str, Any]) -> str:
    """Returns the classes of all time steps as text."""
    return "".join(f" {name}" for name in prediction["classes"])


TAGGING = Task(
    name="tagging",
    suits=lambda spec: "label" in spec.features and bool(spec.features["label"].shape) and spec.kind != "text",
    outputs=outputs,
    objectives=OF_CLASSES,
    targets=one_hot,
    distributions=True,
    mask=labeled,
    train_sums=count_correct,
    eval_sums=_eval_sums,
    metrics=(LOSS, ACCURACY, TOP5_ACCURACY, SEQUENCE_ACCURACY),
    selects=("accuracy", "loss"),
    prediction=prediction,
    line=line,
)
