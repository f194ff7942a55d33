# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client creates and changes entries. conntrack(8) reads them, and its options select the same entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples, views
from tests.lab import Namespace
from tests.samples import CLIENT, INSIDE, OUTSIDE, SERVER

V4, V6 = CLIENT["ipv4"], CLIENT["ipv6"]


@pytest.fixture(scope="module")
def filled(root: None) -> Iterator[tuple[Namespace, Table]]:
    """Return a table with an entry of every kind. The tests do not change it."""
    with Namespace() as namespace:
        namespace.firewall.use_labels()
        with namespace.entered(), Table() as table:
            samples.create_all(lambda declared: table.create(from_document(declared)), Unsupported)
            yield namespace, table


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("-f ipv4", {"family": "ipv4"}),
        ("-f ipv6", {"family": "ipv6"}),
        ("-p tcp", {"protocol": "tcp"}),
        ("-p sctp", {"protocol": "sctp"}),
        ("-p 50", {"protocol": 50}),
        ("-f ipv6 -p icmpv6", {"protocol": "icmpv6"}),
        (f"-f ipv4 -s {V4}", {"source": V4}),
        (f"-f ipv4 -s {INSIDE['ipv4']}", {"source": INSIDE["ipv4"]}),
        (f"-f ipv6 -d {SERVER['ipv6']}", {"destination": SERVER["ipv6"]}),
        (f"-f ipv4 -r {INSIDE['ipv4']}", {"reply_source": INSIDE["ipv4"]}),
        (f"-f ipv6 -q {OUTSIDE['ipv6']}", {"reply_destination": OUTSIDE["ipv6"]}),
        ("-f ipv4 -s 192.0.2.0/30", {"source": "192.0.2.0/30"}),
        ("-f ipv4 -s 192.0.2.0/29", {"source": "192.0.2.0/29"}),
        ("-f ipv6 -d 2001:db8:2::/48", {"destination": "2001:db8:2::/48"}),
        ("-p udp --sport 11", {"protocol": "udp", "source_port": 11}),
        ("-p udp --dport 80", {"protocol": "udp", "destination_port": 80}),
        ("-p udp --reply-port-src 8080", {"protocol": "udp", "reply_source_port": 8080}),
        ("-p udp --reply-port-dst 1200", {"protocol": "udp", "reply_destination_port": 1200}),
        ("-p tcp --state ESTABLISHED", {"protocol": "tcp", "state": "established"}),
        ("-p tcp --state NONE", {"protocol": "tcp", "state": "none"}),
        ("-p sctp --state ESTABLISHED", {"protocol": "sctp", "state": "established"}),
        ("-p icmp --icmp-type 8", {"protocol": "icmp", "icmp_type": 8}),
        ("-p icmp --icmp-id 1", {"protocol": "icmp", "icmp_id": 1}),
        ("-p gre", {"protocol": "gre"}),
        ("-m 7", {"mark": 7}),
        ("-m 0", {"mark": 0}),
        ("-m 1/1", {"mark": "1/1"}),
        ("-m 0/0x2", {"mark": "0/0x2"}),
        ("-w 5", {"zone": 5}),
        ("-w 65535", {"zone": 65535}),
        ("--orig-zone 7", {"original_zone": 7, "except": {"zone": 7}}),
        ("--reply-zone 8", {"reply_zone": 8, "except": {"zone": 8}}),
        ("-u ASSURED", {"status": "assured"}),
        ("-u SEEN_REPLY,ASSURED", {"status": ["seen_reply", "assured"]}),
        ("-n", {"nat": "source"}),
        ("-p udp -g", {"protocol": "udp", "nat": "destination"}),
        ("-j", {"nat": "any"}),
    ],
)
def test_match_selects_the_same_entries(filled: tuple[Namespace, Table], options: str, match: dict[str, Any]) -> None:
    """A match selects the same entries as these options of `conntrack -L`."""
    namespace, table = filled
    text = namespace.conntrack("-L", "-o", "extended,id", *options.split())
    shown = {entry["id"] for entry in views.by_text(namespace, text)}
    predicate = parse_match(match)
    matched = {entry["id"]: to_document(entry) for entry in table.dump() if predicate(entry)}
    assert matched, "no entry matches, so the comparison proves nothing"
    assert len(matched) < table.count()
    missed, extra = shown - matched.keys(), [matched[number] for number in matched.keys() - shown]
    assert not missed
    assert extra == []


@pytest.mark.parametrize(
    ("options", "match", "more"),
    [
        ("-p gre --srckey 3", {"protocol": "gre", "source_key": 3}, {"protocol": "gre"}),
        ("-p gre --dstkey 0xffff", {"protocol": "gre", "destination_key": 65535}, {"protocol": "gre"}),
        ("-p icmp -g", {"protocol": "icmp", "nat": "destination"}, {"protocol": "icmp", "nat": "source"}),
    ],
)
def test_match_is_more_precise(
    filled: tuple[Namespace, Table], options: str, match: dict[str, Any], more: dict[str, Any]
) -> None:
    """The program does not compare GRE keys, and treats a changed ICMP ID as destination NAT."""
    namespace, table = filled
    text = namespace.conntrack("-L", "-o", "extended,id", *options.split())
    shown = {entry["id"] for entry in views.by_text(namespace, text)}
    matched, wider = (
        {entry["id"] for entry in table.dump() if predicate(entry)}
        for predicate in (parse_match(match), parse_match(more))
    )
    assert matched < shown <= wider


class TestGet:
    @pytest.mark.parametrize(
        "sample",
        [pair[1] for pair in samples.SAMPLES if pair[1].declared["protocol"] in ("tcp", "udp", "gre")
         and not pair[1].needs and "zone" not in str(pair[1].declared)],
        ids=lambda sample: sample.declared["family"] + "-" + sample.name,
    )  # fmt: skip
    def test_finds_entries_of_the_client(self, table: Table, namespace: Namespace, sample: samples.Sample) -> None:
        table.create(from_document(sample.declared))
        original = sample.declared["original"]
        options = {
            "source": "-s", "destination": "-d", "source_port": "--sport", "destination_port": "--dport",
            "source_key": "--srckey", "destination_key": "--dstkey",
        }  # fmt: skip
        arguments = [word for key, value in original.items() for word in (options[key], str(value))]
        shown = namespace.conntrack("-G", "-p", str(sample.declared["protocol"]), *arguments, "-o", "extended,id")
        (entry,) = table.dump()
        assert [found["id"] for found in views.by_text(namespace, shown)] == [entry["id"]]


class TestChanges:
    """conntrack(8) reads the changes of the client to its entries."""

    INSERT = ("-I", "-s", V4, "-d", SERVER["ipv4"], "-p", "tcp", "--sport", "1", "--dport", "2", "-t", "300")

    @pytest.fixture
    def made(self, table: Table, namespace: Namespace) -> dict[str, Any]:
        namespace.conntrack(*self.INSERT, "--state", "SYN_SENT", "-w", "5")
        (entry,) = table.dump()
        return entry

    def shown(self, namespace: Namespace) -> dict[str, Any]:
        (found,) = views.by_text(namespace)
        return found

    @pytest.mark.parametrize(
        ("declared", "shown"),
        [
            ({"mark": 9}, {"mark": 9}),
            ({"timeout": 999}, {"timeout": 999}),
            ({"status": ["seen_reply"]}, {"seen_reply": True}),
            ({"status": ["seen_reply", "assured"]}, {"seen_reply": True, "assured": True}),
            *(({"tcp": {"state": state}}, {"state": state}) for state in views.TCP_STATES),
        ],
    )
    def test_update(
        self,
        table: Table,
        namespace: Namespace,
        made: dict[str, Any],
        declared: dict[str, Any],
        shown: dict[str, Any],
    ) -> None:
        before = self.shown(namespace)
        wanted = from_document(samples.flow("ipv4", "tcp", 1, 2, zone=5, **declared))
        if "status" in wanted:
            wanted["status"] |= made["status"]
        table.update(wanted)
        assert self.shown(namespace) == views.near({**before, **shown})

    def test_delete(self, table: Table, namespace: Namespace, made: dict[str, Any]) -> None:
        namespace.conntrack(*self.INSERT, "--state", "SYN_SENT")
        table.delete(made)
        assert "zone" not in self.shown(namespace)
