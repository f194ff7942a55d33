# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nftables ruleset of a network namespace, also that of iptables-nft: read it, and load a copy elsewhere.

The dumped objects are sent back to the kernel. Handles, counters and sets without a name become those of the copy, and
the expressions of rules are rewritten (see `expressions.py`).

Source: include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import errno
import struct
import sys
from itertools import count
from typing import Any, Iterator, NamedTuple, Sequence

from .. import uapi
from ..ctnetlink.messages import nfgenmsg
from ..errors import KernelError, NotFound, Unavailable, kernel_error
from ..netlink.error import rejections
from ..netlink.message import ATTRIBUTE, Message, attribute, attributes, nested
from ..netlink.socket import DumpInterrupted, NetlinkSocket
from ..netlink.transaction import send_transaction
from . import numbers as n
from .expressions import (
    TRACED,
    Rewriter,
    SetName,
    control_test,
    expression,
    expressions_of,
    number_of,
    replayed_test,
    trace_on,
    u32,
    untracked_test,
)
from .network import ATTEMPTS, attributes_of, text_of

_HEADER = len(nfgenmsg())
_U64 = struct.Struct(">Q")

#: The families whose chains see routed packets. Those of bridges and of ARP do not.
FAMILIES = frozenset({n.NFPROTO_INET, n.NFPROTO_IPV4, n.NFPROTO_IPV6, n.NFPROTO_NETDEV})
FAMILY_NAMES = {n.NFPROTO_INET: "inet", n.NFPROTO_IPV4: "ip", n.NFPROTO_NETDEV: "netdev", n.NFPROTO_IPV6: "ip6"}

_TABLE = (n.NFTA_TABLE_NAME,)
_CHAIN = (n.NFTA_CHAIN_TABLE, n.NFTA_CHAIN_NAME, n.NFTA_CHAIN_HOOK, n.NFTA_CHAIN_POLICY, n.NFTA_CHAIN_TYPE)
_SET = (
    *(n.NFTA_SET_TABLE, n.NFTA_SET_NAME, n.NFTA_SET_KEY_TYPE, n.NFTA_SET_KEY_LEN, n.NFTA_SET_DATA_TYPE),
    *(n.NFTA_SET_DATA_LEN, n.NFTA_SET_POLICY, n.NFTA_SET_DESC, n.NFTA_SET_TIMEOUT, n.NFTA_SET_GC_INTERVAL),
    n.NFTA_SET_OBJ_TYPE,
)
_ELEMENT = frozenset(
    {
        *(n.NFTA_SET_ELEM_KEY, n.NFTA_SET_ELEM_DATA, n.NFTA_SET_ELEM_FLAGS, n.NFTA_SET_ELEM_TIMEOUT),
        *(n.NFTA_SET_ELEM_EXPIRATION, n.NFTA_SET_ELEM_OBJREF, n.NFTA_SET_ELEM_KEY_END),
    }
)
_RULE = (n.NFTA_RULE_TABLE, n.NFTA_RULE_CHAIN, n.NFTA_RULE_USERDATA)
_OBJECT = (n.NFTA_OBJ_TABLE, n.NFTA_OBJ_NAME, n.NFTA_OBJ_TYPE, n.NFTA_OBJ_DATA)
#: The most bytes in a request, below the default of net.core.wmem_max.
_BATCH = 150_000
_READING = "reading the ruleset"
_NO_NF_TABLES = "The kernel has no nf_tables: load its module (modprobe nf_tables)"


class RuleId(NamedTuple):
    """A rule of the host: family (`ip`, `ip6`, `inet`), table, chain, handle and comment ("" if it has none)."""

    family: str
    table: str
    chain: str
    handle: int
    comment: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as results show it."""
        return {**self._asdict(), "comment": self.comment or None}


class Ruleset(NamedTuple):
    """A ruleset as the kernel dumped it, each object without its netlink header."""

    tables: tuple[Message, ...]
    chains: tuple[Message, ...]
    sets: tuple[Message, ...]
    elements: tuple[Message, ...]
    objects: tuple[Message, ...]
    flowtables: tuple[Message, ...]
    rules: tuple[Message, ...]


class Marker(NamedTuple):
    """A rule in front of an undecidable one.

    Packets whose control word has one of the `numbers` have another outcome than those without a number. Without
    numbers, the rule cannot be replayed. `reason` names what is undecidable.
    """

    numbers: range
    rule: RuleId
    reason: str


class LoadedRules(NamedTuple):
    """The rules and markers of a copy by their handles, for messages of a trace."""

    rules: dict[tuple[int, str, int], RuleId]
    markers: dict[tuple[int, str, int], Marker]
    #: The rules that translate addresses.
    translating: frozenset[tuple[int, str, int]]
    #: Those that set ports too.
    setting_ports: frozenset[tuple[int, str, int]]
    #: The families that the kernel tracks: NFPROTO_IPV4 and NFPROTO_IPV6.
    tracked: frozenset[int]
    #: The table of the chains at both ends of a packet's way.
    own_table: str


def read_ruleset(netlink: NetlinkSocket) -> Ruleset:
    """Read the ruleset of the namespace of a socket. Raises `KernelError` if it changes all the time."""
    for _attempt in range(ATTEMPTS):
        before = generation(netlink)
        try:
            ruleset = _read(netlink)
        except (DumpInterrupted, NotFound):  # a set is not found if it was deleted meanwhile
            continue
        if generation(netlink) == before:
            return ruleset
    raise kernel_error("reading the ruleset, which changes all the time", errno.EAGAIN)


def _read(netlink: NetlinkSocket) -> Ruleset:
    def dump(kind: int) -> tuple[Message, ...]:
        return tuple(message for message in _dump(netlink, kind) if message.payload[0] in FAMILIES)

    sets = dump(n.NFT_MSG_GETSET)
    elements: list[Message] = []
    for message in sets:
        parsed = attributes_of(message.payload, _HEADER)
        body = attribute(n.NFTA_SET_ELEM_LIST_TABLE, parsed[n.NFTA_SET_TABLE])
        body += attribute(n.NFTA_SET_ELEM_LIST_SET, parsed[n.NFTA_SET_NAME])
        elements += _dump(netlink, n.NFT_MSG_GETSETELEM, message.payload[0], body)
    return Ruleset(
        dump(n.NFT_MSG_GETTABLE),
        dump(n.NFT_MSG_GETCHAIN),
        sets,
        tuple(elements),
        dump(n.NFT_MSG_GETOBJ),
        dump(n.NFT_MSG_GETFLOWTABLE),
        dump(n.NFT_MSG_GETRULE),
    )


def _dump(netlink: NetlinkSocket, kind: int, family: int = 0, body: bytes = b"") -> list[Message]:
    with rejections(_READING):
        return list(netlink.dump(Message(kind, 0, nfgenmsg(family) + body)))


def read_rules(netlink: NetlinkSocket) -> Iterator[tuple[int, bytes]]:
    """Yield the family and the expressions of each rule, in the form of `expressions_of`."""
    for message in _dump(netlink, n.NFT_MSG_GETRULE):
        if message.payload[0] in FAMILIES:
            yield message.payload[0], attributes_of(message.payload, _HEADER).get(n.NFTA_RULE_EXPRESSIONS, b"")


def generation(netlink: NetlinkSocket) -> int:
    """Return the number of the ruleset, which each transaction increases.

    Raises `Unavailable` if the kernel has no nf_tables, and `NotPermitted`.
    """
    try:
        with rejections(_READING):
            answers = netlink.request(Message(n.NFT_MSG_GETGEN, 0, nfgenmsg()))
    except KernelError as error:
        if error.errno == errno.EINVAL:  # nfnetlink knows no such subsystem
            raise Unavailable(_READING, errno.EINVAL, error.text, hint=_NO_NF_TABLES) from None
        raise
    return max((number_of(attributes_of(answer.payload, _HEADER).get(n.NFTA_GEN_ID)) for answer in answers), default=0)


def copy_ruleset(netlink: NetlinkSocket, ruleset: Ruleset) -> None:
    """Load a copy of a ruleset in the namespace of a socket, as it is. Raises the errors of `load_ruleset`."""
    send(netlink, _Loader(ruleset).requests(rewrite=False))


def delete_ruleset(netlink: NetlinkSocket) -> None:
    """Delete all tables in the namespace of a socket."""
    send(netlink, iter([_request(n.NFT_MSG_DELTABLE, 0, b"", 0)]))


def load_ruleset(netlink: NetlinkSocket, ruleset: Ruleset) -> LoadedRules:
    """Load a copy of a ruleset in the namespace of a socket, for packets that are replayed.

    The expressions are rewritten, and there are chains at both ends of a packet's way. Raises `KernelError` if the
    kernel refuses a part of it.
    """
    loader = _Loader(ruleset)
    send(netlink, loader.requests())
    return loader.loaded(list(_dump(netlink, n.NFT_MSG_GETRULE)))


class _Loader:
    """Makes the requests that load a copy, and finds the handles that its rules got."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        #: The original rules and the markers. The comment of a rule in the copy is its position here.
        self._loaded: list[RuleId | Marker] = []
        self.tracked: set[int] = set()
        names = {text_of(attributes_of(message.payload, _HEADER)[n.NFTA_TABLE_NAME]) for message in ruleset.tables}
        self.own_table = next(name for name in (f"reevaluate{number or ''}" for number in count()) if name not in names)

    def requests(self, rewrite: bool = True) -> Iterator[Message]:
        """Yield the requests, in the order in which the objects need each other."""
        ruleset = self._ruleset
        for message in ruleset.tables:
            parsed = attributes_of(message.payload, _HEADER)
            flags = number_of(parsed.get(n.NFTA_TABLE_FLAGS)) & n.NFT_TABLE_F_DORMANT
            body = _picked(message, _TABLE) + u32(n.NFTA_TABLE_FLAGS, flags)
            yield _request(n.NFT_MSG_NEWTABLE, message.payload[0], body)
        for message in ruleset.objects:
            body = _object(message) if rewrite else _picked(message, _OBJECT)
            yield _request(n.NFT_MSG_NEWOBJ, message.payload[0], body)
        for number, message in enumerate(ruleset.sets, 1):
            flags = number_of(attributes_of(message.payload, _HEADER).get(n.NFTA_SET_FLAGS)) & ~n.NFT_SET_ANONYMOUS
            more = u32(n.NFTA_SET_FLAGS, flags) + u32(n.NFTA_SET_ID, number)
            yield _request(n.NFT_MSG_NEWSET, message.payload[0], _picked(message, _SET) + more)
        for message in () if rewrite else ruleset.flowtables:
            yield _request(n.NFT_MSG_NEWFLOWTABLE, message.payload[0], _flowtable(message))
        for message in ruleset.chains:
            yield _request(n.NFT_MSG_NEWCHAIN, message.payload[0], _picked(message, _CHAIN))
        for message in ruleset.elements:
            elements = self._elements(message)
            if elements:
                yield _request(n.NFT_MSG_NEWSETELEM, message.payload[0], elements)
        if rewrite:
            yield from self._own_chains()
            yield from self._rewritten_rules()
        else:
            yield from self._rules()

    def _elements(self, message: Message) -> bytes:
        """Return the attributes of a request for the elements of a set, without their statements."""
        parsed = attributes_of(message.payload, _HEADER)
        listed = parsed.get(n.NFTA_SET_ELEM_LIST_ELEMENTS, b"")
        if not listed:
            return b""
        elements = b"".join(
            nested(n.NFTA_LIST_ELEM, _raw(listed[start:end], 0, _ELEMENT))
            for _number_, start, end in attributes(listed, 0, len(listed))
        )
        names = (n.NFTA_SET_ELEM_LIST_TABLE, n.NFTA_SET_ELEM_LIST_SET)
        return _picked(message, names) + nested(n.NFTA_SET_ELEM_LIST_ELEMENTS, elements)

    def _own_chains(self) -> Iterator[Message]:
        """Yield the first and the last chains of each hook. The first ones enable tracing for packets with that bit."""
        for family in (n.NFPROTO_IPV4, n.NFPROTO_IPV6):
            yield _request(n.NFT_MSG_NEWTABLE, family, attribute(n.NFTA_TABLE_NAME, _name(self.own_table)))
            for hook, priority, chain in _OWN_CHAINS:
                yield self._own_chain(family, hook, priority, chain)
                expressions = replayed_test(family)
                if priority < 0:
                    expressions += control_test(family, TRACED, TRACED) + trace_on()
                yield self._rule(family, self.own_table, chain, expressions)

    def _own_chain(self, family: int, hook: int, priority: int, chain: str) -> Message:
        hooked = u32(n.NFTA_HOOK_HOOKNUM, hook) + u32(n.NFTA_HOOK_PRIORITY, priority)
        body = attribute(n.NFTA_CHAIN_TABLE, _name(self.own_table)) + attribute(n.NFTA_CHAIN_NAME, _name(chain))
        body += nested(n.NFTA_CHAIN_HOOK, hooked) + u32(n.NFTA_CHAIN_POLICY, n.NF_ACCEPT)
        body += attribute(n.NFTA_CHAIN_TYPE, _name("filter"))
        return _request(n.NFT_MSG_NEWCHAIN, family, body)

    def _rule(
        self, family: int, table: str, chain: str, expressions: bytes, compat: bytes = b"", index: int | None = None
    ) -> Message:
        body = attribute(n.NFTA_RULE_TABLE, _name(table)) + attribute(n.NFTA_RULE_CHAIN, _name(chain))
        body += nested(n.NFTA_RULE_EXPRESSIONS, expressions) + compat
        if index is not None:
            comment = _name(str(index))
            body += attribute(n.NFTA_RULE_USERDATA, bytes([n.NFTNL_UDATA_RULE_COMMENT, len(comment)]) + comment)
        return _request(n.NFT_MSG_NEWRULE, family, body, uapi.NLM_F_CREATE | n.NLM_F_APPEND)

    def _rules(self) -> Iterator[Message]:
        """Yield the rules as they are, with their comments."""
        for message in self._ruleset.rules:
            family, parsed = message.payload[0], attributes_of(message.payload, _HEADER)
            expressions = parsed.get(n.NFTA_RULE_EXPRESSIONS, b"")
            body = _picked(message, _RULE) + _compat(family, expressions)
            body += nested(n.NFTA_RULE_EXPRESSIONS, _acceptable(expressions))
            yield _request(n.NFT_MSG_NEWRULE, family, body, uapi.NLM_F_CREATE | n.NLM_F_APPEND)

    def _rewritten_rules(self) -> Iterator[Message]:
        rewriter = Rewriter(frozenset(self._limiting_sets()), dict(self._object_maps()))
        number = 1
        tracking: set[int] = set()
        for message in self._ruleset.rules:
            family = message.payload[0]
            parsed = attributes_of(message.payload, _HEADER)
            table, chain = text_of(parsed[n.NFTA_RULE_TABLE]), text_of(parsed[n.NFTA_RULE_CHAIN])
            expressions = parsed.get(n.NFTA_RULE_EXPRESSIONS, b"")
            rule = RuleId(
                FAMILY_NAMES[family],
                table,
                chain,
                _U64.unpack(parsed[n.NFTA_RULE_HANDLE])[0],
                comment_of(parsed.get(n.NFTA_RULE_USERDATA, b"")) or _matched_comment(expressions),
            )
            if _TRACKING & _names_in(expressions):
                tracking.add(family)
            compat = _compat(family, expressions)
            rewritten = rewriter.rewrite(family, table, expressions, number)
            if rewritten.marker:
                numbers = range(number, number + rewritten.outcomes)
                number = numbers.stop
                self._loaded.append(Marker(numbers, rule, rewritten.reason))
                yield self._rule(family, table, chain, rewritten.marker, compat, len(self._loaded) - 1)
            for each in rewritten.rules:
                self._loaded.append(rule)
                yield self._rule(family, table, chain, each, compat, len(self._loaded) - 1)
        yield from self._untracked_chains(tracking)

    def _untracked_chains(self, families: set[int]) -> Iterator[Message]:
        """Yield chains for untracked packets that pass all rules, for each family that rules have the kernel track.

        A rule that uses conntrack enables tracking, even if the copy leaves it out because it has no effect. The rules
        of these chains enable it, too.
        """
        for family in (n.NFPROTO_IPV4, n.NFPROTO_IPV6):
            if families & {family, n.NFPROTO_INET}:
                self.tracked.add(family)
                for hook, chain in zip((n.NF_INET_LOCAL_IN, n.NF_INET_POST_ROUTING), UNTRACKED_CHAINS):
                    yield self._own_chain(family, hook, _LAST, chain)
                    yield self._rule(family, self.own_table, chain, replayed_test(family) + untracked_test())

    def _object_maps(self) -> Iterator[tuple[SetName, int]]:
        """Yield the maps of objects, with the type of these."""
        for message in self._ruleset.sets:
            parsed = attributes_of(message.payload, _HEADER)
            if n.NFTA_SET_OBJ_TYPE in parsed:
                name = message.payload[0], text_of(parsed[n.NFTA_SET_TABLE]), text_of(parsed[n.NFTA_SET_NAME])
                yield name, number_of(parsed[n.NFTA_SET_OBJ_TYPE])

    def _limiting_sets(self) -> Iterator[SetName]:
        """Yield the sets whose elements have statements that can fail, such as a limit."""
        for message in self._ruleset.sets:
            parsed = attributes_of(message.payload, _HEADER)
            statements = parsed.get(n.NFTA_SET_EXPR, b"") + parsed.get(n.NFTA_SET_EXPRESSIONS, b"")
            if any(name in statements for name in (b"limit\0", b"quota\0")):
                yield message.payload[0], text_of(parsed[n.NFTA_SET_TABLE]), text_of(parsed[n.NFTA_SET_NAME])

    def loaded(self, rules: list[Message]) -> LoadedRules:
        found: dict[tuple[int, str, int], RuleId] = {}
        markers: dict[tuple[int, str, int], Marker] = {}
        translating: set[tuple[int, str, int]] = set()
        setting_ports: set[tuple[int, str, int]] = set()
        for message in rules:
            parsed = attributes_of(message.payload, _HEADER)
            if n.NFTA_RULE_USERDATA not in parsed:
                continue
            key = (message.payload[0], text_of(parsed[n.NFTA_RULE_TABLE]), _U64.unpack(parsed[n.NFTA_RULE_HANDLE])[0])
            loaded = self._loaded[int(comment_of(parsed[n.NFTA_RULE_USERDATA]))]
            if isinstance(loaded, Marker):
                markers[key] = loaded
            else:
                found[key] = loaded
                expressions = parsed.get(n.NFTA_RULE_EXPRESSIONS, b"")
                if _TRANSLATING & _names_in(expressions):
                    translating.add(key)
                if _sets_ports(key[0], expressions):
                    setting_ports.add(key)
        return LoadedRules(
            found, markers, frozenset(translating), frozenset(setting_ports), frozenset(self.tracked), self.own_table
        )


#: Expressions and targets that translate addresses.
_TRANSLATING = frozenset({"nat", "masq", "redir", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"})


#: Those, and others, for which the kernel tracks packets.
_TRACKING = _TRANSLATING | frozenset(
    "ct notrack connlimit flow_offload synproxy objref conntrack state connmark connlabel connbytes helper cluster CT "
    "NOTRACK CONNMARK CONNSECMARK SYNPROXY".split()
)


def _names_in(expressions: bytes) -> set[str]:
    """Return the names of the expressions of a rule, and of the matches and targets of x_tables in them."""
    found = set()
    for name, data, _raw_bytes in expressions_of(expressions):
        found.add(text_of(data[n.NFTA_TARGET_NAME]) if name in ("match", "target") else name)
    return found


def _sets_ports(family: int, expressions: bytes) -> bool:
    """Whether a rule translates ports to those that it names."""
    for name, data, _raw_bytes in expressions_of(expressions):
        if n.NFTA_REG_PROTO_MIN.get(name) in data:
            return True
        if name == "target" and text_of(data[n.NFTA_TARGET_NAME]) in _TRANSLATING:
            # struct nf_nat_range, or in revision 0 for IPv4 nf_nat_ipv4_multi_range_compat: its flags, in host order
            start = 4 if family == n.NFPROTO_IPV4 and not number_of(data.get(n.NFTA_TARGET_REV)) else 0
            flags = int.from_bytes(data[n.NFTA_TARGET_INFO][start : start + 4], sys.byteorder)
            if flags & n.NF_NAT_RANGE_PROTO_SPECIFIED:
                return True
    return False


#: The chains for packets that pass all rules: to the host itself, and out of it.
DELIVERED, LEFT = "delivered", "left"
#: The chain that every packet of a link passes first.
RECEIVED = "received"
#: The chains for those of them that are untracked.
UNTRACKED_CHAINS = ("untracked_in", "untracked_out")
#: The last priority before the kernel confirms an entry.
_LAST = 0x7FFFFFFE
#: The chains of the own table: hook, priority, name. The last ones come directly before the entry is confirmed.
_OWN_CHAINS = (
    (n.NF_INET_PRE_ROUTING, -350, RECEIVED),
    (n.NF_INET_LOCAL_OUT, -350, "sent"),
    (n.NF_INET_LOCAL_IN, _LAST, DELIVERED),
    (n.NF_INET_POST_ROUTING, _LAST, LEFT),
)


def send(netlink: NetlinkSocket, requests: Iterator[Message]) -> None:
    """Send requests to nf_tables in transactions. Raises `KernelError` for the first one that the kernel refuses."""
    batch: list[Message] = []
    size = 0
    for request in requests:
        batch.append(request)
        size += len(request.payload) + 32
        if size > _BATCH:
            _transaction(netlink, batch)
            batch, size = [], 0
    if batch:
        _transaction(netlink, batch)


def _transaction(netlink: NetlinkSocket, requests: Sequence[Message]) -> None:
    refusal, request = send_transaction(netlink, n.NFNL_SUBSYS_NFTABLES, requests)
    if refusal is not None:
        raise kernel_error(f"copying {_describe(request)}", refusal.errno, refusal.text)


def _describe(request: Message | None) -> str:
    """Return what a request is about, for an error: `the rule 3 in table inet filter`."""
    if request is None:
        return "the ruleset"
    kind = {
        n.NFT_MSG_NEWTABLE: "a table",
        n.NFT_MSG_NEWCHAIN: "a chain",
        n.NFT_MSG_NEWSET: "a set",
        n.NFT_MSG_NEWSETELEM: "elements of a set",
        n.NFT_MSG_NEWOBJ: "an object",
        n.NFT_MSG_NEWFLOWTABLE: "a flowtable",
        n.NFT_MSG_NEWRULE: "a rule",
    }[request.type]
    parsed = attributes_of(request.payload, _HEADER)
    table = f"table {FAMILY_NAMES[request.payload[0]]} {text_of(parsed[1])}"
    if request.type == n.NFT_MSG_NEWRULE:
        names = ", ".join(name for name, _data, _raw_bytes in expressions_of(parsed[n.NFTA_RULE_EXPRESSIONS]))
        return f"a rule ({names}) of the chain {text_of(parsed[n.NFTA_RULE_CHAIN])} of {table}"
    return f"{kind} of {table}"


def _request(kind: int, family: int, body: bytes, flags: int = uapi.NLM_F_CREATE) -> Message:
    return Message(kind, flags, nfgenmsg(family) + body)


def _picked(message: Message, numbers: Sequence[int]) -> bytes:
    return _raw(message.payload, _HEADER, frozenset(numbers))


def _raw(data: bytes, start: int, numbers: frozenset[int]) -> bytes:
    """Return some attributes with their headers, as they are."""
    return b"".join(
        data[begin - 4 : end + 3 & ~3] if end + 3 & ~3 <= len(data) else data[begin - 4 : end] + bytes(-end % 4)
        for number, begin, end in attributes(data, start, len(data))
        if number in numbers
    )


def _flowtable(message: Message) -> bytes:
    """Return the attributes of a flowtable without devices: packets in the copy do not go through it."""
    hook = attributes_of(message.payload, _HEADER)[n.NFTA_FLOWTABLE_HOOK]
    place = _raw(hook, 0, frozenset({n.NFTA_FLOWTABLE_HOOK_NUM, n.NFTA_FLOWTABLE_HOOK_PRIORITY}))
    names = _picked(message, (n.NFTA_FLOWTABLE_TABLE, n.NFTA_FLOWTABLE_NAME))
    return names + nested(n.NFTA_FLOWTABLE_HOOK, place)


def _acceptable(expressions: bytes) -> bytes:
    """Return the expressions of a rule as the kernel accepts them.

    It dumps a timeout of 0 for an update of a set without timeouts, and refuses it.
    """
    accepted = b""
    for name, data, raw in expressions_of(expressions):
        if name == "dynset" and not any(data.get(n.NFTA_DYNSET_TIMEOUT, b"")):
            whole = attributes_of(raw, ATTRIBUTE.size)[n.NFTA_EXPR_DATA]
            accepted += expression(name, _raw(whole, 0, frozenset(data) - {n.NFTA_DYNSET_TIMEOUT}))
        else:
            accepted += raw
    return accepted


def _object(message: Message) -> bytes:
    """Return the attributes of an object. Entries with a timeout policy expire at once, as all others in the copy."""
    parsed = attributes_of(message.payload, _HEADER)
    if number_of(parsed.get(n.NFTA_OBJ_TYPE)) != n.NFT_OBJECT_CT_TIMEOUT:
        return _picked(message, _OBJECT)
    data = parsed[n.NFTA_OBJ_DATA]
    states = attributes_of(attributes_of(data, 0).get(n.NFTA_CT_TIMEOUT_DATA, b""), 0)
    policy = nested(n.NFTA_CT_TIMEOUT_DATA, b"".join(attribute(state, bytes(4)) for state in states))
    protocols = _raw(data, 0, frozenset({n.NFTA_CT_TIMEOUT_L3PROTO, n.NFTA_CT_TIMEOUT_L4PROTO}))
    names = _picked(message, (n.NFTA_OBJ_TABLE, n.NFTA_OBJ_NAME, n.NFTA_OBJ_TYPE))
    return names + nested(n.NFTA_OBJ_DATA, protocols + policy)


def _compat(family: int, expressions: bytes) -> bytes:
    """Return the attribute for the protocol of a rule with matches of x_tables, which the kernel does not dump.

    They check it: `multiport` and `REJECT --reject-with tcp-reset` are refused without it.
    """
    listed = list(expressions_of(expressions))
    if not any(name in ("match", "target") for name, _data, _raw_bytes in listed):
        return b""
    protocol, inverted, loaded = 0, False, False
    for name, data, _raw_bytes in listed:
        if name == "meta" and n.NFTA_META_KEY in data:
            loaded = number_of(data[n.NFTA_META_KEY]) == n.NFT_META_L4PROTO
        elif name == "payload" and n.NFTA_PAYLOAD_BASE in data:
            keys = (n.NFTA_PAYLOAD_BASE, n.NFTA_PAYLOAD_OFFSET, n.NFTA_PAYLOAD_LEN)
            loaded = tuple(number_of(data[key]) for key in keys) == (
                n.NFT_PAYLOAD_NETWORK_HEADER,
                9 if family == n.NFPROTO_IPV4 else 6,
                1,
            )
        elif name == "cmp" and loaded:
            value = attributes_of(data[n.NFTA_CMP_DATA], 0).get(n.NFTA_DATA_VALUE, b"\0")
            protocol, inverted = value[0], number_of(data[n.NFTA_CMP_OP]) == n.NFT_CMP_NEQ
            break
        else:
            loaded = False
    body = u32(n.NFTA_RULE_COMPAT_PROTO, protocol) + u32(n.NFTA_RULE_COMPAT_FLAGS, 2 if inverted else 0)
    return nested(n.NFTA_RULE_COMPAT, body)


def comment_of(userdata: bytes) -> str:
    """Return the comment in the user data of a rule, "" if there is none. The format is that of libnftnl."""
    position = 0
    while position + 2 <= len(userdata):
        kind, size = userdata[position], userdata[position + 1]
        if kind == n.NFTNL_UDATA_RULE_COMMENT:
            return text_of(userdata[position + 2 : position + 2 + size])
        position += 2 + size
    return ""


def _matched_comment(expressions: bytes) -> str:
    """Return the comment of a rule of iptables-nft, which is a match, "" if there is none."""
    for name, data, _raw_bytes in expressions_of(expressions):
        if name == "match" and text_of(data[n.NFTA_MATCH_NAME]) == "comment":
            return text_of(data[n.NFTA_MATCH_INFO].partition(b"\0")[0])
    return ""


def _name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"
