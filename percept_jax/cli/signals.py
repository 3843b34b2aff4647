"""SIGINT and SIGTERM, from the first line of a process to its last: heard at once, obeyed where nothing is lost by it.

Python runs a signal's handler between two of its own steps, of which a long compilation is one. The kernel's wake-up byte comes
at once, so a thread that waits for it can say that the signal was heard, or end the process where there is nothing to save.
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
    """A signal came before there was a state to save. No `except Exception` holds it up, and every `finally` runs."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Signals:
    """As a context, it hears of signals; calling it tells the number of the one that asks to stop, None before one came.

    Until it is called for the first time there is no state to save, and a signal raises `Stopped` where the process is. From then
    on whoever calls it stops in time. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._polled = False
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> "Signals":
        _listener().signals = self
        self._before = {number: signal.signal(number, self._stop) for number in STOPPING}
        # A run outlives its terminal.
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._drop
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable
        _listener().signals = None

    def __call__(self) -> int | None:
        """The number of the signal, if one came."""
        self._polled = True
        return self._came

    def _stop(self, number: int, frame: Any) -> None:
        self._came = number
        if not self._polled:
            raise Stopped(number)

    def _drop(self, unraisable: Any) -> None:
        """Prints what a destructor or a callback of the garbage collector raised, unless it is `Stopped`.

        Python cannot pass such an exception on. The signal is not lost: the loop asks for it before its first step.
        """
        if not isinstance(unraisable.exc_value, Stopped):
            self._unraisable(unraisable)

    def tell(self, number: int) -> None:
        """Says that a signal was heard, and what it waits for."""
        state = "then the state is saved" if self._polled else "there is no new state to save"
        under_way = "the step, the compilation or the reading of data that is under way"
        say(f"{signal.Signals(number).name} heard: waiting for {under_way}, {state}; once more ends at once", error=True)


class _Listener(threading.Thread):
    """Hears of signals at once, whatever the main thread does.

    Attributes:
        signals: who is told; None where there is nothing to save.
        leaves: whether one ends the process then.
    """

    signals: Signals | None = None
    leaves = False

    def __init__(self) -> None:
        super().__init__(daemon=True, name="signals")
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def run(self) -> None:
        """Reads the numbers of signals as they come."""
        told: Signals | None = None
        while True:
            (number,) = os.read(self._reading, 1)
            if number not in STOPPING:
                continue
            if self.signals is None and not self.leaves:
                continue
            if self.signals is None or told is self.signals:
                say("interrupted", error=True)
                os._exit(128 + number)
            told = self.signals
            told.tell(number)


@functools.cache
def _listener() -> _Listener:
    listener = _Listener()
    listener.start()
    return listener


def listen() -> None:
    """From here on a signal ends the process at once, with 130 or 143; until there is a `Signals`."""
    _listener().leaves = True
    # What runs outlives its terminal.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in STOPPING:
        signal.signal(number, lambda came, frame: None)


def end_with_parent() -> None:
    """Sends this process SIGTERM when its standard input, a pipe whose other end only the parent has, comes to its end."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def open_standard_streams() -> None:
    """Opens what is closed of standard input, output and error on /dev/null: else the next file opened would be printed into."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 (as long as the process)
