"""Models, losses and examples from outside of the package: what does not fit is one line before training."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from percept_jax import models, train
from percept_jax.errors import DataError, UsageError
from percept_jax.tasks import TASKS
from percept_jax.tasks.classification import CLASSIFICATION
from percept_jax.tasks.losses import Objective


def model(body, fields=("num_classes",)):
    """A Flax module around a function of (module, images)."""

    def call(self, images, train=False):
        return body(self, images.reshape(len(images), -1))

    names = {"__annotations__": dict.fromkeys(fields, int), "__call__": nn.compact(call), "__module__": "mine"}
    return type("Mine", (nn.Module,), names)


def no_train():
    class Mine(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, images):
            return nn.Dense(self.num_classes)(images.reshape(len(images), -1))

    return Mine


def noted(self, x):
    self.variable("notes", "mean", lambda: x.mean())
    return nn.Dense(self.num_classes)(x)


WRONG = {
    "an axis too many": (model(lambda self, x: nn.Dense(10)(x)[:, None]), r"mine maps 2 examples to \[2, 1, 10\], not \[2, 10\]"),
    "no axis of examples": (model(lambda self, x: nn.Dense(10)(x).sum(0)), r"mine maps 2 examples to \[10\], not \[2, 10\]"),
    "other classes": (model(lambda self, x: nn.Dense(7)(x)), r"mine maps 2 examples to \[2, 7\], not \[2, 10\]"),
    "nothing": (model(lambda self, x: None), "mine maps 2 examples to no array"),
    "an error": (model(lambda self, x: nn.Dense(10)(x.undone)), r"mine fails for images \[8, 8, 1\]: AttributeError: "),
    "no train": (no_train(), r"mine fails for images \[8, 8, 1\]: TypeError: "),
    "no parameters": (model(lambda self, x: x[:, :10]), "mine has the variables none, not params"),
    "other variables": (model(noted), "mine has the variables notes, params, not params"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_model_that_is_none_is_refused_in_one_line(small, tmp_path, monkeypatch, what):
    made, said = WRONG[what]
    monkeypatch.setitem(models.MODELS, "mine", made)
    with pytest.raises(UsageError, match=f"--model: {said}") as error:
        train(dataclasses.replace(small, model="mine", knobs={}))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_model_of_one_s_own_is_trained(small, monkeypatch):
    monkeypatch.setitem(models.MODELS, "mine", model(lambda self, x: nn.Dense(self.num_classes)(x)))
    assert train(dataclasses.replace(small, model="mine", knobs={})).result["test"]["accuracy"] > 0.5


@pytest.mark.parametrize("loss", [lambda logits, targets: jnp.mean(logits), lambda logits, targets: logits - targets])
def test_a_loss_that_is_not_one_number_a_position_is_refused(small, monkeypatch, loss):
    task = CLASSIFICATION._replace(name="mine", objectives={"mine": Objective(loss, jax.nn.softmax)})
    monkeypatch.setitem(TASKS, "mine", task)
    with pytest.raises(UsageError, match=r"the loss of mine is \[.*\], not \[\d+\], one number a position"):
        train(dataclasses.replace(small, task="mine"))


def test_mixup_wants_targets_that_can_be_mixed(small, monkeypatch):
    monkeypatch.setitem(TASKS, "mine", CLASSIFICATION._replace(name="mine", distributions=False))
    with pytest.raises(UsageError, match="--mixup: the targets of mine cannot be mixed"):
        train(dataclasses.replace(small, task="mine", mixup=0.2))


@pytest.mark.parametrize("label", [-2, 5])
def test_a_label_that_is_no_class_is_refused_for_sequences_too(small, tmp_path, monkeypatch, label):
    from percept_jax.data.readers.sequence_files import SequenceFile

    x = np.random.default_rng(0).normal(size=(40, 5, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=np.arange(40) % 2)
    real = SequenceFile.source

    def source(self, split):
        found = real(self, split)
        found._columns["label"][0] = label
        return found

    monkeypatch.setattr(SequenceFile, "source", source)
    experiment = dataclasses.replace(small, model="gru", knobs={"hidden": (4,)}, dataset=f"npz:{tmp_path / 'data.npz'}")
    with pytest.raises(DataError, match=r"labels are int32 from .*; there are 2 classes"):
        train(dataclasses.replace(experiment, data_dir=str(tmp_path)))
