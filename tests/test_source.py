"""What a run's identity covers: the code that decides its result, and neither comments nor what only shows it."""

import re
import shutil
from pathlib import Path

import pytest

from percept_jax import models
from percept_jax.data import registry
from percept_jax.experiment import Experiment
from percept_jax.training import identity, source

PACKAGE = Path(source.__file__).parent.parent


def digest(package, model="lenet5", dataset="digits", loads=False):
    return source.digest(model, models.module_class(model), registry.reader_class(dataset), loads, package)


@pytest.fixture
def copy(tmp_path):
    """The package in another place, to be edited."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "percept_jax", ignore=shutil.ignore_patterns("__pycache__")))


def edit(path, pattern, text):
    content, count = re.subn(pattern, text, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, path
    path.write_text(content)


SAME = {
    "a comment in the step": ("training/step.py", r"^    _, key = ", r"    # A comment.\n\n\g<0>"),
    "a docstring of the step": ("training/step.py", r'"""Measures the examples', '"""Looks at the examples'),
    "the docstring of a module": ("data/augment.py", r"\A\"\"\"", '"""Well: '),
    "a message": ("training/optim.py", r'raise UsageError\(f"', 'raise UsageError(f"No: '),
    "a plot": ("plots/run.py", r"alpha=0\.3", "alpha=0.4"),
    "a command": ("cli/commands/train.py", r"loss \{", "its loss {"),
    "the command line": ("cli/main.py", r"^def main", "VERSION = 3\n\n\ndef main"),
    "what a run prints": ("training/reporter.py", r"eta \{left", "left {left"),
    "how a checkpoint is written": ("training/checkpoint.py", r"^KEEP = 2", "KEEP = 3"),
    "another model": ("models/resnet.py", r"^def |^class ", r"WIDTH = 3\n\n\n\g<0>"),
    "a new model": ("models/__init__.py", r'^    "mlp": MLP,', '    "mlp": MLP,\n    "wide": functools.partial(MLP, a=9),'),
    "the partial of another model": ("models/__init__.py", r'width=16, shortcut="A"', 'width=8, shortcut="A"'),
    "another reader": ("data/readers/toy.py", r"0\.15 \* noise", "0.25 * noise"),
    "the help of a flag": ("experiment.py", r'"network to train', '"which network to train'),
    "a flag that says where a run goes": ("experiment.py", r'False, "infra", "run", "start', 'True, "infra", "run", "start'),
    "loading weights, which it does not": ("weights/file.py", r"^SHOWN = 8", "SHOWN = 9"),
    "a sweep": ("sweeps/plan.py", r"\[:12\]", "[:11]"),
}  # fmt: skip

DIFFERENT = {
    "the step": ("training/step.py", r"state\.step \+ 1, params", "state.step + 2, params"),
    "the batch": ("training/batch.py", r"/ 255\}", "/ 256}"),
    "the choice of the best step": ("training/pack.py", r"key\(numbers\) > key", "key(numbers) >= key"),
    "the optimizer": ("training/optim.py", r"return 0\.5 \* \(1", "return 0.6 * (1"),
    "its model": ("models/lenet.py", r"120", "121"),
    "a layer that it uses": ("models/layers.py", r"^def pool\(", "WINDOW = 2\n\n\ndef pool("),
    "the augmentation": ("data/augment.py", r"^_LUMA = \(0\.2989", "_LUMA = (0.2988"),
    "the order of examples": ("data/sampler.py", r'kind="stable"', 'kind="quicksort"'),
    "its reader": ("data/readers/tfds.py", r"^BLOCK = 1000", "BLOCK = 100"),
    "how images are resized": ("data/images.py", r"BILINEAR", "BICUBIC"),
    "the task": ("tasks/classification.py", r"min\(5,", "min(4,"),
    "the loss": ("tasks/losses.py", r"0\.5 \* jnp\.sum", "0.4 * jnp.sum"),
    "a default": ("training/optim.py", r'learning_rate: float = knob\(0\.1', "learning_rate: float = knob(0.2"),
    "the statistics": ("data/preprocess.py", r"deviation > 0", "deviation > 1"),
    "which error it is": ("data/images.py", r"raise ValueError\(f\"an image file", 'raise TypeError(f"an image file'),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_what_decides_nothing_is_not_in_the_identity(what, copy):
    path, pattern, text = SAME[what]
    edit(copy / path, pattern, text)
    assert digest(copy) == digest(PACKAGE)


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_decides_is(what, copy):
    path, pattern, text = DIFFERENT[what]
    edit(copy / path, pattern, text)
    assert digest(copy) != digest(PACKAGE)


def test_it_is_the_model_s_own_and_the_data_set_s(copy):
    digests = [
        digest(PACKAGE, *of) for of in (("lenet5", "digits"), ("mlp", "digits"), ("lenet5", "moons"), ("lenet5", "folder:x"))
    ]
    digests += [digest(PACKAGE, "resnet20"), digest(PACKAGE, "resnet32"), digest(PACKAGE, loads=True)]
    assert len(set(digests)) == len(digests)
    edit(copy / "models/resnet.py", r"^def |^class ", r"WIDTH = 3\n\n\n\g<0>")
    assert digest(copy, "resnet20") != digest(PACKAGE, "resnet20")
    edit(copy / "weights/file.py", r"^SHOWN = 8", "SHOWN = 9")
    assert digest(copy) == digest(PACKAGE)
    assert digest(copy, loads=True) != digest(PACKAGE, loads=True)


def test_no_room_that_shows_or_stores_is_followed():
    """A module that the step imports tomorrow is covered by itself; one of these would orphan runs by a message."""
    for model, dataset in (("lenet5", "digits"), ("gru", "text:x"), ("mlp", "moons"), ("cnn", "folder:x"), ("lstm", "npz:x")):
        found = source.modules(model, models.module_class(model), registry.reader_class(dataset), True)
        assert not [name for name in found if name.startswith(("cli/", "sweeps/", "explain/", "plots", "api"))]
        assert {"training/step.py", "training/pack.py", "tasks/classification.py", "models/layers.py"} <= set(found)
    for name in (*source.FOLLOWED, source.LOADS, *source.ALONE, *source.NEUTRAL):
        assert (PACKAGE / name).is_file(), name


def test_a_model_from_elsewhere_is_in_its_own_identity(tmp_path, monkeypatch):
    import importlib.util

    from percept_jax.models.mlp import Linear

    path = tmp_path / "mine.py"
    path.write_text("from percept_jax.models.mlp import Linear\n\n\nclass Mine(Linear):\n    scale = 1\n")

    def code():
        spec = importlib.util.spec_from_file_location("mine", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(__import__("sys").modules, "mine", module)
        spec.loader.exec_module(module)
        monkeypatch.setitem(models.MODELS, "mine", module.Mine)
        source._digest.cache_clear()
        source._parsed.cache_clear()
        return identity.code(Experiment(model="mine", steps=1))

    first = code()
    assert issubclass(models.MODELS["mine"], Linear)
    path.write_text(path.read_text() + "# A comment.\n")
    assert code() == first
    path.write_text(path.read_text().replace("scale = 1", "scale = 2"))
    assert code() != first


@pytest.mark.slow
def test_a_finished_run_stays_finished_when_a_comment_changes(copy, tmp_path, launch):
    shutil.copy(PACKAGE.parent / "launch.sh", tmp_path / "launch.sh")
    (tmp_path / "experiments").mkdir()

    def run():
        args = ["--model=mlp", "--steps=5", "--devices=1", f"--run_dir={tmp_path / 'run'}"]
        return launch(*args, script=tmp_path / "launch.sh")

    assert "step 5/5" in run().stdout
    for path, pattern, text in (SAME["a comment in the step"], SAME["a command"], SAME["another model"]):
        edit(copy / path, pattern, text)
    shown = run()
    assert (shown.returncode, "step 5/5" in shown.stdout) == (0, False), shown.stderr
    edit(copy / "training/step.py", *DIFFERENT["the step"][1:])
    refused = run()
    assert refused.returncode == 2
    assert "made by other source code" in refused.stderr


def test_a_sweep_of_many_trials_reads_the_code_once():
    identity.code(Experiment(steps=1))
    before = source._digest.cache_info().misses
    assert len({identity.identity(Experiment(steps=1, seed=seed)) for seed in range(50)}) == 50
    assert source._digest.cache_info().misses == before
