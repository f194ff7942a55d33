# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the lab itself, on which the other tests depend."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests import clock
from tests.lab import Gateway, Lab, Namespace, table
from tests.lab.lab import Host


def network_here() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def insert_udp(namespace: Namespace, port: int) -> None:
    namespace.conntrack(
        "-I",
        "-p",
        "udp",
        "-s",
        "192.0.2.1",
        "-d",
        "192.0.2.2",
        "--sport",
        str(port),
        "--dport",
        "53",
        "-t",
        "60",
    )


class TestNamespace:
    def test_is_another_network(self, namespace: Namespace) -> None:
        here = network_here()
        with namespace.entered():
            assert network_here() != here
        assert network_here() == here

    def test_caller_leaves_the_namespace_after_a_failure(self, namespace: Namespace) -> None:
        here = network_here()
        with pytest.raises(ZeroDivisionError), namespace.entered():
            raise ZeroDivisionError
        assert network_here() == here

    def test_sockets_are_separate(self, namespace: Namespace) -> None:
        with namespace.entered():
            server = socket.create_server(("127.0.0.1", 0))
        with server, pytest.raises(OSError, match=r"refused|unreachable"):
            socket.create_connection(server.getsockname(), timeout=clock.HUNG)

    def test_path_is_usable_by_other_processes(self, namespace: Namespace) -> None:
        with namespace.entered():
            inside = network_here()
        seen = subprocess.run(
            ["nsenter", f"--net={namespace.path}", "readlink", "/proc/self/ns/net"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert seen.stdout.strip() == inside

    def test_settings_are_separate(self, namespace: Namespace) -> None:
        with Namespace() as other:
            assert namespace.sysctl("nf_conntrack_acct", 1) == "0"
            assert namespace.sysctl("net.netfilter.nf_conntrack_acct") == "1"
            assert other.sysctl("nf_conntrack_acct") == "0"

    def test_runs_programs_inside(self, namespace: Namespace) -> None:
        with namespace.entered():
            inside = network_here()
        assert namespace.run(["readlink", "/proc/self/ns/net"]).stdout.strip() == inside

    def test_error_contains_the_output_of_the_program(self, namespace: Namespace) -> None:
        with pytest.raises(subprocess.CalledProcessError) as failure:
            namespace.run(["sh", "-c", "echo because >&2; exit 3"])
        assert failure.value.returncode == 3
        assert "because" in "".join(failure.value.__notes__)

    def test_close_ends_started_programs(self, root: None) -> None:
        with Namespace() as namespace:
            process = namespace.start(["sleep", "600"])
            assert process.poll() is None
        assert process.poll() is not None

    def test_is_removed_with_a_killed_process(self, root: None) -> None:
        """After kill -9, nothing remains of a namespace with a program in it."""
        code = (
            "import signal\nfrom tests.lab import Namespace\n"
            "namespace = Namespace()\n"
            "print(namespace.start(['sleep', '600']).pid, namespace.path, flush=True)\nsignal.pause()"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout
            pid, path = owner.stdout.readline().split()
            assert os.path.exists(path)
            owner.kill()
        clock.wait_until(lambda: not os.path.exists(f"/proc/{pid}/ns/net"))
        assert not os.path.exists(path)


class TestCall:
    def test_returns_the_result_of_the_function(self, namespace: Namespace) -> None:
        with namespace.entered():
            inside = network_here()
        assert namespace.call(lambda *words: (*words, network_here()), 1) == (1, inside)

    def test_raises_the_error_of_the_function(self, namespace: Namespace) -> None:
        with pytest.raises(ZeroDivisionError) as failure:
            namespace.call(lambda: 1 // 0)
        assert "in the child" in "".join(failure.value.__notes__)

    def test_has_a_time_limit(self, namespace: Namespace) -> None:
        with pytest.raises(TimeoutError):
            namespace.call(time.sleep, 30, timeout=0.1)

    def test_killed_child_is_reported(self, namespace: Namespace) -> None:
        with pytest.raises(ChildProcessError, match="-9"):
            namespace.call(lambda: os.kill(os.getpid(), signal.SIGKILL))


class TestTable:
    def test_both_readers_agree(self, gateway_lab: Gateway) -> None:
        server = (gateway_lab.SERVER, gateway_lab.SERVER_IPV6)
        flows = [gateway_lab.client1.tcp(address, 7) for address in server]
        flows += [gateway_lab.client2.udp(address, 7) for address in server]
        for flow in flows:
            flow.seen_as()
        for address in server:
            assert gateway_lab.client1.ping(address, identifier=77) == 1
        gateway = gateway_lab.gateway
        gateway.conntrack(
            "-I",
            "-p",
            "gre",
            "-s",
            "192.0.2.1",
            "-d",
            "192.0.2.2",
            "--srckey",
            "1",
            "--dstkey",
            "2",
            "-t",
            "600",
        )
        gateway.conntrack("-I", "-p", "99", "-s", "192.0.2.1", "-d", "192.0.2.2", "-t", "600", "--zone", "5")
        by_program = table.from_program(gateway.conntrack("-L", "-o", "extended,id"))
        with gateway.entered():
            by_pyroute2 = table.from_pyroute2()
        for entry in by_program + by_pyroute2:
            assert 0 < entry.pop("timeout") <= 432000
        assert sorted(by_program, key=str) == sorted(by_pyroute2, key=str)
        assert len(by_program) == 8
        for flow in flows:
            flow.close()

    def test_count_agrees_with_the_kernel(self, namespace: Namespace) -> None:
        for port in range(1, 6):
            insert_udp(namespace, port)
        assert namespace.count() == len(namespace.table()) == 5


class TestEvents:
    def test_events_are_in_order(self, namespace: Namespace) -> None:
        insert_udp(namespace, 1)
        with namespace.events() as changes:
            insert_udp(namespace, 2)
            of_first = ("-p", "udp", "-s", "192.0.2.1", "-d", "192.0.2.2", "--sport", "1", "--dport", "53")
            namespace.conntrack("-U", *of_first, "-m", "5")
            namespace.conntrack("-D", *of_first)
        assert changes.kinds() == ["new", "update", "destroy"]
        assert [change["original"]["source_port"] for change in changes] == [2, 1, 1]
        assert changes[1]["mark"] == 5

    def test_reading_causes_no_event(self, namespace: Namespace) -> None:
        insert_udp(namespace, 1)
        with namespace.events() as changes:
            namespace.table()
        assert not changes

    def test_other_namespaces_cause_no_event(self, namespace: Namespace) -> None:
        with Namespace() as other, namespace.events() as changes:
            insert_udp(other, 1)
        assert not changes

    def test_no_event_of_many_is_lost(self, namespace: Namespace) -> None:
        commands = "".join(
            f"-A -t 600 -p udp -s 192.0.2.1 -d 192.0.2.2 --sport {port} --dport 53"
            f" -r 192.0.2.2 -q 192.0.2.1 --reply-port-src 53 --reply-port-dst {port}\n"
            for port in range(1, 501)
        )
        with namespace.events() as changes:
            namespace.conntrack("-R", "-", input=commands)
        assert changes.kinds() == ["new"] * 500


class TestFirewall:
    @pytest.fixture
    def pair(self, lab: Lab) -> tuple[Host, Host]:
        left, right = lab.host("left"), lab.host("right")
        lab.link(
            left,
            right,
            ["192.0.2.1/24", "2001:db8::1/64"],
            ["192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"],
        )
        right.mirror(7)
        return left, right

    def test_nothing_is_tracked_without_a_rule(self, pair: tuple[Host, Host]) -> None:
        left, right = pair
        with left.udp("192.0.2.2", 7) as flow:
            flow.seen_as()
            assert right.table() == []
            right.firewall.track()
            flow.seen_as()
        assert [entry["original"]["destination_port"] for entry in right.table()] == [7]

    def test_labels(self, pair: tuple[Host, Host]) -> None:
        left, right = pair
        right.firewall.label(3, protocol="udp")
        with left.udp("192.0.2.2", 7) as udp, left.tcp("192.0.2.2", 7) as tcp:
            udp.seen_as()
            tcp.seen_as()
        assert labels(right) == {socket.IPPROTO_UDP: 1 << 3, socket.IPPROTO_TCP: None}

    def test_use_labels_permits_labels_and_sets_none(self, pair: tuple[Host, Host]) -> None:
        left, right = pair
        right.firewall.use_labels()
        with left.udp("192.0.2.2", 7) as flow:
            flow.seen_as()
        assert labels(right) == {socket.IPPROTO_UDP: None}

    def test_marks_and_zones(self, pair: tuple[Host, Host]) -> None:
        left, right = pair
        right.firewall.zone(5, in_interface="left")
        right.firewall.zone(5, "raw_output", out_interface="left")
        right.firewall.mark(0x1234, source="192.0.2.0/25", port=7, protocol="udp")
        with left.udp("192.0.2.2", 7) as flow:
            flow.seen_as()
        (entry,) = right.table()
        assert (entry["zone"], entry["mark"], entry["status"]) == (5, 0x1234, ["seen_reply"])

    @pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
    def test_drops_by_state(self, pair: tuple[Host, Host], address: str) -> None:
        left, right = pair
        with left.udp(address, 7) as known, left.udp(address, 7) as unknown:
            right.firewall.track()
            known.seen_as()
            right.firewall.drop("input", "new", protocol="udp", source=left_address(address))
            known.seen_as()
            with pytest.raises(TimeoutError):
                unknown.seen_as(timeout=0.2)

    def test_dnat_to_address_and_port(self, pair: tuple[Host, Host]) -> None:
        left, right = pair
        right.firewall.dnat("192.0.2.2", 7, destination="192.0.2.3", protocol="tcp", port=80)
        with left.tcp("192.0.2.3", 80) as flow:
            flow.seen_as()
        (entry,) = right.table()
        assert entry["original"]["destination"] == "192.0.2.3"
        assert (entry["reply"]["source"], entry["reply"]["source_port"]) == ("192.0.2.2", 7)

    def test_snat_to_a_port_and_masquerade(self, pair: tuple[Host, Host]) -> None:
        left = pair[0]
        left.firewall.snat("192.0.2.1", 999, protocol="udp", destination="192.0.2.2")
        left.firewall.masquerade(out_interface="right")
        with left.udp("192.0.2.2", 7) as udp, left.udp("192.0.2.3", 7, source_port=5000) as other:
            assert udp.seen_as() == ("192.0.2.1", 999)
            assert other.seen_as() == ("192.0.2.1", 5000)


def labels(host: Host) -> dict[int, int | None]:
    """Return the labels by protocol number, as pyroute2 reads them."""
    with host.entered():
        return {
            message.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_NUM"): message.get_attr(
                "CTA_LABELS"
            )
            for message in table.messages()
        }


def left_address(of_right: str) -> str:
    return of_right.replace("2.2", "2.1") if "." in of_right else of_right.replace("::2", "::1")


class TestNetwork:
    def test_nat_in_both_families_and_all_protocols(self, gateway_lab: Gateway) -> None:
        for address, outside in (
            (gateway_lab.SERVER, gateway_lab.OUTSIDE[0]),
            (gateway_lab.SERVER_IPV6, gateway_lab.OUTSIDE_IPV6[0]),
        ):
            for client in (gateway_lab.client1, gateway_lab.client2):
                with client.tcp(address, 7) as tcp, client.udp(address, 7) as udp:
                    assert tcp.seen_as().address == udp.seen_as().address == outside
                assert client.ping(address, count=3) == 3

    def test_an_established_flow_keeps_its_address_after_a_change(self, gateway_lab: Gateway) -> None:
        with gateway_lab.client1.udp(gateway_lab.SERVER, 7) as flow:
            assert flow.seen_as().address == gateway_lab.OUTSIDE[0]
            gateway_lab.translate_to(1)
            assert flow.seen_as().address == gateway_lab.OUTSIDE[0]
            with gateway_lab.client2.udp(gateway_lab.SERVER, 7) as other:
                assert other.seen_as().address == gateway_lab.OUTSIDE[1]

    def test_flows_have_different_ports(self, lab: Lab) -> None:
        left, right = lab.host("left"), lab.host("right")
        lab.link(left, right, ["192.0.2.1/24"], ["192.0.2.2/24"])
        right.mirror(7)
        left.sysctl("net.ipv4.ip_local_port_range", "40000 40019")
        with contextlib.ExitStack() as closing:
            flows = [closing.enter_context(left.udp("192.0.2.2", 7)) for _unused in range(20)]
            assert sorted(flow.seen_as().port for flow in flows) == list(range(40000, 40020))

    def test_a_switch_joins_hosts(self, lab: Lab) -> None:
        lan = lab.switch("lan")
        hosts = [lab.host(f"host{number}") for number in (1, 2, 3)]
        for number, host in enumerate(hosts, start=1):
            lab.link(host, lan, [f"192.0.2.{number}/24"])
        hosts[2].mirror(7)
        for number in (1, 2):
            with hosts[number - 1].tcp("192.0.2.3", 7) as flow:
                assert flow.seen_as().address == f"192.0.2.{number}"

    def test_ping_without_an_answer(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.lab.traffic.TIMEOUT", 0.1)
        left, right = lab.host("left"), lab.host("right")
        lab.link(left, right, ["192.0.2.1/24"], ["192.0.2.2/24"])
        right.firewall.drop("input", protocol="icmp")
        assert left.ping("192.0.2.2", count=2) == 0

    def test_a_reset_ends_a_connection(self, gateway_lab: Gateway) -> None:
        flow = gateway_lab.client1.tcp(gateway_lab.SERVER, 7)
        flow.seen_as()
        flow.reset()
        (entry,) = gateway_lab.gateway.table()
        assert entry["state"] == "close"

    def test_everything_is_removed_after_a_failure(self, root: None) -> None:
        networks: dict[str, str] = {}

        def fail(lab: Lab) -> None:
            lab.gateway_topology()
            networks.update((os.readlink(path), path) for path in lab.paths().values())
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), Lab() as lab:
            fail(lab)
        assert len(networks) == 4
        remaining = {os.readlink(path) for path in networks.values() if os.path.exists(path)}
        assert not remaining & networks.keys()

    def test_second_host_with_the_same_name_is_refused(self, lab: Lab) -> None:
        lab.host("one")
        with pytest.raises(ValueError, match="one"):
            lab.host("one")
