# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A gathered entry can be declared without changes: a table that is saved, flushed and declared is the same table."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, samples, views
from tests.lab import Gateway, Namespace
from tests.lab.traffic import Flow
from tests.profiles import examples

pytestmark = pytest.mark.every_kernel

Document = dict[str, Any]

#: Status bits that the kernel sets when NAT has processed an entry, with or without a translation.
DONE = ("src_nat_done", "dst_nat_done")


def gathered(table: Table) -> list[Document]:
    """Return the table as a JSON file would store it, masters before their expected connections."""
    documents = [to_document(entry) for entry in table.dump()]
    stored: list[Document] = json.loads(json.dumps(documents))
    return sorted(stored, key=lambda document: "master" in document)


def at_rest(table: Table) -> list[Document]:
    """Return the table when no packet is in transit: TCP may delay an acknowledgement by 0.2 s."""
    time.sleep(0.3)
    return gathered(table)


def declare(table: Table, documents: list[Document]) -> None:
    errors = list(table.create_all(creation(from_document(document)) for document in documents))
    assert [str(error) for error in errors if error] == []


def by_identity(documents: list[Document]) -> dict[Any, Document]:
    return {identity(from_document(document)): views.lasting(document) for document in documents}


def flush_with_conntrack(namespace: Namespace) -> None:
    """Flush the table of the namespace with conntrack(8)."""
    namespace.conntrack("-F")
    assert namespace.count() == 0


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    namespace.firewall.use_labels()
    with namespace.entered(), Table() as table:
        yield table


class TestTableOfEveryKind:
    @pytest.fixture
    def saved(self, table: Table) -> list[Document]:
        samples.create_all(lambda declared: table.create(from_document(declared)), Unsupported)
        saved = gathered(table)
        assert len(saved) > 40
        return saved

    def test_table_is_restored(self, table: Table, namespace: Namespace, saved: list[Document]) -> None:
        flush_with_conntrack(namespace)
        declare(table, saved)
        again = gathered(table)
        assert len(again) == len(saved)
        assert by_identity(again) == by_identity(saved)

    def test_other_programs_show_the_table(self, table: Table, namespace: Namespace, saved: list[Document]) -> None:
        def shown() -> list[str]:
            keep = [
                {key: value for key, value in entry.items() if key not in ("id", "use", "timeout")}
                for entry in views.by_text(namespace) + views.by_pyroute2(namespace)
            ]
            return sorted(json.dumps(entry, sort_keys=True) for entry in keep)

        before = shown()
        flush_with_conntrack(namespace)
        declare(table, saved)
        assert shown() == before

    def test_entry_requires_its_master(self, table: Table, namespace: Namespace, saved: list[Document]) -> None:
        expected = [document for document in saved if "master" in document]
        if not expected:
            pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
        flush_with_conntrack(namespace)
        errors = list(table.create_all(creation(from_document(document)) for document in expected))
        assert all(error is not None and error.errno == 2 for error in errors)

    def test_counters_and_times_are_not_restored(self, table: Table, namespace: Namespace) -> None:
        for setting in ("nf_conntrack_acct", "nf_conntrack_timestamp"):
            namespace.sysctl(setting, 1)
        document = samples.flow("ipv4", "udp", 1, 2)
        document["counters"] = {"original": {"packets": 5, "bytes": 500}, "reply": {"packets": 1, "bytes": 1}}
        document["timestamps"] = {"start": "2001-01-01T00:00:00.000000001Z"}
        declare(table, [document])
        (again,) = gathered(table)
        assert again["counters"]["original"] == {"packets": 0, "bytes": 0}
        assert again["timestamps"]["start"] > "2001-01-01T00:00:01"


class TestDccp:
    """Linux tracks DCCP with ports and state before 6.17, and without ports and state since then."""

    STATE: Document = {"state": "open", "role": "client", "handshake_sequence": 7}  # noqa: RUF012

    @pytest.fixture
    def wanted(self, table: Table) -> Document:
        wanted = samples.flow("ipv4", "dccp", 1, 2, dccp=self.STATE)
        table.create(from_document(wanted))
        return wanted

    def test_ports_and_state_are_kept_if_dccp_is_tracked(
        self, table: Table, namespace: Namespace, wanted: Document
    ) -> None:
        (found,) = gathered(table)
        assert found["protocol"] == "dccp"
        if "dccp" in found:
            assert (found["dccp"], found["original"]) == (self.STATE, wanted["original"])
        else:
            assert found["original"] == samples.ends("ipv4")
        (shown,) = views.by_text(namespace)
        assert shown == views.as_program_shows(found)

    def test_gathered_entry_is_restored(self, table: Table, namespace: Namespace, wanted: Document) -> None:
        saved = gathered(table)
        flush_with_conntrack(namespace)
        declare(table, saved)
        assert by_identity(gathered(table)) == by_identity(saved)

    def test_needs_both_ports_or_none(self) -> None:
        with pytest.raises(InvalidValue, match=r"original\.destination_port: is missing"):
            from_document({"protocol": "dccp", "original": samples.ends("ipv4", source_port=1)})


class TestLiveConnections:
    """A gateway loses its table and gets it back. The flows through it continue without a change."""

    @pytest.fixture
    def flows(self, gateway_lab: Gateway) -> Iterator[list[Flow]]:
        flows = []
        for client in (gateway_lab.client1, gateway_lab.client2):
            for address in (gateway_lab.SERVER, gateway_lab.SERVER_IPV6):
                # Both clients use the same port, so the second client gets another port on the outside.
                flows.append(client.tcp(address, gateway_lab.PORT, source_port=5000))
                flows.append(client.udp(address, gateway_lab.PORT, source_port=5000))
                assert client.ping(address, identifier=77) == 1
        for flow in flows:
            flow.seen_as()
        yield flows
        for flow in flows:
            flow.close()

    def test_entries_are_restored(self, gateway_lab: Gateway, flows: list[Flow]) -> None:
        gateway = gateway_lab.gateway
        with gateway.entered(), Table() as table:
            saved = [document for document in at_rest(table) if "nat" in document]
            assert len(saved) == 12
            assert {document["protocol"] for document in saved} == {"tcp", "udp", "icmp", "icmpv6"}
            flush_with_conntrack(gateway)
            declare(table, saved)
            assert by_identity(gathered(table)) == by_identity(saved)

    def test_flows_continue_with_the_same_nat(self, gateway_lab: Gateway, flows: list[Flow]) -> None:
        outside = [flow.seen_as() for flow in flows]
        assert all(one != other for one, other in zip(outside[:4], outside[4:], strict=True))
        gateway = gateway_lab.gateway
        with gateway.entered(), Table() as table:
            saved = at_rest(table)
            flush_with_conntrack(gateway)
            declare(table, saved)
            gateway_lab.translate_to(1)  # flows that are not in the table would now use another address
            assert [flow.seen_as() for flow in flows] == outside

    def test_flow_has_another_address_without_its_entry(self, gateway_lab: Gateway, flows: list[Flow]) -> None:
        """Control test: after a flush and a change of the rule, a flow uses another address."""
        udp = flows[1]
        before = udp.seen_as()
        flush_with_conntrack(gateway_lab.gateway)
        gateway_lab.translate_to(1)
        assert udp.seen_as().address != before.address

    def test_src_nat_is_restored_only_on_request(self, gateway_lab: Gateway, flows: list[Flow]) -> None:
        """A reply tuple alone does not apply NAT: the kernel sets the status bit only if the request contains NAT."""
        gateway = gateway_lab.gateway
        with gateway.entered(), Table() as table:
            saved = [document for document in at_rest(table) if document["protocol"] == "udp"]
            assert len(saved) == 4
            assert all("src_nat" in document["status"] for document in saved)
            flush_with_conntrack(gateway)
            bare = [
                {
                    **{key: value for key, value in document.items() if key != "nat"},
                    "status": [bit for bit in document["status"] if bit not in ("src_nat", *DONE)],
                }
                for document in saved
            ]
            declare(table, bare)
            again = gathered(table)
            assert not any("nat" in document or "src_nat" in document["status"] for document in again)
            assert {json.dumps(document["reply"]) for document in again} == {
                json.dumps(document["reply"]) for document in saved
            }

    def test_status_and_reply_also_request_nat(self, gateway_lab: Gateway, flows: list[Flow]) -> None:
        """A status bit for NAT and a reply tuple together also request NAT."""
        outside = [flow.seen_as() for flow in flows]
        gateway = gateway_lab.gateway
        with gateway.entered(), Table() as table:
            saved = at_rest(table)
            flush_with_conntrack(gateway)
            declare(
                table,
                [{key: value for key, value in document.items() if key != "nat"} for document in saved],
            )
            assert by_identity(gathered(table)) == by_identity(saved)
            gateway_lab.translate_to(1)
            assert [flow.seen_as() for flow in flows] == outside

    def test_entries_without_nat_are_restored_except_two_bits(self, gateway_lab: Gateway) -> None:
        """Only the kernel can set the bits which show that NAT has processed a flow."""
        gateway = gateway_lab.gateway
        gateway.mirror(9)
        with gateway_lab.client1.tcp("10.1.0.1", 9) as flow, gateway.entered(), Table() as table:
            flow.seen_as()
            saved = at_rest(table)
            (document,) = (entry for entry in saved if entry["protocol"] == "tcp")
            assert set(DONE) < set(document["status"])
            assert "nat" not in document
            flush_with_conntrack(gateway)
            declare(table, saved)
            (again,) = (entry for entry in gathered(table) if entry["protocol"] == "tcp")
            document["status"] = [bit for bit in document["status"] if bit not in DONE]
            assert again == {**views.lasting(document), "id": again["id"], "use": again["use"]}
            assert flow.seen_as() == flow.local


# Entries with random content

U8, U16, U32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))
S32 = st.integers(-(1 << 31), (1 << 31) - 1)


def addresses(family: str) -> st.SearchStrategy[str]:
    number, size = (socket.AF_INET, 4) if family == "ipv4" else (socket.AF_INET6, 16)
    return st.binary(min_size=size, max_size=size).map(lambda address: socket.inet_ntop(number, address))


def some(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Generate a declared entry with any attributes that the kernel accepts."""
    family = draw(st.sampled_from(samples.FAMILIES))
    icmp = {"ipv4": "icmp", "ipv6": "icmpv6"}[family]
    other = st.integers(0, 255).filter(lambda number: number not in (1, 6, 17, 33, 47, 58, 132, 136))
    protocol = draw(st.sampled_from(["tcp", "udp", "udplite", "sctp", "gre", icmp]) | other)
    original: Document = {"source": draw(addresses(family)), "destination": draw(addresses(family))}
    if protocol in ("tcp", "udp", "udplite", "sctp"):
        original.update(source_port=draw(U16), destination_port=draw(U16))
    elif protocol == "gre":
        original.update(source_key=draw(U16), destination_key=draw(U16))
    elif protocol == icmp:
        types = [8, 13, 15, 17] if icmp == "icmp" else [128]
        original.update(icmp_type=draw(st.sampled_from(types)), icmp_code=draw(U8), icmp_id=draw(U16))
    document: Document = {"family": family, "protocol": protocol, "original": original}
    document.update(
        draw(
            st.fixed_dictionaries(
                {"timeout": st.integers(1000, 8_000_000)},
                optional={
                    "mark": U32,
                    "labels": st.lists(st.integers(0, 127), unique=True),
                    "status": some(["seen_reply", "assured", "fixed_timeout", "helper", "confirmed"]),
                    "synproxy": st.fixed_dictionaries({"isn": U32, "its": U32, "tsoff": U32}),
                    "sequence_adjustment": adjustments(),
                },
            )
        )
    )
    zone = draw(st.sampled_from([None, "both", "original"]))
    if zone == "both":
        document["zone"] = draw(U16)
    elif zone:
        original["zone"] = draw(st.integers(1, 65535))
    if protocol == "tcp" and draw(st.booleans()):
        document["tcp"] = draw(tcp_states())
    if protocol == "sctp" and draw(st.booleans()):
        states = st.sampled_from(views.SCTP_STATES[:-1])
        document["sctp"] = {"state": draw(states), "original_vtag": draw(U32), "reply_vtag": draw(U32)}
    if draw(st.booleans()):
        document["nat"] = draw(nat_requests(family, "source_port" in original))
    return document


@st.composite
def adjustments(draw: st.DrawFn) -> Document:
    sides = draw(st.sampled_from([("original",), ("reply",), ("original", "reply")]))
    one = st.fixed_dictionaries({"position": U32, "before": S32, "after": S32})
    return {side: draw(one) for side in sides}


@st.composite
def tcp_states(draw: st.DrawFn) -> Document:
    flags = some(views.TCP_FLAGS)
    side = st.fixed_dictionaries({"window_scale": st.integers(0, 14), "flags": flags})
    return {"state": draw(st.sampled_from(views.TCP_STATES)), "original": draw(side), "reply": draw(side)}


@st.composite
def nat_requests(draw: st.DrawFn, family: str, with_ports: bool) -> Document:
    nat: Document = {}
    for end in draw(st.sampled_from([("source",), ("destination",), ("source", "destination")])):
        nat[end] = {"address": draw(addresses(family))}
        if with_ports and draw(st.booleans()):
            nat[end]["port"] = draw(st.integers(1, 65535))
    return nat


@pytest.fixture(scope="module")
def shared(root: None) -> Iterator[tuple[Namespace, Table]]:
    """Return a namespace for all examples, which is empty before and after each."""
    with Namespace() as namespace:
        namespace.firewall.use_labels()
        with namespace.entered(), Table() as table:
            yield namespace, table


@pytest.mark.running_kernel_only
@examples(300, suppress_health_check=list(HealthCheck))
@given(document=documents())
def test_any_entry_is_restored(shared: tuple[Namespace, Table], document: Document) -> None:
    clock.begin_test()  # each example is one
    namespace, table = shared
    wanted = from_document(document)
    table.create(wanted)
    first = table.get(wanted)
    shown = to_document(first)
    try:
        assert "extra" not in first
        assert shown["original"] == document["original"]
        assert shown["mark"] == document.get("mark", 0)
        if "tcp" in document:
            assert shown["tcp"]["state"] == document["tcp"]["state"]
        assert shown.get("labels", []) == sorted(document.get("labels", []))
        (seen,) = views.by_pyroute2(namespace)
        assert {**seen, "use": first["use"]} == views.as_pyroute2_shows(shown)
    finally:
        table.delete(first)
    if "nat" not in shown:  # an entry with NAT to its own address has only these two bits
        shown["status"] = [bit for bit in shown["status"] if bit not in DONE]
    again = from_document(shown)
    table.create(again)
    second = table.get(again)
    table.delete(second)
    assert to_document(second) == {**views.lasting(shown), "id": second["id"], "use": second["use"]}
    assert bool(first["status"] & uapi.IPS_SRC_NAT) == ("source" in shown.get("nat", {}))
