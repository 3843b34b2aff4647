"""prepare: writes a data set as a TFDS folder."""

from typing import Any

from percept_jax.cli.commands.base import Command, Option, Request


def run(request: Request) -> dict[str, Any]:
    """Writes a TFDS folder from the authors' files, which are downloaded without --from, and returns its path."""
    name, options = PREPARE.one(request.words), request.options
    from percept_jax.console import say
    from percept_jax.data.prepare import prepare
    from percept_jax.paths import output_path, user_path
    from percept_jax.training.run_dir import data_path

    source = user_path(options["from"], "from") if options["from"] else None
    folder = output_path(data_path(request.experiment.data_dir), "data_dir")
    path = prepare(name, folder, source, options["file_format"])
    say(str(path))
    return {"dataset": name, "folder": str(path)}


PREPARE = Command(
    "prepare",
    "prepare NAME [--from=DIR] [--file_format=array_record|tfrecord]",
    "write a data set to a TFDS folder, from the files that its authors distribute",
    run,
    options=(
        Option("from", "", "the folder with the files that the authors distribute; empty: download them"),
        Option("file_format", "array_record", "array_record (for tfds.data_source) or tfrecord (for tfds.load)"),
    ),
    flags=("data_dir",),
)
