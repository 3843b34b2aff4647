"""One device against many, one trial against a pack: the same pure step, mapped in two ways."""

import dataclasses
import functools
import logging

import jax
import numpy as np
import pytest
from helpers import load

from percept_jax.data import feed, preprocess
from percept_jax.data.sampler import Sampler
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.tasks.classification import CLASSIFICATION
from percept_jax.training import evaluation, parallel
from percept_jax.training.program import make_program

SMOOTH = {"activation": "tanh", "pooling": "average"}
KNOBS = {False: {}, True: SMOOTH}


def run(experiments, dataset, devices, steps):
    """Loss sums [steps, K] and the final state of trials that share a program, without the loop around it."""
    first = experiments[0]
    with jax.enable_x64(first.dtype == "float64"):
        devices = jax.local_devices()[:devices]
        program = make_program(first, dataset.spec, parallel.axis_name(devices))
        hparams = stack_hparams(experiments, steps)
        data = preprocess.device_data(dataset, preprocess.fit("standard", dataset), hparams.learning_rate.dtype)
        data, placed = parallel.place(data, devices), parallel.place(hparams, devices)
        state = parallel.place(parallel.compile_init(program, len(experiments), dataset.inputs.shape[1:])(hparams), devices)
        step = parallel.compile_train(program, devices, len(experiments))
        orders = [Sampler(e.seed, dataset.spec.splits["train"], e.batch(1077)) for e in experiments]
        losses = []
        for k in range(steps):
            state, sums = step(state, np.stack([order(k) for order in orders]), placed, data)
            losses.append(jax.device_get(sums["loss"]))
        return np.stack(losses), state


@pytest.fixture(scope="module")
def digits16(data_dir):
    """Digits at 16x16, the smallest images that LeNet-5 takes: its last feature map is then 1x1."""
    return load("digits", data_dir, 16)


def everything_on(dtype="float32", **knobs):
    """Batch norm, dropout, momentum, augmentation, averaged weights and the rest on."""
    return Experiment(
        model="lenet5", knobs={"norm": "batch", **knobs}, dtype=dtype, batch_size=16, steps=100, learning_rate=0.02,
        dropout_rate=0.3, label_smoothing=0.1, weight_decay=1e-3, schedule="cosine", warmup_steps=10,
        clip_norm=1.0, ema_decay=0.9, random_crop=2, random_flip=True, rotation=10, scale=0.1, shear=5, brightness=0.2,
        contrast=0.2, cutout=4, mixup=0.4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(digits16):
    """Losses of 100 steps on one device, by experiment, computed once."""
    return functools.cache(lambda dtype, smooth: run([everything_on(dtype, **KNOBS[smooth])], digits16, 1, 100)[0])


def test_two_devices_take_the_steps_of_one(digits):
    """A convolutional network with most of what a step can do, in float64 but for the draws."""
    small = dataclasses.replace(everything_on("float64", features=(4, 4), hidden=8), model="cnn", steps=20, rotation=0, shear=0)
    (alone, _), (both, _) = (run([small], digits, devices, 20) for devices in (1, 2))
    np.testing.assert_allclose(both, alone, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("dtype", "smooth", "steps", "tolerance", "devices"),
    # A ReLU or a maximum turns float32 rounding into large differences after some tens of steps, whatever one does.
    [
        *(("float64", False, 100, 1e-12, devices) for devices in (2, 4, 8)),
        *(("float32", True, 100, 1e-5, devices) for devices in (2, 4, 8)),
        *(("float32", False, 10, 1e-6, devices) for devices in (2, 4, 8)),
    ],
)
def test_losses_do_not_depend_on_the_number_of_devices(digits16, alone, devices, dtype, smooth, steps, tolerance):
    losses, state = run([everything_on(dtype, **KNOBS[smooth])], digits16, devices, steps)
    np.testing.assert_allclose(losses, alone(dtype, smooth)[:steps], rtol=tolerance)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        assert len(others) == devices - 1
        for other in others:
            np.testing.assert_array_equal(other, first, err_msg=str(path))


@pytest.mark.slow
def test_an_augmentation_is_applied(digits):
    experiment = Experiment(model="linear", steps=2, batch_size=16)
    losses = [run([dataclasses.replace(experiment, **on)], digits, 1, 2)[0] for on in ({}, {"random_crop": 2}, {"mixup": 1.0})]
    assert len({loss.tobytes() for loss in losses}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_promotes_no_dtype_by_accident(digits16, devices):
    with jax.numpy_dtype_promotion("strict"):
        run([everything_on()], digits16, devices, 1)


# Of one program, so that the tests of packs compile it once.
SMALL = Experiment(model="mlp", knobs={"hidden": (16,)}, dtype="float64", steps=20, batch_size=16)


@pytest.mark.optimized
def test_a_pack_is_its_trials(digits):
    """Seeds and traced numbers differ within a pack, and each trial is what it is alone."""
    trials = [
        dataclasses.replace(SMALL, seed=seed, learning_rate=rate, dropout_rate=drop)
        for seed, rate, drop in ((0, 0.05, 0.0), (1, 0.05, 0.2), (0, 0.01, 0.5))
    ]
    together, _ = run(trials, digits, 1, 20)
    assert together.shape == (20, 3)
    for k, trial in enumerate(trials):
        np.testing.assert_allclose(together[:, k], run([trial], digits, 1, 20)[0][:, 0], rtol=1e-12)


@pytest.mark.optimized
@pytest.mark.slow
def test_a_neighbor_that_diverges_leaves_the_others_their_bits(digits):
    base = dataclasses.replace(SMALL, learning_rate=0.05)
    calm, wild = dataclasses.replace(base, seed=1), dataclasses.replace(base, learning_rate=1e300)
    healthy, _ = run([base, calm, calm], digits, 1, 20)
    beside, _ = run([base, wild, calm], digits, 1, 20)
    assert not np.isfinite(beside[:, 1]).all()
    np.testing.assert_array_equal(beside[:, 0], healthy[:, 0])


def test_rows_of_an_evaluation_are_the_examples_in_order_and_no_padding(digits):
    index = digits.spec.roles["test"]
    task = CLASSIFICATION._replace(eval_rows=lambda outputs, batch: {"label": batch.features["label"]})
    for devices in (jax.local_devices()[:1], jax.local_devices()[:2]):
        program = make_program(Experiment(model="linear", steps=1), digits.spec, parallel.axis_name(devices))._replace(task=task)
        state = parallel.compile_init(program, 1, (8, 8, 1))(stack_hparams([Experiment(model="linear", steps=1)], 1))
        data = parallel.place(preprocess.device_data(digits, preprocess.fit("standard", digits), np.dtype("float32")), devices)
        step, batches = parallel.compile_eval(program, devices, 1), feed.batches(data, index, 136)
        rows = evaluation.evaluate(step, parallel.place(state.variables, devices), batches)["label"]
        np.testing.assert_array_equal(rows, digits.examples["label"][index][None])


def test_evaluation_counts_every_example_once_on_any_number_of_devices(digits):
    experiment = Experiment(model="mlp", steps=1)
    index = digits.spec.roles["test"]
    found = []
    for devices in (1, 8):
        devices = jax.local_devices()[:devices]
        program = make_program(experiment, digits.spec, parallel.axis_name(devices))
        state = parallel.compile_init(program, 1, (8, 8, 1))(stack_hparams([experiment], 1))
        data = parallel.place(preprocess.device_data(digits, preprocess.fit("standard", digits), np.dtype("float32")), devices)
        step = parallel.compile_eval(program, devices, 1)
        for batch in (8, 136, 360, 512):
            found.append(evaluation.evaluate(step, parallel.place(state.variables, devices), feed.batches(data, index, batch)))
    truth = np.bincount(digits.examples["label"][index], minlength=10)
    for sums in found:
        np.testing.assert_array_equal(sums["confusion"][0].sum(1), truth)
        np.testing.assert_array_equal(sums["confusion"], found[0]["confusion"])
        np.testing.assert_allclose(sums["loss"], found[0]["loss"], rtol=1e-6)
        assert sums["examples"][0] == 360
        assert sums["correct"][0] == np.trace(sums["confusion"][0])
        assert sums["correct"][0] <= sums["top5_correct"][0] <= 360


def test_a_traced_number_changes_the_result_and_compiles_nothing(digits, caplog):
    base = Experiment(model="mlp", knobs={"hidden": (16,)}, steps=20, batch_size=16)
    devices = jax.local_devices()[:1]
    program = make_program(base, digits.spec)
    step, evaluate = parallel.compile_train(program, devices, 1), parallel.compile_eval(program, devices, 1)
    data = parallel.place(preprocess.device_data(digits, preprocess.fit("standard", digits), np.dtype("float32")), devices)
    index = digits.spec.roles["train"][None, :16]
    changed = {
        "learning_rate": 0.02, "momentum": 0.5, "weight_decay": 0.1, "dropout_rate": 0.5, "label_smoothing": 0.2,
        "warmup_steps": 10, "steps": 30, "seed": 4294967295, "clip_norm": 0.1, "decay_rate": 0.5, "beta2": 0.9, "epsilon": 1e-3,
    }  # fmt: skip
    experiments = [base, *(dataclasses.replace(base, **{name: value}) for name, value in changed.items())]
    init = parallel.compile_init(program, 1, (8, 8, 1))
    hparams = [parallel.place(stack_hparams([e], e.steps), devices) for e in experiments]
    states = [parallel.place(init(h), devices) for h in hparams]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for h, state in zip(hparams, states, strict=True):
            for _ in range(2):
                state, _ = step(state, index, h, data)
            evaluate(state.variables, index[0], data)
    compiled = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling")]
    assert [m.split()[1] for m in compiled] == ["jit(train_step)", "jit(eval_step)"], compiled


def test_a_run_compiles_one_step_and_one_evaluation(small, caplog):
    from percept_jax import train

    for devices in (1, 4):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            train(dataclasses.replace(small, devices=devices, run_dir=f"{small.run_dir}{devices}"))
        names = [r.getMessage().split()[1] for r in caplog.records if r.getMessage().startswith("Compiling")]
        steps = ["jit(eval_step)", "jit(train_step)"] if devices == 1 else ["jit(_fun)", "jit(_fun)"]  # pmap's name for both
        assert names[-2:] == steps, names
        assert not set(steps) & set(names[:-2]), names


@pytest.mark.slow
def test_two_thousand_steps_on_eight_devices_end(tmp_path):
    """The queue is bounded: unbounded, XLA:CPU's collectives abort the process."""
    from percept_jax import train

    experiment = Experiment(
        model="mlp", knobs={"hidden": (16,)}, steps=2000, batch_size=32, eval_every=1000, learning_rate=0.01,
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    assert train(experiment).result["steps"] == 2000


@pytest.mark.optimized
@pytest.mark.slow
def test_the_gradient_through_batch_norm_relu_and_maximum_is_that_of_flax_s_pooling(digits16, monkeypatch):
    """In a compiled step, where XLA computes values anew: a gradient that compared them was off by 1e-3 here."""
    import flax.linen as nn

    import percept_jax.models.lenet

    _, ours = run([everything_on("float64")], digits16, 1, 1)
    monkeypatch.setattr(percept_jax.models.lenet, "pool", lambda x, kind, **_: nn.max_pool(x, (2, 2), (2, 2)))
    _, flax = run([everything_on("float64")], digits16, 1, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15), ours.params, flax.params)
