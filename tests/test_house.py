"""The rules that keep it a house (DESIGN, section 1), and the way in."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from percept_jax import models

PACKAGE = ROOT / "percept_jax"
SOURCES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def module_name(path):
    return ".".join(["percept_jax", *Path(path).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module_name(path): source for path, source in SOURCES.items()}
PURE = [
    "experiment.py", "knobs.py", "validation.py", "metrics.py", "settings.py", "trees.py",
    "data/sampler.py", "data/spec.py", "data/geometry.py", "data/mixup.py", "data/feed.py", "data/splits.py", "data/augment.py",
    "data/readers/base.py",
    "sweeps/spec.py", "sweeps/factors.py", "sweeps/plan.py", "analysis/statistics.py",
    "training/optim.py", "training/program.py", "training/batch.py", "training/step.py",
    *(name for name in SOURCES if name.startswith(("models/", "tasks/"))),
]  # fmt: skip


def imports(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from percept_jax import models` imports a module, `from percept_jax.models import build` a name.
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name if name in MODULES else node.module for name in inside]


# What computes, and neither reads the clock nor touches a disk.
HARMLESS = {
    "abc", "collections", "contextlib", "dataclasses", "decimal", "difflib", "enum", "fnmatch", "functools", "hashlib", "inspect",
    "itertools", "json", "math", "operator", "re", "statistics", "types", "typing", "warnings", "zlib", "__future__",
}  # fmt: skip


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_import_only_pure_rooms(name):
    ours = {"percept_jax." + other.removesuffix(".py").replace("/", ".") for other in [*PURE, "errors.py"]}
    ours |= {"percept_jax.models", "percept_jax.tasks", "percept_jax.analysis.comparison"}
    # It reads slices as TFDS does; it says where files are, and opens none.
    ours |= {"data/splits.py": {"tensorflow_datasets"}, "data/readers/base.py": {"pathlib"}}.get(name, set())
    for module in imports(SOURCES[name]):
        assert module.split(".")[0] in HARMLESS | {"jax", "flax", "optax", "numpy", "scipy"} or module in ours, module
    assert "open(" not in SOURCES[name]
    assert "print(" not in SOURCES[name]


def test_absl_pmap_and_pickle_are_where_they_belong():
    assert [name for name, source in SOURCES.items() if any(m.startswith("absl") for m in imports(source))] == ["cli/flags.py"]
    assert [name for name, source in SOURCES.items() if "jax.pmap(" in source] == ["training/parallel.py"]
    for name, source in SOURCES.items():
        assert not re.search(r"\bpickle\b|\byaml\.load|\blax\.map\b", source), name
        called = {node.func.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
        assert not called & {"eval", "exec"}, name


# Folder -> the folders that it must not import, not even inside of a function.
UPWARD = {
    "models": {"data", "tasks", "training", "weights", "sweeps", "analysis", "plots", "explain", "api", "cli"},
    "tasks": {"models", "training", "weights", "sweeps", "analysis", "plots", "explain", "api", "cli"},
    "data": {"models", "tasks", "training", "weights", "sweeps", "analysis", "plots", "explain", "api", "cli"},
    "weights": {"data", "tasks", "training", "sweeps", "analysis", "plots", "explain", "api", "cli"},
    "training": {"sweeps", "analysis", "plots", "explain", "api", "cli"},
    "plots": {"models", "tasks", "data", "weights", "training", "sweeps", "analysis", "explain", "api", "cli"},
    "analysis": {"models", "tasks", "data", "weights", "training", "sweeps", "explain", "api", "cli"},
    "sweeps": {"explain", "api", "cli"},
    "explain": {"sweeps", "cli"},
}


def imported(source):
    """The modules of this package that a module imports, inside of functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [name if (name := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def test_arrows_go_down():
    wrong = []
    for module, source in MODULES.items():
        folder = (module.split(".") + [""])[1]  # noqa: RUF005
        above = UPWARD.get(folder, {"cli"} if folder not in ("cli", "__main__") else set())
        wrong += [f"{module} imports {other}" for other in imported(source) if set(other.split(".")[1:2]) & above]
    assert not wrong


def test_there_is_no_import_cycle():
    """Lazy imports count: a cycle of them is a cycle of thoughts."""
    arrows = {module: {*imported(source)} - {module} for module, source in MODULES.items()}
    while ends := [module for module, others in arrows.items() if not others & arrows.keys()]:
        for module in ends:
            del arrows[module]
    assert not arrows, sorted(arrows)


DELETES = {"unlink", "rmtree", "rmdir", "removedirs", "truncate", "rename", "renames", "write_text", "savefig", "save_file",
           "tofile", "touch", "copyfile", "copytree", "copy2", "savez_compressed", "savetxt"}  # fmt: skip


def writes_or_deletes(call):
    """Whether a call deletes, truncates or replaces a file, by its name and arguments."""
    owner = getattr(getattr(call.func, "value", None), "id", None)
    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if called in DELETES or (
        owner in ("os", "shutil", "np") and called in ("remove", "replace", "move", "copy", "save", "savez")
    ):
        return True
    if called == "write_bytes":
        return owner != "files"
    values = [a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)]
    modes = [text for text in values if isinstance(text, str) and re.fullmatch("[rwaxbt+]+", text)]
    return called in ("open", "fdopen") and any(set(mode) & set("wa") for mode in modes)


def test_two_modules_alone_write_and_delete_files():
    """The atomic writer, and the module of deletion, which wants a lock for it."""
    for name, source in SOURCES.items():
        # cli/signals.py: /dev/null in place of a closed standard stream; plots/figure.py: a picture as bytes.
        if name not in ("files.py", "deletion.py", "cli/signals.py", "plots/figure.py"):
            calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
            assert not [f"{name}:{call.lineno}" for call in calls if writes_or_deletes(call)]


def test_rooms_are_small():
    for name, source in SOURCES.items():
        assert source.count("\n") <= 300, name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{name}: {node.name}"


def test_the_tests_mirror_the_package_in_small_files():
    folders = {path.name for path in (ROOT / "percept_jax").iterdir() if path.is_dir()}
    for path in ROOT.glob("tests/**/*.py"):
        assert path.read_text().count("\n") <= 400, path
        assert path.parent.name in folders | {"tests", "helpers", "end_to_end"}, path


def test_importing_the_package_imports_nothing_heavy():
    heavy = {
        "percept_jax": {"jax", "flax", "numpy"},
        "percept_jax.training.step": {"tensorflow_datasets", "PIL", "matplotlib"},
    }
    for name, absent in heavy.items():
        code = f"import sys, {name}; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert not absent & set(loaded)


@pytest.mark.parametrize("folder", ["analysis", "plots"])
def test_what_only_reads_files_imports_no_jax(folder):
    """Not even through another module: a comparison starts in a second."""
    names = [name for name in MODULES if name.startswith(f"percept_jax.{folder}.")]
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(names) <= set(loaded)
    assert not {"jax", "flax", "optax"} & set(loaded)


def test_launch_sh_tells_of_each_command(launch):
    from percept_jax.cli.commands import COMMANDS

    shown = launch(PERCEPT_PYTHON="/nowhere").stdout
    for command in COMMANDS.values():
        first = command.usage.split(" [")[0].split(",")[0]
        assert f"./launch.sh {first}" in shown, command.name
    own = set(re.findall(r"\./launch\.sh ([a-z]+)", shown)) - {"setup", "test", "bench", "experiments"}
    assert own <= {name for name, command in COMMANDS.items() if command.named}, own


def test_launch_sh_without_arguments_shows_its_use(launch):
    done = launch(PERCEPT_PYTHON="/nowhere")  # needs nothing installed
    assert done.returncode == 0
    assert "./launch.sh FILE.flags" in done.stdout
    assert "Examples" in done.stdout


@pytest.mark.slow
def test_launch_sh_from_another_directory_end_to_end(launch, tmp_path, digits):
    """A flag file and paths relative to the caller; train, show again, evaluate, predict, all for programs too."""
    (tmp_path / "mine.flags").write_text("--model=mlp\n--steps=60\n--learning_rate=0.05\n--devices=1\n")
    for _ in range(2):
        done = launch("mine.flags", "--run_dir=out", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["run_dir"] == "out"
        assert (tmp_path / "out" / "result.json").exists()
    assert "step 60/60" not in done.stdout  # the second time it only shows the result

    done = launch("evaluate", "out", "--json", cwd=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1])["test"] == result["test"], done.stderr

    from percept_jax.data.images import encode_png

    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(encode_png(digits.inputs[i]))
    done = launch("predict", "out", "0.png", "1.png", "--top_k=2", "--json", cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])["predictions"]
    assert [p["image"] for p in found] == ["0.png", "1.png"]
    assert all(len(p["top_k"]) == 2 and p["probability"] >= p["top_k"][1]["probability"] for p in found)
    (tmp_path / "2.png").write_text("not an image")
    done = launch("predict", "out", "2.png", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("2.png: not a PNG or JPEG image")

    done = launch("out/run.flags", "--run_dir=again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    once, again = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("out", "again"))
    assert [once[k] for k in ("validation", "test", "best_step")] == [again[k] for k in ("validation", "test", "best_step")]


def test_a_model_is_added_with_one_module_one_line_and_one_flag_file(tmp_path, monkeypatch, capsys):
    import flax.linen as nn

    from percept_jax.cli.main import main

    class Bilinear(nn.Module):
        """Rows, then columns.

        Attributes:
            rank: units between rows and columns.
        """

        num_classes: int
        rank: int = 4

        @nn.compact
        def __call__(self, images, train=False):
            x = nn.Dense(self.rank)(images[..., 0]).swapaxes(1, 2)
            return nn.Dense(self.num_classes)(nn.tanh(nn.Dense(self.rank)(x)).reshape(len(x), -1))

    monkeypatch.setitem(models.MODELS, "bilinear", Bilinear)
    (tmp_path / "bilinear.flags").write_text("--model=bilinear\n--rank=6\n--steps=20\n--devices=1\n")
    path = str(tmp_path / "bilinear.flags")
    assert main([path, "--help"]) == 0
    assert "--rank=4\n      units between rows and columns." in capsys.readouterr().out
    assert main([path, f"--run_dir={tmp_path / 'run'}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["parameters"] == (8 * 6 + 6) + (8 * 6 + 6) + (36 * 10 + 10)
    assert "--rank=6" in (tmp_path / "run" / "run.flags").read_text()

    from percept_jax import load

    assert load(tmp_path / "run").predict(np.zeros((2, 8, 8), np.uint8)).probabilities.shape == (2, 10)
