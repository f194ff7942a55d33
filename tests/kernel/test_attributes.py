# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declare every attribute that the kernel accepts, and compare the entry as three programs read it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entry import reconcile
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import features, samples, views
from tests.lab import Gateway, Namespace
from tests.samples import SAMPLES, Sample

pytestmark = pytest.mark.every_kernel


@pytest.fixture
def labelled(emptied_namespace: Namespace) -> Namespace:
    """Return a namespace whose connections can have labels."""
    return emptied_namespace


@pytest.fixture
def table(labelled: Namespace) -> Iterator[Table]:
    with labelled.entered(), Table() as table:
        yield table


def create(table: Table, declared: dict[str, Any]) -> dict[str, Any]:
    """Create an entry and return it as the table has it."""
    wanted = from_document(declared)
    table.create(wanted)
    (found,) = (entry for entry in table.dump() if identity(entry) == identity(wanted))
    return to_document(found)


def create_sample(table: Table, sample: Sample) -> dict[str, Any]:
    """Create a sample, after its master if it has one. Skip the test if this kernel lacks what the sample needs."""
    features.needs(sample.needs)
    try:
        if "master" in sample.declared:
            table.create(from_document(samples.everything(sample.declared["family"])))
        return create(table, sample.declared)
    except Unsupported:
        if sample.needs == "helper":
            pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
        raise


@pytest.mark.parametrize("sample", [sample for _unused, sample in SAMPLES], ids=[name for name, _unused in SAMPLES])
class TestEverySample:
    def test_reads_back(self, table: Table, sample: Sample) -> None:
        gathered = create_sample(table, sample)
        assert gathered.keys() - sample.gathered().keys() == {"id", "use"}
        assert gathered == {**views.near(sample.gathered()), "id": gathered["id"], "use": gathered["use"]}

    def test_get_and_dump_agree(self, table: Table, sample: Sample) -> None:
        """Compare a get with a dump. They differ by the reference that the get holds while it reads."""
        gathered = create_sample(table, sample)
        got = to_document(table.get(from_document(sample.declared)))
        assert got == {**views.near(gathered), "use": gathered["use"] + 1}

    def test_conntrack_shows_the_same_values(self, table: Table, labelled: Namespace, sample: Sample) -> None:
        gathered = create_sample(table, sample)
        shown = views.numbered(views.by_text(labelled))[gathered["id"]]
        assert shown == views.as_program_shows(gathered)

    @pytest.mark.running_kernel_only  # both outputs of the program come from the same message
    def test_conntrack_shows_the_same_values_as_xml(self, table: Table, labelled: Namespace, sample: Sample) -> None:
        gathered = create_sample(table, sample)
        shown = views.numbered(views.by_xml(labelled))[gathered["id"]]
        assert shown == views.as_xml_shows(gathered)

    def test_pyroute2_shows_the_same_values(self, table: Table, labelled: Namespace, sample: Sample) -> None:
        gathered = create_sample(table, sample)
        shown = views.numbered(views.by_pyroute2(labelled))[gathered["id"]]
        assert shown == views.as_pyroute2_shows(gathered)


class TestEveryValue:
    """Each name of a list of names, alone and with the others."""

    @pytest.mark.parametrize("state", views.TCP_STATES)
    def test_tcp_states(self, table: Table, labelled: Namespace, state: str) -> None:
        declared = samples.flow("ipv4", "tcp", 1, 2, tcp={"state": state})
        assert create(table, declared)["tcp"]["state"] == state
        (shown,) = views.by_text(labelled)
        assert shown["state"] == state

    @pytest.mark.parametrize("state", views.SCTP_STATES[:9])
    def test_sctp_states(self, table: Table, labelled: Namespace, state: str) -> None:
        sctp = {"state": state, "original_vtag": 1, "reply_vtag": 2}
        assert create(table, samples.flow("ipv4", "sctp", 1, 2, sctp=sctp))["sctp"] == sctp
        (shown,) = views.by_text(labelled)
        assert shown["state"] == state

    @pytest.mark.parametrize("flag", views.TCP_FLAGS)
    def test_tcp_flags(self, table: Table, labelled: Namespace, flag: str) -> None:
        sides = {
            "original": {"window_scale": 0, "flags": [flag]},
            "reply": {"window_scale": 0, "flags": [other for other in views.TCP_FLAGS if other != flag]},
        }
        declared = samples.flow("ipv6", "tcp", 1, 2, tcp={"state": "established", **sides})
        assert create(table, declared)["tcp"] == {"state": "established", **sides}
        (shown,) = views.by_pyroute2(labelled)
        assert shown["tcp"] == {"state": "established", **sides}

    @pytest.mark.parametrize("direction", ["original", "reply"])
    def test_tcp_flags_are_cleared(self, table: Table, labelled: Namespace, direction: str) -> None:
        """An empty list clears the flags of that direction of an existing entry, and no others."""
        every = {"window_scale": 7, "flags": list(views.TCP_FLAGS)}
        declared = samples.flow("ipv4", "tcp", 1, 2, tcp={"state": "established", "original": every, "reply": every})
        number = create(table, declared)["id"]
        cleared = from_document({**declared, "tcp": {direction: {"flags": []}}})
        done = reconcile(table, cleared, Policy(), LabelMap(), False)
        assert (done["operation"], [change["key"] for change in done["changes"]]) == (
            "updated",
            [f"tcp.{direction}.flags"],
        )
        (shown,) = views.by_pyroute2(labelled)
        other = "reply" if direction == "original" else "original"
        assert done["entry"]["id"] == number
        assert shown["tcp"][other] == every
        assert shown["tcp"][direction]["flags"] == list(views.TCP_FLAGS)[4:]
        assert reconcile(table, cleared, Policy(), LabelMap(), False)["operation"] == "unchanged"

    def test_labels(self, table: Table, labelled: Namespace) -> None:
        flows = (samples.flow("ipv4", "udp", 1 + bit, 2, labels=[bit]) for bit in range(128))
        assert not any(table.create_declared(flows))
        every = {1 + bit: [bit] for bit in range(128)}
        gathered = [to_document(entry) for entry in table.dump()]
        assert {entry["original"]["source_port"]: entry["labels"] for entry in gathered} == every
        shown = views.by_pyroute2(labelled)
        assert {entry["original"]["source_port"]: entry["labels"] for entry in shown} == every

    @pytest.mark.parametrize(("request_type", "answer"), [(8, 0), (13, 14), (15, 16), (17, 18)])
    @pytest.mark.parametrize("swapped", [False, True])
    def test_icmp_types(self, table: Table, labelled: Namespace, request_type: int, answer: int, swapped: bool) -> None:
        """Every ICMP type with an answer, declared by the request or by the answer."""
        if swapped:
            request_type, answer = answer, request_type
        original = samples.ends("ipv4", icmp_type=request_type, icmp_code=255, icmp_id=0)
        gathered = create(table, {"protocol": "icmp", "original": original})
        assert gathered["reply"]["icmp_type"] == answer
        (shown,) = views.by_text(labelled)
        assert (shown["original"], shown["reply"]) == (original, gathered["reply"])

    @pytest.mark.parametrize(
        ("protocol", "helper"), [("tcp", "ftp"), ("tcp", "irc"), ("udp", "tftp"), ("udp", "sip"), ("tcp", "pptp")]
    )
    def test_helpers(self, table: Table, labelled: Namespace, protocol: str, helper: str) -> None:
        try:
            gathered = create(table, samples.flow("ipv4", protocol, 1, 2, helper=helper))
        except Unsupported:
            pytest.skip(f"this kernel has no helper {helper} (modprobe nf_conntrack_{helper})")
        assert gathered["helper"] == helper
        (shown,) = views.by_text(labelled)
        assert shown["helper"] == helper

    @pytest.mark.parametrize("protocol", [2, 4, 41, 51, 89, 112, 115, 254])
    def test_plain_protocols(self, table: Table, labelled: Namespace, protocol: int) -> None:
        gathered = create(table, {"protocol": protocol, "original": samples.ends("ipv6")})
        assert gathered["protocol"] == protocol
        (shown,) = views.by_text(labelled)
        assert shown["protocol"] == protocol


class TestValuesSetByPackets:
    """Compare values that the kernel sets with the packets that caused them."""

    def test_tcp(self, gateway_lab: Gateway) -> None:
        gateway = gateway_lab.gateway
        with gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT) as flow:
            flow.seen_as()
            time.sleep(0.3)  # TCP may delay an acknowledgement by 0.2 s
            with gateway.entered(), Table() as table:
                (gathered,) = (to_document(entry) for entry in table.dump())
            assert gathered["tcp"]["state"] == "established"
            assert gathered["status"] == ["seen_reply", "assured", *samples.SNAT]
            for direction in ("original", "reply"):
                assert {"window_scale", "sack_permitted"} <= set(gathered["tcp"][direction]["flags"])
                assert 0 < gathered["tcp"][direction]["window_scale"] <= 14
            (shown,) = views.by_pyroute2(gateway)
            assert shown == views.as_pyroute2_shows(gathered)
            (shown,) = views.by_text(gateway)
            assert shown == views.as_program_shows(gathered)

    def test_sctp_tags(self, gateway_lab: Gateway) -> None:
        """Send an INIT with the tag 0x01020304, which the server must use in its answer."""
        gateway = gateway_lab.gateway
        gateway.sysctl("nf_conntrack_checksum", 0)
        chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x01020304, 65535, 1, 1, 7)
        packet = struct.pack("!HHII", 5000, 7, 0, 0) + chunk
        with (
            gateway_lab.client1.entered(),
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP) as raw,
        ):
            raw.sendto(packet, (gateway_lab.SERVER, 0))
        with gateway.entered(), Table() as table:
            (gathered,) = (to_document(entry) for entry in table.dump() if entry["original.protocol"] == 132)
        assert gathered["sctp"]["reply_vtag"] == 0x01020304
        (shown,) = (entry for entry in views.by_pyroute2(gateway) if entry["protocol"] == "sctp")
        assert shown["sctp"] == gathered["sctp"]

    def test_labels_marks_and_zones(self, gateway_lab: Gateway) -> None:
        firewall = gateway_lab.gateway.firewall
        firewall.zone(9, in_interface="client1")
        firewall.label(40, protocol="udp")
        firewall.mark(0xABCD, protocol="udp")
        with gateway_lab.client1.udp(gateway_lab.SERVER, 9) as flow:
            flow.send()
        with gateway_lab.gateway.entered(), Table() as table:
            gathered = [to_document(entry) for entry in table.dump()]
        assert [(entry["zone"], entry["mark"], entry["labels"]) for entry in gathered] == [(9, 0xABCD, [40])]
