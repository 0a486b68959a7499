"""How far a race of kinds is, in a terminal or a notebook."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RaceBar"]

# Seconds between the lines of a log.
_PAUSE = 10


class RaceBar:
    """One bar for a whole race: its rung, and the mixture so far.

    The bar counts steps of all kinds; it is as long as the rungs that are known to come. Where
    stderr is no terminal, as in a log, it is a line every ten seconds.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.progress import RaceBar
    >>> bar = RaceBar()
    >>> bar.begin_rung([200, 200])
    >>> bar.step()
    >>> bar.show(nll=0.5, weights=np.array([0.75, 0.25]))
    >>> bar.close()
    """

    def __init__(self) -> None:
        # In a notebook without widgets the import alone warns.
        from tqdm.auto import tqdm

        # A notebook has a bar, though its stderr is no terminal.
        self._is_live = getattr(sys.stderr, "isatty", bool)() or "ipykernel" in sys.modules
        as_lines: dict[str, Any] = {"mininterval": _PAUSE, "delay": _PAUSE, "miniters": 1}
        as_lines |= {"file": _Lines(), "leave": False}
        self._bar = tqdm(unit="step", **({} if self._is_live else as_lines))
        self._lock = threading.Lock()
        self._rung = 0

    def begin_rung(self, n_steps: Iterable[int]) -> None:
        """Make the bar longer.

        Parameters
        ----------
        n_steps : iterable of int
            Of each kind that runs.
        """
        n_steps = list(n_steps)
        self._rung, self._n_kinds, self._kind = self._rung + 1, len(n_steps), 0
        self._bar.total = self._bar.n + sum(n_steps)
        self._next_kind()

    def step(self) -> None:
        """Move on by a step, of whichever thread."""
        with self._lock:
            self._bar.update()

    def show(self, nll: float, weights: NDArray[np.float64]) -> None:
        """Say what the mixture is when a kind is at the end of its rung.

        Parameters
        ----------
        nll : float
            Mean out-of-fold negative log-likelihood, in nats per row.
        weights : array of shape (n_kinds,)
        """
        shown = " ".join(f"{weight:.2f}".removeprefix("0") for weight in weights)
        self._bar.set_postfix_str(f"NLL {nll:.3f}, weights {shown}", refresh=False)
        self._next_kind()

    def close(self) -> None:
        """Leave the bar as it is, full."""
        self._bar.total = self._bar.n
        self._bar.refresh()
        self._bar.close()

    def _next_kind(self):
        self._kind = min(self._kind + 1, self._n_kinds)
        words = f"rung {self._rung}, kind {self._kind} of {self._n_kinds}"
        self._bar.set_description(words, refresh=self._is_live)


class _Lines:
    """A stream that makes a line of every state of a bar."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self):
        """Nothing is kept."""
