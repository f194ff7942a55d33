# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace files atomically.

`Place` resolves a path once, step by step, to an open folder and a name in it. The file is checked and replaced by
folder and name, so that a link that changes in between has no effect. Every error is an `OSError` whose `strerror` can
be shown to users.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import IO

from .client import input_file

#: The maximum number of links on one path, as in the kernel.
_MOST_LINKS = 40
# O_PATH and O_TMPFILE do not exist on other systems, on which reports can also be written
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNNAMED = getattr(os, "O_TMPFILE", 0)
#: The errors of file systems and kernels without O_TMPFILE.
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class Place:
    """The target of a path: an open folder, and the name of a file in it, which may be absent. Close it after use.

    Links are followed if they belong to root or to this user, and are in a folder to which no other user can write.
    With `beneath`, the path starts in that folder, which must not be a link, and links must not lead out of it. With
    `make`, missing folders are created with that mode.
    """

    def __init__(
        self, path: str, beneath: str | None = None, make: int | None = None, follow_last: bool = True
    ) -> None:
        self.path = path if beneath is None else os.path.join(beneath, path)
        self._beneath = beneath
        self._make = make
        self._follow_last = follow_last
        self._links = 0
        #: With `beneath`, the open folders from that folder on, otherwise only the last one.
        self._folders: list[int] = []
        try:
            self._enter(os.open("/" if path[:1] == "/" else ".", _FOLDER) if beneath is None else _opened(beneath))
            self.name = self._resolve(path)
            if self._links and beneath is None:
                self._compare_with_kernel()
        except ValueError:
            self.close()
            raise OSError(errno.EINVAL, "no path can contain such characters") from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        while self._folders:
            os.close(self._folders.pop())

    @property
    def folder(self) -> int:
        """The file descriptor of the folder."""
        return self._folders[-1]

    def key(self) -> tuple[int, int, str]:
        """Return a key that is equal for all paths to this place."""
        folder = os.fstat(self.folder)
        return folder.st_dev, folder.st_ino, self.name

    def status(self) -> os.stat_result | None:
        """Return the status of the file, None if it is absent."""
        return self._status(self.name)

    def open(self) -> IO[bytes]:
        """Open the file for reading."""
        return input_file.binary(self.name, self.folder)

    def read(self, largest: int = input_file.LARGEST) -> bytes | None:
        """Return the content of the file, None if it is absent."""
        try:
            file = self.open()
        except FileNotFoundError:
            return None
        with file:
            return input_file.content(file, largest)

    def names(self) -> list[str]:
        """Return the names of all files in the folder."""
        descriptor = _listable(self.folder)
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _resolve(self, path: str) -> str:
        """Open the folder of the file, and return the name of the file in it."""
        left = path.split("/")[::-1]
        while True:
            if left[0] in ("", ".", ".."):
                raise IsADirectoryError(errno.EISDIR, "it names a directory")
            name = left.pop()
            if name == "..":
                self._go_up()
            elif name not in ("", "."):
                there = self._status(name)
                if there is not None and stat.S_ISLNK(there.st_mode) and (left or self._follow_last):
                    left += self._followed(name, there, bool(left))
                elif not left:
                    return name
                else:
                    if there is None and self._make is not None:
                        os.mkdir(name, self._make, dir_fd=self.folder)
                    self._enter(os.open(name, _FOLDER, dir_fd=self.folder))

    def _enter(self, folder: int) -> None:
        if self._beneath is None:
            self.close()
        self._folders.append(folder)

    def _go_up(self) -> None:
        if self._beneath is None:
            self._enter(os.open("..", _FOLDER, dir_fd=self.folder))
        elif len(self._folders) > 1:  # not through "..", because the folder may have been moved
            os.close(self._folders.pop())
        else:
            raise OSError(errno.ELOOP, f"a symbolic link leads out of {self._beneath}")

    def _followed(self, name: str, link: os.stat_result, is_folder: bool) -> list[str]:
        """Return the steps of a link's target in reverse order."""
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(name, dir_fd=self.folder)
        if self._beneath is not None:
            if target.startswith("/"):
                raise OSError(errno.ELOOP, f"the symbolic link {name} leads to {target}, out of {self._beneath}")
        elif is_folder and link.st_dev == _device_of_proc():
            # Such as /proc/4711/root, whose text is not the path that the kernel follows
            self._enter(os.open(name, _FOLDER & ~os.O_NOFOLLOW, dir_fd=self.folder))
            return []
        else:
            self._check_trusted(name, link)
            if target.startswith("/"):
                self._enter(os.open("/", _FOLDER))
        return target.split("/")[::-1]

    def _check_trusted(self, name: str, link: os.stat_result) -> None:
        if not _is_own(link):
            raise OSError(errno.ELOOP, f"the symbolic link {name} belongs to another user")
        folder = os.fstat(self.folder)
        if folder.st_mode & stat.S_IWOTH or not _is_own(folder):
            raise OSError(errno.ELOOP, f"the symbolic link {name} is in a directory where other users may write")

    def _compare_with_kernel(self) -> None:
        """Raise `OSError` unless the kernel finds the same file.

        On some mounts and in some folders, the kernel does not follow links.
        """
        own = self.status()
        try:
            kernels = os.stat(self.path)
        except FileNotFoundError:
            if own is None:
                return
        else:
            if own is not None and os.path.samestat(own, kernels):
                return
        raise OSError(errno.ELOOP, "its symbolic links were changed while they were followed")


class Replacement:
    """A new file that replaces the one at a `Place` when `commit` is called.

    Until then the file has no name, and disappears if the process is killed. On file systems without O_TMPFILE, it has
    a temporary name.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._name = ""
        self.file: IO[bytes] = os.fdopen(self._created(), "w+b")

    def __enter__(self) -> Replacement:
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()

    def commit(self) -> None:
        """Write all data to the disk, and put the file in place."""
        self.file.flush()
        os.fsync(self.file.fileno())
        if self._name or not self._put_where_none_is():
            self._put_instead()
        _sync(self._place.folder)

    def discard(self) -> None:
        """Close the file, and remove it unless it is in place."""
        if self._name:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._place.folder)
            self._name = ""
        with contextlib.suppress(OSError):
            self.file.close()

    def _created(self) -> int:
        flags, folder = os.O_RDWR | os.O_CLOEXEC, self._place.folder
        if _UNNAMED:
            try:
                descriptor = os.open(".", flags | _UNNAMED, 0o600, dir_fd=folder)
            except OSError as error:
                if error.errno not in _NO_UNNAMED:
                    raise
            else:
                if os.path.exists(_link_to(descriptor)):
                    return descriptor
                os.close(descriptor)  # without /proc, it cannot be linked
        # Short enough for a file name, and without .conf, so that it is not read at boot
        self._name = f".conntrack-{os.urandom(8).hex()}.new"
        return os.open(self._name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)

    def _put_where_none_is(self) -> bool:
        """Link the file to its name. Return False if a file with this name exists."""
        if self._place.status() is not None:
            return False
        try:
            self._link(self._place.name)
        except FileExistsError:
            return False
        return True

    def _put_instead(self) -> None:
        folder = self._place.folder
        if not self._name:
            self._name = f".conntrack-{os.urandom(8).hex()}.new"
            self._link(self._name)
        os.rename(self._name, self._place.name, src_dir_fd=folder, dst_dir_fd=folder)
        self._name = ""

    def _link(self, name: str) -> None:
        os.link(_link_to(self.file.fileno()), name, dst_dir_fd=self._place.folder, follow_symlinks=True)


def _opened(path: str) -> int:
    """Open a folder, which must not be a link."""
    path = path.rstrip("/")
    if not path:
        return os.open("/", _FOLDER)
    with Place(path, follow_last=False) as place:
        return os.open(place.name, _FOLDER, dir_fd=place.folder)


def _is_own(there: os.stat_result) -> bool:
    return there.st_uid in (0, os.geteuid())


def _device_of_proc() -> int | None:
    try:
        return os.lstat("/proc/self").st_dev
    except OSError:
        return None


def _link_to(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _listable(folder: int) -> int:
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)


def _sync(folder: int) -> None:
    """Write the directory entries of a folder to the disk, unless this user may not list them."""
    with contextlib.suppress(PermissionError):
        descriptor = _listable(folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
