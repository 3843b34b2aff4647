"""A command line that kills itself inside a save: python _kill.py SAVE STAGE ARGUMENTS...

SAVE counts the checkpoints that this process writes. STAGE is where in the save: "half" of the bytes are written; it is "flushed"
but has not taken its place; it is "replaced", and older ones are not deleted yet.
"""

import os
import signal
import sys

from percept_jax import files
from percept_jax.cli.main import main

real = files.write_bytes


def install(save: int, stage: str) -> None:
    saves = 0

    def write_bytes(path, content):
        nonlocal saves
        saves += path.name.startswith("step_")
        if saves < save or not path.name.startswith("step_"):
            real(path, content)
            return
        if stage == "replaced":
            real(path, content)
        else:
            with files.in_place(path) as temporary, open(temporary, "r+b") as file:
                file.write(content[: len(content) // 2] if stage == "half" else content)
                file.flush()
                os.fsync(file.fileno())
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    files.write_bytes = write_bytes


if __name__ == "__main__":
    install(int(sys.argv[1]), sys.argv[2])
    sys.exit(main(sys.argv[3:]))
