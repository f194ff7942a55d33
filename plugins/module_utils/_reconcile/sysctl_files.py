# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that persist across reboots: the files from which they are read at boot.

A file in `sysctl.d` is not enough. If nf_conntrack is not loaded when the file is read, the settings do not exist and
its lines are ignored. The kernel module is therefore listed in `modules-load.d`, which is read before. The number of
buckets is an ordinary line in `sysctl.d`, because the module option `hashsize` would also change the maximum number of
entries.

Source: sysctl.d(5), modules-load.d(5).
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Iterator, Mapping, NamedTuple

from .._atomic_file import Place, Replacement
from ..client import input_file
from ..client.errors import ConntrackError, InvalidValue

#: The directory with the files of process 1.
DIRECTORY = "/etc"

SYSCTL_FILE = "sysctl.d/90-conntrack.conf"
MODULES_FILE = "modules-load.d/conntrack.conf"
MODULE = "nf_conntrack"

#: The maximum size of a file in bytes.
_LARGEST = 1 << 20

_SYSCTL_HEADER = "# Settings of connection tracking, declared with netops.conntrack.conntrack_settings\n"
_MODULES_HEADER = "# sysctl.d/90-conntrack.conf can only be applied once this is loaded\n"

_ASSIGNMENT = re.compile(r"\s*-?\s*([^#;=\s]+)\s*=\s*(.*?)\s*$")
_PREFIX = "net.netfilter."
_OTHER_NAMES = {"net.nf_conntrack_max": "net.netfilter.nf_conntrack_max"}


class CannotPersist(ConntrackError):
    """A file could not be read or written."""


class Edit(NamedTuple):
    """A change of a file: its text before ("" if it is absent) and after, and the changed keys and values."""

    file: str
    before: str
    after: str
    changes: list[dict[str, Any]]
    directory: str = ""

    @property
    def path(self) -> str:
        return os.path.join(self.directory, self.file)


def check_directory(directory: str) -> None:
    """Raise `InvalidValue` if `directory` is missing, is a link, or does not belong to this network namespace."""
    if not os.path.isdir(directory):
        raise InvalidValue("persist_in", f"{directory} is not a directory; write the one that contains sysctl.d")
    if os.path.islink(directory.rstrip("/")):
        raise InvalidValue("persist_in", f"{directory} is a symbolic link; write the path of the directory itself")
    if os.path.realpath(directory) == DIRECTORY and not _boots_with_this_namespace():
        raise InvalidValue(
            "persist",
            f"the settings of this network namespace do not come from {DIRECTORY}, because it is not the namespace of "
            "process 1; leave persist out, or write the etc directory of its container in persist_in",
        )


def _boots_with_this_namespace() -> bool:
    """Return whether this network namespace is that of process 1, False if it cannot be determined.

    Each namespace has its own files under /proc/PID/net. Unlike ns/net, they can be compared without privileges over
    the other process.
    """
    try:
        return os.path.samefile("/proc/self/net/dev", "/proc/1/net/dev")
    except OSError:
        return False


def plan(files: Mapping[str, int], directory: str) -> list[Edit]:
    """Return the edits that restore the settings at boot. `files` has the values by file in net/netfilter."""
    wanted = {_PREFIX + file: value for file, value in files.items()}
    edits = [assigned(_read(SYSCTL_FILE, directory), wanted), listed(_read(MODULES_FILE, directory))]
    return [edit._replace(directory=directory) for edit in edits if edit.after != edit.before]


def assigned(text: str, wanted: Mapping[str, int]) -> Edit:
    """Return the edit that puts `wanted` into a file of sysctl.d. All other lines stay as they are."""
    lines: list[str] = []
    found: dict[str, str] = {}
    for line in text.splitlines(keepends=True):
        match = _ASSIGNMENT.match(line)
        key = _key(match.group(1)) if match else ""
        if match and key in wanted:
            # The last line of a key takes effect. An earlier one is corrected as well, and is then the change
            if found.get(key, str(wanted[key])) == str(wanted[key]):
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
    return Edit(SYSCTL_FILE, text, "".join(header + lines + missing), changes)


def listed(text: str) -> Edit:
    """Return the edit that puts nf_conntrack into a file of modules-load.d. All other lines stay as they are."""
    if any(line.strip().replace("-", "_") == MODULE for line in text.splitlines()):
        return Edit(MODULES_FILE, text, text, [])
    end = "\n" if text and not text.endswith("\n") else ""
    after = f"{text or _MODULES_HEADER}{end}{MODULE}\n"
    return Edit(MODULES_FILE, text, after, [{"key": MODULE, "before": None, "after": "loaded"}])


def overriding(files: Mapping[str, int], directory: str) -> list[str]:
    """Return a sentence for each setting that a file read later sets to another value."""
    wanted = {_PREFIX + file: value for file, value in files.items()}
    own = os.path.basename(SYSCTL_FILE)
    sentences = []
    for base, file, text in _texts([*_later(directory), (directory, "sysctl.conf")]):
        last: dict[str, str] = {}
        for match in filter(None, map(_ASSIGNMENT.match, text.splitlines())):
            last[_key(match.group(1))] = match.group(2)
        remedy = "remove that line" if base == directory else f"copy it to {directory}/sysctl.d, without that line"
        sentences += [
            f"{os.path.join(base, file)} sets {key} to {last[key]}, and is read after {own}; {remedy}"
            for key, value in wanted.items()
            if last.get(key, str(value)) != str(value)
        ]
    return sentences


def _later(directory: str) -> list[tuple[str, str]]:
    """Return the files of sysctl.d that are read after `SYSCTL_FILE`, in this order: a directory, and a path below it.

    A file hides those with the same name in directories of lower precedence. sysctl.conf is read last, directly or
    through a link in sysctl.d.
    """
    folder, own = os.path.split(SYSCTL_FILE)
    folders = [(directory, folder)]
    root, last = os.path.split(directory.rstrip("/"))
    if last == os.path.basename(DIRECTORY):
        folders += [(root or "/", f"{above}/{folder}") for above in ("run", "usr/local/lib", "usr/lib")]
    found: dict[str, tuple[str, str]] = {}
    for base, below in folders:
        with contextlib.suppress(OSError), _place(f"{below}/{own}", base) as place:
            for name in place.names():
                found.setdefault(name, (base, f"{below}/{name}"))
    return [found[name] for name in sorted(found) if name > own and name.endswith(".conf")]


def _texts(files: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield directory, path and text of the files that can be read. A file with several names has the last one."""
    names = {}
    for base, file in files:
        with contextlib.suppress(OSError), _place(file, base) as place:
            there = place.status()
            if there is not None:
                names[there.st_dev, there.st_ino] = base, file
    for base, file in names.values():
        try:
            text = _read(file, base)
        except CannotPersist:
            continue
        yield base, file, text


def write(edit: Edit) -> None:
    """Replace a file atomically by its new text, with the owner and mode of the old file. Raises `CannotPersist`."""
    try:
        with _place(edit.file, edit.directory, make=0o755) as place, Replacement(place) as new:
            there = place.status()
            if there is not None:
                input_file.check_regular(there.st_mode)
                os.fchown(new.file.fileno(), there.st_uid, there.st_gid)
            os.fchmod(new.file.fileno(), 0o644 if there is None else there.st_mode & 0o777)
            new.file.write(edit.after.encode("utf-8", "surrogateescape"))
            new.commit()
    except OSError as error:
        raise CannotPersist(f"{edit.path}: cannot be written: {error.strerror}") from error


def _place(file: str, directory: str, make: int | None = None) -> Place:
    """Return the place of a file below the directory. Only links in the host's own directories may lead out of them.

    Other directories belong to containers. With such links, the root user of a container could make this process
    read and change files of the host.
    """
    if os.path.normpath(directory) in (DIRECTORY, os.path.dirname(DIRECTORY)):
        return Place(os.path.join(directory, file), make=make)
    return Place(file, beneath=directory, make=make)


def _key(written: str) -> str:
    """Return a key as sysctl(8) prints it. In a file, slashes may separate its parts, too."""
    dotted = written.replace("/", ".")
    return _OTHER_NAMES.get(dotted, dotted)


def _read(file: str, directory: str) -> str:
    """Return the text of a file below the directory, "" if it is absent. Raises `CannotPersist`."""
    try:
        with _place(file, directory) as place:
            return (place.read(_LARGEST) or b"").decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CannotPersist(f"{os.path.join(directory, file)}: cannot be read: {error.strerror}") from error
