# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test without a kernel which messages count as changes of the configuration; a missed one leaves stale flows."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, Iterable

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import NotPermitted, Unavailable
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import attribute
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkTransport
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate import numbers as n
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.changes import (
    Change,
    NetworkChanges,
    Process,
    RulesetChanges,
)
from ansible_collections.netops.conntrack.tests.unit.support import classic_bpf, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import (
    DUMP,
    MULTI,
    FakeDatagrams,
    FakeMulticast,
    Reply,
    done,
    refusal,
)

INTERRUPTED = 0x10
ALL = ("address", "route", "rule", "link")
NFGENMSG = b"\0\0\0\0"


class Host:
    """A fake kernel. `links` and `addresses` are the payloads that it dumps, `refusing` is the errno of nf_tables.

    The next dumps are `interrupted` by changes, or their answers are `lost`.
    """

    def __init__(self, *links: bytes) -> None:
        self.links = list(links)
        self.addresses: list[bytes] = []
        self.interrupted = self.lost = 0
        self.refusing = 0
        self.sockets: list[Any] = []

    @property
    def events(self) -> FakeMulticast:
        (found,) = (each for each in self.sockets if isinstance(each, FakeMulticast))
        return found

    def connect(self, **options: Any) -> NetlinkTransport:
        self.sockets.append(FakeMulticast(**options) if "groups" in options else FakeDatagrams(self.answer))
        return self.sockets[-1]

    def answer(self, request: wire.Framed) -> Iterable[Reply]:
        if request.type == n.NFT_MSG_GETGEN:
            assert not request.flags & DUMP
            yield wire.framed(n.NFT_MSG_NEWGEN, 0, request.sequence, NFGENMSG)
            yield refusal(request, self.refusing)
            return
        kind, found = {
            n.RTM_GETLINK: (n.RTM_NEWLINK, self.links),
            n.RTM_GETADDR: (n.RTM_NEWADDR, self.addresses),
        }[request.type]
        self.interrupted, flags = max(0, self.interrupted - 1), MULTI | (INTERRUPTED if self.interrupted else 0)
        self.lost = max(0, self.lost - 1)
        if self.lost:
            yield OSError(errno.ENOBUFS, "lost")
            return
        for payload in found:
            yield wire.framed(kind, flags, request.sequence, payload)
        yield done(request)

    def kinds(self, changes: NetworkChanges, kind: int, payload: bytes) -> list[str]:
        """Return the kinds of changes that a message reports."""
        self.events.put(wire.framed(kind, 0, 0, payload))
        return [change.kind for change in changes.receive(10)]


def link(name: str = "wan", up: bool = True, index: int = 7, family: int = 0, flags: int = 0, **more: bytes) -> bytes:
    header = struct.pack("=BxHiII", family, 1, index, (n.IFF_UP if up else 0) | flags, 0)
    attributes = {"IFLA_IFNAME": name.encode() + b"\0", **more}
    return header + b"".join(attribute(getattr(n, key), value) for key, value in attributes.items())


def address(last: int = 1, flags: int = n.IFA_F_PERMANENT, lifetime: int = 0xFFFFFFFF, index: int = 7) -> bytes:
    value = bytes([203, 0, 113, last])
    cache = attribute(n.IFA_CACHEINFO, struct.pack("=IIII", lifetime, lifetime, 5, lifetime & 0xFF))
    return (
        struct.pack("=BBBBI", socket.AF_INET, 24, flags & 0xFF, 0, index)
        + attribute(n.IFA_ADDRESS, value)
        + attribute(n.IFA_LOCAL, value)
        + attribute(n.IFA_FLAGS, struct.pack("=I", flags))
        + cache
    )


def route(
    table: int = 254, protocol: int = 3, kind: int = n.RTN_UNICAST, flags: int = 0, by_link: int | None = None
) -> bytes:
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, table, protocol, 0, kind, flags)
    payload = header + attribute(n.RTA_DST, bytes([192, 0, 2, 0]))
    return payload if by_link is None else payload + attribute(n.RTA_OIF, struct.pack("=I", by_link))


def bridge(index: int = 3, up: bool = True) -> bytes:
    return link("docker0", up, index, IFLA_LINKINFO=attribute(n.IFLA_INFO_KIND, b"bridge\0"))


def port(index: int = 9, up: bool = True) -> bytes:
    return link(f"veth{index}", up, index, IFLA_MASTER=struct.pack("=I", 3))


def generation(*attributes: bytes) -> bytes:
    return wire.framed(n.NFT_MSG_NEWGEN, 0, 0, NFGENMSG + attribute(n.NFTA_GEN_ID, b"\0\0\0\7") + b"".join(attributes))


def test_a_transaction_of_the_ruleset_is_one_change() -> None:
    host = Host()
    with RulesetChanges(4096, host.connect) as changes:
        assert changes.receive(10) == []
        name = attribute(n.NFTA_GEN_PROC_NAME, b"nft\0")
        host.events.put(generation(attribute(n.NFTA_GEN_PROC_PID, b"\0\0\x12\x67"), name))
        host.events.put(generation())
        host.events.put(wire.framed(n.NFT_MSG_NEWTABLE, 0, 0, NFGENMSG))
        assert changes.receive(10) == [Change("ruleset", Process("nft", 4711)), Change("ruleset")]
        assert host.events.options["groups"] == (n.NFNLGRP_NFTABLES,)
        assert host.events.options["receive_buffer"] == 4096
    assert all(each.closed for each in host.sockets)


def test_only_the_end_of_a_transaction_reaches_the_socket() -> None:
    """The messages of thousands of rules would fill the receive buffer."""
    host = Host()
    RulesetChanges(4096, host.connect).close()
    program = host.events.options["program"]
    classic_bpf.check(program)
    for kind in range(n.NFT_MSG_NEWTABLE, n.NFT_MSG_GETOBJ + 1):
        assert classic_bpf.run(program, wire.framed(kind, 0, 0, NFGENMSG)) == (kind == n.NFT_MSG_NEWGEN)


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        (
            errno.EINVAL,
            Unavailable,
            "reading the ruleset: Invalid argument (EINVAL). The kernel has no nf_tables: load its module (modprobe",
        ),
        (errno.EPERM, NotPermitted, "reading the ruleset: Operation not permitted (EPERM). This needs CAP_NET_ADMIN"),
    ],
)
def test_ruleset_that_cannot_be_watched_is_an_error(code: int, error: type[Exception], sentence: str) -> None:
    host = Host()
    host.refusing = code
    with pytest.raises(error) as caught:
        RulesetChanges(4096, host.connect)
    assert str(caught.value).startswith(sentence)
    assert all(each.closed for each in host.sockets)


@pytest.mark.parametrize(
    ("kinds", "groups"),
    [
        (("link",), {n.RTNLGRP_LINK}),
        (("address",), {n.RTNLGRP_IPV4_IFADDR, n.RTNLGRP_IPV6_IFADDR}),
        (("route",), {n.RTNLGRP_IPV4_ROUTE, n.RTNLGRP_IPV6_ROUTE, n.RTNLGRP_NEXTHOP}),
        (("rule",), {n.RTNLGRP_IPV4_RULE, n.RTNLGRP_IPV6_RULE}),
    ],
)
def test_groups(kinds: tuple[str, ...], groups: set[int]) -> None:
    host = Host(link())
    with NetworkChanges(kinds, 4096, host.connect):
        assert set(host.events.options["groups"]) == groups
        assert host.events.options["protocol"] == n.NETLINK_ROUTE


def test_links() -> None:
    host = Host(link(), link("eth1", index=8))
    with NetworkChanges(("link",), 4096, host.connect) as changes:
        for payload, kinds in [
            (link(flags=0x10040), []),  # only the carrier has changed
            (link(IFLA_WIRELESS=b"\0" * 8, IFLA_MASTER=struct.pack("=I", 8)), []),
            (link(family=socket.AF_BRIDGE, IFLA_MASTER=struct.pack("=I", 8)), []),
            (link(up=False), ["link"]),
            (link(up=False), []),
            (link(), ["link"]),
            (link("uplink"), ["link"]),
            (link("uplink", IFLA_MASTER=struct.pack("=I", 8)), ["link"]),
            (link("uplink", IFLA_MASTER=struct.pack("=I", 8), IFLA_GROUP=struct.pack("=I", 3)), ["link"]),
            (link("ppp0", index=9), ["link"]),
        ]:
            assert host.kinds(changes, n.RTM_NEWLINK, payload) == kinds, payload
        assert host.kinds(changes, n.RTM_DELLINK, link("ppp0", index=9, family=socket.AF_BRIDGE)) == []
        assert host.kinds(changes, n.RTM_DELLINK, link("ppp0", index=9)) == ["link"]
        assert host.kinds(changes, n.RTM_NEWLINK, link("ppp0", index=9)) == ["link"]
        assert host.kinds(changes, n.RTM_NEWADDR, address()) == []


def test_link_that_is_down_is_not_a_change() -> None:
    """No packet passes such a link. Each start of a container creates two links and moves one to another namespace."""
    host = Host(link(), link("old", up=False, index=8))
    with NetworkChanges(("link",), 4096, host.connect) as changes:
        for kind, payload, kinds in [
            (n.RTM_NEWLINK, link("veth9", up=False, index=9), []),
            (n.RTM_NEWLINK, link("eth0", up=False, index=9), []),
            (n.RTM_DELLINK, link("eth0", up=False, index=9), []),
            (n.RTM_DELLINK, link("old", up=False, index=8), []),
            (n.RTM_NEWLINK, link("veth10", up=False, index=10), []),
            (n.RTM_NEWLINK, link("veth10", index=10), ["link"]),
            (n.RTM_NEWLINK, link("veth10", up=False, index=10), ["link"]),
            (n.RTM_DELLINK, link("veth10", up=False, index=10), []),
            (n.RTM_DELLINK, link(), ["link"]),
        ]:
            assert host.kinds(changes, kind, payload) == kinds, (kind, payload)


@pytest.mark.parametrize("later", [False, True], ids=["listed first", "listed last"])
def test_port_of_a_bridge_is_not_a_change(later: bool) -> None:
    """While a container runs, its packets arrive through the bridge.

    A port without a bridge receives its own packets.
    """
    host = Host(*([port(8), bridge()] if later else [bridge(), port(8)]))
    host.addresses = [address(index=8)]
    alone = link("veth9", index=9)
    with NetworkChanges(ALL, 4096, host.connect) as changes:
        for kind, payload, kinds in [
            (n.RTM_NEWLINK, port(up=False), []),
            (n.RTM_NEWLINK, port(), []),
            (n.RTM_NEWADDR, address(7, index=9), []),
            (n.RTM_NEWROUTE, route(by_link=9), []),
            (n.RTM_NEWROUTE, route(by_link=3), ["route"]),
            (n.RTM_NEWLINK, port(up=False), []),
            (n.RTM_DELROUTE, route(by_link=9), []),
            (n.RTM_NEWLINK, port(), []),
            (n.RTM_NEWLINK, alone, ["link"]),
            (n.RTM_DELADDR, address(7, index=9), ["address"]),
            (n.RTM_NEWROUTE, route(by_link=9), ["route"]),
            (n.RTM_NEWLINK, port(), ["link"]),
            (n.RTM_DELLINK, port(), []),
            (n.RTM_NEWROUTE, route(by_link=9), ["route"]),
            (n.RTM_DELADDR, address(index=8), []),
            (n.RTM_NEWLINK, port(8, up=False), []),
            (n.RTM_NEWLINK, bridge(up=False), ["link"]),
        ]:
            assert host.kinds(changes, kind, payload) == kinds, (kind, payload)


def test_without_links_every_address_and_route_is_a_change() -> None:
    host = Host(bridge(), port())
    with NetworkChanges(("address", "route"), 4096, host.connect) as changes:
        assert host.kinds(changes, n.RTM_NEWADDR, address(7, index=9)) == ["address"]
        assert host.kinds(changes, n.RTM_NEWROUTE, route(by_link=9)) == ["route"]


def test_addresses() -> None:
    host = Host()
    host.addresses = [address(flags=0, lifetime=3600), address(2)]
    with NetworkChanges(("address",), 4096, host.connect) as changes:
        for payload, kinds in [
            (address(flags=0, lifetime=7200), []),
            (address(3, flags=n.IFA_F_TENTATIVE), ["address"]),
            (address(3, flags=0), []),
            (address(3, flags=n.IFA_F_DEPRECATED), ["address"]),
            (address(2, index=8), ["address"]),
        ]:
            assert host.kinds(changes, n.RTM_NEWADDR, payload) == kinds, payload
        assert host.kinds(changes, n.RTM_DELADDR, address(2)) == ["address"]
        assert host.kinds(changes, n.RTM_NEWADDR, address(2)) == ["address"]


def test_routes_and_rules() -> None:
    host = Host(link())
    with NetworkChanges(ALL, 4096, host.connect) as changes:
        for payload, kinds in [
            (route(), ["route"]),
            (route(table=n.RT_TABLE_LOCAL), ["route"]),
            (route(protocol=n.RTPROT_KERNEL), ["route"]),
            (route(table=n.RT_TABLE_LOCAL, protocol=n.RTPROT_KERNEL, kind=n.RTN_LOCAL), []),
            (route(flags=n.RTM_F_CLONED), []),
        ]:
            for kind in (n.RTM_NEWROUTE, n.RTM_DELROUTE):
                assert host.kinds(changes, kind, payload) == kinds, payload
        for kind in (n.RTM_NEWNEXTHOP, n.RTM_DELNEXTHOP):
            assert host.kinds(changes, kind, bytes(8)) == ["route"]
        for kind in (n.RTM_NEWRULE, n.RTM_DELRULE):
            assert host.kinds(changes, kind, bytes(12)) == ["rule"]
        assert host.kinds(changes, 116, bytes(8)) == [], "a bucket of a resilient group"


def test_an_overrun_is_a_change_of_every_kind() -> None:
    host = Host(link())
    with NetworkChanges(ALL, 4096, host.connect) as changes:
        host.events.put(wire.framed(n.RTM_NEWRULE, 0, 0, bytes(12)))
        host.links = [link("uplink")]
        host.events.overrun()
        host.events.put(wire.framed(n.RTM_NEWRULE, 0, 0, bytes(12)))
        assert changes.receive(10) == [*(Change(kind, lost=True) for kind in ALL), Change("rule")]
        assert host.kinds(changes, n.RTM_NEWLINK, link("uplink")) == [], "the links were read again"
        assert host.kinds(changes, n.RTM_NEWLINK, link()) == ["link"]
    ruleset = Host()
    with RulesetChanges(4096, ruleset.connect) as changes_of_ruleset:
        ruleset.events.overrun()
        assert changes_of_ruleset.receive(10) == [Change("ruleset", lost=True)]


@pytest.mark.parametrize("lost", [False, True], ids=["changes", "lost answers"])
@pytest.mark.parametrize(("times", "kinds"), [(4, []), (100, ["link"])], ids=["some times", "each time"])
def test_every_message_is_a_change_if_links_cannot_be_read(times: int, kinds: list[str], lost: bool) -> None:
    """If each attempt fails, the subscription ignores no message."""
    host = Host(link())
    host.interrupted, host.lost = (0, times) if lost else (times, 0)
    with NetworkChanges(("link",), 4096, host.connect) as changes:
        assert host.kinds(changes, n.RTM_NEWLINK, link()) == kinds
        assert host.kinds(changes, n.RTM_NEWLINK, link()) == []
        assert host.kinds(changes, n.RTM_NEWLINK, link("eth1", up=False, index=8)) == kinds


def test_a_flood_is_read_in_portions() -> None:
    host = Host()
    with NetworkChanges(("rule",), 4096, host.connect) as changes:
        for _number in range(25):
            host.events.put(wire.framed(n.RTM_NEWRULE, 0, 0, bytes(12)))
        assert [len(changes.receive(10)) for _portion in range(4)] == [10, 10, 5, 0]
