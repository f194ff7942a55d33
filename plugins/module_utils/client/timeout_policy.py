# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Timeout policies: the timeouts of a protocol's states in seconds, under a name or as the defaults of the protocol.

A policy is a flat mapping of the keys of its protocol to values, such as
`{"name": "short", "family": 2, "protocol": 6, "timeouts.established": 600, "use": 1}`. The kernel sets the states that
are not sent to the current defaults of the protocol.

Source: include/uapi/linux/netfilter/nfnetlink_cttimeout.h.
"""

from __future__ import annotations

import errno
import functools
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from . import uapi
from .codec import types
from .codec.attributes import Attribute
from .codec.codec import Codec, Values
from .ctnetlink.messages import nfgenmsg, payload_of
from .errors import InvalidValue, KernelError, NotFound, Unavailable, quoted
from .netlink.message import Message, attribute
from .table_reader import TableReader, parse_answer

if TYPE_CHECKING:
    from .table import Table

Policy = Values

#: The longest timeout in seconds. The kernel counts 32-bit ticks, up to 1000 per second.
LONGEST = 0xFFFFFFFF // 1000

_TCP_STATES = types.constants("CTA_TIMEOUT_TCP_")
_TCP_STATES["unacknowledged"] = _TCP_STATES.pop("unack")
#: The states of each protocol for which a policy can have timeouts, with their attribute numbers.
STATES: dict[int, Mapping[str, int]] = {
    uapi.IPPROTO_TCP: _TCP_STATES,
    uapi.IPPROTO_UDP: types.constants("CTA_TIMEOUT_UDP_"),
    uapi.IPPROTO_UDPLITE: types.constants("CTA_TIMEOUT_UDPLITE_"),
    uapi.IPPROTO_GRE: types.constants("CTA_TIMEOUT_GRE_"),
    uapi.IPPROTO_ICMP: types.constants("CTA_TIMEOUT_ICMP_"),
    uapi.IPPROTO_ICMPV6: types.constants("CTA_TIMEOUT_ICMPV6_"),
    uapi.IPPROTO_SCTP: types.constants("CTA_TIMEOUT_SCTP_"),
    uapi.IPPROTO_DCCP: types.constants("CTA_TIMEOUT_DCCP_"),
    uapi.IPPROTO_GENERIC: types.constants("CTA_TIMEOUT_GENERIC_"),
}

NAME = types.Text(31)
FAMILY = types.Enum("H", types.FAMILIES, "family")
PROTOCOL = types.Enum("B", {**types.PROTOCOLS, "generic": uapi.IPPROTO_GENERIC}, "protocol", types.OTHER_PROTOCOLS)
SECONDS = types.Integer("I", highest=LONGEST)

POLICY: tuple[Attribute, ...] = (
    Attribute("name", (uapi.CTA_TIMEOUT_NAME,), NAME),
    Attribute("family", (uapi.CTA_TIMEOUT_L3PROTO,), FAMILY),
    Attribute("protocol", (uapi.CTA_TIMEOUT_L4PROTO,), PROTOCOL),
    Attribute("use", (uapi.CTA_TIMEOUT_USE,), types.U32),
)
_WHAT = "timeouts."
_POLICIES = Codec(POLICY)
_SENT = frozenset({"name", "family", "protocol"})

_HINT = "Load the kernel module nfnetlink_cttimeout (modprobe nfnetlink_cttimeout)"


def rows(protocol: int) -> tuple[Attribute, ...]:
    """Return the attribute table for policies of one protocol. An unknown protocol has the state `timeout`."""
    states = STATES.get(protocol, STATES[uapi.IPPROTO_GENERIC])
    timeouts = (Attribute(_WHAT + state, (uapi.CTA_TIMEOUT_DATA, number), SECONDS) for state, number in states.items())
    return (*POLICY, *timeouts)


@functools.lru_cache(maxsize=None)
def _codec(protocol: int) -> Codec:
    return Codec(rows(protocol))


def timeouts_of(policy: Mapping[str, Any]) -> dict[str, int]:
    """Return the timeouts of a policy in seconds by state."""
    return {key[len(_WHAT) :]: value for key, value in policy.items() if key.startswith(_WHAT)}


# The document


def from_document(document: Mapping[str, Any]) -> Policy:
    """Return the policy that a document declares. `use` is ignored, because only the kernel sets it.

    Raises `InvalidValue` with the key of the first error.
    """
    policy: Policy = {}
    if document.get("name") == "":
        raise InvalidValue("name", "is empty; write one of up to 31 bytes")
    for key, kind in (("name", NAME), ("protocol", PROTOCOL), ("family", FAMILY)):
        if document.get(key) is not None:
            policy[key] = kind.parse(document[key], key)
    declared = document.get("timeouts")
    if declared is not None:
        policy.update(_parse_timeouts(declared, policy.get("protocol")))
    return policy


def _parse_timeouts(declared: Any, protocol: int | None) -> Policy:
    if not isinstance(declared, Mapping):
        raise InvalidValue("timeouts", f"{quoted(declared)} is not a dictionary; write states and their seconds")
    if protocol is None:
        raise InvalidValue("protocol", "is missing; the states that timeouts may name depend on it")
    if protocol not in STATES:
        name = PROTOCOL.present(protocol)
        raise InvalidValue(
            "protocol",
            f"{name} has no timeouts of its own; write one of {', '.join(PROTOCOL.names)}. The policy generic applies "
            "to all protocols without timeouts of their own",
        )
    states = STATES[protocol]
    policy: Policy = {}
    for state, seconds in declared.items():
        key = f"{_WHAT}{state}"
        if state not in states:
            raise InvalidValue(key, f"{PROTOCOL.present(protocol)} has no such state; write one of {', '.join(states)}")
        policy[key] = SECONDS.parse(seconds, key)
    return policy


def to_document(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy as a document: `name`, `family`, `protocol`, `use`, and `timeouts` in seconds by state.

    States without a name in this version are included by number.
    """
    shown = {row.key: row.kind.present(policy[row.key]) for row in POLICY if row.key in policy}
    shown["timeouts"] = timeouts_of(policy)
    for path, data in policy.get("extra", {}).items():
        nest, dot, number = path.partition(".")
        if dot and int(nest) == uapi.CTA_TIMEOUT_DATA:
            shown["timeouts"][number] = int.from_bytes(data, "big")
    return shown


def describe(policy: Mapping[str, Any]) -> str:
    """Return a short description of a policy: `timeout policy short (ipv4 tcp)`."""
    kind = [FAMILY.present(policy["family"])] if "family" in policy else []
    kind += [str(PROTOCOL.present(policy["protocol"]))] if "protocol" in policy else []
    if "name" not in policy:
        return f"default timeouts of {kind[-1]}"
    return f"timeout policy {policy['name']}" + (f" ({' '.join(kind)})" if kind else "")


# Messages


def _encode(policy: Mapping[str, Any]) -> bytes:
    keys = _SENT | {key for key in policy if key.startswith(_WHAT)}
    return nfgenmsg() + _codec(policy["protocol"]).encode(policy, keys)


def _named(name: str) -> bytes:
    if not name:
        raise InvalidValue("name", "is empty: such a message would be about every policy")
    return nfgenmsg() + attribute(uapi.CTA_TIMEOUT_NAME, NAME.encode(name))


def decode(message: Message) -> Policy:
    """Decode the policy in a message of the kernel."""
    protocol = _POLICIES.decode(*payload_of(message)).get("protocol", uapi.IPPROTO_GENERIC)
    return _codec(protocol).decode(*payload_of(message))


def parse_policy(message: Message) -> dict[str, Any]:
    """Return the policy in a message of the kernel as a document."""
    return to_document(decode(message))


# The operations


def read_all(table: TableReader) -> Iterator[dict[str, Any]]:
    """Yield every timeout policy of the table's namespace as a document.

    Raises `Unavailable` if the kernel lacks cttimeout.
    """
    try:
        yield from table.read(Message(uapi.IPCTNL_MSG_TIMEOUT_GET, 0, nfgenmsg()), parse_policy)
    except KernelError as error:
        raise _explained(error, "reading timeout policies") from None


def find(table: TableReader, name: str) -> Policy | None:
    """Return the policy with this name, or None. Raises `Unavailable` if the kernel lacks cttimeout."""
    try:
        return _read(table, f"reading timeout policy {name}", uapi.IPCTNL_MSG_TIMEOUT_GET, _named(name))
    except NotFound:
        return None


def create(table: Table, policy: Mapping[str, Any]) -> None:
    """Create a policy. States without a timeout get the protocol's defaults.

    Raises `Exists`, `KernelError` (EINVAL) without cttimeout, and `ResultUnknown` if the answer is lost.
    """
    flags = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL
    table.ask(f"creating {describe(policy)}", Message(uapi.IPCTNL_MSG_TIMEOUT_NEW, flags, _encode(policy)))


def update(table: Table, policy: Mapping[str, Any]) -> None:
    """Change the timeouts of a policy, also while rules use it. Omitted states get the protocol's defaults.

    Its family and protocol cannot change. Raises `NotFound`, `KernelError` (EINVAL) without cttimeout, and
    `ResultUnknown` if the answer is lost.
    """
    message = Message(uapi.IPCTNL_MSG_TIMEOUT_NEW, uapi.NLM_F_REPLACE, _encode(policy))
    table.ask(f"updating {describe(policy)}", message)


def delete(table: Table, policy: Mapping[str, Any]) -> None:
    """Delete the policy with this name.

    Raises `NotFound`, `Busy` while a rule uses it, `KernelError` (EINVAL) without cttimeout, and `ResultUnknown` if the
    answer is lost.
    """
    message = Message(uapi.IPCTNL_MSG_TIMEOUT_DELETE, 0, _named(policy["name"]))
    table.ask(f"deleting {describe(policy)}", message)


def defaults(table: TableReader, protocol: int) -> Policy:
    """Return the default timeouts of a protocol, which apply without a policy.

    Raises `Unsupported` for a protocol that this kernel does not track, and `Unavailable` without cttimeout.
    """
    doing = f"reading the {describe({'protocol': protocol})}"
    about = {"family": types.AF_INET, "protocol": protocol}
    found = _read(table, doing, uapi.IPCTNL_MSG_TIMEOUT_DEFAULT_GET, nfgenmsg() + _POLICIES.encode(about))
    policy = {"protocol": protocol} if found is None else found
    policy.pop("family", None)  # an echo of the request
    return policy


def set_defaults(table: Table, policy: Mapping[str, Any]) -> None:
    """Change the default timeouts of a protocol, which apply without a policy. Omitted states stay unchanged.

    Raises `Unsupported` for a protocol that this kernel does not track, `KernelError` (EINVAL) without cttimeout, and
    `ResultUnknown` if the answer is lost.
    """
    about = {"family": types.AF_INET, **policy}  # a family is required, although the defaults apply to both families
    message = Message(uapi.IPCTNL_MSG_TIMEOUT_DEFAULT_SET, 0, _encode(about))
    table.ask(f"setting the {describe(policy)}", message)


def _read(table: TableReader, doing: str, operation: int, payload: bytes) -> Policy | None:
    try:
        answers = table.ask(doing, Message(operation, 0, payload))
    except KernelError as error:
        raise _explained(error, doing) from None
    return parse_answer(doing, decode, answers[0]) if answers else None


def _explained(error: KernelError, doing: str) -> KernelError:
    """Add the likely cause to an error: cttimeout is missing, or the kernel does not track the protocol."""
    if error.errno == errno.EINVAL or isinstance(error, Unavailable):
        return Unavailable(doing, error.errno, hint=_HINT)
    if error.errno == errno.EOPNOTSUPP:
        return error.with_hint("This kernel does not track that protocol; write generic, or leave it out")
    return error
