# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sysctls of connection tracking in one network namespace.

A setting has a name as in documents: `max`, `accounting`, `timeouts.tcp_established`. Values are numbers, 1 is on, and
times are in seconds.

Source: Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any, Mapping

from ..codec.types import parse_integer
from ..errors import ConntrackError, InvalidValue, errno_name, quoted

DIRECTORY = "/proc/sys/net/netfilter"

_SWITCH = (0, 1)
_BYTE = (0, 0xFF)
_POSITIVE = (1, 0x7FFFFFFF)
_LONG = (0, 0xFFFFFFFFFFFFFFFF)

#: The file of each setting, and the lowest and highest value that the kernel accepts. Some kernels lack some of them.
_SETTINGS: dict[str, tuple[str, tuple[int, int]]] = {
    "max": ("nf_conntrack_max", (0, 0x7FFFFFFF)),
    "buckets": ("nf_conntrack_buckets", _POSITIVE),
    "expect_max": ("nf_conntrack_expect_max", _POSITIVE),
    "accounting": ("nf_conntrack_acct", _SWITCH),
    "timestamps": ("nf_conntrack_timestamp", _SWITCH),
    "events": ("nf_conntrack_events", (0, 2)),
    "checksum": ("nf_conntrack_checksum", _SWITCH),
    "log_invalid": ("nf_conntrack_log_invalid", _BYTE),
    "tcp_loose": ("nf_conntrack_tcp_loose", _SWITCH),
    "tcp_be_liberal": ("nf_conntrack_tcp_be_liberal", _SWITCH),
    "tcp_max_retrans": ("nf_conntrack_tcp_max_retrans", _BYTE),
    "tcp_ignore_invalid_rst": ("nf_conntrack_tcp_ignore_invalid_rst", _SWITCH),
    "dccp_loose": ("nf_conntrack_dccp_loose", _SWITCH),
    "helper": ("nf_conntrack_helper", _SWITCH),
    "frag6_high_thresh": ("nf_conntrack_frag6_high_thresh", _LONG),
    "frag6_low_thresh": ("nf_conntrack_frag6_low_thresh", _LONG),
    "hooks_lwtunnel": ("nf_hooks_lwtunnel", _SWITCH),
}
NAMES: dict[str, str] = {name: file for name, (file, _bounds) in _SETTINGS.items()}
BOUNDS: dict[str, tuple[int, int]] = {name: bounds for name, (_file, bounds) in _SETTINGS.items()}
#: The longest timeout in seconds that every kernel accepts, with 100 ticks per second.
LONGEST_TIMEOUT = 0x7FFFFFFF // 100

#: The number of entries in a hash chain above which the kernel may refuse another one (counter chain_toolong).
LONGEST_CHAIN = 50

_TIMEOUT = re.compile(r"nf_(?:conntrack_([a-z0-9]+)|(flowtable_[a-z0-9]+))_timeout(?:_(\w+))?$")
_TIMEOUTS = "timeouts."
_THRESHOLDS = ("frag6_low_thresh", "frag6_high_thresh")


class CannotSet(ConntrackError):
    """A setting cannot be set here, or the kernel refused the value."""


def read(name: str, directory: str = DIRECTORY) -> int | None:
    """Return a setting of `NAMES`, or None if the kernel or the namespace lacks it."""
    return _read_number(os.path.join(directory, NAMES[name]))


def read_all(directory: str = DIRECTORY) -> dict[str, Any]:
    """Return all existing settings by the names in `NAMES`, and `timeouts` (see `read_timeouts`)."""
    found: dict[str, Any] = {name: value for name in NAMES if (value := read(name, directory)) is not None}
    found["timeouts"] = read_timeouts(directory)
    return found


def read_timeouts(directory: str = DIRECTORY) -> dict[str, int]:
    """Return the timeouts in seconds: `{"tcp_established": 432000, "udp": 30, "udp_stream": 120, …}`."""
    return {
        name: value
        for name, file in _timeout_files(directory).items()
        if (value := _read_number(os.path.join(directory, file))) is not None
    }


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a document by name: `{"max": …, "timeouts.udp": …}`."""
    settings = {name: value for name, value in document.items() if name != "timeouts"}
    settings.update((_TIMEOUTS + state, value) for state, value in document.get("timeouts", {}).items())
    return settings


def parse(document: Mapping[str, Any]) -> dict[str, int]:
    """Return the settings that a document declares, by name. A null is not declared.

    Raises `InvalidValue` for a value that no kernel accepts.
    """
    declared: dict[str, int] = {}
    for name in NAMES:
        raw = document.get(name)
        if raw is not None:
            declared[name] = parse_integer(int(raw) if isinstance(raw, bool) else raw, name, *BOUNDS[name])
    timeouts = document.get("timeouts")
    if timeouts is not None and not isinstance(timeouts, Mapping):
        raise InvalidValue("timeouts", f"{quoted(timeouts)} is not a dictionary; write names and their seconds")
    for state, raw in (timeouts or {}).items():
        if not isinstance(state, str):
            raise InvalidValue("timeouts", f"{quoted(state)} is not the name of a timeout; write one such as udp")
        name = f"{_TIMEOUTS}{state}"
        declared[name] = parse_integer(raw, name, 0, LONGEST_TIMEOUT)
    return declared


def file_of(name: str, directory: str = DIRECTORY) -> str | None:
    """Return the file of a setting in `directory`, or None if the kernel lacks it."""
    if name.startswith(_TIMEOUTS):
        return _timeout_files(directory).get(name[len(_TIMEOUTS) :])
    file = NAMES[name]
    return file if os.path.exists(os.path.join(directory, file)) else None


def is_as_declared(name: str, declared: int, actual: int | None) -> bool:
    """Whether a setting has the declared value. The kernel rounds buckets up to whole pages."""
    if actual is None or name != "buckets":
        return actual == declared
    page = os.sysconf("SC_PAGE_SIZE") // struct.calcsize("P")
    return 0 <= actual - declared < page


def check_mounted(directory: str = DIRECTORY) -> None:
    """Raise `CannotSet` if no setting can be read because /proc is not mounted."""
    root = os.path.dirname(os.path.dirname(directory))
    if not os.path.isdir(root):
        raise CannotSet(
            f"{root} does not exist, so the settings cannot be read; mount /proc (mount -t proc proc /proc)"
        )


def check_values(differing: Mapping[str, int], actual: Mapping[str, int]) -> None:
    """Raise `CannotSet` for values that are valid only if they are set already, or that contradict another setting."""
    for name, value in differing.items():
        if value == 0 and name.startswith(_TIMEOUTS):
            raise CannotSet(
                f"{name}: 0 would remove every entry immediately; write 1 or more, or leave it out (0 is accepted only "
                "if the kernel has 0 already)"
            )
    low, high = (differing.get(name, actual.get(name)) for name in _THRESHOLDS)
    if low is not None and high is not None and low > high and differing.keys() & set(_THRESHOLDS):
        raise CannotSet(
            f"frag6_low_thresh: {low} is above frag6_high_thresh, which is {high}; write a lower value or raise "
            "frag6_high_thresh"
        )


def in_order(differing: Mapping[str, int], actual: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return settings and new values in an order in which the kernel accepts each.

    It refuses an upper threshold below the lower one.
    """
    first = "frag6_low_thresh"
    if differing.get("frag6_high_thresh", 0) > (actual.get("frag6_high_thresh") or 0):
        first = "frag6_high_thresh"
    return sorted(differing.items(), key=lambda item: item[0] in _THRESHOLDS and item[0] != first)


def check_room(declared: Mapping[str, int], directory: str = DIRECTORY) -> None:
    """Raise `CannotSet` if the table would be too small for its entries, so that new connections would be dropped."""
    count = _read_number(os.path.join(directory, "nf_conntrack_count")) or 0
    most, buckets = declared.get("max"), declared.get("buckets")
    if most and most < count:
        raise CannotSet(
            f"max: {most} is below the current {count} entries, so every new connection would be dropped; "
            f"write {count} or more, or flush first"
        )
    if buckets is not None and buckets * LONGEST_CHAIN < count:
        raise CannotSet(
            f"buckets: {buckets} would put the current {count} entries into chains of more than "
            f"{LONGEST_CHAIN}; write {count // LONGEST_CHAIN + 1} or more"
        )


def check_recorded(needs: frozenset[str], key: str) -> None:
    """Raise `InvalidValue` if the kernel does not record in this namespace what a match under `key` needs."""
    for need in sorted(needs):
        if read(need) == 0:
            raise InvalidValue(
                key,
                f"requires {need}, which is off; set net.netfilter.{NAMES[need]}=1 "
                "(it applies to connections that begin afterwards)",
            )


def check_writable(name: str, directory: str = DIRECTORY) -> None:
    """Raise `CannotSet` with the reason if a setting cannot be set from here."""
    path = os.path.join(directory, file_of(name, directory) or "")
    if os.access(path, os.W_OK):
        return
    try:
        mode, mount = os.stat(path).st_mode, os.statvfs(path).f_flag
    except OSError as error:
        raise CannotSet(f"{name}: cannot look at {path}: {error.strerror}") from error
    if mount & os.ST_RDONLY:
        reason = "/proc/sys is mounted read-only, as it is in a container; set it on the host"
    elif not mode & 0o200:
        reason = "only the initial network namespace may set it; run the task on the host itself, without netns"
    else:
        reason = "this needs root with CAP_NET_ADMIN (become: true)"
    raise CannotSet(f"{name}: cannot be set here, {reason}")


def write(name: str, value: int, directory: str = DIRECTORY) -> None:
    """Set a setting. Raises `CannotSet` with the kernel's reason."""
    path = os.path.join(directory, file_of(name, directory) or "")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, b"%d\n" % value)
        finally:
            os.close(descriptor)
    except OSError as error:
        code = error.errno or 0
        raise CannotSet(
            f"{name}: the kernel did not accept {value}: {os.strerror(code)} ({errno_name(code)}) on writing {path}"
        ) from error


def _timeout_files(directory: str) -> dict[str, str]:
    """Return the file of each timeout by name: `{"udp_stream": "nf_conntrack_udp_timeout_stream", …}`."""
    try:
        files = sorted(os.listdir(directory))
    except OSError:
        return {}
    matches = [match for match in map(_TIMEOUT.match, files) if match]
    return {"_".join(part for part in match.groups() if part): match.group(0) for match in matches}


def _read_number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
