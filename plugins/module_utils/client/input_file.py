# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open the files whose paths users give.

Only regular files are opened. Opening or reading a FIFO or a device can block for ever, and opening some devices has an
effect, such as starting a watchdog. Every error is an `OSError` with a `strerror` for users.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

#: The maximum size in bytes of a file that is read as a whole. Some files in /proc and /sys have no end.
LARGEST = 1 << 30

_CHUNK = 1 << 18
# O_NONBLOCK: without it, to open a FIFO that has replaced the file since it was checked waits for a writer
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}


def check_regular(mode: int) -> None:
    """Raise `OSError` unless the mode is that of a regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")


def descriptor(path: str, folder: int | None = None) -> int:
    """Open a regular file for reading. With the descriptor of a folder, `path` is a name in it, and no link."""
    links = folder is None
    try:
        check_regular(os.stat(path, dir_fd=folder, follow_symlinks=links).st_mode)
        opened = os.open(path, _FLAGS | (0 if links else os.O_NOFOLLOW), dir_fd=folder)
    except ValueError:
        raise OSError(errno.EINVAL, "no path can contain such characters") from None
    try:
        check_regular(os.fstat(opened).st_mode)
    except OSError:
        os.close(opened)
        raise
    return opened


def binary(path: str, folder: int | None = None) -> IO[bytes]:
    """Open a regular file for reading."""
    return os.fdopen(descriptor(path, folder), "rb")


def content(file: IO[bytes], largest: int = LARGEST) -> bytes:
    """Read the rest of a file. Raises `OSError` if that is more than `largest` bytes."""
    chunks, size = [], 0
    # None: a file in /proc or /sys that would wait for more
    for chunk in iter(lambda: file.read(_CHUNK) or b"", b""):
        chunks.append(chunk)
        size += len(chunk)
        if size > largest:
            raise OSError(errno.EFBIG, f"it has more than {largest >> 20} MiB")
    return b"".join(chunks)
