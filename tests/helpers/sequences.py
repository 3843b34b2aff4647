"""Sequences in files, for several tests."""

import numpy as np

from percept_jax.tasks import task_of

RNG = np.random.default_rng(0)


def write_npz(folder, name="own.npz", **arrays):
    np.savez(folder / name, **arrays)
    return f"npz:{folder / name}"


def labeled(folder, lengths=True, **more):
    """Sequences of lengths 3 to 7 whose mean tells their class, with garbage in the padding."""
    arrays = {}
    for split, count in (("train", 60), ("test", 30)):
        y = np.sort(np.arange(count) % 3)  # by class, as files often are
        n = RNG.integers(3, 8, count)
        x = RNG.normal(y[:, None, None], 0.3, (count, 7, 2)).astype(np.float32)
        if lengths:
            x[np.arange(7) >= n[:, None]] = 1e6
            arrays[f"len_{split}"] = n
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    return write_npz(folder, **arrays, **more)


def asked(dataset):
    """The task of a data set, and what a model has to write for it."""
    task = task_of(dataset.spec)
    return task.name, task.outputs(dataset.spec)
