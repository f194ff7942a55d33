# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second, slow implementation of matches, which evaluates the document that a user sees."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any, Callable


def matches(match: Any, document: dict[str, Any], now: int) -> bool:
    """Return whether the entry of `document` matches `match`."""
    if isinstance(match, list):
        return any(matches(one, document, now) for one in match)
    for key, value in match.items():
        if key == "except":
            if matches(value, document, now):
                return False
        elif not holds(key, value, document, now):
            return False
    return True


def holds(key: str, value: Any, document: dict[str, Any], now: int) -> bool:
    """Return whether an entry matches one key of a match."""
    wanted = value if isinstance(value, list) else [value]
    original, reply = document["original"], document["reply"]
    status = document.get("status", [])

    def one(test: Callable[[Any], bool]) -> bool:
        return any(test(item) for item in wanted)

    ends = {
        "source": [original["source"]],
        "destination": [original["destination"]],
        "reply_source": [reply["source"]],
        "reply_destination": [reply["destination"]],
    }
    ends["address"] = list(itertools.chain.from_iterable(ends.values()))
    ends["reply_address"] = [reply["source"], reply["destination"]]
    if key in ends:
        return one(lambda item: any(inside(end, item) for end in ends[key]))
    ports = {
        "source_port": [original.get("source_port")],
        "destination_port": [original.get("destination_port")],
        "reply_source_port": [reply.get("source_port")],
        "reply_destination_port": [reply.get("destination_port")],
    }
    ports["port"] = list(itertools.chain.from_iterable(ports.values()))
    if key in ports:
        there = [port for port in ports[key] if port is not None]
        return one(lambda item: any(within(port, item) for port in there))
    if key in ("icmp_type", "icmp_code", "icmp_id", "source_key", "destination_key"):
        return key in original and one(lambda item: within(original[key], item))
    if key == "family":
        return bool(document["family"] in wanted)
    if key == "protocol":
        names = {"17": "udp", "esp": "50", "ipv6-icmp": "icmpv6"}
        return str(document["protocol"]) in [names.get(str(item), str(item)) for item in wanted]
    if key == "zone":
        both = "zone" not in original and "zone" not in reply
        return both and document.get("zone", 0) in wanted
    if key in ("original_zone", "reply_zone"):
        own = document[key[: -len("_zone")]].get("zone")
        return (own or document.get("zone", 0)) in wanted
    if key == "helper":
        return document.get("helper", "") in wanted
    if key == "mark":
        return one(lambda item: marked(document.get("mark", 0), item))
    if key == "state":
        return any(document.get(name, {}).get("state") in wanted for name in ("tcp", "sctp", "dccp"))
    if key == "nat":
        kinds = {end for end, bit in (("source", "src_nat"), ("destination", "dst_nat")) if bit in status}
        kinds |= {"any"} if kinds else {"none"}
        return bool(kinds & set(wanted))
    if key in ("status", "labels"):
        return all(has(item, document.get(key, [])) for item in wanted)
    if key in ("status_not", "labels_not"):
        return not one(lambda item: has(item, document.get(key[: -len("_not")], [])))
    if key == "master":
        if "master" not in document:
            return False
        master = {**document["master"]}
        there = {"protocol": master.pop("protocol"), "original": master, "reply": master}
        return one(lambda item: matches(item, there, now))
    if key == "expected":
        return ("master" in document or "expected" in status) == value
    return compared(key, value, document, now)


def compared(key: str, value: int, document: dict[str, Any], now: int) -> bool:
    """Evaluate comparisons such as `bytes_above: 5`."""
    what, side = key.split("_")
    if what == "age":
        there = (now - document["timestamps"]) // 1_000_000_000
    elif what == "timeout":
        if "timeout" not in document:
            return False
        there = document["timeout"]
    else:
        counters = document["counters"]
        there = counters["original"][what] + counters["reply"][what]
    return bool(there < value if side == "below" else there > value)


def inside(address: str, wanted: str) -> bool:
    there = ipaddress.ip_address(address)
    if "-" in wanted:
        low, high = (ipaddress.ip_address(text) for text in wanted.split("-"))
        return there.version == low.version and int(low) <= int(there) <= int(high)
    network = ipaddress.ip_network(wanted)
    return there.version == network.version and there in network


def within(number: int, wanted: Any) -> bool:
    text = str(wanted)
    low, dash, high = text.partition("-")
    return int(low, 0) <= number <= int(high if dash else low, 0)


def has(wanted: Any, bits: list[Any]) -> bool:
    """Return whether a bit is set, or whether all bits under a mask equal those of the value."""
    if "/" not in str(wanted):
        return wanted in bits
    value, mask = (int(text, 0) for text in wanted.split("/"))
    return all((bit in bits) == bool(value >> bit & 1) for bit in range(128) if mask >> bit & 1)


def marked(mark: int, wanted: Any) -> bool:
    value, slash, mask = str(wanted).partition("/")
    return mark & (int(mask, 0) if slash else 0xFFFFFFFF) == int(value, 0)
