"""Chooses the examples of step k, as a pure function of (seed, k): resuming needs no saved state."""

import functools

import numpy as np


def epoch_order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Returns a permutation of `arange(examples)`, int32.

    It is a stable argsort of raw Philox numbers, which every version of NumPy draws alike.
    """
    draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(examples)
    return np.argsort(draws, kind="stable").astype(np.int32)


class Sampler:
    """The order in which one trial sees its training examples. Epochs follow each other without a gap."""

    def __init__(self, seed: int, examples: int, batch_size: int):
        self._examples, self._batch_size = examples, batch_size
        self._epoch = functools.lru_cache(maxsize=2)(lambda epoch: epoch_order(seed, epoch, examples))

    def __call__(self, step: int) -> np.ndarray:
        """Returns the indices `[batch_size]`, int32, of the examples of step `step`, counted from 0."""
        first = step * self._batch_size
        last = first + self._batch_size
        epochs = range(first // self._examples, (last - 1) // self._examples + 1)
        starts = [(epoch, epoch * self._examples) for epoch in epochs]
        return np.concatenate([self._epoch(epoch)[max(0, first - start) : last - start] for epoch, start in starts])
