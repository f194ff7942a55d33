# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that outlast a reboot: the files that the boot reads them from.

`sysctl.d` alone would not do: where nothing has loaded nf_conntrack yet when it is read, there
are no such settings and its lines are passed over. So the module is named in `modules-load.d`,
which is read before. The number of buckets is an ordinary line of `sysctl.d`, too: as a module's
option (hashsize), it would change the maximum of entries along with it.

Source: sysctl.d(5), modules-load.d(5).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
import tempfile
from typing import Any, Mapping, NamedTuple

from .client.errors import ConntrackError, InvalidValue

#: Where process 1 finds its files.
DIRECTORY = "/etc"

SYSCTL_FILE = "sysctl.d/90-conntrack.conf"
MODULES_FILE = "modules-load.d/conntrack.conf"
MODULE = "nf_conntrack"

_SYSCTL_HEADER = "# Settings of connection tracking, declared with netops.conntrack.conntrack_settings\n"
_MODULES_HEADER = "# sysctl.d/90-conntrack.conf can only be applied once this is loaded\n"

_ASSIGNMENT = re.compile(r"\s*-?\s*([^#;=\s]+)\s*=\s*(.*?)\s*$")
_PREFIX = "net.netfilter."
_OTHER_NAMES = {"net.nf_conntrack_max": "net.netfilter.nf_conntrack_max"}


class CannotPersist(ConntrackError):
    """A file could not be read or written."""


class Edit(NamedTuple):
    """What is to become of a file: its text before ("" for none) and after, and the values that differ by key."""

    path: str
    before: str
    after: str
    changes: list[dict[str, Any]]


def check_directory(directory: str) -> None:
    """`InvalidValue` where the files would not be those of this network namespace, or have no place to be."""
    if not os.path.isdir(directory):
        raise InvalidValue("persist_in", f"{directory} is no directory; write the one that has sysctl.d in it")
    if os.path.realpath(directory) == DIRECTORY and not _boots_with_this_namespace():
        raise InvalidValue(
            "persist",
            f"the settings of this network namespace do not come from {DIRECTORY}, for it is not that of process 1; "
            "leave persist out, or name the etc of the container that it belongs to with persist_in",
        )


def _boots_with_this_namespace() -> bool:
    """Whether this network namespace is that of process 1; not so where it cannot be told.

    Each namespace has files of its own under /proc/PID/net, and to look at another process's one
    needs no rights over it, as ns/net would.
    """
    try:
        return os.path.samefile("/proc/self/net/dev", "/proc/1/net/dev")
    except OSError:
        return False


def plan(files: Mapping[str, int], directory: str) -> list[Edit]:
    """The edits after which each setting, by its file under /proc/sys/net/netfilter, comes back with the boot."""
    wanted = {_PREFIX + file: value for file, value in files.items()}
    sysctl = os.path.join(directory, SYSCTL_FILE)
    modules = os.path.join(directory, MODULES_FILE)
    edits = [assigned(_read(sysctl), wanted, sysctl), listed(_read(modules), modules)]
    return [edit for edit in edits if edit.after != edit.before]


def assigned(text: str, wanted: Mapping[str, int], path: str = SYSCTL_FILE) -> Edit:
    """A file of sysctl.d with `wanted` in it, and every other line as it is."""
    lines, found = [], {}
    for line in text.splitlines(keepends=True):
        match = _ASSIGNMENT.match(line)
        key = _key(match.group(1)) if match else ""
        if match and key in wanted:
            found[key] = match.group(2)
            if match.group(2) != str(wanted[key]):
                line = f"{line[: match.end(1)]} = {wanted[key]}\n"
        lines.append(line)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    missing = [f"{key} = {value}\n" for key, value in wanted.items() if key not in found]
    header = [] if text else [_SYSCTL_HEADER]
    changes = [
        {"key": key, "before": found.get(key), "after": str(value)}
        for key, value in wanted.items()
        if found.get(key) != str(value)
    ]
    return Edit(path, text, "".join(header + lines + missing), changes)


def listed(text: str, path: str = MODULES_FILE) -> Edit:
    """A file of modules-load.d with nf_conntrack in it, and every other line as it is."""
    if any(line.strip().replace("-", "_") == MODULE for line in text.splitlines()):
        return Edit(path, text, text, [])
    end = "\n" if text and not text.endswith("\n") else ""
    after = f"{text or _MODULES_HEADER}{end}{MODULE}\n"
    return Edit(path, text, after, [{"key": MODULE, "before": None, "after": "loaded"}])


def overriding(files: Mapping[str, int], directory: str) -> list[str]:
    """Where a file that is read later sets something else: a sentence for each."""
    wanted = {_PREFIX + file: value for file, value in files.items()}
    folder, own = os.path.split(os.path.join(directory, SYSCTL_FILE))
    later = [path for path in sorted(glob.glob(os.path.join(folder, "*.conf"))) if os.path.basename(path) > own]
    sentences = []
    # sysctl.conf is read last, by itself or by a link in sysctl.d
    later += [os.path.join(directory, "sysctl.conf")]
    for path in {os.path.realpath(path): path for path in later}.values():
        last: dict[str, str] = {}
        with contextlib.suppress(CannotPersist):
            for match in filter(None, map(_ASSIGNMENT.match, _read(path).splitlines())):
                last[_key(match.group(1))] = match.group(2)
        sentences += [
            f"{path} sets {key} to {last[key]}, and is read after {own}; remove that line"
            for key, value in wanted.items()
            if last.get(key, str(value)) != str(value)
        ]
    return sentences


def write(edit: Edit) -> None:
    """Put a file's new text in the place of the old at once, with its owner and mode."""
    _check_regular(edit.path)
    path = os.path.realpath(edit.path)
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        # The name must not end in .conf: a file that is left behind would be read at boot
        descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".new", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                _take_after(path, file.fileno())
                file.write(edit.after)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync(folder)
    except OSError as error:
        raise CannotPersist(f"{edit.path}: cannot be written: {error.strerror}") from error


def _check_regular(path: str) -> None:
    """`CannotPersist` for what is there and is no file: a link to /dev/null masks a file, for systemd."""
    try:
        there = os.stat(path)
    except OSError:
        return
    if not stat.S_ISREG(there.st_mode):
        raise CannotPersist(f"{path}: is no file but leads to {os.path.realpath(path)}; remove it first")


def _take_after(path: str, descriptor: int) -> None:
    """Give a new file the owner and mode of the one that it is to replace."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    os.fchown(descriptor, there.st_uid, there.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(there.st_mode))


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _key(written: str) -> str:
    """A key as sysctl(8) prints it: its parts may be parted by slashes, too."""
    dotted = written.replace("/", ".")
    return _OTHER_NAMES.get(dotted, dotted)


def _read(path: str) -> str:
    _check_regular(path)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CannotPersist(f"{path}: cannot be read: {error.strerror}") from error
