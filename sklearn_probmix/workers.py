"""Kinds of network that train side by side: in threads, since torch computes without Python's lock.

Of a step of training Python holds its lock for a tenth to a quarter; threads need no second copy of
the data, no start of a process, and nothing that can be pickled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Self, TypeVar

import joblib
import torch
from joblib.parallel import get_active_backend

from sklearn_probmix.settings import limited_threads, neutral_settings

__all__ = ["Workers"]

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Calls a function of many items, in this thread or in several, until it is told to stop.

    Parameters
    ----------
    n_jobs : int or None
        -1 is all cores. None is what a `joblib.parallel_config` says, or else as many as torch has
        threads; in a thread other than the main one it is 1, as others may train there, too. Within
        a process of a search no more than its share of the cores.
    n_items : int
        More threads are of no use.

    Attributes
    ----------
    n_threads : int

    Examples
    --------
    >>> from sklearn_probmix.workers import Workers
    >>> list(Workers(n_jobs=2, n_items=3).map(lambda size: size + 1, [1, 2, 3]))
    [2, 3, 4]
    """

    def __init__(self, n_jobs: int | None, n_items: int):
        backend, default = get_active_backend()
        n_threads = default if n_jobs is None else n_jobs
        if n_threads == 0:
            raise ValueError("n_jobs=0; expected a positive number, -1 for all cores, or None.")
        if n_threads is None:
            is_main = threading.current_thread() is threading.main_thread()
            n_threads = torch.get_num_threads() if is_main else 1
        elif n_threads < 0:
            n_threads += 1 + joblib.cpu_count()
        if backend.nesting_level:
            n_threads = min(n_threads, torch.get_num_threads())
        self.n_threads = max(1, min(n_threads, n_items))
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is begun."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Begin nothing more, and let what has begun end at its next :meth:`watch`."""
        self._stop.set()

    def watch(self) -> None:
        """Raise KeyboardInterrupt in what was told to stop; called in every step of training."""
        if self._stop.is_set():
            raise KeyboardInterrupt

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results in order, fewer once it was told to stop.

        Ctrl-C, which Python raises in the main thread only, tells the others to stop.

        Parameters
        ----------
        function : callable
        items : iterable

        Yields
        ------
        object
        """
        if self.n_threads == 1:
            for item in items:
                if self.is_stopped:
                    return
                yield function(item)
            return
        share = max(1, torch.get_num_threads() // self.n_threads)

        @neutral_settings
        def call(item: T) -> R:
            if self.is_stopped:
                raise CancelledError
            with limited_threads(share):
                return function(item)

        with ThreadPoolExecutor(self.n_threads, "kind") as pool:
            futures = [pool.submit(call, item) for item in items]
            try:
                for future in futures:
                    try:
                        result = future.result()
                    except KeyboardInterrupt:
                        self.stop()
                        result = future.result()
                    yield result
            except CancelledError:
                return
            except BaseException:
                self.stop()
                raise
