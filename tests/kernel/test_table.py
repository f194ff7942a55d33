# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each operation has its documented result, and each error of the kernel has its own exception."""

from __future__ import annotations

import errno
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    Busy,
    Exists,
    InvalidValue,
    KernelError,
    NotFound,
    NotPermitted,
    Unsupported,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink import socket as netlink
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    BATCH_SIZE,
    NetlinkSocket,
    NetlinkTransport,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, features, samples, views
from tests.lab import Gateway, Namespace

pytestmark = pytest.mark.every_kernel

#: Seconds that a request waits for an answer: much longer than a machine stands still.
UNANSWERED = 120.0


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


def table_with_long_timeout() -> Table:
    """Return a table in the namespace of the calling thread whose requests wait `UNANSWERED` seconds for an answer."""
    return Table(lambda: NetlinkSocket(NetlinkTransport(timeout=UNANSWERED)))


def udp(port: int, **more: Any) -> Entry:
    """Return a declared UDP flow from this port."""
    return from_document(samples.flow("ipv4", "udp", port, 53, **more))


def tcp(port: int, **more: Any) -> Entry:
    return from_document(samples.flow("ipv4", "tcp", port, 80, **more))


def in_direction(entry: Entry, direction: str, zone: int) -> Entry:
    """Return the entry with only this direction in a zone."""
    return {**entry, f"{direction}.zone": zone}


def ports(namespace: Namespace) -> list[int]:
    """Return the source ports in the table, as conntrack(8) or pyroute2 reads them."""
    return sorted(entry["original"]["source_port"] for entry in namespace.table())


def seen(namespace: Namespace, port: int) -> dict[str, Any]:
    """Return the one entry with this source port, as pyroute2 reads it."""
    (entry,) = (entry for entry in views.by_pyroute2(namespace) if entry["original"].get("source_port") == port)
    return entry


class TestCreate:
    def test_makes_one_entry(self, table: Table, namespace: Namespace) -> None:
        with namespace.events() as changes:
            table.create(udp(1, mark=7, timeout=300))
        assert changes.kinds() == ["new"]
        assert seen(namespace, 1)["mark"] == 7
        assert seen(namespace, 1)["timeout"] == clock.left_of(300)

    def test_needs_neither_reply_nor_timeout(self, table: Table, namespace: Namespace) -> None:
        entry = from_document({"protocol": "udp", "original": samples.ends("ipv6", **samples.ports(1, 2))})
        table.create(entry)
        (shown,) = namespace.table()
        assert shown["reply"] == samples.turned("ipv6", **samples.ports(2, 1))
        assert shown["timeout"] == clock.left_of(120)

    def test_does_not_replace_an_existing_entry(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, mark=1))
        with pytest.raises(Exists) as refusal:
            table.create(udp(1, mark=2))
        assert refusal.value.errno == errno.EEXIST
        assert str(refusal.value).startswith("creating udp 192.0.2.1:1 -> 198.51.100.2:53: File exists")
        assert seen(namespace, 1)["mark"] == 1

    def test_is_refused_if_another_entry_has_the_reply_tuple(self, table: Table, namespace: Namespace) -> None:
        """The answers of two flows would be identical, so the error must name the existing entry."""
        table.create(udp(1))
        rival = {**udp(1), **{f"original.{key}": udp(2)[f"original.{key}"] for key in ("source_port",)}}
        with pytest.raises(Exists):
            table.create(rival)
        with pytest.raises(NotFound):
            table.get(rival)
        holder = table.find_by_tuple(rival, "reply")
        assert holder["original.source_port"] == 1
        assert ports(namespace) == [1]

    def test_is_refused_for_the_mirror_image_of_an_entry(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1))
        mirrored = from_document({"protocol": "udp", "original": samples.turned("ipv4", **samples.ports(53, 1))})
        with pytest.raises(Exists):
            table.create(mirrored)
        assert ports(namespace) == [1]

    def test_the_same_tuple_in_another_zone_is_another_entry(self, table: Table, namespace: Namespace) -> None:
        for entry in (udp(1), udp(1, zone=5), udp(1, zone=6)):
            table.create(entry)
        assert sorted(entry.get("zone", 0) for entry in namespace.table()) == [0, 5, 6]

    def test_a_direction_in_a_zone_still_collides_in_the_other(self, table: Table, namespace: Namespace) -> None:
        """If only the original direction is in a zone, the reply tuples are the same."""
        table.create(udp(1))
        with pytest.raises(Exists):
            table.create(in_direction(udp(1), "original", 7))
        assert namespace.count() == 1

    def test_refuses_a_timeout_of_zero(self, table: Table, namespace: Namespace) -> None:
        with pytest.raises(InvalidValue, match="timeout: 0 would expire immediately"):
            table.create(udp(1, timeout=0))
        assert namespace.count() == 0

    @pytest.mark.parametrize("helper", ["no-such", "tftp"])
    def test_unsuitable_helper_is_refused(self, table: Table, namespace: Namespace, helper: str) -> None:
        """An unknown helper, and a helper for UDP on a TCP connection."""
        with pytest.raises(Unsupported) as refusal:
            table.create(tcp(1, helper=helper))
        assert refusal.value.errno == errno.EOPNOTSUPP
        assert namespace.count() == 0

    def test_missing_master_is_refused(self, table: Table, namespace: Namespace) -> None:
        master = {"protocol": "tcp", **samples.ends("ipv4", **samples.ports(9, 21))}
        with pytest.raises(NotFound):
            table.create(tcp(1, master=master))
        assert namespace.count() == 0

    def test_master_in_another_zone_is_refused(self, table: Table, namespace: Namespace) -> None:
        table.create(tcp(9, zone=5))
        master = {"protocol": "tcp", **samples.ends("ipv4", **samples.ports(9, 80))}
        with pytest.raises(NotFound):
            table.create(tcp(1, master=master))
        table.create(tcp(1, master=master, zone=5))
        assert ports(namespace) == [1, 9]

    @pytest.mark.parametrize(
        ("key", "value"),
        [("tcp.original.window_scale", 15), ("tcp.reply.window_scale", 15)],
    )
    def test_window_scale_out_of_range(self, table: Table, namespace: Namespace, key: str, value: int) -> None:
        """Most kernels reject the scale. Linux 5.10 ignores it, as it does without the flags."""
        wanted = {**tcp(1), "tcp.state": 3, key: value}
        (refusal,) = table.create_all([creation(wanted)])
        if refusal is None:
            assert table.get(wanted)[key] == 0
        else:
            assert refusal.errno == errno.ERANGE
            assert namespace.count() == 0

    def test_incomplete_group_is_refused(self, table: Table, namespace: Namespace) -> None:
        sctp = from_document(samples.flow("ipv4", "sctp", 1, 2, sctp={"state": "established"}))
        for entry in (sctp, {**tcp(1), "synproxy.isn": 1}, {**tcp(1), "sequence_adjustment.reply.before": 1}):
            with pytest.raises(InvalidValue, match="is missing; all of"):
                table.create(entry)
        assert namespace.count() == 0

    def test_request_without_a_tuple_is_never_sent(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1))
        for operation in (table.delete, table.update, table.get, table.find_by_tuple):
            with pytest.raises(InvalidValue, match="the whole table"):
                operation({"family": socket.AF_INET, "zone": 0, "id": 1})
        assert ports(namespace) == [1]

    @pytest.mark.parametrize(
        "bit", ["expected", "seq_adjust", "dying", "template", "nat_clash", "offload", "src_nat_done"]
    )
    def test_status_bits_that_cannot_be_set_are_left_out(self, table: Table, namespace: Namespace, bit: str) -> None:
        """A status that was gathered elsewhere can be declared: bits that cannot be set are left out."""
        table.create(udp(1, status=["assured", bit]))
        assert seen(namespace, 1)["status"] == ["assured", "confirmed"]

    def test_clamps_a_timeout_that_is_too_long(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, timeout=4294967295))
        assert 2147400 <= seen(namespace, 1)["timeout"] < 4294967295


class TestNat:
    """A request creates an entry with NAT, and the reply tuple shows the result."""

    def create(self, table: Table, document: dict[str, Any]) -> dict[str, Any]:
        entry = from_document(document)
        table.create(entry)
        return to_document(table.get(entry))

    def plain(self, protocol: str = "udp", port: int = 1) -> dict[str, Any]:
        document = samples.flow("ipv4", protocol, port, 53)
        del document["reply"]
        return document

    def test_kernel_selects_an_address_from_a_range(self, table: Table, namespace: Namespace) -> None:
        nat = {"source": {"address": "203.0.113.10-203.0.113.19", "port": "2000-2009"}}
        gathered = self.create(table, {**self.plain(), "nat": nat})
        (shown,) = namespace.table()
        address, port = shown["reply"]["destination"], shown["reply"]["destination_port"]
        assert address in [f"203.0.113.{number}" for number in range(10, 20)]
        assert port in range(2000, 2010)
        assert gathered["nat"] == {"source": {"address": address, "port": port}}

    def test_nat_of_the_port_keeps_the_address(self, table: Table, namespace: Namespace) -> None:
        gathered = self.create(table, {**self.plain(), "nat": {"source": {"port": 77}}})
        assert gathered["nat"] == {"source": {"address": samples.CLIENT["ipv4"], "port": 77}}
        (shown,) = namespace.table()
        assert shown["reply"]["destination_port"] == 77

    def test_nat_of_gre_keeps_the_keys(self, table: Table) -> None:
        """Without a PPTP master, the kernel does not change the keys, although the request has a port."""
        original = samples.ends("ipv4", source_key=1, destination_key=2)
        nat = {"source": {"address": samples.OUTSIDE["ipv4"], "port": 9}}
        gathered = self.create(table, {"protocol": "gre", "original": original, "nat": nat})
        assert gathered["nat"] == {"source": {"address": samples.OUTSIDE["ipv4"]}}
        assert gathered["reply"]["destination_key"] == 1

    @pytest.mark.parametrize("end", ["source", "destination"])
    def test_nat_of_an_icmp_id_at_either_end(self, table: Table, end: str) -> None:
        original = samples.ends("ipv4", icmp_type=8, icmp_code=0, icmp_id=1)
        nat = {end: {"address": samples.OUTSIDE["ipv4"], "port": 99}}
        gathered = self.create(table, {"protocol": "icmp", "original": original, "nat": nat})
        assert gathered["nat"] == nat
        assert gathered["reply"]["icmp_id"] == 99

    def test_nat_of_an_icmp_id_is_returned_once(self, table: Table) -> None:
        original = samples.ends("ipv4", icmp_type=8, icmp_code=0, icmp_id=1)
        nat = {
            "source": {"address": samples.OUTSIDE["ipv4"], "port": 99},
            "destination": {"address": samples.INSIDE["ipv4"]},
        }
        gathered = self.create(table, {"protocol": "icmp", "original": original, "nat": nat})
        assert gathered["nat"] == nat

    def test_nat_with_its_reply_tuple_is_applied_once(self, table: Table, namespace: Namespace) -> None:
        """A gathered entry is declared without changes: its reply tuple is the result of its NAT."""
        nat = {"source": {"address": samples.OUTSIDE["ipv4"], "port": 1}}
        first = self.create(table, {**self.plain(), "nat": nat})
        namespace.conntrack("-F")
        again = self.create(table, first)
        assert (again["nat"], again["reply"], again["status"]) == (nat, first["reply"], first["status"])

    def test_nat_of_an_existing_entry_is_refused(self, table: Table, namespace: Namespace) -> None:
        entry = from_document({**self.plain(), "nat": {"source": {"address": samples.OUTSIDE["ipv4"]}}})
        table.create_or_update(entry)
        with pytest.raises(Unsupported):
            table.create_or_update({**entry, "mark": 5})
        assert seen(namespace, 1)["mark"] == 0


class TestCreateOrUpdate:
    def test_creates_then_updates(self, table: Table, namespace: Namespace) -> None:
        with namespace.events() as changes:
            table.create_or_update(udp(1, mark=1))
            table.create_or_update(udp(1, mark=2, status=["seen_reply"]))
        assert changes.kinds() == ["new", "update"]
        assert seen(namespace, 1)["mark"] == 2
        assert seen(namespace, 1)["status"] == ["seen_reply", "confirmed"]


class TestUpdate:
    def test_missing_entry_is_an_error(self, table: Table, namespace: Namespace) -> None:
        with pytest.raises(NotFound):
            table.update(udp(1, mark=1))
        assert namespace.count() == 0

    def test_changes_only_the_given_values(self, table: Table, namespace: Namespace) -> None:
        table.create(tcp(1, mark=1, timeout=500, tcp={"state": "established"}))
        before = seen(namespace, 1)
        table.update({**tcp(1), "mark": 2})
        assert seen(namespace, 1) == views.near({**before, "mark": 2})
        table.update({**tcp(1), "timeout": 200})
        assert seen(namespace, 1) == views.near({**before, "mark": 2, "timeout": 200})
        table.update({**tcp(1), "tcp.state": 5})
        shown = seen(namespace, 1)
        assert shown == views.near({**before, "mark": 2, "timeout": 200, "tcp": shown["tcp"]})
        assert shown["tcp"]["state"] == "close_wait"

    def test_changes_some_bits_of_a_mark(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, mark=0xF0F0))
        table.update(udp(1, mark="0x0a/0xff"))
        assert seen(namespace, 1)["mark"] == 0xF00A

    def test_changes_labels(self, table: Table, namespace: Namespace) -> None:
        namespace.firewall.use_labels()
        table.create(udp(1, labels=[1, 127]))
        table.update({**udp(1, labels=[5]), "labels_mask": 1 << 5 | 1 << 127})
        assert seen(namespace, 1)["labels"] == [1, 5]
        table.update(udp(1, labels=[64]))
        assert seen(namespace, 1)["labels"] == [64]
        table.update({**udp(1), "labels": 0})
        assert "labels" not in seen(namespace, 1)

    def test_labels_under_a_mask_select_entries(self, table: Table, namespace: Namespace) -> None:
        namespace.firewall.use_labels()
        address = 0x0242AC110002
        for port, number in ((1, address), (2, address + 1), (3, address | 1 << 60)):
            table.create(udp(port, labels=[bit + 64 for bit in range(62) if number >> bit & 1]))
        table.create(udp(4))
        assert 64 + 1 in seen(namespace, 1)["labels"]
        for wanted, found in (
            ({"labels": f"{address << 64:#x}/{(1 << 48) - 1 << 64:#x}"}, [1, 3]),
            ({"labels": f"{address << 64:#x}/{(1 << 64) - 1 << 64:#x}"}, [1]),
            ({"labels_not": f"{address << 64:#x}/{(1 << 48) - 1 << 64:#x}"}, [2, 4]),
            ({"labels": "0/0xffffffffffffffffffffffffffffffff"}, [4]),
        ):
            entries = table.dump(where=parse_match(wanted).where)
            assert sorted(entry["original.source_port"] for entry in entries) == found

    def test_labels_without_a_rule(self, table: Table, namespace: Namespace) -> None:
        """The kernel ignores the labels of a new entry without an error, and returns ENOSPC for an update."""
        table.create(udp(1, labels=[3]))
        assert "labels" not in seen(namespace, 1)
        for problem in (refusal_of(table, udp(1, labels=[3])), *table.update_all([udp(1, labels=[3])])):
            assert problem is not None
            assert problem.errno == errno.ENOSPC
            assert "Labels are kept only where a rule in the network namespace uses them" in str(problem)

    def test_sets_status_bits_but_clears_none(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, status=["seen_reply"]))
        table.update(udp(1, status=["seen_reply", "assured", "confirmed"]))
        assert seen(namespace, 1)["status"] == ["seen_reply", "assured", "confirmed"]
        for less in (["confirmed"], ["confirmed", "assured"], ["seen_reply", "assured"]):
            with pytest.raises(Busy):
                table.update(udp(1, status=less))
        assert seen(namespace, 1)["status"] == ["seen_reply", "assured", "confirmed"]

    def test_accepts_the_status_that_it_returned(self, table: Table, namespace: Namespace) -> None:
        nat = {"source": {"address": samples.OUTSIDE["ipv4"]}}
        document = samples.flow("ipv4", "udp", 1, 53, nat=nat)
        del document["reply"]
        table.create(from_document(document))
        before = seen(namespace, 1)
        table.update({**udp(1), "status": table.get(udp(1))["status"]})
        assert seen(namespace, 1) == views.near(before)

    def test_cannot_clear_a_fixed_timeout(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, status=["fixed_timeout"]))
        table.update(udp(1, status=["confirmed"]))
        assert "fixed_timeout" in seen(namespace, 1)["status"]
        (refusal,) = table.update_all([udp(1, timeout=5000)])
        if refusal is None:  # Linux 5.10
            assert seen(namespace, 1)["timeout"] == clock.left_of(5000)
        else:
            assert isinstance(refusal, NotPermitted)
            assert "fixed" in str(refusal)
            assert seen(namespace, 1)["timeout"] == clock.left_of(120)

    def test_helper_is_removed_but_not_replaced(self, table: Table, namespace: Namespace) -> None:
        try:
            table.create(tcp(1, helper="ftp"))
        except Unsupported:
            pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
        table.update(tcp(1, helper="ftp"))
        with pytest.raises((Busy, Unsupported)):  # the second one while its module is not loaded
            table.update(tcp(1, helper="irc"))
        assert seen(namespace, 1)["helper"] == "ftp"
        table.create(tcp(2))
        with pytest.raises(Unsupported):
            table.update(tcp(2, helper="ftp"))
        features.needs("helper_removal")
        table.update(tcp(1, helper=""))
        assert "helper" not in seen(namespace, 1)
        with pytest.raises(Busy):
            table.update(tcp(1, helper="ftp"))

    def test_values_before_a_refusal_are_applied(self, table: Table, namespace: Namespace) -> None:
        """The kernel applies values in this order: timeout, status, protocol state, mark."""
        table.create(tcp(1, timeout=100, mark=1, status=["seen_reply"]))
        with pytest.raises(Busy), namespace.events() as changes:
            table.update({**tcp(1, status=["confirmed"]), "timeout": 900, "mark": 2})
        assert seen(namespace, 1)["timeout"] == clock.left_of(900)
        assert seen(namespace, 1)["mark"] == 1
        assert not changes

    def test_entry_in_a_zone_requires_the_zone(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, zone=5))
        with pytest.raises(NotFound):
            table.update(udp(1, mark=3))
        table.update(udp(1, mark=3, zone=5))
        assert seen(namespace, 1)["mark"] == 3

    def test_window_scale_needs_both_sides_and_their_flags(self, table: Table, namespace: Namespace) -> None:
        def with_scale(**directions: int) -> Entry:
            return tcp(
                1,
                tcp={side: {"window_scale": scale, "flags": ["window_scale"]} for side, scale in directions.items()},
            )

        table.create({**tcp(1), "tcp.state": 3})
        table.update({**with_scale(original=7), "tcp.state": 3})
        assert seen(namespace, 1)["tcp"]["original"]["window_scale"] == 0
        table.update({**with_scale(original=7, reply=8), "tcp.state": 3})
        assert seen(namespace, 1)["tcp"]["original"]["window_scale"] == 7
        assert seen(namespace, 1)["tcp"]["reply"]["window_scale"] == 8

    @pytest.mark.parametrize("direction", ["original", "reply"])
    def test_entry_with_one_direction_in_a_zone(self, table: Table, namespace: Namespace, direction: str) -> None:
        entry = in_direction(udp(1), direction, 9)
        table.create(entry)
        table.update({**entry, "mark": 4})
        assert seen(namespace, 1)["mark"] == 4


def refusal_of(table: Table, entry: Entry) -> KernelError:
    with pytest.raises(KernelError) as refusal:
        table.update(entry)
    return refusal.value


class TestGet:
    def test_missing_entry_is_an_error(self, table: Table) -> None:
        with pytest.raises(NotFound) as refusal:
            table.get(udp(1))
        assert str(refusal.value) == ("reading udp 192.0.2.1:1 -> 198.51.100.2:53: No such file or directory (ENOENT)")

    def test_entry_in_a_zone_requires_the_zone(self, table: Table) -> None:
        table.create(udp(1, zone=5))
        for zone in (0, 6):
            with pytest.raises(NotFound):
                table.get(udp(1, zone=zone))
        assert table.get(udp(1, zone=5))["zone"] == 5

    def test_entry_with_its_original_direction_in_a_zone(self, table: Table) -> None:
        entry = in_direction(udp(1), "original", 5)
        table.create(entry)
        assert table.get(entry)["original.zone"] == 5
        for other in (udp(1), udp(1, zone=5), in_direction(udp(1), "original", 6)):
            with pytest.raises(NotFound):
                table.get(other)

    def test_entry_with_its_reply_direction_in_a_zone(self, table: Table) -> None:
        """The original tuple is in no zone, so no other entry can have it there."""
        entry = in_direction(udp(1), "reply", 5)
        table.create(entry)
        assert table.get(entry)["reply.zone"] == 5
        with pytest.raises(NotFound):
            table.get(udp(1))
        assert table.find_by_tuple(udp(1))["reply.zone"] == 5

    def test_mirrored_tuple_is_not_found(self, table: Table) -> None:
        """The kernel compares both directions, but a flow in the reverse direction is another entry."""
        table.create(udp(1))
        mirrored = from_document({"protocol": "udp", "original": samples.turned("ipv4", **samples.ports(53, 1))})
        with pytest.raises(NotFound):
            table.get(mirrored)
        assert table.find_by_tuple(mirrored)["original.source_port"] == 1

    def test_expired_entry_is_not_found(self, table: Table) -> None:
        """The entry is gone at its deadline, before garbage collection."""
        table.create(udp(1, timeout=1))
        time.sleep(1.1)
        with pytest.raises(NotFound):
            table.get(udp(1))


class TestDelete:
    def test_deletes_one_entry(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1))
        table.create(udp(2))
        with namespace.events() as changes:
            table.delete(udp(1))
        assert changes.kinds() == ["destroy"]
        assert ports(namespace) == [2]

    def test_missing_entry_is_an_error(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1))
        with pytest.raises(NotFound):
            table.delete(udp(2))
        assert ports(namespace) == [1]

    def test_entry_in_a_zone_requires_the_zone(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, zone=5))
        for zone in (0, 6):
            with pytest.raises(NotFound):
                table.delete(udp(1, zone=zone))
        assert ports(namespace) == [1]
        table.delete(udp(1, zone=5))
        assert namespace.count() == 0

    @pytest.mark.parametrize("direction", ["original", "reply"])
    def test_entry_with_one_direction_in_a_zone(self, table: Table, namespace: Namespace, direction: str) -> None:
        entry = in_direction(udp(1), direction, 5)
        table.create(entry)
        table.delete(table.get(entry))
        assert namespace.count() == 0

    def test_another_id_deletes_nothing(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1))
        read = table.get(udp(1))
        with pytest.raises(NotFound):
            table.delete({**read, "id": read["id"] ^ 1})
        assert ports(namespace) == [1]
        table.delete(read)
        assert namespace.count() == 0

    def test_keeps_a_new_entry_with_the_same_tuple(self, table: Table, namespace: Namespace) -> None:
        """Between a dump and the deletion, the flow ended and started again. The new entry remains.

        The ID depends on the address of the entry in memory, so it changes if another entry is at that address.
        """
        table.create(udp(1))
        (read,) = table.dump()
        table.delete(udp(1))
        for attempt in range(2, 500):
            table.create(udp(attempt))
        table.create(udp(1))
        assert table.get(udp(1))["id"] != read["id"]
        with pytest.raises(NotFound):
            table.delete(read)
        assert 1 in ports(namespace)

    def test_id_of_a_tuple_may_be_reused(self, table: Table) -> None:
        """The limit of that check: the same tuple at the same address in memory has the same ID again."""
        ids = []
        for _unused in range(20):
            table.create(udp(1))
            ids.append(table.get(udp(1))["id"])
            table.delete(udp(1))
        assert len(set(ids)) < len(ids)

    def test_other_values_are_no_condition(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1, mark=1))
        table.delete(udp(1, mark=2, status=["assured"]))
        assert namespace.count() == 0


class TestMany:
    """More than one batch of requests, with errors between the others."""

    COUNT = 3 * BATCH_SIZE + 7
    BAD = frozenset({0, 1, BATCH_SIZE - 1, BATCH_SIZE, 2 * BATCH_SIZE + 5, COUNT - 1})

    @pytest.fixture
    def everything(self) -> list[Entry]:
        return [creation(udp(port)) for port in range(1, self.COUNT + 1)]

    def test_all_but_the_refused_entries_are_created(
        self, table: Table, namespace: Namespace, everything: list[Entry]
    ) -> None:
        for index in self.BAD:
            table.create(everything[index])
        results = list(table.create_all({**entry, "mark": 9} for entry in everything))
        assert {index for index, error in enumerate(results) if error} == self.BAD
        for index in self.BAD:
            assert isinstance(results[index], Exists)
            assert f":{index + 1} ->" in str(results[index])
        marked = {entry["original"]["source_port"] - 1 for entry in namespace.table() if entry["mark"] == 9}
        assert marked == set(range(self.COUNT)) - self.BAD
        assert namespace.count() == self.COUNT

    def test_all_but_the_refused_entries_are_updated(
        self, table: Table, namespace: Namespace, everything: list[Entry]
    ) -> None:
        assert not any(table.create_all(everything))
        for index in self.BAD:
            table.delete(everything[index])
        results = list(table.update_all({**udp(port), "mark": 9} for port in range(1, self.COUNT + 1)))
        assert {index for index, error in enumerate(results) if error} == self.BAD
        assert all(isinstance(results[index], NotFound) for index in self.BAD)
        assert all(entry["mark"] == 9 for entry in namespace.table())
        assert namespace.count() == self.COUNT - len(self.BAD)

    def test_all_but_the_refused_entries_are_deleted(
        self, table: Table, namespace: Namespace, everything: list[Entry]
    ) -> None:
        assert not any(table.create_all(everything))
        read = {entry["original.source_port"] - 1: entry for entry in table.dump()}
        to_delete = [
            {**read[index], "id": read[index]["id"] ^ 1} if index in self.BAD else read[index]
            for index in range(self.COUNT)
        ]
        results = list(table.delete_all(to_delete))
        assert {index for index, error in enumerate(results) if error} == self.BAD
        assert all(isinstance(results[index], NotFound) for index in self.BAD)
        assert {port - 1 for port in ports(namespace)} == self.BAD

    def test_all_entries_are_refused(self, table: Table, namespace: Namespace, everything: list[Entry]) -> None:
        """Every answer of a full batch is an error, and none is lost."""
        assert not any(table.create_all(everything))
        results = list(table.create_all(everything))
        assert all(isinstance(error, Exists) for error in results)
        assert len(results) == self.COUNT
        assert namespace.count() == self.COUNT

    def test_no_entries(self, table: Table, namespace: Namespace) -> None:
        table.create(udp(1))
        for operation in (table.create_all, table.update_all, table.delete_all):
            assert list(operation([])) == []
        assert ports(namespace) == [1]

    @pytest.mark.running_kernel_only
    def test_deletion_while_the_table_is_read(self, table: Table, namespace: Namespace) -> None:
        """Dump and delete at the same time. Every entry that existed at the start is read and deleted."""
        entries = [creation(udp(port)) for port in range(1, 3001)]
        assert not any(table.create_all(entries))
        results = list(table.delete_all(table.dump()))
        assert len(results) == 3000
        assert not any(results)
        assert namespace.count() == 0


class TestDump:
    def test_empty_table(self, table: Table) -> None:
        assert list(table.dump()) == []
        assert table.count() == 0

    def test_one_family(self, table: Table) -> None:
        for family in samples.FAMILIES:
            table.create(from_document(samples.flow(family, "udp", 1, 2)))
        assert [entry["family"] for entry in table.dump(socket.AF_INET)] == [socket.AF_INET]
        assert [entry["family"] for entry in table.dump(socket.AF_INET6)] == [socket.AF_INET6]
        assert sorted(entry["family"] for entry in table.dump()) == [socket.AF_INET, socket.AF_INET6]

    @pytest.mark.running_kernel_only
    def test_many_entries(self, table: Table, namespace: Namespace) -> None:
        """The dump has many datagrams. It returns each entry once."""
        assert not any(table.create_all(creation(udp(port)) for port in range(1, 20001)))
        read = sorted(entry["original.source_port"] for entry in table.dump())
        assert read == list(range(1, 20001))
        assert table.count() == namespace.count() == 20000

    @pytest.mark.running_kernel_only
    @pytest.mark.parametrize("read", [1, 2000, 4000])
    def test_closed_dump_ends_its_thread(self, table: Table, read: int) -> None:
        """Stop before the thread starts, while it reads, and when it may have read everything."""
        assert not any(table.create_all(creation(udp(port)) for port in range(1, 4001)))
        before, began = threading.active_count(), time.monotonic()
        with table_with_long_timeout() as other:
            reading = other.dump()
            assert len(list(itertools.islice(reading, read))) == read
            reading.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before
        assert time.monotonic() - began < UNANSWERED, "a request waited for its timeout"
        assert table.count() == 4000

    @pytest.mark.running_kernel_only
    def test_end_that_the_thread_does_not_detect(self, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
        """The thread then waits for more data, and the reader must wake it."""
        monkeypatch.setattr(netlink, "_may_end_dump", lambda datagram: False)
        assert not any(table.create_all(creation(udp(port)) for port in range(1, 4001)))
        before, began = threading.active_count(), time.monotonic()
        with table_with_long_timeout() as other:
            assert len(list(other.dump())) == 4000
        assert threading.active_count() == before
        assert time.monotonic() - began < UNANSWERED, "a request waited for its timeout"

    def test_unfinished_dump_does_not_affect_other_requests(self, table: Table) -> None:
        assert not any(table.create_all(creation(udp(port)) for port in range(1, 1001)))
        reading = table.dump()
        next(reading)
        assert len(list(table.dump())) == 1000
        assert table.get(udp(7))["original.source_port"] == 7
        reading.close()  # type: ignore[attr-defined]
        assert len(list(table.dump())) == 1000


class TestRecords:
    """Attributes that the kernel records for real packets."""

    def test_counters(self, gateway_lab: Gateway) -> None:
        gateway = gateway_lab.gateway
        gateway.sysctl("nf_conntrack_acct", 1)
        with gateway_lab.client1.udp(gateway_lab.SERVER, gateway_lab.PORT) as flow:
            for _unused in range(3):
                flow.seen_as()
        with gateway.entered(), Table() as table:
            (entry,) = table.dump()
            assert entry["counters.original.packets"] == entry["counters.reply.packets"] == 3
            assert entry["counters.original.bytes"] == 3 * (20 + 8 + len("who am I?"))
            gathered = to_document(entry)
            (shown,) = views.by_text(gateway)
            assert gathered["counters"] == shown["counters"]
            assert gathered["counters"] == views.by_pyroute2(gateway)[0]["counters"]

    def test_reading_with_zero_resets_counters(self, gateway_lab: Gateway) -> None:
        gateway = gateway_lab.gateway
        gateway.sysctl("nf_conntrack_acct", 1)
        with gateway_lab.client1.udp(gateway_lab.SERVER_IPV6, gateway_lab.PORT) as flow:
            flow.seen_as()
            with gateway.entered(), Table() as table:
                kinds = [entry["counters.original.packets"] for entry in table.dump(socket.AF_INET, zero=True)]
                assert kinds == []
                udp_entry = next(entry for entry in table.dump(zero=True) if entry["original.protocol"] == 17)
                assert udp_entry["counters.original.packets"] == 1
                (shown,) = (entry for entry in views.by_text(gateway) if entry["protocol"] == "udp")
                assert shown["counters"]["original"] == {"packets": 0, "bytes": 0}
                flow.seen_as()
                udp_entry = next(entry for entry in table.dump() if entry["original.protocol"] == 17)
                assert udp_entry["counters.reply.packets"] == 1

    def test_no_counters_without_accounting(self, table: Table) -> None:
        table.create(udp(1))
        assert not [key for key in table.get(udp(1)) if key.startswith(("counters", "timestamps"))]

    def test_times(self, table: Table, namespace: Namespace) -> None:
        namespace.sysctl("nf_conntrack_timestamp", 1)
        table.create(udp(1))
        (entry,) = table.dump()
        assert "timestamps.stop" not in entry
        gathered = to_document(entry)
        assert gathered["timestamps"] == views.by_pyroute2(namespace)[0]["timestamps"]
        (shown,) = views.by_xml(namespace)
        assert gathered["timestamps"] == shown["timestamps"]
