"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace a file at once, by one written beside it, or make it.

    Parameters
    ----------
    path : str or path-like
        Links and permissions stay. A file of several hard links is written in place.
    content : bytes

    Raises
    ------
    ValueError
        If there is something that is no file.
    OSError
        If it cannot be written; what was there is as it was.
    """
    # Through a link, to the file itself.
    path = Path(path).resolve()
    old = path.stat() if path.exists() else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        raise ValueError(f"{str(path)!r} is a folder, a pipe or a device; expected a file.")
    if old is not None and old.st_nlink > 1:
        _write_through(path, "wb", content)
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        # Nobody reads a private model while it is written.
        _write_through(temporary, "xb", content, mode=0o666 if old is None else 0o600)
        if old is not None:
            os.chmod(temporary, stat.S_IMODE(old.st_mode))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_through(path, how, content, mode=0o666):
    with open(path, how, opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
