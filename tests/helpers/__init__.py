"""What several test files share."""

import importlib.util
import re
import sys
import tempfile
from pathlib import Path

import pytest

from percept_jax.data import cache, registry
from percept_jax.data.readers.base import ReaderConfig


def load(name, folder, size):
    """A data set with its own splits; images have `size` pixels a side."""
    return registry.load(name, folder, registry.describe(name, folder).select(), (size, size))


def pairs(dataset, index=slice(None)):
    """Inputs and labels of examples."""
    return zip(dataset.inputs[index], dataset.examples["label"][index], strict=True)


def read_all(name, folder, size=0, **config):
    """All splits of a data set, as its reader gives them: no role is chosen yet."""
    config = ReaderConfig(**config)
    reader = registry.open_reader(name, folder, config)
    return cache.load(reader, reader.describe(), (size, size), config, folder / "cache")


ROOT = Path(__file__).parent.parent.parent
EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def blocks(text, language):
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def documented(path):
    """The module that docs/extending.md shows under a path, as it stands there."""
    (code,) = [block for block in blocks(EXTENDING, "python") if block.startswith(f"# percept_jax/{path}\n")]
    name = f"documented_{Path(path).stem}"
    file = Path(tempfile.mkdtemp()) / f"{name}.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def some(cases, *default):
    """The cases of a parametrized test: those not in `default` run with --slow only."""
    assert all(case in cases for case in default), (cases, default)
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*v, marks=() if c in default else pytest.mark.slow) for c, v in zip(cases, values, strict=True)]
