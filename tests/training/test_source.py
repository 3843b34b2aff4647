"""What a run's identity covers: the code that decides its result, and neither comments nor what only shows it."""

import functools
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from percept_jax import models
from percept_jax.data import registry
from percept_jax.experiment import Experiment
from percept_jax.models.mlp import Linear
from percept_jax.tasks import TASKS
from percept_jax.tasks.classification import CLASSIFICATION
from percept_jax.tasks.losses import OBJECTIVES, Objective
from percept_jax.training import identity, source
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES

PACKAGE = source.PACKAGE


def digest(package, model="lenet5", dataset="digits", loads=False):
    return source.digest(model, models.MODELS[model], registry.reader_class(dataset), loads, package)


def forget():
    """As if this process had just begun: what is cached was read before an edit."""
    for cached in (source._digest, source._part, source._definitions):
        cached.cache_clear()


@pytest.fixture
def copy(tmp_path):
    """The package in another place, to be edited."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "percept_jax", ignore=shutil.ignore_patterns("__pycache__")))


def edit(path, pattern, text):
    forget()
    content, count = re.subn(pattern, text, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, path
    path.write_text(content)


SAME = {
    "a comment in the step": ("training/step.py", r"^    _, key = ", r"    # A comment.\n\n\g<0>"),
    "a docstring of the step": ("training/step.py", r'"""Measures the examples', '"""Looks at the examples'),
    "the docstring of a module": ("data/augment.py", r"\A\"\"\"", '"""Well: '),
    "a message": ("training/optim.py", r'raise UsageError\(f"', 'raise UsageError(f"No: '),
    "a plot": ("plots/figure.py", r"dpi: int = 100", "dpi: int = 90"),
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
    "a data set in the table": ("data/registry.py", r'^    "npz": Kind', '    "mine": Kind(ImageFolder),\n    "npz": Kind'),
    "a check before a run": ("training/preflight.py", r"> steps:\n        yield", ">= steps:\n        yield"),
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
    "the loss": ("tasks/losses.py", r"optax\.l2_loss", "0.4 * optax.l2_loss"),
    "a default": ("training/optim.py", r'learning_rate: float = knob\(0\.1', "learning_rate: float = knob(0.2"),
    "the statistics": ("data/preprocess.py", r"deviation > 0", "deviation > 1"),
    "a statement that leaves its block": ("training/pack.py", r"^    ( *self\._settle\(evaluation\.IN_FLIGHT\))$", r"\1"),
    "how long the loop goes on": ("training/loop.py", r"while not pack\.over", "while True"),
    "the size of images": ("training/preflight.py", r"model_size or max\(", "model_size or min("),
    "the check of what was read": ("data/registry.py", r"return dataset$", "return None"),
    "which splits are described": ("training/preflight.py", r"return select\(experiment, ", "return select(Experiment(), "),
    "how examples are loaded": ("training/preflight.py", r"spec, image_size, reader_config", "spec, (7, 7), reader_config"),
    "the shape of an input": ("training/preflight.py", r"\(\*size, spec", "(*size[::-1], spec"),
    "the settings of a reader": ("training/preflight.py", r"knobs\.part\(ReaderConfig, experiment\)", "ReaderConfig()"),
    "what the digits are": ("data/registry.py", r'"train": 1077', '"train": 1076'),
    "how the digits are prepared": ("data/prepare.py", r"digits\.target\[index\]", "digits.target[-index]"),
    "how the digits are split": ("data/readers/arrays.py", r"random_state=0", "random_state=1"),
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
        assert not [name for name in found if name.startswith(("cli/", "sweeps/", "analysis/", "explain/", "plots/", "api"))]
        assert {"training/step.py", "training/pack.py", "tasks/classification.py", "models/layers.py"} <= set(found)
    for name in (*source.FOLLOWED, source.LOADS, *source.NEUTRAL, *source.DEFINITIONS):
        assert (PACKAGE / name).is_file(), name


def test_every_module_that_is_passed_over_is_met():
    """None of them is listed for nothing, and the rest of what the loop imports counts: a new module does so by itself."""
    met = set()
    for model, dataset in (("lenet5", "digits"), ("gru", "text:x"), ("cnn", "folder:x"), ("lstm", "npz:x")):
        for name in source.modules(model, models.MODELS[model], registry.reader_class(dataset), True):
            path = PACKAGE / name
            imported = source._imported(source.ast.parse(path.read_bytes()), path, PACKAGE)
            met |= {file.relative_to(PACKAGE).as_posix() for file in imported}
    assert met >= source.NEUTRAL


@pytest.mark.parametrize("line", ["from percept_jax.training import extra", "from . import extra", "from .extra import x"])
def test_a_module_that_the_loop_imports_tomorrow_counts(line, copy):
    (copy / "training" / "extra.py").write_text("x = 1\n")
    edit(copy / "training/pack.py", r"^import math$", "import math")
    edit(copy / "training/pack.py", r"    def advance\(self.*\n", rf"\g<0>        {line}\n")
    first = digest(copy)
    edit(copy / "training/extra.py", r"1", "2")
    assert digest(copy) != first


def test_a_name_beside_a_module_in_one_import_is_followed_too(copy):
    (copy / "weights" / "__init__.py").write_text("x = 1\n")
    edit(copy / "training/pack.py", r"    def advance\(self.*\n", r"\g<0>        from percept_jax.weights import file, x\n")
    first = digest(copy)
    edit(copy / "weights/__init__.py", r"1", "2")
    assert digest(copy) != first


def test_arrays_of_a_program_have_their_reader(copy):
    first = digest(PACKAGE, dataset="arrays-0123456789ab")
    edit(copy / "data/readers/arrays.py", r"^HOLD_OUT = 0\.2", "HOLD_OUT = 0.3")
    assert digest(copy, dataset="arrays-0123456789ab") != first


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Makes a model of files outside of the package, the last one with its class, and puts it into MODELS: name -> text."""

    def register(folder="here", **texts):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in texts.items():
            (tmp_path / folder / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location(name, tmp_path / folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.syspath_prepend(tmp_path / folder)
        spec.loader.exec_module(module)
        monkeypatch.setitem(models.MODELS, "mine", module.Mine)
        forget()
        return identity.code(Experiment(model="mine", steps=1))

    return register


MINE = "from percept_jax.models.mlp import Linear\n\n\nclass Mine(Linear):\n    scale = 1\n"


def test_a_model_from_elsewhere_is_in_its_own_identity(mine):
    first = mine(model_of_mine=MINE)
    assert mine(model_of_mine=MINE + "# A comment.\n") == first
    assert mine(model_of_mine=MINE.replace("scale = 1", "scale = 2")) != first
    # Wherever it lies.
    assert mine("there", model_of_mine=MINE) == first


def test_what_a_model_from_elsewhere_is_built_upon_counts(mine, copy):
    text = "import layers_of_mine\n" + MINE + "from percept_jax import api\n"
    first = mine(layers_of_mine="WIDTH = 1\n", model_of_mine=text)
    made, reader = models.MODELS["mine"], registry.reader_class("digits")
    inside = source.digest("mine", made, reader, package=copy)
    assert not [name for name in source.modules("mine", made, reader) if name.startswith(("api", "cli/"))]
    edit(copy / "models/mlp.py", r"^class Linear", "DEPTH = 1\n\n\nclass Linear")
    assert source.digest("mine", made, reader, package=copy) != inside
    assert mine(layers_of_mine="WIDTH = 2\n", model_of_mine=text) != first


def test_a_class_without_a_file_and_what_a_closure_holds_count(monkeypatch):
    """As in a notebook, where a cell is run again."""

    def code(made):
        monkeypatch.setitem(models.MODELS, "mine", made)
        return identity.code(Experiment(model="mine", steps=1))

    def typed(text):
        names = {"__name__": "__main__"}
        exec(
            f"from percept_jax.models.mlp import Linear\nclass Mine(Linear):\n    def scaled(self, x):\n        return {text}",
            names,
        )
        return names["Mine"]

    def enclosed(factor):
        class Mine(Linear):
            def scaled(self, x):
                return factor * x

        return Mine

    assert code(typed("2 * x")) == code(typed("2 * x"))
    assert code(enclosed(2)) == code(enclosed(2))
    assert len({code(made) for made in (typed("2 * x"), typed("3 * x"), typed("x"), enclosed(2), enclosed(3))}) == 5


@pytest.mark.parametrize(("table", "entry"), [
    (TASKS, CLASSIFICATION._replace(targets=lambda *args: 0)),
    (OBJECTIVES, Objective(lambda logits, targets: 0, None)),
    (OPTIMIZERS, lambda h: None),
    (SCHEDULES, lambda step, h: 0),
])  # fmt: skip
def test_what_is_registered_from_elsewhere_counts(table, entry, monkeypatch):
    before = identity.code(Experiment(steps=1))
    monkeypatch.setitem(table, "mine", entry)
    assert identity.code(Experiment(steps=1)) != before


def test_the_arguments_of_a_partial_from_elsewhere_count(monkeypatch):
    from flax import linen as nn

    from percept_jax.models.mlp import MLP
    from percept_jax.models.recurrent import LSTMCell, Recurrent

    def code(made):
        monkeypatch.setitem(models.MODELS, "mine", made)
        return identity.code(Experiment(model="mine", steps=1))

    entries = [
        functools.partial(MLP, hidden=(8,)),
        functools.partial(MLP, hidden=(9,)),
        functools.partial(Recurrent, cell=LSTMCell),
    ]
    assert len({code(made) for made in [*entries, functools.partial(Recurrent, cell=nn.GRUCell)]}) == 4
    assert code(functools.partial(MLP, hidden=(8,))) == code(entries[0])


def test_the_digest_of_unchanged_sources_is_remembered(copy, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "percept_jax" / "source.json"
    forget()
    first = digest(copy)
    assert list(json.loads(kept.read_text()).values()) == [first]
    with monkeypatch.context() as patch:
        patch.setattr(source, "_compute", None)
        forget()
        assert digest(copy) == first
    # What is damaged is not believed.
    whole = kept.read_text()
    for content in ("", "[]", "{}", whole.replace(first, "0" * 31), whole[:-9]):
        kept.write_text(content)
        forget()
        assert digest(copy) == first
    edit(copy / "training/step.py", *DIFFERENT["the step"][1:])
    assert digest(copy) != first
    assert len(json.loads(kept.read_text())) == 2
    monkeypatch.setattr(source, "KEPT", 1)
    edit(copy / "training/batch.py", *DIFFERENT["the batch"][1:])
    last = digest(copy)
    assert list(json.loads(kept.read_text()).values()) == [last]
    # Where no file can be, it is computed each time.
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    forget()
    digest(copy)


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
