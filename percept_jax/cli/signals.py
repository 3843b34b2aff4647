"""Handles SIGINT and SIGTERM: they are acknowledged at once, and the process stops where no work is lost.

Python runs a signal handler only between two bytecode instructions, and one instruction may be a long compilation. The kernel's
wake-up byte arrives at once, so a thread that waits for it can acknowledge the signal, or end a process that has nothing to save.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from typing import Any

from percept_jax.console import say

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal arrived before there was a state to save. A BaseException, so that no `except Exception` catches it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Signals:
    """A context manager that catches signals. A call returns the number of the signal that asked to stop, or None.

    Before the first call there is no state to save, and a signal raises `Stopped` wherever the process is. After it, the caller
    polls and is responsible for stopping. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._polled = False
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> "Signals":
        _listener().signals = self
        self._before = {number: signal.signal(number, self._stop) for number in STOPPING}
        # A run continues when its terminal is closed.
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._drop
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable
        _listener().signals = None

    def __call__(self) -> int | None:
        """Returns the number of the signal, if one has arrived."""
        self._polled = True
        return self._number

    def _stop(self, number: int, frame: Any) -> None:
        self._number = number
        if not self._polled:
            raise Stopped(number)

    def _drop(self, unraisable: Any) -> None:
        """Prints an exception from a destructor or a garbage collector callback, unless it is `Stopped`.

        Python cannot propagate such an exception. The signal is not lost: the loop polls for it before its first step.
        """
        if not isinstance(unraisable.exc_value, Stopped):
            self._unraisable(unraisable)

    def acknowledge(self, number: int) -> None:
        """Prints that a signal has arrived, and what the process waits for before it stops."""
        state = "then the state is saved" if self._polled else "there is no new state to save"
        running = "the current step, compilation or reading of data"
        say(f"{signal.Signals(number).name} received: waiting for {running}, {state}; a second one ends at once", error=True)


class _Listener(threading.Thread):
    """Receives signals at once, whatever the main thread does.

    Attributes:
        signals: the `Signals` to notify; None if there is nothing to save.
        exits: whether a signal ends the process if `signals` is None.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True, name="signals")
        self.signals: Signals | None = None
        self.exits = False
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def run(self) -> None:
        """Reads the numbers of signals as they arrive."""
        notified: Signals | None = None
        while True:
            (number,) = os.read(self._reading, 1)
            if number not in STOPPING:
                continue
            if self.signals is None and not self.exits:
                continue
            if self.signals is None or notified is self.signals:
                say("interrupted", error=True)
                os._exit(128 + number)
            notified = self.signals
            notified.acknowledge(number)


@functools.cache
def _listener() -> _Listener:
    listener = _Listener()
    listener.start()
    return listener


def listen() -> None:
    """Makes a signal end the process at once, with exit code 130 or 143, until a `Signals` is entered."""
    _listener().exits = True
    # The process continues when its terminal is closed.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in STOPPING:
        signal.signal(number, lambda received, frame: None)


def end_with_parent() -> None:
    """Makes this process end with its parent: sends it SIGTERM when its standard input, a pipe from the parent, is closed."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def open_standard_streams() -> None:
    """Opens closed standard streams on /dev/null; otherwise the next file that is opened would get their number and output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 (as long as the process)
