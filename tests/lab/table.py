# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the conntrack table with other programs than the collection: conntrack(8) and pyroute2.

Both return the same dictionaries, with the collection's names of keys, but only for values that both can read:

family, protocol
    Names as in the collection; a number if the protocol has no name.
original, reply
    source, destination, and depending on the protocol source_port, destination_port; icmp_type, icmp_code, icmp_id;
    source_key, destination_key.
timeout, mark, id
    Integers.
zone
    Only if it is not 0.
status
    A list with seen_reply and assured, if they are set.
state
    Only for TCP, in lower case.

An expectation has protocol, tuple, mask and master (each with the keys of original), timeout, class, helper, flags.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

from pyroute2 import NFCTSocket
from pyroute2.netlink.nfnetlink.nfctsocket import IPS_ASSURED, IPS_SEEN_REPLY, TCP_CONNTRACK_TO_NAME

Flow = dict[str, Any]

PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}

#: Names of conntrack(8) for the keys of a tuple
TUPLE_KEYS = {
    "src": "source",
    "dst": "destination",
    "sport": "source_port",
    "dport": "destination_port",
    "srckey": "source_key",
    "dstkey": "destination_key",
    "type": "icmp_type",
    "code": "icmp_code",
    "id": "icmp_id",
}


def from_program(text: str) -> list[Flow]:
    """Parse the output of 'conntrack -L -o extended,id'."""
    return [_from_line(line) for line in text.splitlines() if line.startswith("ipv")]


def _from_line(line: str) -> Flow:
    family, _number_of_family, _name, number, *words = line.split()
    flow: Flow = {
        "family": family,
        "protocol": PROTOCOLS.get(int(number), int(number)),
        "original": {},
        "reply": {},
    }
    flow["status"] = [] if "[UNREPLIED]" in words else ["seen_reply"]
    if "[ASSURED]" in words:
        flow["status"].append("assured")
    if flow["protocol"] == "tcp":
        flow["state"] = next(word.lower() for word in words if re.fullmatch("[A-Z][A-Z_0-9]+", word))
    for word in words:
        key, value = word.partition("=")[::2]
        if word.isdecimal():
            flow["timeout"] = int(word)
        elif key in ("mark", "zone") or (key == "id" and "mark" in flow):
            flow[key] = int(value)
        elif key in TUPLE_KEYS:
            direction = flow["reply" if TUPLE_KEYS[key] in flow["original"] else "original"]
            direction[TUPLE_KEYS[key]] = value if key in ("src", "dst") else int(value, 0)
    return flow


def expectations_from_program(text: str) -> list[Flow]:
    """Parse the output of 'conntrack -L expect' or 'conntrack -E expect', without the name of the event."""
    return [_from_expectation(line) for line in text.splitlines() if " proto=" in line]


def _from_expectation(line: str) -> Flow:
    expectation: Flow = {"tuple": {}, "mask": {}, "master": {}, "flags": []}
    part = expectation["tuple"]
    for word in line.replace(",", " ").split():
        key, _equals, value = word.partition("=")
        for prefix in ("mask", "master"):
            if key == f"{prefix}-src":
                part = expectation[prefix]
        key = key.removeprefix("mask-").removeprefix("master-")
        if word.isdecimal():
            expectation["timeout"] = int(word)
        elif word.startswith("["):
            expectation["event"] = word.strip("[]").lower()
        elif key == "proto":
            expectation["protocol"] = PROTOCOLS.get(int(value), int(value))
        elif key in ("class", "zone"):
            expectation[key] = int(value)
        elif key == "helper":
            expectation[key] = value
        elif key in TUPLE_KEYS:
            part[TUPLE_KEYS[key]] = value if key in ("src", "dst") else int(value, 0)
        else:
            expectation["flags"].append(word.lower())
    return expectation


def from_pyroute2() -> list[Flow]:
    """Return the entries that pyroute2 dumps in the namespace of the calling thread."""
    return [from_message(message) for message in messages()]


def messages() -> list[Any]:
    """Return the messages of pyroute2, for attributes that the entries above lack: message.get_attr("CTA_LABELS")."""
    with NFCTSocket(nfgen_family=socket.AF_UNSPEC) as conntrack:
        return list(conntrack.dump())


def from_message(message: Any) -> Flow:
    """Convert a message of pyroute2, from a dump or an event."""
    original = message.get_attr("CTA_TUPLE_ORIG")
    number = original.get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_NUM")
    protocol = PROTOCOLS.get(number, number)
    status = message.get_attr("CTA_STATUS") or 0
    flow: Flow = {
        "family": "ipv6" if message["nfgen_family"] == socket.AF_INET6 else "ipv4",
        "protocol": protocol,
        "original": dict(_direction(original, protocol)),
        "reply": dict(_direction(message.get_attr("CTA_TUPLE_REPLY"), protocol)),
        "status": [name for bit, name in ((IPS_SEEN_REPLY, "seen_reply"), (IPS_ASSURED, "assured")) if status & bit],
    }
    for key in ("timeout", "mark", "id", "zone"):
        value = message.get_attr(f"CTA_{key.upper()}")
        if value is not None:
            flow[key] = value
    info = message.get_attr("CTA_PROTOINFO")
    if protocol == "tcp" and info is not None:
        state = info.get_attr("CTA_PROTOINFO_TCP").get_attr("CTA_PROTOINFO_TCP_STATE")
        flow["state"] = "none" if state == 0 else TCP_CONNTRACK_TO_NAME.get(state, str(state)).lower()
    return flow


def _direction(tuple_: Any, protocol: str | int) -> Iterator[tuple[str, str | int]]:
    for key, value in tuple_.get_attr("CTA_TUPLE_IP")["attrs"]:
        yield ("source" if key.endswith("SRC") else "destination"), value
    suffix = "key" if protocol == "gre" else "port"
    names = {
        "CTA_PROTO_SRC_PORT": f"source_{suffix}",
        "CTA_PROTO_DST_PORT": f"destination_{suffix}",
        **{
            f"CTA_PROTO_{icmp}_{part}": f"icmp_{part.lower()}"
            for icmp in ("ICMP", "ICMPV6")
            for part in ("ID", "TYPE", "CODE")
        },
    }
    for key, value in tuple_.get_attr("CTA_TUPLE_PROTO")["attrs"]:
        if key in names:
            yield names[key], value
