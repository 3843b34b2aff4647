"""Language modeling: at each time step, the next character of a text."""

import math

from jax import Array

from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks.base import Batch, Sums, Task
from percept_jax.tasks.classification import ACCURACY, OF_CLASSES, TOP5_ACCURACY, count_correct, hits, one_hot, outputs
from percept_jax.tasks.tagging import labeled, line, prediction

BITS_PER_CHARACTER = Metric("bits_per_character", False, "#.4g", lambda sums: LOSS.compute(sums) / math.log(2))


def _eval_sums(logits: Array, batch: Batch, mask: Array, present: Array) -> Sums:
    hit = hits(logits, batch, mask)
    return {"correct": hit[..., 0].sum(), "top5_correct": hit.sum()}


LANGUAGE_MODELING = Task(
    name="language_modeling",
    suits=lambda spec: spec.kind == "text",
    outputs=outputs,
    objectives=OF_CLASSES,
    targets=one_hot,
    distributions=True,
    mask=labeled,
    train_sums=count_correct,
    eval_sums=_eval_sums,
    metrics=(LOSS, ACCURACY, TOP5_ACCURACY, BITS_PER_CHARACTER),
    selects=("loss",),
    prediction=prediction,
    line=line,
    generates=True,
)
