"""Classification with localization: the class of the one object in an image, and the box around it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from percept_jax.metrics import LOSS, Metric
from percept_jax.tasks import boxes
from percept_jax.tasks.base import Batch, Outputs, OutputSpec, Scale, Spec, Sums, Task
from percept_jax.tasks.classification import ACCURACY
from percept_jax.tasks.losses import Objective

# The weights of the two losses of a box, as in DETR (Carion et al. 2020, arXiv:2005.12872, section A.4).
GIOU, L1 = 2.0, 5.0
# The least IoU of a box that counts as found, as in ILSVRC (Russakovsky et al. 2015, arXiv:1409.0575, section 4.2).
FOUND = 0.5

FOUND_SHARE = Metric("found", True, "z.4f", lambda sums: sums["found"] / max(1, sums["boxed"]), shown=False)
LOCALIZED = Metric("localized", True, "z.4f", lambda sums: sums["localized"] / sums["positions"], of="positions")
MEAN_IOU = Metric("iou", True, "z.4f", lambda sums: sums["iou"] / max(1, sums["boxed"]))


def _suits(spec: Spec) -> bool:
    return "label" in spec.features and "boxes" in spec.features and tuple(spec.features["boxes"].shape) == (1, 4)


def _targets(features: Mapping[str, Array], outputs: Outputs, scale: Scale, dtype: Any) -> Array:
    """Returns `[..., classes + 4]`: the class as a distribution, then the box, whose sides are 0 if it is not visible."""
    classes = jax.nn.one_hot(features["label"], outputs.num_classes - 4, dtype=dtype)
    return jnp.concatenate([classes, features["boxes"][..., 0, :].astype(dtype)], -1)


def loss(outputs: Array, targets: Array) -> Array:
    """Returns the cross-entropy of the class, and of a visible box 2 (1 - GIoU) and 5 times the L1 distance, `[...]`."""
    found, box = boxes.from_outputs(outputs[..., -4:]), targets[..., -4:]
    distance = GIOU * (1 - boxes.giou(found, box)) + L1 * jnp.abs(found - box).sum(-1)
    return optax.softmax_cross_entropy(outputs[..., :-4], targets[..., :-4]) + jnp.where(boxes.area(box) > 0, distance, 0)


def _probabilities(outputs: Array) -> Array:
    """Returns the probabilities of the classes, then the box, clipped to the image."""
    box = jnp.clip(boxes.from_outputs(outputs[..., -4:]), 0, 1)
    return jnp.concatenate([jax.nn.softmax(outputs[..., :-4]), box], -1)


def _correct(outputs: Array, batch: Batch) -> Array:
    logits = outputs[..., :-4]
    return jax.lax.argmax(logits, logits.ndim - 1, jnp.int32) == batch.features["label"]


def _eval_sums(outputs: Array, batch: Batch, mask: Array, present: Array) -> Sums:
    box = batch.targets[..., -4:]
    boxed, correct = mask & (boxes.area(box) > 0), mask & _correct(outputs, batch)
    overlap = jnp.where(boxed, boxes.iou(_probabilities(outputs)[..., -4:], box), 0)
    found = overlap >= FOUND
    return {
        "correct": correct.sum(),
        "boxed": boxed.sum(),
        "iou": overlap.sum(),
        "found": found.sum(),
        "localized": (found & correct).sum(),
    }


def _prediction(outputs: np.ndarray, probabilities: np.ndarray, names: OutputSpec, top_k: int) -> dict[str, Any]:
    """Returns the likeliest class and the box, `(ymin, xmin, ymax, xmax)` in fractions of the image's sides."""
    best = int(outputs[:-4].argmax())
    return {"class": names.classes[best], "probability": float(probabilities[best]), "box": probabilities[-4:].tolist()}


def _line(prediction: Mapping[str, Any]) -> str:
    box = " ".join(f"{side:.4f}" for side in prediction["box"])
    return f"  {prediction['class']} {prediction['probability']:.4f}  ymin, xmin, ymax, xmax: {box}"


LOCALIZATION = Task(
    name="localization",
    suits=_suits,
    outputs=lambda spec: Outputs(len(spec.classes) + 4),
    objectives={"localization": Objective(loss, _probabilities)},
    targets=_targets,
    distributions=False,
    mask=None,
    train_sums=lambda outputs, batch: {"correct": jnp.sum(_correct(outputs, batch))},
    eval_sums=_eval_sums,
    metrics=(LOSS, ACCURACY, FOUND_SHARE, LOCALIZED, MEAN_IOU),
    selects=("iou", "loss"),
    prediction=_prediction,
    line=_line,
)
