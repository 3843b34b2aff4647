"""Trials to programs, programs to packs, and how many trials at a time."""

import collections
import dataclasses
import itertools
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from percept_jax.experiment import KNOBS, Experiment
from percept_jax.sweeps import pack_width, plan
from percept_jax.sweeps.plan import ArmPlan, TrialPlan
from percept_jax.training.identity import identity
from percept_jax.training.program import program_key

BASE = Experiment(model="mlp", steps=20)


@given(st.integers(1, 300), st.integers(1, 70), st.sampled_from([1, 2, 8]))
def test_every_trial_is_in_one_pack_and_packs_are_of_one_size_that_the_devices_share(count, width, devices):
    width = width * devices if width > 1 else width
    ids = [f"{i:012x}" for i in range(count)]
    packs = plan.packs(ids, width, devices)
    assert [i for pack in packs for i in pack.trials] == ids
    assert len({pack.width for pack in packs}) == 1
    assert packs[0].width <= width
    assert all(1 <= len(pack.trials) <= pack.width for pack in packs)
    assert packs[0].width == 1 or packs[0].width % devices == 0
    assert len(packs) <= math.ceil(count / width)
    assert len({pack.name for pack in packs}) == len(packs)


def test_traced_numbers_share_a_program_and_everything_else_makes_another():
    def key(**changes):
        experiment = dataclasses.replace(BASE, **changes)
        return program_key(experiment, experiment.steps)

    same = {"learning_rate": 0.2, "momentum": 0.1, "weight_decay": 0.1, "dropout_rate": 0.1, "label_smoothing": 0.1, "seed": 3}
    assert {key(**{name: value}) for name, value in same.items()} == {key()}
    assert key(run_dir="elsewhere") == key()
    other = {"batch_size": 8, "optimizer": "adam", "knobs": {"hidden": (3,)}, "steps": 21, "log_every": 3, "eval_every": 2}
    assert len({key(), *(key(**{name: value}) for name, value in other.items())}) == len(other) + 1


def test_programs_hold_each_trial_once():
    arms = [ArmPlan(str(rate), dataclasses.replace(BASE, learning_rate=rate), {}) for rate in (0.1, 0.2, 0.1)]
    trials = plan.trials(arms, (0, 1), identity)
    (program,) = plan.programs([t for arm in trials.values() for t in arm.values()], lambda e: e.steps)
    assert len(program.trials) == len({t.id for t in program.trials}) == 4


def test_the_seed_of_a_tuning_is_not_in_the_table_and_does_not_depend_on_how_many_are():
    arm = ArmPlan("a", BASE, {}, (BASE,))
    seeds = [plan.tuning([arm], range(n), identity)["a"][0].experiment.seed for n in (1, 50)]
    assert seeds == [4294967295, 4294967295]
    assert plan.tuning([arm], (4294967295,), identity)["a"][0].experiment.seed == 4294967294


def test_the_best_candidate_is_chosen_on_validation_and_the_first_among_equals():
    def result(value, status="done"):
        return {"status": status, "validation": {"accuracy": value}, "test": {"accuracy": 1 - value}}

    tried = [TrialPlan(str(i), "a", BASE) for i in range(5)]
    results = [result(0.5), result(0.9), result(0.9), result(0.99, "diverged"), None]
    assert plan.best(list(zip(tried, results, strict=True)), "test/accuracy", 1).id == "1"
    assert plan.best(list(zip(tried, results, strict=True)), "test/accuracy", -1).id == "0"
    assert plan.best([(tried[0], None), (tried[1], result(0.5, "diverged"))], "test/accuracy", 1) is None


@pytest.fixture
def clock(monkeypatch, digits):
    """`choose` with made up milliseconds by width in place of a clock; (milliseconds, trials, ...) -> (width, widths tried)."""
    subject = pack_width.subject_of(dataclasses.replace(BASE, steps=100_000), digits)

    def choose(milliseconds, trials, convolves=False, steps=100_000, fits=math.inf, devices=1, **options):
        tried = []

        class Timed:
            def __init__(self, subject, devices, width):
                self.compiled = subject.compile(devices, width)
                self.milliseconds = milliseconds(width)
                tried.append(width)

            def memory(self):
                return self.compiled.trials

            def race(self, other):
                pass

            seconds = pack_width._TimedPack.seconds

        monkeypatch.setattr(pack_width, "_TimedPack", Timed)
        monkeypatch.setattr(pack_width, "time", SimpleNamespace(monotonic=itertools.count().__next__))  # a second a look
        monkeypatch.setattr(pack_width, "free_memory", lambda device: fits / pack_width.MEMORY)
        shown = subject._replace(experiment=dataclasses.replace(subject.experiment, steps=steps))
        if convolves:
            shape = shown.data.features["image"].shape[0], 16, 16, 1
            shown = shown._replace(
                experiment=Experiment(model="lenet5", steps=steps),
                data=shown.data._replace(features={**shown.data.features, "image": np.zeros(shape, np.uint8)}),
            )
        return pack_width.choose(shown, jax.local_devices()[:devices], trials, **options).width, tried

    return choose


def test_perceptrons_begin_with_the_widest_pack_and_convolutions_with_one(clock):
    assert clock(lambda width: 1 / width, 64) == (64, [64, 32])  # half as wide is twice as slow, and no more are tried
    assert clock(lambda width: 1 / width, 80)[0] == 40  # two packs of one size
    assert clock(lambda width: width, 8, convolves=True) == (1, [1, 2])
    assert clock(lambda width: 1.0, 8, convolves=True)[0] == 1  # not clearly faster
    assert clock(lambda width: 0.5 if width == 4 else 1.0, 8, convolves=True) == (4, [1, 2, 4, 8])


def test_nothing_is_measured_that_does_not_pay(clock):
    assert clock(lambda width: 1 / width, 1) == (1, [])
    assert clock(lambda width: 1.0, 64, steps=1) == (64, [64])
    assert clock(lambda width: 1.0, 8, convolves=True, steps=1) == (1, [1])


def test_workers_memory_and_devices_bound_a_pack(clock):
    assert clock(lambda width: 1 / width, 64, workers=4)[0] == 16
    assert clock(lambda width: 1 / width, 64, fits=20)[0] == 16
    assert clock(lambda width: 1 / width, 64, devices=8) == (64, [64, 32])  # eight on each
    assert clock(lambda width: 1.0, 4, devices=8) == (8, [])  # one on each, some of them to fill up


def test_a_recurrent_network_is_not_stacked_on_a_cpu(digits):
    experiment = Experiment(model="gru", steps=20)
    chosen = pack_width.choose(pack_width.subject_of(experiment, digits), jax.local_devices()[:1], 16)
    assert (chosen.width, chosen.milliseconds) == (1, {})


def test_every_knob_is_traced_or_parts_programs():
    """Or it only says where a run goes."""
    assert {name for name, knob in KNOBS.items() if knob.role not in ("static", "traced", "infra")} == set()
    counts = collections.Counter(knob.role for knob in KNOBS.values())
    assert min(counts.values()) > 5
