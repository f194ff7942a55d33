# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a reset of counters loses no packets, returns none twice and changes no other entry; bills use them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.counters import (
    ZeroingFailed,
    warnings_of,
    zero,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import ANSWERED_BATCH_SIZE
from ansible_collections.netops.conntrack.plugins.modules.conntrack_counters import NOTHING
from ansible_collections.netops.conntrack.tests.unit.support import fake_kernel, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import DUMP

ODD = parse_match({"mark": "1/1"})


class Kernel(fake_kernel.Kernel):
    """A kernel that counts packets, and resets the counters that it returns for a request with zeroing."""

    def _payload(self, there: fake_kernel.Connection) -> bytes:
        shown = super()._payload(there)
        if self.zeroing and there.packets is not None:
            there.packets = there.bytes = (0, 0)
        return shown

    def _answers(self, request: wire.Framed) -> list[Any]:
        self.zeroing = request.type == fake_kernel.GET_ZERO
        return super()._answers(request)


@pytest.fixture
def kernel() -> Kernel:
    """Four flows of 1, 2, 3 and 4 packets in each direction, one without packets, and one older than accounting."""
    kernel = Kernel()
    with kernel.table() as table:
        for port in range(1, 7):
            table.create(flow(port))
    for number, there in enumerate(kernel.connections[:4], 1):
        there.packets, there.bytes = (number, 10 * number), (100 * number, 1000 * number)
    kernel.connections[4].packets = kernel.connections[4].bytes = (0, 0)
    kernel.forget()
    return kernel


def flow(port: int) -> Any:
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": port, "destination_port": 53}
    return creation(from_document({"protocol": "udp", "original": ends, "mark": port}))


def run(kernel: Kernel, match: Match = EVERYTHING, check_mode: bool = False, report_limit: int = 100) -> dict[str, Any]:
    with kernel.table() as table:
        return zero(table, match, report_limit, LabelMap(), check_mode)


def kinds(kernel: Kernel) -> list[Any]:
    return [(request.type, request.flags & DUMP == DUMP) for request in kernel.requests]


def counts(kernel: Kernel) -> list[Any]:
    return [there.packets for there in kernel.connections]


def ports(result: dict[str, Any]) -> list[int]:
    return [entry["original"]["source_port"] for entry in result["entries"]]


def test_entries_from_before_accounting_are_counted(kernel: Kernel) -> None:
    """These entries carried traffic that the result key `total` does not include."""
    result = run(kernel)
    assert result["uncounted"] == 1
    assert warnings_of(result)[0].startswith("1 matching entry has no counters, because the kernel counts only")
    kernel.connections[0].packets = None
    result = run(kernel, check_mode=True)
    assert warnings_of(result)[0].startswith("2 matching entries have no counters")
    assert warnings_of(run(kernel, parse_match({"mark": 3}))) == []


def test_without_proc_entries_without_counters_are_a_failure(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without /proc, the module cannot determine whether accounting is off."""
    absent = str(tmp_path / "proc/sys/net/netfilter")
    monkeypatch.setattr(sysctl.read, "__defaults__", (absent,))
    monkeypatch.setattr(sysctl.check_mounted, "__defaults__", (absent,))
    assert run(kernel)["zeroed"] == 4, "these have counters, so accounting is on"
    with pytest.raises(ZeroingFailed, match="^None of the matching entries has counters.*mount /proc") as failure:
        run(kernel, parse_match({"mark": 6}))
    assert failure.value.result["uncounted"] == 1


def test_reset_of_all_entries_is_one_dump(kernel: Kernel) -> None:
    result = run(kernel)
    assert kinds(kernel) == [(fake_kernel.GET_ZERO, True)]
    assert result["matched"] == 6
    assert result["zeroed"] == 4
    assert ports(result) == [1, 2, 3, 4]
    assert result["entries"][2]["counters"] == {
        "original": {"packets": 3, "bytes": 300},
        "reply": {"packets": 30, "bytes": 3000},
    }
    assert result["total"] == {"original": {"packets": 10, "bytes": 1000}, "reply": {"packets": 100, "bytes": 10000}}
    assert counts(kernel) == [(0, 0)] * 5 + [None]
    again = run(kernel)
    assert not again["changed"]
    assert {**again, "diff": None} == {**NOTHING, "changed": False, "matched": 6, "uncounted": 1, "diff": None}


#: The number of requests before the first change: one counts the entries, one reads them.
READ = 2


def test_only_matching_entries_are_requested(kernel: Kernel) -> None:
    result = run(kernel, ODD)
    assert sorted(kinds(kernel)) == [
        (fake_kernel.GET, True),
        *[(fake_kernel.GET_ZERO, False)] * 2,
        (fake_kernel.GET_STATS, False),
    ]
    assert ports(result) == [1, 3]
    assert result["matched"] == 3, "the entry without packets matches, too"
    assert counts(kernel)[:4] == [(0, 0), (2, 20), (0, 0), (4, 40)]
    assert result["total"]["original"] == {"packets": 4, "bytes": 400}


def test_check_mode_predicts_the_reset_and_changes_nothing(kernel: Kernel) -> None:
    before = counts(kernel)
    for match in (EVERYTHING, ODD):
        predicted = run(kernel, match, check_mode=True)
        assert counts(kernel) == before
        assert {kind for kind, _dumped in kinds(kernel)} <= {fake_kernel.GET, fake_kernel.GET_STATS}
        copy = [(there.packets, there.bytes) for there in kernel.connections]
        assert run(kernel, match) == predicted
        for there, (packets, size) in zip(kernel.connections, copy):
            there.packets, there.bytes = packets, size
        kernel.forget()


def test_totals_include_entries_beyond_the_report_limit(kernel: Kernel) -> None:
    result = run(kernel, report_limit=1)
    assert ports(result) == [1]
    assert result["zeroed"] == 4
    assert result["total"]["original"]["packets"] == 10
    assert result["diff"] == {
        "before": "udp 10.0.0.1:1 -> 10.0.0.2:53: original 1 packets 100 bytes; reply 10 packets 1000 bytes\n",
        "after": "udp 10.0.0.1:1 -> 10.0.0.2:53: original 0 packets 0 bytes; reply 0 packets 0 bytes\n",
    }


def test_packets_counted_after_the_dump_are_included(kernel: Kernel) -> None:
    def more(number: int, request: wire.Framed) -> None:
        if number == READ:
            kernel.connections[0].packets, kernel.connections[0].bytes = (9, 9), (9, 9)

    kernel.meanwhile = more
    assert run(kernel, ODD)["entries"][0]["counters"]["original"] == {"packets": 9, "bytes": 9}


def test_entry_that_ends_after_the_dump_is_not_a_failure(kernel: Kernel) -> None:
    def end_entry(number: int, request: wire.Framed) -> None:
        if number == READ:
            kernel.drop(kernel.connections[0])

    kernel.meanwhile = end_entry
    result = run(kernel, ODD)
    assert result["gone"] == 1
    assert ports(result) == [3]


def test_refused_reset_does_not_stop_the_others(kernel: Kernel) -> None:
    kernel.faults[READ] = fake_kernel.Fault(errno.EPERM)
    with pytest.raises(
        ZeroingFailed, match=r"^1 of 2 entries were not zeroed, .*zeroing the counters of udp 10.0.0.1:1 ->"
    ):
        run(kernel, ODD)


def test_lost_answers_are_reported_as_lost(kernel: Kernel) -> None:
    kernel.faults[READ + 1] = fake_kernel.Fault(errno.ENOBUFS, lost=True, carried_out=True)
    with pytest.raises(ZeroingFailed, match="counts of 1 of them may be zeroed and lost") as failure:
        run(kernel, ODD)
    assert ports(failure.value.result) == [1], "answers that were received earlier are kept"
    assert failure.value.result["changed"]


@pytest.mark.parametrize("match", ["ODD", "all"])
def test_counts_that_may_be_lost_are_reported_as_a_change(kernel: Kernel, match: str) -> None:
    lost = fake_kernel.Fault(errno.ENOBUFS, lost=True, carried_out=True)
    kernel.faults = dict.fromkeys(range(READ if match == "ODD" else 0, 100), lost)
    with pytest.raises(ZeroingFailed) as failure:
        run(kernel, ODD) if match == "ODD" else run(kernel)
    assert (failure.value.result["changed"], failure.value.result["zeroed"]) == (True, 0)


def test_interrupted_dump_returns_the_entries_read_so_far(kernel: Kernel) -> None:
    answers = kernel.respond

    def broken(request: wire.Framed) -> Any:
        return [*list(answers(request))[:2], OSError(errno.ENOBUFS, "lost")]

    kernel.respond = broken  # type: ignore[method-assign]
    with pytest.raises(ZeroingFailed, match="The result has the counters zeroed before") as failure:
        run(kernel)
    assert ports(failure.value.result) == [1, 2]


def test_many_requests_are_sent_in_windows() -> None:
    kernel = Kernel()
    count = 3 * ANSWERED_BATCH_SIZE + 1
    with kernel.table() as table:
        list(table.create_all(flow(port) for port in range(1, count + 1)))
    for there in kernel.connections:
        there.packets, there.bytes = (1, 0), (60, 0)
    kernel.forget()
    result = run(kernel, parse_match({"family": "ipv4", "protocol": "udp"}), report_limit=count)
    assert ports(result) == list(range(1, count + 1))
    sent = [datagram for datagrams in kernel.sockets for datagram in datagrams.sent]
    assert len(sent) == READ + 4
