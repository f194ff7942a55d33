# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Types of values: their form in messages, in entries and in documents.

An entry has numbers as `int`, addresses in network order as `bytes` (so that `<` is the order of addresses and `len`
shows the family), and names of helpers as `str`. `decode` accepts values of any size, which a future kernel may send.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Any, Mapping, Tuple

from .. import uapi
from ..errors import InvalidValue, quoted

AF_INET = int(socket.AF_INET)
AF_INET6 = int(socket.AF_INET6)

FAMILIES: dict[str, int] = {"ipv4": AF_INET, "ipv6": AF_INET6}

PROTOCOLS: dict[str, int] = {
    "tcp": uapi.IPPROTO_TCP,
    "udp": uapi.IPPROTO_UDP,
    "icmp": uapi.IPPROTO_ICMP,
    "icmpv6": uapi.IPPROTO_ICMPV6,
    "sctp": uapi.IPPROTO_SCTP,
    "dccp": uapi.IPPROTO_DCCP,
    "gre": uapi.IPPROTO_GRE,
    "udplite": uapi.IPPROTO_UDPLITE,
}

#: Other names of protocols from /etc/protocols, which are read and never shown. ip, ipv4 and ipv6 are left out, because
#: they look like families.
OTHER_PROTOCOLS: dict[str, int] = {
    "hopopt": 0,
    "igmp": 2,
    "ggp": 3,
    **dict.fromkeys(("ipencap", "ip-encap"), 4),
    "st": 5,
    "egp": 8,
    "igp": 9,
    "pup": 12,
    "hmp": 20,
    "xns-idp": 22,
    "rdp": 27,
    "iso-tp4": 29,
    "xtp": 36,
    "ddp": 37,
    "idpr-cmtp": 38,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "idrp": 45,
    "rsvp": 46,
    **dict.fromkeys(("esp", "ipsec-esp"), 50),
    **dict.fromkeys(("ah", "ipsec-ah"), 51),
    "skip": 57,
    **dict.fromkeys(("ipv6-icmp", "icmp6"), uapi.IPPROTO_ICMPV6),
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    **dict.fromkeys(("rspf", "cphb"), 73),
    "vmtp": 81,
    "eigrp": 88,
    **dict.fromkeys(("ospf", "ospfigp"), 89),
    "ax.25": 93,
    "ipip": 94,
    "etherip": 97,
    "encap": 98,
    "pim": 103,
    "ipcomp": 108,
    "vrrp": 112,
    "l2tp": 115,
    "isis": 124,
    "fc": 133,
    "mobility-header": 135,
    "udp-lite": uapi.IPPROTO_UDPLITE,
    "mpls-in-ip": 137,
    "manet": 138,
    "hip": 139,
    "shim6": 140,
    "wesp": 141,
    "rohc": 142,
    "ethernet": 143,
}

PORT_PROTOCOLS = frozenset(PROTOCOLS[name] for name in ("tcp", "udp", "sctp", "dccp", "udplite"))


def _numbered(names: str) -> dict[str, int]:
    """Return the names of an enumeration of the kernel, which begins with 0, and their numbers."""
    return {name: number for number, name in enumerate(names.split())}


def constants(prefix: str) -> dict[str, int]:
    """Return the constants of `uapi` with this prefix, by the rest of their names in lower case."""
    return {name[len(prefix) :].lower(): number for name, number in vars(uapi).items() if name.startswith(prefix)}


#: The states of each protocol: enum tcp_conntrack in nf_conntrack_tcp.h, and the same for the other protocols.
TCP_STATES = _numbered("none syn_sent syn_recv established fin_wait close_wait last_ack time_wait close syn_sent2")
#: Older names, which are read and never shown.
OLDER_TCP_STATES: dict[str, int] = {"listen": 9}
SCTP_STATES = _numbered(
    "none closed cookie_wait cookie_echoed established shutdown_sent shutdown_recd shutdown_ack_sent heartbeat_sent "
    "heartbeat_acked"
)
DCCP_STATES = _numbered("none request respond partopen open closereq closing timewait ignore invalid")
DCCP_ROLES = _numbered("client server")

STATUS_BITS = constants("IPS_")

TCP_FLAG_BITS: dict[str, int] = {
    "window_scale": uapi.IP_CT_TCP_FLAG_WINDOW_SCALE,
    "sack_permitted": uapi.IP_CT_TCP_FLAG_SACK_PERM,
    "close_init": uapi.IP_CT_TCP_FLAG_CLOSE_INIT,
    "be_liberal": uapi.IP_CT_TCP_FLAG_BE_LIBERAL,
    "data_unacknowledged": uapi.IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED,
    "maxack_set": uapi.IP_CT_TCP_FLAG_MAXACK_SET,
    "challenge_ack": uapi.IP_CT_EXP_CHALLENGE_ACK,
    "simultaneous_open": uapi.IP_CT_TCP_SIMULTANEOUS_OPEN,
}

LABEL_BITS = 128

Range = Tuple[int, int]


def listing(names: Mapping[str, int]) -> str:
    """Return the valid names for an error message."""
    return ", ".join(names)


def parse_integer(raw: Any, key: str, lowest: int, highest: int) -> int:
    """Parse an `int` or a decimal or 0x… string. Raises `InvalidValue`, also outside the bounds."""
    value: int | None = None
    if isinstance(raw, int) and not isinstance(raw, bool):
        value = raw
    elif isinstance(raw, str):
        text = raw.strip().lower()
        digits = text[2:] if text.startswith("0x") else text.lstrip("-")
        base = 16 if text.startswith("0x") else 10
        if digits.isascii() and digits.isalnum():
            try:
                value = int(text, base)
            except ValueError:
                value = None
    if value is None:
        raise InvalidValue(key, f"{quoted(raw)} is not a number; write an integer from {lowest} to {highest}")
    if not lowest <= value <= highest:
        shown = raw if isinstance(raw, str) else quoted(raw)
        raise InvalidValue(key, f"{shown} is out of range; write an integer from {lowest} to {highest}")
    return value


def parse_name(raw: Any, key: str, names: Mapping[str, int], highest: int, what: str) -> int:
    """Parse a name of `names`, or a number up to `highest`. Raises `InvalidValue`."""
    if isinstance(raw, str) and raw.strip().lower() in names:
        return names[raw.strip().lower()]
    try:
        return parse_integer(raw, key, 0, highest)
    except InvalidValue:
        raise InvalidValue(
            key,
            f"{quoted(raw)} is not a known {what}; write one of {listing(names)}, or a number from 0 to {highest}",
        ) from None


def parse_address(raw: Any, key: str) -> bytes:
    """Parse an IPv4 or IPv6 address to bytes in network order. Raises `InvalidValue`."""
    if not isinstance(raw, str):
        raise InvalidValue(key, f"{quoted(raw)} is not an address; write an IPv4 or IPv6 address as text")
    text = raw.strip()
    try:
        return socket.inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        hint = (
            "leave out the prefix length: this is one address"
            if "/" in text
            else ("leave out the interface after %" if "%" in text else "write an IPv4 or IPv6 address")
        )
        raise InvalidValue(key, f"{quoted(raw)} is not an address; {hint}") from None


def present_address(address: bytes) -> str:
    """Return an address as text, in hexadecimal if its length belongs to no family."""
    if len(address) == 4:
        return socket.inet_ntop(AF_INET, address)
    if len(address) == 16:
        return socket.inet_ntop(AF_INET6, address)
    return "0x" + address.hex()


def family_of(address: bytes) -> int:
    """Return AF_INET or AF_INET6, by the length of the address."""
    return AF_INET if len(address) == 4 else AF_INET6


class AttributeType:
    """A type of values. `format` is its struct code in messages, `""` if the size varies.

    `decode` and `encode` convert the bytes of an attribute, `parse` and `present` the value of a document. `parse`
    raises `InvalidValue`.
    """

    format = ""

    def decode(self, data: bytes) -> Any:
        raise NotImplementedError

    def encode(self, value: Any) -> bytes:
        raise NotImplementedError

    def parse(self, raw: Any, key: str) -> Any:
        raise NotImplementedError

    def present(self, value: Any) -> Any:
        return value


class Integer(AttributeType):
    """A big-endian integer of one of the struct codes B H I Q (unsigned) or i (signed).

    `highest` is the largest value to take from a user where the kernel takes less than fits.
    """

    def __init__(self, code: str, highest: int | None = None) -> None:
        self.format = code
        self.struct = struct.Struct(">" + code)
        self.signed = code.islower()
        bits = 8 * self.struct.size
        self.lowest = -(1 << bits - 1) if self.signed else 0
        fits = (1 << bits - 1) - 1 if self.signed else (1 << bits) - 1
        self.highest = fits if highest is None else highest

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data, "big", signed=self.signed)

    def encode(self, value: int) -> bytes:
        return self.struct.pack(value)

    def parse(self, raw: Any, key: str) -> int:
        return parse_integer(raw, key, self.lowest, self.highest)


class Enum(Integer):
    """An integer with names. Numbers without a name stay numbers. Names in `older` are only read."""

    def __init__(self, code: str, names: Mapping[str, int], what: str, older: Mapping[str, int] | None = None) -> None:
        super().__init__(code)
        self.names = names
        self.older = older or {}
        self.by_number = {number: name for name, number in names.items()}
        self.what = what

    def parse(self, raw: Any, key: str) -> int:
        if self.older and isinstance(raw, str) and raw.strip().lower() in self.older:
            return self.older[raw.strip().lower()]
        return parse_name(raw, key, self.names, self.highest, self.what)

    def present(self, value: int) -> Any:
        return self.by_number.get(value, value)


class Flags(Integer):
    """An integer of named bits. In documents it is a list of names; a bit without a name is its number."""

    def __init__(self, code: str, names: Mapping[str, int], what: str) -> None:
        super().__init__(code)
        self.names = names
        self.what = what

    def parse(self, raw: Any, key: str) -> int:
        flags = 0
        for item in as_list(raw):
            if isinstance(item, str) and item.strip().lower() in self.names:
                flags |= self.names[item.strip().lower()]
                continue
            try:
                flags |= 1 << parse_integer(item, key, 0, 8 * self.struct.size - 1)
            except InvalidValue:
                problem = f"{quoted(item)} is not a known {self.what}; write a list of {listing(self.names)}"
                raise InvalidValue(key, problem) from None
        return flags

    def present(self, value: int) -> list[Any]:
        names: list[Any] = [name for name, bit in self.names.items() if value & bit]
        known = sum(self.names.values())
        return names + [bit for bit in range(value.bit_length()) if value & ~known & 1 << bit]


class MaskedFlags(Flags):
    """Eight flags that a mask follows in messages. Requests have the full mask."""

    def __init__(self, names: Mapping[str, int], what: str) -> None:
        super().__init__("B", names, what)
        self.format = "Bx"

    def decode(self, data: bytes) -> int:
        return data[0] if data else 0

    def encode(self, value: int) -> bytes:
        return bytes((value, 0xFF))


class Address(AttributeType):
    """An address of one family in network byte order."""

    def __init__(self, size: int) -> None:
        self.format = f"{size}s"

    def decode(self, data: bytes) -> bytes:
        return bytes(data)

    def encode(self, value: bytes) -> bytes:
        return value

    def parse(self, raw: Any, key: str) -> bytes:
        return parse_address(raw, key)

    def present(self, value: bytes) -> str:
        return present_address(value)


class Text(AttributeType):
    """A NUL-terminated string."""

    def __init__(self, longest: int) -> None:
        self.longest = longest

    def decode(self, data: bytes) -> str:
        return bytes(data).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def encode(self, value: str) -> bytes:
        return value.encode("utf-8", "surrogateescape") + b"\0"

    def parse(self, raw: Any, key: str) -> str:
        try:
            data = raw.encode("utf-8", "surrogateescape")
        except (AttributeError, UnicodeEncodeError):
            data = b"\0"
        if b"\0" in data:
            raise InvalidValue(key, f"{quoted(raw)} is not a name; write it as text")
        if len(data) > self.longest:
            raise InvalidValue(key, f"{quoted(raw)} is too long; write at most {self.longest} bytes")
        return str(raw)


class LabelBitmap(AttributeType):
    """The labels' bitmap: 128 bits in native 32-bit words, as an `int` (bit n is 1 << n)."""

    format = f"{LABEL_BITS // 8}s"

    def decode(self, data: bytes) -> int:
        value = 0
        for offset in range(0, len(data), 4):
            value |= int.from_bytes(data[offset : offset + 4], sys.byteorder) << 8 * offset
        return value

    def encode(self, value: int) -> bytes:
        words = [value >> shift & 0xFFFFFFFF for shift in range(0, LABEL_BITS, 32)]
        return struct.pack("=4I", *words)

    def parse(self, raw: Any, key: str) -> int:
        value = 0
        for item in as_list(raw):
            value |= 1 << parse_integer(item, key, 0, LABEL_BITS - 1)
        return value

    def present(self, value: int) -> list[int]:
        return [bit for bit in range(value.bit_length()) if value >> bit & 1]


class Time(Integer):
    """Nanoseconds since 1970. In documents they are ISO 8601 in UTC."""

    def __init__(self) -> None:
        super().__init__("Q")

    def parse(self, raw: Any, key: str) -> int:
        import calendar

        if not isinstance(raw, str):
            return super().parse(raw, key)
        whole, dot, fraction = raw.rstrip("Z").partition(".")
        try:
            nanoseconds = int(fraction.ljust(9, "0")[:9]) if dot else 0
            nanoseconds += calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000
            if dot and not (fraction.isascii() and fraction.isdigit()):
                raise ValueError(fraction)
        except ValueError:
            nanoseconds = -1
        if not self.lowest <= nanoseconds <= self.highest:
            raise InvalidValue(key, f"{quoted(raw)} is not a time; write it as 2030-01-31T12:00:00.000000000Z")
        return nanoseconds

    def present(self, value: int) -> Any:
        if not self.lowest <= value <= self.highest:
            return value  # of an unknown size
        seconds, nanoseconds = divmod(value, 1_000_000_000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def as_list(raw: Any) -> list[Any]:
    """Return a list as it is, and another value as a list of one."""
    return list(raw) if isinstance(raw, (list, tuple)) else [raw]


def as_range(raw: Any) -> tuple[str, str] | None:
    """Return the two ends of `a-b`, or None if `raw` is not a range."""
    if isinstance(raw, str):
        low, dash, high = raw.partition("-")
        if dash and low.strip() and high.strip():
            return low.strip(), high.strip()
    return None


def parse_integer_range(raw: Any, key: str, lowest: int, highest: int) -> Range:
    """Parse `a`, or `a-b` with a not above b, to an inclusive range. Raises `InvalidValue`."""
    ends = as_range(raw)
    if ends is None:
        value = parse_integer(raw, key, lowest, highest)
        return value, value
    low = parse_integer(ends[0], key, lowest, highest)
    high = parse_integer(ends[1], key, lowest, highest)
    if low > high:
        raise InvalidValue(key, f"{quoted(raw)} runs backwards; write {high}-{low}")
    return low, high


def parse_address_range(raw: Any, key: str) -> tuple[bytes, bytes]:
    """Parse `a`, or `a-b` of one family with a not above b, to an inclusive range. Raises `InvalidValue`."""
    ends = as_range(raw)
    if ends is None:
        address = parse_address(raw, key)
        return address, address
    low, high = parse_address(ends[0], key), parse_address(ends[1], key)
    if len(low) != len(high):
        raise InvalidValue(key, f"{quoted(raw)} mixes IPv4 and IPv6; write both ends in one family")
    if low > high:
        raise InvalidValue(key, f"{quoted(raw)} runs backwards; write {ends[1]}-{ends[0]}")
    return low, high


def parse_masked(raw: Any, key: str, width: int = 32) -> Range:
    """Parse `value` or `value/mask` of `width` bits to (value, mask). The default mask has all bits."""
    highest = (1 << width) - 1
    text = raw if isinstance(raw, str) else None
    value, slash, mask = (text or "").partition("/")
    if not slash:
        return parse_integer(raw, key, 0, highest), highest
    number = parse_integer(value, key, 0, highest)
    bits = parse_integer(mask, key, 0, highest)
    if number & ~bits:
        raise InvalidValue(key, f"{quoted(raw)} has bits outside its mask; write {number & bits:#x}/{bits:#x}")
    return number, bits


U8 = Integer("B")
U16 = Integer("H")
U32 = Integer("I")
U64 = Integer("Q")
S32 = Integer("i")
WINDOW_SCALE = Integer("B", highest=14)
IPV4_ADDRESS = Address(4)
IPV6_ADDRESS = Address(16)
PROTOCOL = Enum("B", PROTOCOLS, "protocol", OTHER_PROTOCOLS)
STATUS = Flags("I", STATUS_BITS, "status bit")
TCP_STATE = Enum("B", TCP_STATES, "TCP state", OLDER_TCP_STATES)
SCTP_STATE = Enum("B", SCTP_STATES, "SCTP state")
DCCP_STATE = Enum("B", DCCP_STATES, "DCCP state")
DCCP_ROLE = Enum("B", DCCP_ROLES, "DCCP role")
TCP_FLAG_SET = MaskedFlags(TCP_FLAG_BITS, "TCP flag")
LABELS = LabelBitmap()
HELPER_NAME = Text(15)
SECURITY_CONTEXT = Text(4095)
TIME = Time()
