# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Flush, update, wait, save and restore in a loop on a gateway with many new connections, in private namespaces.

Connections outside the matches must not break, the numbers of changes must equal the kernel's events, and the memory
must not grow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import collection_tree, programs
from tests.lab import Forbidden, Gateway, Lab, Namespace, become_root, has_ipv6
from tests.processes import ending_with_this

collection_tree.use()

from . import clients, ports, report, server, witness, worker  # noqa: E402
from .children import Child, ChildFailed  # noqa: E402

#: Seconds that the entry of a closed connection remains. A short run uses less, so that the table soon has its size.
CLOSED, SHORTEST, CLOSED_PART = 10, 3, 8
#: Seconds that other TCP entries remain, so that entries without a connection do not fill the table.
TIMEOUTS = {
    **dict.fromkeys(("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack"), CLOSED),
    **dict.fromkeys(("established", "max_retrans", "unacknowledged"), 60),
}
#: The connections of 15 seconds must fill at most half of the table.
LASTING, PART = 15, 2
#: Source addresses of each client, and the source ports of the clients.
ADDRESSES = 4
SOURCE_PORTS = ((10000, 34999), (35000, 59999))
#: Each cycle waits for the new entries of 0.2 seconds.
CYCLE = 0.2
OPEN_FILES = 16384
INTERRUPTED = 130
#: Seconds within which a process must answer.
PATIENCE = 300.0
#: Seconds between two lines that show the progress.
PROGRESS = 10.0

#: The guarantees that the option `--break` can break.
BREAKS = {
    "echo": "the server answers incorrectly now and then",
    "flush": "the flush also removes other entries",
    "count": "the flush reports too many entries",
    "memory": "the worker keeps memory",
}


def main() -> int:
    options = _options()
    status = INTERRUPTED
    programs.extend_path()
    try:
        become_root()
        with ending_with_this():
            status = _soak(options)
    except (Forbidden, TooFast) as reason:
        print(f"The soak test cannot run here: {reason}.", file=sys.stderr)
        return 2
    return status


class TooFast(RuntimeError):
    """The table of the machine is too small for the rate."""


def _soak(options: argparse.Namespace) -> int:
    _allow_open_files()
    load = os.getloadavg()[0]
    with Lab() as lab, tempfile.TemporaryDirectory(prefix="conntrack-soak-") as folder, contextlib.ExitStack() as ends:
        scene = lab.gateway_topology()
        _check_room(scene.gateway, options.rate)
        _configure(scene, max(SHORTEST, min(CLOSED, options.seconds // CLOSED_PART)))
        standby = lab.host("standby")
        try:
            run = _run(options, scene, standby, Path(folder), ends)
        except ChildFailed as failure:
            print(f"\nFAILED: {failure}")
            return 1
    print(f"\nFigures (load of the machine at the start: {load:.1f}, at the end: {os.getloadavg()[0]:.1f}):\n")
    for line in report.figures(run):
        print(f"  {line}")
    failures = list(report.violations(run))
    for sentence in failures:
        print(f"\nFAILED: {sentence}")
    if not failures:
        print(
            "\nNo connection outside the matches broke, the events match the reported changes, and the memory "
            "did not grow."
        )
    return 1 if failures else 0


def _run(
    options: argparse.Namespace, scene: Gateway, standby: Namespace, folder: Path, ends: contextlib.ExitStack
) -> report.Run:
    def child(name: str, namespace: Namespace, function: Callable[..., Any], *arguments: Any) -> Child:
        started = Child(name, namespace, function, *arguments)
        ends.callback(started.end)
        started.wait_until_ready(PATIENCE)
        return started

    orders = worker.Orders(
        options.seconds,
        max(1, int(options.rate * CYCLE * ports.TURNS.count(ports.FLUSHED) / len(ports.TURNS))),
        scene.gateway,
        standby,
        folder,
        options.broken,
        os.readlink("/proc/self/ns/net"),
    )
    both = {"gateway": scene.gateway, "standby": standby}
    watching = child("the witness", scene.gateway, witness.watch, both)
    child("the server", scene.server, server.serve, 50 if options.broken == "echo" else 0)
    pairs = ((scene.client1, scene.client2), SOURCE_PORTS)
    talking = [
        child(f"client {number}", host, clients.connect, _plan(scene, number, options.rate / 2, *span))
        for number, (host, span) in enumerate(zip(*pairs, strict=True), start=1)
    ]
    working = child("the worker", scene.gateway, worker.work, orders)
    _wait(options.seconds, working, talking, scene.gateway)
    work = working.result(PATIENCE)
    talked = [each.stop(PATIENCE) for each in talking]
    return report.Run(options.rate, talked, work, watching.stop(PATIENCE))


def _wait(seconds: float, working: Child, talking: list[Child], gateway: Namespace) -> None:
    """Wait until the worker answers or a client dies, and show the progress."""
    began = shown = time.monotonic()
    while not working.has_answer(0.2) and time.monotonic() < began + seconds + PATIENCE:
        for client in talking:
            if client.has_answer(0):
                client.result(0)
        if time.monotonic() > shown + PROGRESS:
            shown = time.monotonic()
            print(f"{shown - began:5.0f} s  {gateway.count():,} entries in the table", file=sys.stderr, flush=True)


def _plan(scene: Gateway, number: int, rate: float, first_port: int, last_port: int) -> clients.Plan:
    addresses = []
    for place in range(ADDRESSES):
        # The odd ones are IPv6, if the kernel has it
        if place % 2 and has_ipv6():
            addresses.append((f"2001:db8:{number}::{place + 2}", scene.SERVER_IPV6))
        else:
            addresses.append((f"10.{number}.0.{place + 2}", scene.SERVER))
    return clients.Plan(number, rate, addresses, first_port, last_port)


def _configure(scene: Gateway, closed: int) -> None:
    """Masquerade, drop what conntrack finds invalid, and let entries of closed connections expire soon."""
    firewall = scene.gateway.firewall
    firewall.clear("snat")
    firewall.masquerade(out_interface="server")
    for chain in ("input", "forward"):
        firewall.drop(chain, state="invalid")
    for state, seconds in {**TIMEOUTS, "time_wait": closed, "close": closed}.items():
        scene.gateway.sysctl(f"nf_conntrack_tcp_timeout_{state}", seconds)
    scene.gateway.sysctl("nf_conntrack_udp_timeout", closed)
    scene.gateway.sysctl("nf_conntrack_udp_timeout_stream", 30)
    for number, client in enumerate((scene.client1, scene.client2), start=1):
        for place in range(1, ADDRESSES):
            client.address("gateway", f"10.{number}.0.{place + 2}/24", f"2001:db8:{number}::{place + 2}/64")


def _check_room(gateway: Namespace, rate: float) -> None:
    most = int(gateway.sysctl("nf_conntrack_max"))
    fastest = most // PART // LASTING
    if rate > fastest:
        raise TooFast(
            f"net.netfilter.nf_conntrack_max is {most:,} on this machine, enough for {fastest:,} new connections per "
            f"second; write --rate {fastest} or less"
        )


def _allow_open_files() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=_positive, default=120, metavar="N", help="duration (default: 120)")
    parser.add_argument(
        "--rate", type=_positive, default=2000, metavar="N", help="new connections per second (default: 2000)"
    )
    parser.add_argument(
        "--break",
        dest="broken",
        choices=BREAKS,
        default="",
        help="break something on purpose, to see that the soak test detects it: "
        + "; ".join(f"{name}: {what}" for name, what in BREAKS.items()),
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
