# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Expectations on the running kernel: declared values, and the names and messages of errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.expectation import reconcile
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import CannotReconcile, Policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    Exists,
    InvalidValue,
    KernelError,
    NotFound,
    TableFull,
    Unsupported,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock
from tests.lab import Gateway, Namespace

pytestmark = pytest.mark.every_kernel

FAMILIES = ("ipv4", "ipv6")
CLIENT = {"ipv4": "10.1.0.2", "ipv6": "2001:db8:1::2"}
SERVER = {"ipv4": "192.0.2.21", "ipv6": "2001:db8:2::21"}
FULL = {"ipv4": "255.255.255.255", "ipv6": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}

Document = dict[str, Any]


def control(family: str = "ipv4", port: int = 1400) -> Document:
    """Return the original tuple of an FTP session."""
    return {"source": CLIENT[family], "destination": SERVER[family], "source_port": port, "destination_port": 21}


def announced(family: str = "ipv4", port: int = 4000, **more: Any) -> Document:
    """Return the tuple of a data connection from any port."""
    ends = {"source": SERVER[family], "destination": CLIENT[family]}
    return {"protocol": "tcp", **ends, "destination_port": port, **more}


def declared(family: str = "ipv4", port: int = 4000, **more: Any) -> Document:
    return {"tuple": announced(family, port), "master": control(family), **more}


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    """Yield a table with FTP sessions in both families and in two zones, a session without a helper, and a SIP one."""
    with namespace.entered(), Table() as table:
        for family in FAMILIES:
            session(table, family)
        session(table, zone=5)
        session(table, port=1401, helper=None)
        table.create(
            from_document(
                {"protocol": "udp", "original": {**control(port=5060), "destination_port": 5060}, "helper": "sip"}
            )
        )
        yield table


def session(table: Table, family: str = "ipv4", port: int = 1400, zone: int = 0, helper: str | None = "ftp") -> None:
    document = {"protocol": "tcp", "zone": zone, "original": control(family, port), "helper": helper, "timeout": 600}
    try:
        table.create(from_document(document))
    except Unsupported:
        pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp nf_conntrack_sip)")


def create(table: Table, **document: Any) -> Document:
    """Create an expectation, and return it as the table has it."""
    wanted = expectation.from_document(document)
    expectation.create(table, wanted)
    return expectation.to_document(expectation.get(table, wanted))


def shown(namespace: Namespace) -> list[Document]:
    """Return the output of conntrack(8) without timeouts."""
    return [{key: value for key, value in one.items() if key != "timeout"} for one in namespace.expectations()]


class TestEachOperation:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_create_and_get(self, table: Table, namespace: Namespace, family: str) -> None:
        found = create(table, **declared(family))
        assert found.pop("id")
        assert found.pop("timeout") == clock.left_of(300)
        ends = {"source": FULL[family], "destination": FULL[family]}
        assert found == {
            "family": family,
            "tuple": announced(family, source_port=0),
            "mask": {"protocol": "tcp", **ends, "source_port": 0, "destination_port": 65535},
            "master": {"protocol": "tcp", **control(family)},
            "class": 0,
            "flags": [],
            "helper": "ftp",
        }
        (other,) = shown(namespace)
        assert other == {
            "protocol": "tcp",
            **{
                part: {key: value for key, value in found[part].items() if key != "protocol"}
                for part in ("tuple", "mask", "master")
            },
            "class": 0,
            "helper": "ftp",
            "flags": [],
        }

    def test_all_values_are_created_and_read(self, table: Table, namespace: Namespace) -> None:
        nat = {"direction": "reply", "tuple": {"source": "10.9.0.9", "source_port": 7}}
        mask = {"source": "255.255.255.0", "source_port": 0xFFF0}
        tuple_ = announced(source="192.0.2.0", source_port=0x1230)
        options = {"mask": mask, "flags": ["permanent", "inactive"], "function": "nat-follow-master", "nat": nat}
        found = create(table, tuple=tuple_, master=control(), **options)
        assert found["mask"].items() >= mask.items()
        assert found["flags"] == ["permanent", "inactive"]
        assert found["function"] == "nat-follow-master"
        assert found["nat"] == {"direction": "reply", "tuple": {"protocol": "tcp", **nat["tuple"]}}
        (other,) = shown(namespace)
        assert other["mask"].items() >= mask.items()
        assert other["flags"] == ["permanent", "inactive"]
        expectation.delete(table, expectation.from_document(found))
        again = create(table, **found)
        assert {**again, "id": 0, "timeout": 0} == {**found, "id": 0, "timeout": 0}

    @pytest.mark.parametrize(
        ("family", "tuple_"),
        [
            ("ipv4", {"protocol": "udp", "destination_port": 4}),
            ("ipv4", {"protocol": "sctp", "destination_port": 4, "source_port": 5}),
            ("ipv4", {"protocol": "gre", "destination_key": 4}),
            ("ipv4", {"protocol": "icmp", "icmp_type": 8, "icmp_code": 0, "icmp_id": 6}),
            ("ipv6", {"protocol": "icmpv6", "icmp_type": 128, "icmp_code": 0}),
            ("ipv6", {"protocol": 50}),
        ],
    )
    def test_other_protocols(self, table: Table, namespace: Namespace, family: str, tuple_: Document) -> None:
        wanted = {**tuple_, "destination": CLIENT[family]}
        found = create(table, tuple=wanted, master={"protocol": "tcp", **control(family)})
        assert found["tuple"].items() >= wanted.items()
        (other,) = shown(namespace)
        assert other["protocol"] == tuple_["protocol"]
        assert other["tuple"] == {key: value for key, value in found["tuple"].items() if key != "protocol"}
        assert create_again(table, found)["tuple"] == found["tuple"]

    def test_update_changes_only_the_timeout(self, table: Table, namespace: Namespace) -> None:
        found = expectation.from_document(create(table, **declared()))
        expectation.update(table, {**found, "timeout": 777, "flags": 1})
        (other,) = namespace.expectations()
        assert other["timeout"] == clock.left_of(777)
        assert other["flags"] == []

    def test_kernel_applies_the_mask_to_a_get(self, table: Table) -> None:
        found = create(table, **declared())
        narrower = expectation.from_document({"tuple": announced(source_port=4321)})
        assert expectation.find_by_tuple(table, narrower)["id"] == found["id"]
        with pytest.raises(NotFound):
            expectation.get(table, narrower)

    def test_delete(self, table: Table, namespace: Namespace) -> None:
        found = expectation.from_document(create(table, **declared()))
        with pytest.raises(NotFound):
            expectation.delete(table, {**found, "id": found["id"] ^ 1})
        assert len(namespace.expectations()) == 1
        expectation.delete(table, found)
        assert namespace.expectations() == []
        with pytest.raises(NotFound):
            expectation.delete(table, found)

    def test_zone_is_that_of_the_master(self, table: Table, namespace: Namespace) -> None:
        """The kernel shows no zone, and treats an expectation of another zone as absent."""
        here, there = create(table, **declared()), create(table, **declared(zone=5))
        assert all("zone" not in found for found in expectation.read_all(table))
        found = {one["id"]: one for one in expectation.located(table, expectation.read_all(table))}
        assert "zone" not in found[here["id"]]
        assert found[there["id"]]["zone"] == 5
        expectation.delete(table, found[there["id"]])
        (left,) = expectation.read_all(table)
        assert left["id"] == here["id"]

    def test_dumps(self, table: Table) -> None:
        ids = {family: create(table, **declared(family))["id"] for family in FAMILIES}
        assert {one["id"] for one in expectation.read_all(table)} == set(ids.values())
        (only,) = expectation.read_all(table, 10)
        assert only["id"] == ids["ipv6"]
        (mine,) = expectation.read_of_master(table, only)
        assert mine["id"] == only["id"]
        without_expectations = expectation.from_document({**declared(), "master": control(port=1401)})
        assert list(expectation.read_of_master(table, without_expectations)) == []
        with pytest.raises(NotFound):
            list(
                expectation.read_of_master(table, expectation.from_document({**declared(), "master": control(port=9)}))
            )

    def test_flush(self, table: Table, namespace: Namespace) -> None:
        for family in FAMILIES:
            create(table, **declared(family))
        entries = namespace.count()
        expectation.flush(table)
        assert namespace.expectations() == []
        assert namespace.count() == entries

    def test_expectation_is_removed_with_its_master(self, table: Table, namespace: Namespace) -> None:
        found = expectation.from_document(create(table, **declared()))
        table.delete(expectation.master_of(found))
        assert namespace.expectations() == []
        assert list(expectation.located(table, [found])) == []


def create_again(table: Table, found: Document) -> Document:
    """Delete an expectation, and declare the values that were read before."""
    expectation.delete(table, expectation.from_document(found))
    return create(table, **found)


class TestRefusals:
    """Each errno of the kernel, and the message for the user."""

    def refused(self, table: Table, **more: Any) -> KernelError:
        with pytest.raises(KernelError) as refusal:
            expectation.create(table, expectation.from_document(declared(**more)))
        return refusal.value

    def raw(self, table: Table, **more: Any) -> int:
        """Return the errno for a message that the client itself never sends. Keys with the value None are left out."""
        whole = {**expectation.creation(expectation.from_document(declared())), **more}
        message = expectation.create_message({key: value for key, value in whole.items() if value is not None})
        with pytest.raises(KernelError) as refusal:
            table.ask("creating", message, expectation.EXPECTATION)
        return refusal.value.errno

    @pytest.mark.parametrize("part", ["mask", "master"])
    def test_without_a_part(self, table: Table, part: str) -> None:
        whole = expectation.creation(expectation.from_document(declared()))
        assert self.raw(table, **{key: None for key in whole if key.startswith(part)}) == errno.EINVAL

    def test_no_master(self, table: Table) -> None:
        for more in ({"master": control(port=9)}, {"zone": 6}):
            error = self.refused(table, **more)
            assert isinstance(error, NotFound)
            assert "There is no connection with the tuple of its master in its zone" in str(error)

    def test_no_helper(self, table: Table) -> None:
        error = self.refused(table, master=control(port=1401))
        assert isinstance(error, Unsupported)
        assert "Its master has no helper" in str(error)

    def test_no_such_class(self, table: Table) -> None:
        error = self.refused(table, **{"class": 1})
        assert error.errno == errno.EINVAL
        assert str(error).endswith("Perhaps the helper of its master has no class 1")
        sip = {"protocol": "udp", **control(port=5060), "destination_port": 5060}
        assert create(table, tuple=announced(), master=sip, **{"class": 3})["class"] == 3

    def test_no_such_function(self, table: Table) -> None:
        error = self.refused(table, function="nonesuch")
        assert error.errno == errno.EINVAL
        assert "Perhaps the kernel has no function 'nonesuch'" in str(error)

    def test_nat_without_a_part(self, table: Table) -> None:
        assert self.raw(table, **{"nat.direction": 1}) == errno.EINVAL
        tuple_ = {
            "source": b"\n\0\0\1",
            "destination": bytes(4),
            "protocol": 6,
            "source_port": 7,
            "destination_port": 0,
        }
        only_tuple = {f"nat.tuple.{key}": value for key, value in tuple_.items()}
        assert self.raw(table, **only_tuple) == errno.EINVAL

    def test_flags(self, table: Table) -> None:
        assert create(table, **declared(flags=["userspace"]))["flags"] == []
        refusal, wanted = None, expectation.from_document(declared(port=4001, flags=[3]))
        try:
            expectation.create(table, wanted)
        except KernelError as error:
            refusal = error
        if refusal is None:  # Linux 5.10 accepts any flag
            assert expectation.to_document(expectation.get(table, wanted))["flags"] == [3]
        else:
            assert refusal.errno == errno.EINVAL
            assert "at flags" in str(refusal)

    def test_existing_expectation(self, table: Table) -> None:
        create(table, **declared())
        assert isinstance(self.refused(table), Exists)
        assert isinstance(self.refused(table, mask={"source_port": 0xFFFF}), Exists)

    def test_overlapping_expectation(self, table: Table) -> None:
        """Two expectations that the same connection would match."""
        session(table, port=1402)
        create(table, tuple=announced(source_port=7), master=control(port=1402))
        error = self.refused(table)
        assert error.errno in (errno.EBUSY, errno.EALREADY)
        assert "Another expectation applies to some of the same connections" in str(error)

    def test_new_expectation_has_the_timeout_of_its_helper(self, table: Table) -> None:
        assert create(table, **declared(timeout=7))["timeout"] == clock.left_of(300)

    def test_oldest_expectation_is_evicted(self, table: Table, namespace: Namespace) -> None:
        create(table, **declared(port=4000))
        create(table, **declared(port=4001))
        (left,) = namespace.expectations()
        assert left["tuple"]["destination_port"] == 4001

    def test_full_table(self, table: Table, namespace: Namespace) -> None:
        most = int(namespace.sysctl("nf_conntrack_expect_max"))
        if most > 10_000:
            pytest.skip(f"nf_conntrack_expect_max is {most}, too many to fill")
        for port in range(10_000, 10_000 + most):
            session(table, port=port)
            expectation.create(
                table, expectation.from_document({"tuple": announced(port=port), "master": control(port=port)})
            )
        error = self.refused(table)
        assert isinstance(error, TableFull)
        assert "nf_conntrack_expect_max" in str(error)
        assert len(list(expectation.located(table, expectation.read_all(table)))) == most

    def test_no_request_is_sent_without_a_tuple(self, table: Table, namespace: Namespace) -> None:
        """The kernel would treat such a deletion as a flush."""
        create(table, **declared())
        with pytest.raises(InvalidValue, match="would be about every expectation"):
            expectation.delete(table, {"family": 2, "id": 1})
        assert len(namespace.expectations()) == 1


class TestDeclared:
    """The results of the module."""

    def run(self, table: Table, document: Document, check_mode: bool = False, **policy: Any) -> Document:
        return reconcile(table, expectation.from_document(document), Policy(**policy), check_mode)

    def test_second_declaration_is_unchanged(self, table: Table, namespace: Namespace) -> None:
        document = declared(timeout=600, flags=["permanent"])
        with namespace.events() as events:
            predicted = self.run(table, document, check_mode=True)
            assert namespace.expectations() == []
            done, again = self.run(table, document), self.run(table, document)
        assert events.kinds() == ["new_expectation"]
        assert predicted["operation"] == done["operation"] == "created"
        assert predicted["expectation"].pop("timeout") == 600
        assert done["expectation"].pop("timeout") == clock.left_of(600)
        assert predicted["expectation"] == {key: value for key, value in done["expectation"].items() if key != "id"}
        assert predicted["diff"] == done["diff"]
        assert (again["operation"], again["changes"]) == ("unchanged", [])
        (other,) = namespace.expectations()
        assert other["timeout"] == clock.left_of(600)

    def test_gathered_expectations_are_unchanged(self, table: Table) -> None:
        for zone in (0, 5):
            self.run(table, declared(zone=zone))
        for found in expectation.located(table, expectation.read_all(table)):
            assert self.run(table, expectation.to_document(found))["operation"] == "unchanged"

    def test_timeout_is_extended_only_on_request(self, table: Table) -> None:
        self.run(table, declared(timeout=600))
        assert self.run(table, declared(timeout=900))["operation"] == "unchanged"
        done = self.run(table, declared(timeout=900), timeout_min=601)
        assert done["operation"] == "updated"
        assert [change["key"] for change in done["changes"]] == ["timeout"]
        assert done["expectation"]["timeout"] == clock.left_of(900)

    def test_a_replacement(self, table: Table, namespace: Namespace) -> None:
        before = self.run(table, declared(timeout=600, flags=["permanent"]))["expectation"]
        other = declared(mask={"source_port": 0xFFFF})
        with pytest.raises(CannotReconcile, match=r"cannot be changed in place \(mask.source_port\)"):
            self.run(table, other)
        done = self.run(table, other, replace=True)
        assert (done["operation"], done["before"]["id"]) == ("replaced", before["id"])
        assert done["evicted"] == []
        assert done["expectation"]["flags"] == ["permanent"]
        assert done["expectation"]["timeout"] == clock.left_of(600)
        (shown,) = namespace.expectations()
        assert shown["mask"]["source_port"] == 0xFFFF

    def test_a_replacement_that_fails_is_undone(self, table: Table, namespace: Namespace) -> None:
        self.run(table, declared(timeout=600))
        with pytest.raises(CannotReconcile, match="deleted and restored") as failure:
            self.run(table, declared(**{"class": 9}), replace=True)
        assert failure.value.result["operation"] == "replaced"
        (shown,) = namespace.expectations()
        assert (shown["class"], shown["timeout"]) == (0, clock.left_of(600))

    def test_absent(self, table: Table, namespace: Namespace) -> None:
        self.run(table, declared(zone=5))
        assert self.run(table, {"tuple": announced()}, state="absent")["operation"] == "unchanged"
        gone = {"tuple": announced(), "zone": 5}
        assert self.run(table, gone, check_mode=True, state="absent")["operation"] == "deleted"
        assert len(namespace.expectations()) == 1
        assert self.run(table, gone, state="absent")["operation"] == "deleted"
        assert namespace.expectations() == []

    def test_evicted_expectations_are_reported(self, table: Table) -> None:
        self.run(table, declared(port=4000))
        done = self.run(table, declared(port=4001))
        assert [one["tuple"]["destination_port"] for one in done["evicted"]] == [4000]

    @pytest.mark.parametrize(
        ("more", "reason"),
        [
            (
                {"master": control(port=9)},
                "its master, tcp 10.1.0.2:9 -> 192.0.2.21:21. There is no connection",
            ),
            ({"master": control(port=1401)}, "Its master has no helper"),
            (
                {"master": {**announced(port=1400), "source_port": 21}},
                "master: is the reply tuple .* its original",
            ),
            ({"class": 3}, "has no class 3"),
            ({"function": "nonesuch"}, "has no function 'nonesuch'"),
            ({"tuple": announced(port=4321, source_port=7)}, "4321 of the connection .* applies to some of the same"),
            ({"timeout": 0}, "timeout: 0 would expire immediately"),
        ],
    )
    def test_invalid_declarations(self, table: Table, namespace: Namespace, more: Document, reason: str) -> None:
        session(table, port=1402)
        self.run(table, {"tuple": announced(port=4321), "master": control(port=1402)})
        with pytest.raises((CannotReconcile, InvalidValue), match=reason):
            self.run(table, {**declared(), **more})
        assert len(namespace.expectations()) == 1


HELPER = """
table inet mirror {
  ct helper standard {
    type "ftp" protocol tcp
  }
  chain prerouting {
    type filter hook prerouting priority mangle
    tcp dport 7 ct helper set "standard"
  }
}
"""


def test_declared_expectation_admits_a_connection(gateway_lab: Gateway) -> None:
    """With nat-follow-master, a connection from outside reaches the client of the master, as documented."""
    gateway, outside = gateway_lab.gateway, gateway_lab.OUTSIDE[0]
    gateway.nft(HELPER)
    gateway_lab.client1.mirror(7000)
    with (
        gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT) as master,
        gateway.entered(),
        Table() as table,
    ):
        master.seen_as()
        document = {
            "master": {
                "source": gateway_lab.CLIENTS[0],
                "destination": gateway_lab.SERVER,
                "source_port": master.local.port,
                "destination_port": gateway_lab.PORT,
            },
            "tuple": {
                "protocol": "tcp",
                "source": gateway_lab.SERVER,
                "destination": outside,
                "destination_port": 40001,
            },
            "function": "nat-follow-master",
            "nat": {"direction": "reply", "tuple": {"source_port": 7000}},
        }
        with pytest.raises(OSError, match="refused|timed out"):
            gateway_lab.server.tcp(outside, 40001)
        assert reconcile(table, expectation.from_document(document), Policy(), False)["operation"] == "created"
        with gateway_lab.server.tcp(outside, 40001) as expected:
            assert expected.seen_as().address == gateway_lab.SERVER
            (related,) = (to_document(entry) for entry in table.dump() if "master.source" in entry)
        assert related["master"] == {"protocol": "tcp", **document["master"]}
        assert related["nat"]["destination"] == {"address": gateway_lab.CLIENTS[0], "port": 7000}
        assert list(expectation.read_all(table)) == []
