"""What several test files share."""

from percept_jax.data import cache, registry
from percept_jax.data.readers.base import ReaderConfig


def load(name, folder, size):
    """A data set with its own splits."""
    return registry.load(name, folder, registry.describe(name, folder).select(), size)


def pairs(dataset, index=slice(None)):
    """Inputs and labels of examples."""
    return zip(dataset.inputs[index], dataset.examples["label"][index], strict=True)


def read_all(name, folder, size=0, **config):
    """All splits of a data set, as its reader gives them: no role is chosen yet."""
    config = ReaderConfig(**config)
    reader = registry.open_reader(name, folder, config)
    return cache.load(reader, reader.describe(), size, config, folder / "cache")
