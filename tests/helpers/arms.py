"""Arms with made-up results."""

from percept_jax.analysis.comparison import Arm, Outcome

FLAGS = {"model": "mlp", "learning_rate": "0.1", "momentum": "0.9"}


def result(accuracy, status="done", seconds=3.0):
    numbers = {"loss": 0.5, "accuracy": accuracy, "examples": 100}
    test = numbers if status == "done" else None
    return {"status": status, "validation": numbers, "test": test, "seconds": {"start": 1.0, "train": seconds - 1}}


def arm(name, accuracies, **flags):
    """An arm of done trials, of seeds 0, 1, ...; None: a missing one."""
    outcomes = [
        Outcome(seed, None, "missing") if x is None else Outcome(seed, None, "done", result(x), "abc", 1)
        for seed, x in enumerate(accuracies)
    ]
    return Arm(name, FLAGS | flags, outcomes)


def lines(seed=0, **flags):
    return [f"--{name}={text}" for name, text in (FLAGS | flags | {"seed": str(seed)}).items()]
