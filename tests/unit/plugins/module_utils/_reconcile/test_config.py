# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that one declaration brings a gateway to the declared state, predicts it, and reports a failure correctly."""

from __future__ import annotations

import contextlib
import errno
import re
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.config import (
    IDLE,
    SECTIONS,
    ConfigFailed,
    Context,
    reconcile,
)
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.desired_config import (
    Declaration,
    DeclaredExpectation,
    DeclaredPolicy,
    contradictions,
)
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import NO_COUNTS, parse_entries
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.timeout_policy import declared_policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation.expectation import (
    from_document,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import TcpConnection
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.sysctl import parse
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.tests.profiles import examples, spread
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils._reconcile import test_timeout_policy
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils._reconcile.test_expectation import (
    CONTROL,
    ExpectingKernel,
    announced,
)
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.declarations import (
    FLOW,
    declarations,
    filled,
    held,
    missing,
)
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import Connection, Fault
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import CREATE, Reply

Document = Dict[str, Any]

WRITES = (0x100, 0x102, 0x200, 0x202, 0x800, 0x802, 0x803)
FILES = {"nf_conntrack_max": 262144, "nf_conntrack_acct": 0, "nf_conntrack_udp_timeout": 30, "nf_conntrack_count": 0}


class Gateway(ExpectingKernel):
    """Entries, expectations, timeout policies and settings of one namespace."""

    def __init__(self) -> None:
        super().__init__()
        self.policies = test_timeout_policy.Kernel()
        self._folder = tempfile.TemporaryDirectory(prefix="conntrack-")
        self.directory = self._folder.name
        for name, value in FILES.items():
            (Path(self.directory) / name).write_text(f"{value}\n")

    def close(self) -> None:
        self._folder.cleanup()

    @property
    def writes(self) -> list[wire.Framed]:
        return [request for request in self.requests if request.type in WRITES]

    def settings(self) -> dict[str, int]:
        return {name: int((Path(self.directory) / name).read_text()) for name in FILES}

    def state(self) -> Any:
        """Return everything that a run can change, for comparisons."""
        expectations = sorted(repr((one.attributes, one.master.key)) for one in self.expectations)
        return self.snapshot(), expectations, self.policies.defaults, self.policies.policies, self.settings()

    def _answers(self, request: wire.Framed) -> list[Reply]:
        if request.type >> 8 == 8:
            return list(self.policies.respond(request))
        return super()._answers(request)

    def drop(self, connection: Connection) -> None:
        super().drop(connection)
        self._lapse(connection)

    def _change_helper(self, found: Connection, name: str) -> None:
        super()._change_helper(found, name)
        if not found.helper:
            self._lapse(found)

    def _lapse(self, master: Connection) -> None:
        self.expectations = [one for one in self.expectations if one.master is not master]


@contextlib.contextmanager
def gateway(documents: Any = (), expectations: Any = ()) -> Iterator[Gateway]:
    """Yield a gateway with these entries and expectations."""
    made = Gateway()
    try:
        made.connections = filled(list(documents)).connections
        declared = read({"expectations": list(expectations)})
        reconcile(declared, False, scene(made))
        made.forget()
        yield made
    finally:
        made.close()


def scene(kernel: Gateway, keep: Any = frozenset()) -> Context:
    return Context(keep=keep, connect=kernel.connect, directory=kernel.directory)


def read(config: Document) -> Declaration:
    """Read a valid document as the module does, without the parts that need Ansible."""
    entries = config.get("entries") or {}
    scope = entries.get("scope")
    policies = [
        DeclaredPolicy(declared_policy(test_timeout_policy.params(**one)), one.get("state", "present"), False)
        for one in config.get("timeout_policies", ())
    ]
    expectations = [
        DeclaredExpectation(
            from_document({key: value for key, value in one.items() if key not in ("state", "replace")}),
            Policy(one.get("state", "present"), replace=one.get("replace", False)),
        )
        for one in config.get("expectations", ())
    ]
    return Declaration(
        settings=parse(config["settings"]) if "settings" in config else None,
        policies=policies if "timeout_policies" in config else None,
        absent=[parse_match(one) for one in config["absent"]] if "absent" in config else None,
        entries=parse_entries(entries.get("declared", ())) if "entries" in config else None,
        policy=Policy(replace=entries.get("replace", False), on_existing=entries.get("on_existing", "update")),
        scope=None if scope is None else parse_match(scope),
        expectations=expectations if "expectations" in config else None,
    )


def run(kernel: Gateway, config: Document, check: bool = False, keep: Any = frozenset()) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    try:
        result = reconcile(read(config), check, scene(kernel, keep))
    except ConfigFailed as failure:
        result = {"msg": str(failure), **failure.result}
        assert set(result) == {"msg", "changed", "counts", "warnings", *SECTIONS}
    else:
        assert set(result) == {"changed", "counts", "warnings", "diff", *SECTIONS}
    for name, blank in SECTIONS.items():
        idle = "msg" in result and result[name]["outcome"] in IDLE
        assert set(result[name]) == set(blank) - ({"counts"} if idle else set())
        assert set(result[name].get("counts", NO_COUNTS)) == set(NO_COUNTS)
    for key, count in result["counts"].items():
        assert count == sum(result[name].get("counts", NO_COUNTS)[key] for name in SECTIONS)
    assert result["changed"] == any(result[name]["changed"] for name in SECTIONS)
    return result


def outcomes(result: Document) -> dict[str, str]:
    return {name: result[name]["outcome"] for name in SECTIONS}


def thrice(kernel: Gateway, config: Document) -> Document:
    """Run in check mode, for real, and again. Only the real run may write, and its result must equal the prediction."""
    before = kernel.state()
    predicted = run(kernel, config, check=True)
    assert kernel.writes == []
    assert kernel.state() == before
    done = run(kernel, config)
    assert steady(done) == steady(predicted)
    kernel.forget()
    after = kernel.state()
    again = run(kernel, config)
    if "msg" not in done:
        assert kernel.writes == []
        assert (again["changed"], again["diff"]) == (False, [])
        assert kernel.state() == after
    return done


def steady(result: Document) -> Document:
    """Return the result without the values that only the kernel can determine."""
    return {**result, "expectations": {**result["expectations"], "evicted": []}, "warnings": []}


UDP = {"protocol": "udp", "original": FLOW}
#: A NAT of `UDP` to its own addresses and ports, which the kernel does not record as NAT.
OWN = {"source": {"address": "10.0.0.1", "port": 1000}, "destination": {"address": "10.0.0.2", "port": 80}}
MASTER = {"protocol": "tcp", "original": CONTROL, "helper": "ftp", "timeout": 600}
OTHER = {"protocol": "tcp", "original": {**CONTROL, "source_port": 9}, "timeout": 600}
EXPECTED = {"tuple": announced(), "master": CONTROL}
WEB = {"name": "web", "family": "ipv4", "protocol": "tcp", "timeouts": {"established": 3600}}
WHOLE: Document = {
    "settings": {"accounting": True, "max": 262144},
    "timeout_policies": [WEB, {"default": True, "protocol": "udp", "timeouts": {"unreplied": 10}}],
    "absent": [{"source_port": 9}],
    "entries": {"declared": [UDP, MASTER], "purge": True, "scope": {"protocol": "tcp"}},
    "expectations": [EXPECTED],
}


def test_a_whole_gateway_as_declared() -> None:
    with gateway([OTHER]) as kernel:
        done = thrice(kernel, WHOLE)
        assert set(outcomes(done).values()) == {"applied"}
        assert done["counts"] == {"created": 4, "updated": 2, "replaced": 0, "deleted": 1, "unchanged": 1, "failed": 0}
        assert [done[name]["changed"] for name in SECTIONS] == [True] * 5
        assert kernel.settings()["nf_conntrack_acct"] == 1
        assert kernel.policies.policies[b"web\0"]["seconds"][3] == 3600
        assert kernel.policies.defaults[17][1] == 10
        assert [there.tuples[0].more for there in kernel.connections] == [(1000, 80), (1400, 21)]
        assert len(kernel.expectations) == 1
        assert [diff.get("after_header") for diff in done["diff"]] == [
            "net.netfilter",
            "timeout policy web (ipv4 tcp)",
            "default timeouts of udp",
            "absent",
            "entries",
            "expectation of tcp 192.0.2.21 -> 10.1.0.2:4000",
        ]


def test_the_order_in_which_sections_are_applied() -> None:
    """An entry depends on settings, policies and free space, and an expectation depends on its master."""
    with gateway([OTHER]) as kernel:
        written: list[tuple[int, int]] = []

        def meanwhile(_number: int, request: wire.Framed) -> None:
            if request.type in WRITES:
                written.append((kernel.settings()["nf_conntrack_acct"], request.type))

        kernel.meanwhile = meanwhile
        run(kernel, WHOLE)
        assert [accounting for accounting, _kind in written] == [1] * len(written)
        assert [kind for _accounting, kind in written] == [0x800, 0x803, 0x102, 0x100, 0x100, 0x200]


def test_undeclared_section_is_unchanged() -> None:
    with gateway([OTHER, UDP]) as kernel:
        before = kernel.state()
        done = thrice(kernel, {"absent": []})
        assert kernel.state() == before
        assert outcomes(done) == {**dict.fromkeys(SECTIONS, "not declared"), "absent": "applied"}


# effects of one section on another


def test_absent_entries_make_room_for_declared_entries() -> None:
    """A stale entry occupies the reply tuple of a declared entry."""
    turned = {"protocol": "udp", "original": {**FLOW, "source": "10.0.0.2", "destination": "10.0.0.1",
              "source_port": 80, "destination_port": 1000}}  # fmt: skip
    with gateway([turned]) as kernel:
        refused = run(kernel, {"entries": {"declared": [UDP]}})
        assert "is taken by udp 10.0.0.2:80 -> 10.0.0.1:1000" in refused["msg"]
        assert outcomes(refused)["entries"] == "failed"
        done = thrice(kernel, {"absent": [{"source": "10.0.0.2"}], "entries": {"declared": [UDP]}})
        assert (done["counts"]["deleted"], done["counts"]["created"]) == (1, 1)


def test_settings_exist_after_connection_tracking_is_loaded() -> None:
    """A gateway that has just booted has none; the kernel loads the module on the first request for the table."""
    with gateway() as kernel:
        for name in FILES:
            (Path(kernel.directory) / name).unlink()

        def load(_number: int, _request: wire.Framed) -> None:
            for name, value in FILES.items():
                if not (Path(kernel.directory) / name).exists():
                    (Path(kernel.directory) / name).write_text(f"{value}\n")

        kernel.meanwhile = load
        done = run(kernel, {"settings": {"accounting": True}})
        assert (outcomes(done)["settings"], done["counts"]["updated"]) == ("applied", 1)
        assert kernel.settings()["nf_conntrack_acct"] == 1


def test_setting_that_another_file_overrides_at_boot_causes_a_warning(tmp_path: Path) -> None:
    (tmp_path / "sysctl.conf").write_text("net.netfilter.nf_conntrack_acct = 0\n")
    with gateway() as kernel:
        declaration = read({"settings": {"accounting": True}})._replace(persist_in=str(tmp_path))
        for check in (True, False):
            (warning,) = reconcile(declaration, check, scene(kernel))["warnings"]
            assert warning.startswith(f"{tmp_path}/sysctl.conf sets net.netfilter.nf_conntrack_acct to 0, and is read")


def test_entry_that_is_absent_and_in_scope_is_deleted_once() -> None:
    with gateway([OTHER, MASTER]) as kernel:
        entries = {"declared": [UDP], "purge": True, "scope": {"protocol": "tcp"}}
        done = thrice(kernel, {"absent": [{"source_port": 9}], "entries": entries})
        assert (done["absent"]["counts"]["deleted"], done["entries"]["counts"]["deleted"]) == (1, 1)


@pytest.mark.parametrize("entries", [{"declared": [MASTER]}, {"declared": [{**MASTER, "mark": 5}]}])
def test_expectation_can_refer_to_a_master_declared_with_it(entries: Document) -> None:
    with gateway() as kernel:
        done = thrice(kernel, {"entries": entries, "expectations": [EXPECTED]})
        assert done["expectations"]["counts"]["created"] == 1


@pytest.mark.parametrize(
    "others",
    [
        {"absent": [{"source_port": 1400}]},
        {"entries": {"declared": [UDP], "purge": True, "scope": {"protocol": "tcp"}}},
        {"entries": {"declared": [{**MASTER, "helper": ""}]}},
    ],
)
def test_expectation_whose_master_is_removed_is_refused(others: Document) -> None:
    """The run predicts this before any change, while the master still exists."""
    with gateway([MASTER], [EXPECTED]) as kernel:
        before = kernel.state()
        for check in (True, False):
            failed = run(kernel, {**others, "expectations": [EXPECTED]}, check)
            assert failed["msg"].startswith(
                "expectations[0]: the expectation of tcp 192.0.2.21 -> 10.1.0.2:4000 cannot"
            )
            assert failed["msg"].endswith(". Nothing was changed")
            assert (failed["changed"], failed["counts"]["failed"]) == (False, 1)
            assert kernel.writes == []
            assert kernel.state() == before


def test_invalid_value_of_an_expectation_has_its_path() -> None:
    with gateway([MASTER]) as kernel:
        for check in (True, False):
            failed = run(kernel, {"expectations": [{**EXPECTED, "timeout": 0}]}, check)
            assert failed["msg"].startswith("expectations[0].timeout: 0 would expire immediately")
            assert failed["msg"].endswith(". Nothing was changed")
            assert kernel.writes == []


def test_evicted_expectations_are_reported_if_the_new_one_fails() -> None:
    with gateway([MASTER], [EXPECTED]) as kernel:
        kernel.room = 1

        def refuse_updates(number: int, request: Any) -> None:
            if request.type == 0x200 and not request.flags & CREATE:
                kernel.faults[number] = Fault(errno.EINVAL)

        kernel.meanwhile = refuse_updates
        failed = run(kernel, {"expectations": [{"tuple": announced(4002), "master": CONTROL, "timeout": 60}]})
        assert "its timeout cannot be set" in failed["msg"]
        assert failed["expectations"]["changed"]
        assert [one["tuple"]["destination_port"] for one in failed["expectations"]["evicted"]] == [4000]
        assert len(failed["warnings"]) == 1


def test_expectation_removed_with_its_master_is_not_deleted_again() -> None:
    with gateway([MASTER], [EXPECTED]) as kernel:
        absent = {"absent": [{"source_port": 1400}], "expectations": [{**EXPECTED, "state": "absent"}]}
        done = thrice(kernel, absent)
        assert done["expectations"]["counts"]["unchanged"] == 1
        assert kernel.expectations == []


def test_expectation_of_a_replaced_master_is_created_again() -> None:
    with gateway([{**MASTER, "status": ["assured"]}], [EXPECTED]) as kernel:
        entries = {"declared": [{**MASTER, "status": []}], "replace": True}
        done = thrice(kernel, {"entries": entries, "expectations": [EXPECTED]})
        assert done["entries"]["counts"]["replaced"] == 1
        assert done["expectations"]["counts"]["created"] == 1


def test_deleted_expectation_makes_room_for_the_next() -> None:
    wide = {"tuple": announced(), "master": CONTROL}
    with gateway([MASTER], [wide]) as kernel:
        narrow = {"tuple": announced(source_port=20), "master": CONTROL}
        done = thrice(kernel, {"expectations": [{**wide, "state": "absent"}, narrow]})
        assert (done["counts"]["deleted"], done["counts"]["created"]) == (1, 1)


# contradictions


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"absent": [{"zone": 5}, {"mark": 7}], "entries": {"declared": [MASTER, {**UDP, "mark": 7}]}},
            r"entries.declared\[1\]: must exist, but when it is created it matches absent\[1\]; .*udp 10.0.0.1",
        ),
        (
            {"absent": [{"status_not": "assured"}], "entries": {"declared": [UDP]}},
            r"entries.declared\[0\]: must exist",
        ),
        (
            {
                "absent": [{"reply_destination": "198.51.100.1"}],
                "entries": {"declared": [{**UDP, "nat": {"source": {"address": "198.51.100.1"}}}]},
            },
            r"entries.declared\[0\]: must exist",
        ),
        (
            {
                "absent": [{"nat": "destination", "reply_source_port": 8080}],
                "entries": {"declared": [{**UDP, "nat": {"destination": {"port": 8080}}}]},
            },
            r"entries.declared\[0\]: must exist",
        ),
        (
            {"absent": [{"mark": 0}], "entries": {"declared": [{**UDP, "synproxy": {"isn": 0}}]}},
            r"entries.declared\[0\]: must exist",
        ),
        ({"absent": [{"bytes_below": 10}], "entries": {"declared": [UDP]}}, "must exist"),
        ({"absent": [{"age_below": 10}], "entries": {"declared": [UDP]}}, "must exist"),
        ({"timeout_policies": [WEB, WEB]}, r"timeout_policies\[1\].name: timeout_policies\[0\] has the same name"),
        (
            {
                "settings": {"timeouts": {"udp": 30}},
                "timeout_policies": [{"default": True, "protocol": "udp", "timeouts": {"unreplied": 10}}],
            },
            r"timeout_policies\[0\].timeouts.unreplied: 10 is the same setting as settings.timeouts.udp, which is 30",
        ),
        (
            {
                "timeout_policies": [
                    {"default": True, "protocol": protocol, "timeouts": {"replied": seconds}}
                    for protocol, seconds in (("udp", 5), ("udplite", 6))
                ],
            },
            r"timeout_policies\[1\].timeouts.replied: 6 is the same setting as timeout_policies\[0\].timeouts.replied",
        ),
        (
            {
                "settings": {"timeouts": {"tcp_max_retrans": 9}},
                "timeout_policies": [{"default": True, "protocol": "tcp", "timeouts": {"retrans": 8}}],
            },
            "the same setting as settings.timeouts.tcp_max_retrans",
        ),
        (
            {"expectations": [EXPECTED, {**EXPECTED, "state": "absent"}]},
            r"expectations\[1\]: is the same as expectations\[0\]",
        ),
        (
            {"expectations": [EXPECTED, {"tuple": announced(source_port=20), "master": CONTROL}]},
            r"expectations\[1\]: applies to some of the same connections as expectations\[0\]",
        ),
    ],
)
def test_contradictory_declarations_are_reported(config: Document, message: str) -> None:
    (fault,) = contradictions(read(config))
    assert re.search(message, str(fault))


@pytest.mark.parametrize(
    "config",
    [
        {"absent": [{"mark": 7}], "entries": {"declared": [{**UDP, "mark": 6}]}},
        {"absent": [{"nat": "any"}], "entries": {"declared": [UDP]}},
        {"absent": [{"nat": "any"}], "entries": {"declared": [{**UDP, "nat": OWN}]}},
        {"absent": [{"timeout_below": 60}], "entries": {"declared": [UDP]}},
        {"absent": [{"bytes_above": 10}], "entries": {"declared": [UDP]}},
        {
            "settings": {"timeouts": {"udp": 10, "udp_stream": 5}},
            "timeout_policies": [{"default": True, "protocol": "udp", "timeouts": {"unreplied": 10}}],
        },
        {"expectations": [EXPECTED, {"tuple": announced(4001), "master": CONTROL}]},
    ],
)
def test_consistent_declarations_are_accepted(config: Document) -> None:
    assert list(contradictions(read(config))) == []


def test_existing_declared_entry_that_matches_absent_is_refused() -> None:
    """The declaration alone contains no contradiction, but each run would cut a live flow."""
    config = {"absent": [{"zone": 9}, {"state": "established"}], "entries": {"declared": [UDP, MASTER]}}
    assert list(contradictions(read(config))) == []
    with gateway([{**MASTER, "tcp": {"state": "established"}}]) as kernel:
        before = kernel.state()
        for check in (True, False):
            failed = run(kernel, config, check)
            assert failed["msg"].startswith("absent[1]: matches tcp 10.1.0.2:1400 -> 192.0.2.21:21, which exists and")
            assert "entries.declared[1]" in failed["msg"]
            assert outcomes(failed)["absent"] == "failed"
            assert kernel.state() == before


# kept connections

#: The connection of `MASTER`, as the host's socket shows it.
SESSION = frozenset({TcpConnection(b"\xc0\0\2\x15", 21, b"\n\1\0\2", 1400)})


def test_ssh_session_is_kept_by_absent_and_purge() -> None:
    with gateway([MASTER, OTHER]) as kernel:
        entries = {"declared": [UDP], "purge": True, "scope": {"protocol": "tcp"}}
        for config in ({"absent": [{"protocol": "tcp"}]}, {"entries": entries}):
            done = run(kernel, config, keep=SESSION)
            assert sum(done[name]["kept"] for name in ("absent", "entries")) == 1
            assert [there.tuples[0].more for there in kernel.connections if there.helper] == [(1400, 21)]


def test_kept_entry_is_available_to_later_sections() -> None:
    """The master is the SSH session itself, which a match under `absent` selects."""
    with gateway([MASTER, OTHER]) as kernel:
        config = {"absent": [{"protocol": "tcp"}], "expectations": [EXPECTED]}
        predicted, done = run(kernel, config, check=True, keep=SESSION), run(kernel, config, keep=SESSION)
        assert steady(predicted) == steady(done)
        assert (done["absent"]["kept"], done["counts"]["deleted"], done["counts"]["created"]) == (1, 1, 1)


# failures


def test_predicted_failure_changes_nothing() -> None:
    """The entry cannot be changed in place, and it comes after sections that can be applied."""
    with gateway([{**MASTER, "status": ["assured"]}, OTHER]) as kernel:
        before = kernel.state()
        config = {**WHOLE, "entries": {"declared": [UDP, {**MASTER, "status": []}]}}
        predicted, failed = run(kernel, config, check=True), run(kernel, config)
        assert failed == predicted
        assert kernel.writes == []
        assert kernel.state() == before
        assert failed["msg"].startswith(
            "entries: 1 of 2 cannot be as declared, the first because: declared[1]: tcp 10.1"
        )
        assert failed["msg"].endswith("; see failed_entries. Nothing was changed")
        assert [one["index"] for one in failed["entries"]["failed_entries"]] == [1]
        assert (failed["changed"], failed["counts"]) == (False, {**NO_COUNTS, "failed": 1})
        assert [name for name in SECTIONS if "counts" in failed[name]] == ["entries"], (
            "sections that were not reached have no counts"
        )
        assert outcomes(failed) == {**dict.fromkeys(SECTIONS, "not reached"), "entries": "failed"}


def test_failure_reports_the_applied_and_the_unreached_sections() -> None:
    with gateway([OTHER]) as kernel:
        config = {**WHOLE, "entries": {"declared": [{**MASTER, "helper": "sip"}, UDP]}}
        failed = run(kernel, config)  # only the creation shows that TCP has no such helper
        assert failed["msg"].startswith(
            "entries: 1 of 2 are not as declared, the first because: declared[0]: creating tcp"
        )
        assert failed["msg"].endswith(". Applied before: settings, timeout_policies, absent. Not reached: expectations")
        applied = dict.fromkeys(("settings", "timeout_policies", "absent"), "applied")
        assert outcomes(failed) == {**applied, "entries": "failed", "expectations": "not reached"}
        assert failed["changed"]
        assert (failed["counts"]["deleted"], failed["counts"]["failed"]) == (1, 1)
        assert [one["operation"] for one in failed["entries"]["changes"]] == ["created"]
        assert failed["entries"]["msg"] in failed["msg"]


def test_failed_policy_keeps_the_policies_applied_before_it() -> None:
    with gateway() as kernel:
        kernel.policies.faults[test_timeout_policy.SET_DEFAULTS] = errno.EPERM
        failed = run(kernel, WHOLE)
        assert failed["msg"].startswith("timeout_policies[1]: setting the default timeouts of udp")
        assert [one["index"] for one in failed["timeout_policies"]["changes"]] == [0]
        assert failed["timeout_policies"]["counts"] == {**NO_COUNTS, "created": 1, "failed": 1}
        assert outcomes(failed)["absent"] == "not reached"


def test_a_setting_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway() as kernel:
        (Path(kernel.directory) / "nf_conntrack_udp_timeout").unlink()
        failed = run(kernel, {**WHOLE, "settings": {"accounting": True, "timeouts": {"udp": 5}}})
        assert failed["msg"].startswith("settings: timeouts.udp: this kernel has no such setting")
        assert failed["msg"].count("Nothing was changed") == 1
        assert outcomes(failed)["settings"] == "failed"
        assert kernel.writes == []


# properties

tables = st.lists(declarations(), max_size=5)
lists = st.lists(declarations(), max_size=4)
matches = st.sampled_from(
    [
        {"protocol": "tcp"},
        {"family": "ipv6"},
        {"zone": 5},
        {"mark": 0},
        {"port": 80, "except": {"zone": 5}},
        {"zone": 99},
    ]
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "settings": st.sampled_from([{"accounting": True}, {"accounting": False, "timeouts": {"udp": 60}}]),
        "timeout_policies": st.sampled_from(
            [[], [WEB], WHOLE["timeout_policies"], [{"name": "web", "state": "absent"}]]
        ),
        "absent": st.lists(matches, max_size=2),
        "entries": st.fixed_dictionaries({"declared": lists, "replace": st.booleans()}, optional={"scope": matches}),
        "expectations": st.sampled_from([[], [EXPECTED], [{**EXPECTED, "state": "absent"}]]),
    },
)


def readable(config: Document) -> Declaration:
    try:
        declaration = read(config)
    except InvalidValue:
        assume(False)
    assume(not list(contradictions(declaration)))
    return declaration


@examples(100)
@given(tables, configs, st.booleans())
def test_run_equals_its_prediction_and_is_idempotent(before: list[Document], config: Document, master: bool) -> None:
    declaration = readable(config)
    with gateway([*before, *([MASTER] if master else [])], [EXPECTED] if master else []) as kernel:
        there = kernel.state()
        predicted = run(kernel, config, check=True)
        assert kernel.writes == []
        assert kernel.state() == there
        done = run(kernel, config)
        if "msg" in predicted:
            assert done == predicted
            assert kernel.state() == there
            return
        assume("msg" not in done)  # only the kernel can determine this, for example the reply tuple of a NATed entry
        assert steady(done) == steady(predicted)
        for match in declaration.absent or ():
            with kernel.table() as table:
                assert not [entry for entry in table.dump() if match(entry)]
        for document in config.get("entries", {}).get("declared", ()):
            found = held(kernel, document)
            assert found is not None
            assert missing(found, document) == []
        kernel.forget()
        again = run(kernel, config)
        assert (kernel.writes, again["changed"]) == ([], False)


FAULTS = [
    *(Fault(code) for code in (errno.EPERM, errno.EBUSY, errno.ENOMEM)),
    *(Fault(code, True, done) for code in (errno.ENOBUFS, errno.ETIMEDOUT) for done in (False, True)),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_any_message_is_reported_correctly_and_second_run_completes(fault: Fault) -> None:
    """The result must report each change that was made, and a second run must complete the rest."""
    with gateway([OTHER]) as kernel:
        run(kernel, WHOLE)
        served = len(kernel.requests)
    for at in spread(range(served), FAULTS.index(fault)):
        with gateway([OTHER]) as kernel:
            before = kernel.state()
            kernel.faults = {at: fault}
            done = run(kernel, WHOLE)
            if kernel.state() != before:
                assert done["changed"], (at, done)
            if "msg" in done and done["msg"].endswith("Nothing was changed"):
                assert kernel.state() == before
            for name, section in ((name, done[name]) for name in SECTIONS):
                if section["outcome"] == "not reached":
                    assert "counts" not in section, (name, at)
            kernel.faults = {}
            again = run(kernel, WHOLE)
            assert "msg" not in again, (at, again["msg"])
            kernel.forget()
            assert not run(kernel, WHOLE)["changed"]
            assert len(kernel.connections) == 2


def test_run_reads_and_sends_no_more_than_needed() -> None:
    """A declaration of one section reads no other section, and a run reads its section twice: to plan and to apply."""
    with gateway([OTHER]) as kernel:
        run(kernel, {"settings": {"accounting": True}})
        assert kernel.requests == []
        run(kernel, {"entries": {"declared": [UDP] * 1}})
        assert len(kernel.requests) < 12
