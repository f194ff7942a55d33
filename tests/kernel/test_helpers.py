# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's connection tracking helpers with real traffic through a gateway with source NAT.

Every helper is tested in each aspect: the expectation, the related entry, NAT, the removal of expectations by their
master, and a snapshot of both. `test_ftp.py` has FTP. conntrack(8) must show the same as the collection.
"""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import (
    ExpectationDeletionPlan,
    flush,
)
from ansible_collections.netops.conntrack.plugins.module_utils._operations.info import TABLES, collect
from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import Snapshot
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.restore import restore
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import NotFound, Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests.lab import Gateway, Lab, Namespace
from tests.lab.namespace import LASTING
from tests.lab.protocols import PROTOCOLS, Broadcast, Conversation, Host, NetbiosNs, Snmp, SnmpTrap

Document = dict[str, Any]

FAMILIES = ("ipv4", "ipv6")
CLIENTS = {"ipv4": Gateway.CLIENTS, "ipv6": ("2001:db8:1::2", "2001:db8:2::2")}
OUTSIDE = {"ipv4": Gateway.OUTSIDE[0], "ipv6": Gateway.OUTSIDE_IPV6[0]}
SERVER = {"ipv4": Gateway.SERVER, "ipv6": Gateway.SERVER_IPV6}
NO_LABELS = LabelMap()
#: Seconds after which a packet counts as dropped.
DROPPED = 0.4
#: Seconds that the kernel expects answers to a broadcast: the default of nf_conntrack_netbios_ns and nf_conntrack_snmp.
SHORTEST = 3.0

#: The cells that Linux lacks, by protocol, family and aspect, with the source that shows it. The aspect None stands for
#: all aspects.
ABSENT: dict[tuple[str, str, str | None], str] = {
    ("dcc-send", "ipv6", None): "net/netfilter/nf_conntrack_irc.c registers AF_INET only: DCC has no IPv6 addresses",
    ("dcc-chat", "ipv6", None): "net/netfilter/nf_conntrack_irc.c registers AF_INET only: DCC has no IPv6 addresses",
    ("pptp", "ipv6", None): "net/netfilter/nf_conntrack_pptp.c registers AF_INET only",
    ("netbios-ns", "ipv6", None): "net/netfilter/nf_conntrack_netbios_ns.c registers NFPROTO_IPV4 only",
    ("snmp", "ipv6", None): "net/netfilter/nf_conntrack_snmp.c registers NFPROTO_IPV4 only",
    ("netbios-ns", "ipv4", "nat"): "net/netfilter/nf_conntrack_broadcast.c: only packets that the host itself sends",
    ("snmp", "ipv4", "nat"): "net/netfilter/nf_conntrack_broadcast.c: only packets that the host itself sends",
    ("q931", "ipv6", "nat"): "net/netfilter/nf_conntrack_h323_main.c calls nf_nat_h323 for NFPROTO_IPV4 only",
    ("ras", "ipv6", "nat"): "net/netfilter/nf_conntrack_h323_main.c calls nf_nat_h323 for NFPROTO_IPV4 only",
}
#: The helpers whose snapshots lose data because the kernel does not return it, with the source.
LOST_BY_RESTORE = {
    "pptp": "net/netfilter/nf_conntrack_proto_gre.c: the keys of GRE packets come from a map that netlink cannot fill",
    "q931": "net/netfilter/nf_conntrack_netlink.c: netlink has no helper of the connection that is expected",
    "ras": "net/netfilter/nf_conntrack_netlink.c: netlink has no helper of the connection that is expected",
}


def cells(aspect: str) -> list[Any]:
    """Return the protocols and families in which the kernel has an aspect."""
    return [
        pytest.param(protocol, family, id=f"{protocol}-{family}")
        for protocol in PROTOCOLS
        for family in FAMILIES
        if not {(protocol, family, None), (protocol, family, aspect)} & set(ABSENT)
    ]


class Network(NamedTuple):
    """Create one network for all tests of this file, because this takes longer than a test."""

    topology: Gateway
    #: The helpers for which the gateway has rules.
    assigned: set[str]


@pytest.fixture(scope="module")
def network(root: None) -> Iterator[Network]:
    with Lab() as lab:
        topology = lab.gateway_topology()
        for address in CLIENTS["ipv6"]:  # without NAT, the server needs a route to the clients
            topology.server.route(str(ipaddress.ip_network(f"{address}/64", strict=False)), via=OUTSIDE["ipv6"])
        yield Network(topology, set())


@pytest.fixture
def gateway(network: Network) -> Iterator[Namespace]:
    """Return the gateway, with empty tables and the initial rules."""
    yield network.topology.gateway
    network.topology.gateway.conntrack("-F")


@pytest.fixture
def table(gateway: Namespace) -> Iterator[Table]:
    with gateway.entered(), Table() as table:
        yield table


Converse = Callable[..., Conversation]


@pytest.fixture
def converse(network: Network, gateway: Namespace) -> Iterator[Converse]:
    """Start a conversation between the client of this number and the server, and announce a connection.

    If the kernel does not translate the announced address in a family, the gateway does not use NAT in that family,
    unless the caller requires it.
    """
    topology, assigned = network
    clients = (topology.client1, topology.client2)
    with contextlib.ExitStack() as closing:

        def converse(kind: type[Conversation], family: str, number: int = 0, require_nat: bool = False) -> Conversation:
            if kind.helper not in assigned:
                try:
                    gateway.nft(kind.rules())
                except subprocess.CalledProcessError as error:
                    pytest.skip(f"this kernel has no helper {kind.helper}: {error.stderr}")
                assigned.add(kind.helper)
            outside = OUTSIDE[family]
            client = Host(CLIENTS[family][number], clients[number].entered)
            if kind.local:
                client = Host(outside, gateway.entered)
            elif family not in kind.translated and not require_nat:
                gateway.firewall.clear("snat")
                closing.callback(topology.translate_to, 0)
                outside = client.address
            server = Host(SERVER[family], topology.server.entered)
            conversation = closing.enter_context(kind(client, server, outside))
            announce(gateway, conversation)
            return conversation

        yield converse


def announce(gateway: Namespace, conversation: Conversation) -> None:
    """Announce a connection, and extend an expectation that lasts `SHORTEST` seconds.

    If the machine stands still in between, the expectation expires, and the connection is announced again.
    """
    while True:
        began = time.monotonic()
        conversation.announce()
        if not isinstance(conversation, Broadcast):
            return
        with gateway.entered(), Table() as table:
            found = list(expectation.read_all(table))
            with contextlib.suppress(NotFound):
                for one in found:
                    expectation.update(table, {**one, "timeout": LASTING})
                if found:
                    return
        if time.monotonic() - began < SHORTEST:
            return  # nothing was expected


@contextlib.contextmanager
def only_related_packets(gateway: Namespace) -> Iterator[None]:
    """Drop new packets, except for related connections."""
    try:
        for chain in ("forward", "input"):
            gateway.firewall.drop(chain, "new")
        yield
    finally:
        for chain in ("forward", "input"):
            gateway.firewall.clear(chain)


def read(table: Table, name: str, match: Any = None) -> list[Document]:
    """Return the entries or expectations that conntrack_info reads."""
    resource = resource_of(name)
    wanted = EVERYTHING if match is None else resource.parse_match(match, NO_LABELS, "match")
    entries: list[Document] = collect(TABLES[name](table, wanted), None, False, 100, NO_LABELS, resource)["entries"]
    return entries


def control(table: Table, conversation: Conversation) -> Document:
    """Return the entry of the connection that the helper follows."""
    own = {"helper": conversation.helper, "source_port": conversation.control_port}
    (entry,) = read(table, "conntrack", own)
    return entry


def ordered(tuples: Any) -> list[Document]:
    return sorted(tuples, key=lambda one: sorted(map(str, one.items())))


def tuples_of(expectations: list[Document], part: str = "tuple") -> list[Document]:
    return ordered(one[part] for one in expectations)


def named(entry: Document) -> Document:
    """Return the tuple by which expectations and related entries refer to this entry."""
    return {"protocol": entry["protocol"], **entry["original"]}


def check_conntrack_shows(namespace: Namespace, expectations: list[Document]) -> None:
    """Verify that conntrack(8) shows these expectations, and no others."""
    seen = namespace.expectations()
    for part in ("tuple", "mask", "master"):
        without = [{part: {key: one[part][key] for key in one[part] if key != "protocol"}} for one in expectations]
        assert tuples_of(seen, part) == tuples_of(without, part)
    assert sorted((one["protocol"], one["helper"], one["class"], *one["flags"]) for one in seen) == sorted(
        (one["tuple"]["protocol"], one["helper"], one["class"], *one["flags"]) for one in expectations
    )


def related_to(table: Table, entry: Document) -> Document:
    """Return the only expected entry. It must have this entry as its master."""
    (related,) = read(table, "conntrack", {"expected": True})
    assert related["master"] == named(entry)
    assert [one["id"] for one in read(table, "conntrack", {"master": named(entry)})] == [related["id"]]
    assert "expected" in related["status"]
    return related


@pytest.mark.parametrize(("protocol", "family"), cells("expectation"))
def test_expectations_name_their_master(
    gateway: Namespace, table: Table, converse: Converse, protocol: str, family: str
) -> None:
    conversation = converse(PROTOCOLS[protocol], family)
    entry = control(table, conversation)
    expected = read(table, "expect", {"helper": conversation.helper, "family": family})
    assert tuples_of(expected) == ordered(conversation.expected())
    assert expected == read(table, "expect")
    assert {one["family"] for one in expected} == {family}
    check_conntrack_shows(gateway, expected)
    for one in expected:
        assert one["master"] == named(entry)
        # The tuple of a master is a match for the master, and for no other entry
        (master,) = read(table, "conntrack", one["master"])
        assert master["id"] == entry["id"]


@pytest.mark.parametrize(("protocol", "family"), cells("related"))
def test_the_related_entry_names_its_master(
    gateway: Namespace, table: Table, converse: Converse, protocol: str, family: str
) -> None:
    conversation = converse(PROTOCOLS[protocol], family)
    entry = control(table, conversation)
    wanted = {key: value for key, value in conversation.related().items() if value != 0}
    conversation.follow()
    related = related_to(table, entry)
    assert named(related).items() >= wanted.items()
    assert related.get("helper") == conversation.next_helper
    (seen,) = (flow for flow in gateway.table() if flow["id"] == related["id"])
    assert (seen["original"], seen["reply"]) == (related["original"], related["reply"])
    assert (seen["protocol"], "seen_reply" in seen["status"]) == (related["protocol"], True)
    (master,) = read(table, "conntrack", related["master"])
    assert master["id"] == entry["id"]
    remaining = read(table, "expect")
    assert tuples_of(remaining) == ordered(conversation.left())
    check_conntrack_shows(gateway, remaining)


@pytest.mark.parametrize(("protocol", "family"), cells("nat"))
def test_related_connection_has_nat(
    gateway: Namespace, table: Table, converse: Converse, protocol: str, family: str
) -> None:
    conversation = converse(PROTOCOLS[protocol], family)
    client, outside = conversation.client.address, conversation.outside
    entry = control(table, conversation)
    assert entry["nat"]["source"]["address"] == outside
    for one in read(table, "expect"):
        if conversation.helper == "sane":
            assert "nat" not in one  # Linux has no nf_nat_sane, so the rules apply NAT to the related connection
            continue
        assert one["nat"]["direction"] == ("original" if one["tuple"]["source"] == client else "reply")
        if one["nat"]["direction"] == "original" or conversation.helper == "sip":
            assert one["nat"]["tuple"]["source"] in (client, "0.0.0.0", "::")
    conversation.follow()
    related = related_to(table, entry)
    if related["original"]["source"] == client:
        assert list(related["nat"]) == ["source"]
        assert related["nat"]["source"]["address"] == related["reply"]["destination"] == outside
    else:
        assert list(related["nat"]) == ["destination"]
        assert related["original"]["destination"] == outside
        assert related["nat"]["destination"]["address"] == related["reply"]["source"] == client
    (seen,) = (flow for flow in gateway.table() if flow["id"] == related["id"])
    assert (seen["original"], seen["reply"]) == (related["original"], related["reply"])


@pytest.mark.parametrize(("protocol", "family"), cells("flush"))
def test_expectations_are_removed_by_their_master(
    gateway: Namespace, table: Table, converse: Converse, protocol: str, family: str
) -> None:
    """The gateway accepts only related connections. It drops the connection whose expectation was removed."""
    kind = PROTOCOLS[protocol]
    flushed, kept = converse(kind, family), converse(kind, family, 1)
    with only_related_packets(gateway):
        entry = control(table, flushed)
        others = [one for one in read(table, "expect") if one["master"] != named(entry)]
        assert tuples_of(others) == ordered(kept.expected())
        match = expectation.parse_match({"master": named(entry)}, NO_LABELS)
        for check_mode in (True, False):
            result = flush(ExpectationDeletionPlan(table, match), check_mode=check_mode)
            assert (result["flushed"], result["gone"]) == (len(flushed.expected()), 0)
            assert tuples_of(result["entries"]) == ordered(flushed.expected())
        assert tuples_of(read(table, "expect")) == ordered(kept.expected())
        check_conntrack_shows(gateway, others)
        with pytest.raises(TimeoutError):
            flushed.follow(timeout=DROPPED)
        assert read(table, "conntrack", {"expected": True}) == []
        kept.follow()
        related_to(table, control(table, kept))
        assert len(read(table, "conntrack", {"helper": flushed.helper, "expected": False})) == 2


@pytest.mark.parametrize(("protocol", "family"), cells("restore"))
def test_expectations_are_saved_and_restored(
    gateway: Namespace, table: Table, converse: Converse, tmp_path: Path, protocol: str, family: str
) -> None:
    """The snapshot has the entries and the expectations, and the gateway continues in the same state."""

    def lasting(documents: list[Document]) -> list[Document]:
        changing = ("id", "use", "timeout", "status", "tcp", "sequence_adjustment")
        return ordered({key: value for key, value in one.items() if key not in changing} for one in documents)

    conversation = converse(PROTOCOLS[protocol], family)
    entry = control(table, conversation)
    entries, expected = lasting(read(table, "conntrack")), read(table, "expect")
    path = str(tmp_path / "snapshot.gz")
    done = save(table, path, EVERYTHING, NO_LABELS, False)
    assert (done["snapshot"]["entries"], done["snapshot"]["expectations"]) == (len(entries), len(expected))
    with only_related_packets(gateway):  # a delayed acknowledgement would create the entry
        gateway.conntrack("-F")
        assert (read(table, "conntrack"), gateway.expectations()) == ([], [])
        with Snapshot(path) as snapshot:
            done = restore(table, snapshot, EVERYTHING, Policy(on_existing="keep"), NO_LABELS)
        assert (done["counts"]["created"], done["expectation_counts"]["created"]) == (len(entries), len(expected))
        assert lasting(read(table, "conntrack")) == entries
        assert lasting(read(table, "expect")) == lasting(expected)
        check_conntrack_shows(gateway, expected)
    if protocol == "pptp":
        with pytest.raises(TimeoutError):
            conversation.follow(timeout=DROPPED)
        assert read(table, "conntrack", {"expected": True}) == []
        return
    conversation.follow()
    related = related_to(table, entry)
    assert "helper" not in related
    assert (protocol in LOST_BY_RESTORE) == (conversation.next_helper is not None)


def test_a_family_without_the_helper(table: Table, gateway: Namespace) -> None:
    """The kernel rejects the helpers that ABSENT lists for IPv6."""
    absent = [protocol for protocol, family, aspect in ABSENT if (family, aspect) == ("ipv6", None)]
    assert absent == [name for name, kind in PROTOCOLS.items() if kind.families == ("ipv4",)]
    for number, protocol in enumerate(absent, start=4000):
        kind = PROTOCOLS[protocol]
        ends = {"source": CLIENTS["ipv6"][0], "destination": SERVER["ipv6"]}
        ports = {"source_port": number, "destination_port": kind.port}
        declared = {"protocol": kind.transport, "original": {**ends, **ports}, "helper": kind.helper, "timeout": 600}
        with pytest.raises(Unsupported):
            table.create(from_document(declared))
    assert gateway.table() == []


@pytest.mark.parametrize("protocol", ["q931", "ras"])
def test_the_kernel_does_not_translate_h323_in_ipv6(table: Table, converse: Converse, protocol: str) -> None:
    conversation = converse(PROTOCOLS[protocol], "ipv6", require_nat=True)
    assert control(table, conversation)["nat"]["source"]["address"] == OUTSIDE["ipv6"]
    (one,) = read(table, "expect")
    assert not {"nat", "function"} & set(one)


@pytest.mark.parametrize("kind", [NetbiosNs, Snmp])
def test_forwarded_broadcasts_cause_no_expectations(
    network: Network, gateway: Namespace, table: Table, converse: Converse, kind: type[Broadcast]
) -> None:
    converse(kind, "ipv4")
    gateway.conntrack("-F")
    with contextlib.closing(network.topology.client1.udp(Gateway.SERVER, kind.port)) as flow:
        flow.send(kind.question)
    (entry,) = read(table, "conntrack", {"helper": kind.helper})
    assert entry["nat"]["source"]["address"] == OUTSIDE["ipv4"]
    assert read(table, "expect") == gateway.expectations() == []


def test_the_address_in_an_snmp_trap_is_translated(gateway: Namespace, table: Table, converse: Converse) -> None:
    """nf_nat_snmp_basic translates addresses in messages, and expects no connection."""
    conversation = converse(SnmpTrap, "ipv4")
    assert isinstance(conversation, SnmpTrap)
    assert conversation.agent == OUTSIDE["ipv4"]
    entry = control(table, conversation)
    assert (entry["helper"], entry["nat"]["source"]["address"]) == ("snmp_trap", OUTSIDE["ipv4"])
    assert read(table, "expect") == gateway.expectations() == []
