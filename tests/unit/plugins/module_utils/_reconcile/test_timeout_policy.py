# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a run changes only the declared values of a timeout policy and never removes a policy that rules use."""

from __future__ import annotations

import errno
from typing import Any, Iterable

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import CannotReconcile
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.timeout_policy import (
    declared_policy,
    reconcile,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.unit.support import fake_socket, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import FakeDatagrams, Reply

NEW, GET, DELETE, SET_DEFAULTS, GET_DEFAULTS = range(0x800, 0x805)
WRITES = (NEW, DELETE, SET_DEFAULTS)
REPLACE = 0x100


class Kernel:
    """The policies and defaults of one namespace, as Linux 6.18 stores them."""

    def __init__(self) -> None:
        self.defaults: dict[int, dict[int, int]] = {
            6: dict.fromkeys(range(1, 12), 120),
            17: {1: 30, 2: 120},
            58: {1: 30},
        }
        self.policies: dict[bytes, dict[str, Any]] = {}
        self.requests: list[wire.Framed] = []
        #: The errno that the kernel returns for a message type.
        self.faults: dict[int, int] = {}

    def table(self) -> Table:
        return Table(lambda: NetlinkSocket(FakeDatagrams(self.respond)))

    @property
    def writes(self) -> list[int]:
        return [request.type for request in self.requests if request.type in WRITES]

    def respond(self, request: wire.Framed) -> Iterable[Reply]:
        self.requests.append(request)
        sent = wire.tree(request.payload[4:])
        code = self.faults.get(request.type, 0) or self._do(request, sent)
        if not code and request.type in (GET, GET_DEFAULTS):
            yield wire.framed(request.type & 0xFF00 | 0, 2, request.sequence, b"\0\0\0\0" + self._shown(request, sent))
        yield fake_socket.refusal(request, code)

    def _do(self, request: wire.Framed, sent: dict[int, Any]) -> int:
        there = self.policies.get(sent.get(1, b""))
        if request.type in (GET, DELETE) and there is None:
            return errno.ENOENT
        if request.type == DELETE and there is not None:
            if there["use"] > 1:
                return errno.EBUSY
            del self.policies[sent[1]]
        if request.type in (GET, DELETE):
            return 0
        kind = (sent[2], sent[3])
        if sent[3][0] not in self.defaults:
            return errno.EOPNOTSUPP
        seconds = {number: int.from_bytes(data, "big") for number, data in sent.get(4, {}).items()}
        if request.type == SET_DEFAULTS:
            self.defaults[sent[3][0]].update(seconds)
        elif request.type == NEW and there is None:
            self.policies[sent[1]] = {"kind": kind, "use": 1, "seconds": {**self.defaults[sent[3][0]], **seconds}}
        elif request.type == NEW and there is not None:
            if request.flags & fake_socket.EXCL:
                return errno.EEXIST
            if not request.flags & REPLACE:
                return errno.EBUSY
            if there["kind"] != kind:
                return errno.EINVAL
            there["seconds"] = {**self.defaults[sent[3][0]], **seconds}
        return 0

    def _shown(self, request: wire.Framed, sent: dict[int, Any]) -> bytes:
        if request.type == GET_DEFAULTS:
            return self._encoded(None, (sent[2], sent[3]), self.defaults[sent[3][0]], 0)
        there = self.policies[sent[1]]
        return self._encoded(sent[1], there["kind"], there["seconds"], there["use"])

    def _encoded(self, name: Any, kind: Any, seconds: dict[int, int], use: int) -> bytes:
        attributes = [] if name is None else [wire.attribute((1,), name)]
        attributes += [wire.attribute((2,), kind[0]), wire.attribute((3,), kind[1])]
        inner = b"".join(wire.attribute((number,), value.to_bytes(4, "big")) for number, value in seconds.items())
        attributes.append(wire.attribute((4 | wire.NESTED,), inner))
        attributes += [] if name is None else [wire.attribute((5,), use.to_bytes(4, "big"))]
        return b"".join(attributes)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def params(**given: Any) -> dict[str, Any]:
    options = {"name": None, "default": False, "family": None, "protocol": None, "timeouts": None, "state": "present"}
    return {**options, "replace": False, "use": None, **given}


def run(kernel: Kernel, check_mode: bool = False, **given: Any) -> dict[str, Any]:
    options = params(**given)
    with kernel.table() as table:
        return reconcile(table, declared_policy(options), options["state"], options["replace"], check_mode)


def thrice(kernel: Kernel, **given: Any) -> dict[str, Any]:
    """Run in check mode, for real, and again. Only the real run may write, and its result must equal the prediction."""
    del kernel.requests[:]
    predicted = run(kernel, check_mode=True, **given)
    assert kernel.writes == []
    done = run(kernel, **given)
    assert done == predicted
    assert kernel.writes
    del kernel.requests[:]
    again = run(kernel, **given)
    assert [request.type for request in kernel.requests] in ([GET], [GET_DEFAULTS])
    assert (again["changed"], again["operation"], again["changes"]) == (False, "unchanged", [])
    assert again["before"] == again["policy"] == done["policy"]
    assert again["diff"]["before"] == again["diff"]["after"]
    return done


WEB = {"name": "web", "family": "ipv4", "protocol": "tcp", "timeouts": {"established": 3600, "close": 5}}


def test_created(kernel: Kernel) -> None:
    done = thrice(kernel, **WEB)
    assert done["operation"] == "created"
    assert done["before"] == {}
    assert done["changes"] == []
    assert done["policy"]["timeouts"] == {**dict.fromkeys(done["policy"]["timeouts"], 120), **WEB["timeouts"]}
    assert done["diff"] == {"before": {}, "after": WEB}


def test_only_declared_timeouts_are_changed_in_place(kernel: Kernel) -> None:
    run(kernel, **WEB)
    kernel.policies[b"web\0"]["use"] = 3
    kernel.defaults[6] = dict.fromkeys(range(1, 12), 7)
    done = thrice(kernel, **{**WEB, "timeouts": {"time_wait": 9, "close": 5}})
    assert done["operation"] == "updated"
    assert done["changes"] == [{"key": "timeouts.time_wait", "before": 120, "after": 9}]
    assert done["policy"]["timeouts"]["established"] == 3600, "the timeout of an undeclared state is kept"
    assert done["policy"]["timeouts"]["syn_sent"] == 120, "and is not reset to a default"
    assert done["policy"]["use"] == 3
    assert done["diff"]["before"]["timeouts"] == {"close": 5, "time_wait": 120}
    assert done["diff"]["after"]["timeouts"] == {"close": 5, "time_wait": 9}


@pytest.mark.parametrize(
    ("otherwise", "key"),
    [
        ({"family": "ipv6"}, "family"),
        ({"protocol": "udp", "timeouts": {"replied": 3}}, "protocol"),
    ],
)
def test_policy_of_another_protocol_or_family_requires_replace(
    kernel: Kernel, otherwise: dict[str, Any], key: str
) -> None:
    run(kernel, **WEB)
    del kernel.requests[:]
    for check_mode in (True, False):
        with pytest.raises(CannotReconcile, match=r"timeout policy web \(ipv4 tcp\) cannot .* set replace") as failure:
            run(kernel, check_mode, **{**WEB, **otherwise})
        assert failure.value.result["before"] == failure.value.result["policy"]
        assert failure.value.result["policy"]["protocol"] == "tcp"
        assert not failure.value.result["changed"]
    kernel.policies[b"web\0"]["use"] = 2
    with pytest.raises(CannotReconcile, match="cannot be replaced: a rule uses it"):
        run(kernel, replace=True, **{**WEB, **otherwise})
    assert kernel.writes == []
    kernel.policies[b"web\0"]["use"] = 1
    done = thrice(kernel, replace=True, **{**WEB, **otherwise})
    assert done["operation"] == "replaced"
    assert key in [change["key"] for change in done["changes"]]
    if key == "family":
        assert done["policy"]["timeouts"] == done["before"]["timeouts"], "undeclared values are kept"


def test_refused_replace_restores_the_old_policy(kernel: Kernel) -> None:
    run(kernel, **WEB)
    create = kernel._do

    def refusing(request: wire.Framed, sent: dict[int, Any]) -> int:
        return errno.ENOMEM if request.type == NEW and sent[2] == b"\0\x0a" else create(request, sent)

    kernel._do = refusing  # type: ignore[method-assign]
    with pytest.raises(CannotReconcile, match="was deleted and restored") as failure:
        run(kernel, replace=True, **{**WEB, "family": "ipv6"})
    assert not failure.value.result["changed"], "a restored policy is the same"
    assert failure.value.result["policy"]["timeouts"]["established"] == 3600
    kernel.faults[NEW] = errno.ENOMEM
    with pytest.raises(CannotReconcile, match="was deleted and could not be restored") as failure:
        run(kernel, replace=True, **{**WEB, "family": "ipv6"})
    assert failure.value.result["changed"]
    assert failure.value.result["operation"] == "deleted"
    assert failure.value.result["policy"] == {}


def test_deleted(kernel: Kernel) -> None:
    run(kernel, **WEB)
    done = thrice(kernel, name="web", state="absent")
    assert done["operation"] == "deleted"
    assert done["policy"] == {}
    assert done["before"]["name"] == "web"
    assert done["diff"]["after"] == {}


def test_not_deleted_while_in_use(kernel: Kernel) -> None:
    run(kernel, **WEB)
    kernel.policies[b"web\0"]["use"] = 2
    for check_mode in (True, False):
        message = r"web \(ipv4 tcp\) cannot be deleted: a rule uses it; remove that rule"
        with pytest.raises(CannotReconcile, match=message):
            run(kernel, check_mode, name="web", state="absent")
    kernel.policies[b"web\0"]["use"] = 1
    kernel.faults[DELETE] = errno.EBUSY
    with pytest.raises(CannotReconcile, match="cannot be deleted: a rule uses it"):
        run(kernel, name="web", state="absent")


def lose_answers(kernel: Kernel, lost: list[bool]) -> None:
    """Lose the answers to the next writes; each item of `lost` is whether the kernel carries that write out."""
    respond = kernel.respond

    def watched(request: wire.Framed) -> Iterable[Reply]:
        if request.type not in WRITES or not lost:
            return respond(request)
        if lost.pop(0):
            list(respond(request))
        return [OSError(errno.ENOBUFS, "lost")]

    kernel.respond = watched  # type: ignore[method-assign]


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize(
    ("before", "declared"),
    [
        (None, WEB),
        (WEB, {**WEB, "timeouts": {"close": 9}}),
        (WEB, {"name": "web", "state": "absent"}),
        (WEB, {**WEB, "protocol": "udp", "timeouts": {"replied": 9}, "replace": True}),
    ],
    ids=["created", "updated", "deleted", "replaced"],
)
def test_lost_answer_is_recovered(kernel: Kernel, before: Any, declared: Any, carried_out: bool) -> None:
    if before is not None:
        run(kernel, **before)
    predicted = run(kernel, check_mode=True, **declared)
    lose_answers(kernel, [carried_out])
    assert run(kernel, **declared) == predicted


def test_lost_answers_are_reported_as_a_change(kernel: Kernel) -> None:
    lose_answers(kernel, [False] * 9)
    with pytest.raises(CannotReconcile) as failure:
        run(kernel, **WEB)
    assert (failure.value.result["changed"], failure.value.result["operation"]) == (True, "created")
    assert failure.value.result["policy"] == {}


def test_policy_deleted_concurrently_is_reported_as_deleted(kernel: Kernel) -> None:
    run(kernel, **WEB)
    delete = kernel._do

    def first(request: wire.Framed, sent: dict[int, Any]) -> int:
        code = delete(request, sent)
        return errno.ENOENT if request.type == DELETE else code

    kernel._do = first  # type: ignore[method-assign]
    assert run(kernel, name="web", state="absent")["operation"] == "deleted"


def test_defaults(kernel: Kernel) -> None:
    done = thrice(kernel, default=True, protocol="udp", family="ipv6", timeouts={"unreplied": 10})
    assert done["operation"] == "updated"
    assert done["before"] == {"protocol": "udp", "timeouts": {"unreplied": 30, "replied": 120}}
    assert done["policy"] == {"protocol": "udp", "timeouts": {"unreplied": 10, "replied": 120}}
    assert done["changes"] == [{"key": "timeouts.unreplied", "before": 30, "after": 10}]
    assert kernel.defaults[17] == {1: 10, 2: 120}
    assert kernel.policies == {}


def test_a_protocol_that_the_kernel_does_not_track(kernel: Kernel) -> None:
    for about in ({"name": "d", "family": "ipv4"}, {"default": True}):
        with pytest.raises(CannotReconcile, match="timeouts of dccp.*EOPNOTSUPP.*does not track"):
            run(kernel, check_mode=True, protocol="dccp", timeouts={"open": 5}, **about)


def test_refusal_has_a_complete_result(kernel: Kernel) -> None:
    kernel.faults[NEW] = errno.EPERM
    with pytest.raises(CannotReconcile, match="^creating timeout policy web .ipv4 tcp.: .*CAP_NET_ADMIN") as failure:
        run(kernel, **WEB)
    assert failure.value.result == {
        "changed": False,
        "operation": "unchanged",
        "changes": [],
        "before": {},
        "policy": {},
    }


def test_policy_that_is_missing_after_creation_is_a_failure(kernel: Kernel) -> None:
    kernel._do = lambda request, sent: 0 if request.type == NEW else Kernel._do(kernel, request, sent)  # type: ignore[method-assign]
    with pytest.raises(CannotReconcile, match="is not as declared after it was created: name is None") as failure:
        run(kernel, **WEB)
    assert failure.value.result["operation"] == "created"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"protocol": "tcp", "timeouts": {"close": 1}}, "name: is missing; .*default: true"),
        ({"name": "x", "default": True}, "default: name is set, too"),
        ({"default": True, "state": "absent"}, "state: the default timeouts of a protocol cannot be removed"),
        ({"name": "x", "family": "ipv4", "timeouts": {}}, "protocol: is missing"),
        ({"name": "x", "family": "ipv4", "protocol": "tcp"}, "timeouts: names no state"),
        ({"name": "x", "family": "ipv4", "protocol": "tcp", "timeouts": {}}, "timeouts: names no state"),
        ({"name": "x", "protocol": "tcp", "timeouts": {"close": 1}}, "family: is missing; write ipv4 or ipv6"),
        (
            {"name": "x", "family": "ipv4", "protocol": "icmpv6", "timeouts": {"timeout": 1}},
            "family: icmpv6 is of ipv6",
        ),
        (
            {"name": "x", "family": "ipv6", "protocol": "icmp", "timeouts": {"timeout": 1}},
            "family: icmp is of ipv4 only",
        ),
    ],
)
def test_invalid_parameters_are_reported(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        declared_policy(params(**given))
