"""Errors about parameters that list their options in order, and guess what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sklearn.utils._param_validation import InvalidParameterError

__all__ = ["did_you_mean", "readable_options"]

_LONGEST = 10_000


@contextmanager
def readable_options() -> Iterator[None]:
    """Mend what scikit-learn says of a wrong parameter: its options come in the order of a set.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn_probmix.options import readable_options
    >>> with readable_options():
    ...     Ridge(solver="cholesk").fit([[0], [1]], [0, 1])
    Traceback (most recent call last):
        ...
    sklearn.utils._param_validation.InvalidParameterError: The 'solver' parameter of Ridge must be
    a str among {'auto', 'cholesky', 'lbfgs', 'lsqr', 'sag', 'saga', 'sparse_cg', 'svd'}. Got
    'cholesk' instead. Did you mean 'cholesky'?
    """
    try:
        yield
    except InvalidParameterError as error:
        raise InvalidParameterError(_mend(str(error))) from None


def did_you_mean(given: str, options: Iterable[str]) -> str:
    """Guess which option was meant, as the end of an error; nothing where none is alike.

    Parameters
    ----------
    given : str
    options : iterable of str

    Examples
    --------
    >>> from sklearn_probmix.options import did_you_mean
    >>> did_you_mean("probmx", ["erm", "probmix"])
    " Did you mean 'probmix'?"
    """
    alike = difflib.get_close_matches(given[:_LONGEST], list(options), n=1)
    return f" Did you mean {alike[0]!r}?" if alike else ""


def _mend(message):
    # A value from a file may be as long as the file.
    if len(message) > _LONGEST:
        return message
    options: list[str] = []

    def in_order(found):
        own = sorted(re.findall(r"'([^']*)'", found[1]))
        options.extend(own)
        return f"{{{str(own)[1:-1]}}}"

    # What was given may have braces too.
    expected, got, given = message.partition(". Got ")
    message = re.sub(r"\{('[^{}]*')\}", in_order, expected) + got + given
    found = re.fullmatch(r"'([^']*)' instead\.", given)
    return message + (did_you_mean(found[1], options) if found else "")
