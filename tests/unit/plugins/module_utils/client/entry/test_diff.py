# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the diff contains exactly the differences, and that the update from it is minimal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.attributes import INSEPARABLE, Change
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.diff import (
    differences,
    equal,
    fill_groups,
    forces_replacement,
    merged_value,
    patch,
    unsupported_on_create,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import strategies

FLOW = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1000, "destination_port": 80}
OFFLOAD, HW_OFFLOAD, EXPECTED, FIXED = 0x4000, 0x8000, 1, 0x400


def declared(protocol: str = "tcp", **keys: Any) -> Any:
    return from_document({"protocol": protocol, "original": FLOW, **keys})


def actual(protocol: str = "tcp", **keys: Any) -> Any:
    """Return an entry as the kernel shows it."""
    return {**creation(declared(protocol)), "status": 8, "mark": 0, **keys}


def changes(wanted: Any, there: Any) -> dict[str, tuple[Any, Any]]:
    return {key: (before, after) for key, before, after in differences(wanted, there)}


@examples(50)
@given(strategies.live_entries())
def test_an_entry_does_not_differ_from_itself(entry: Any) -> None:
    assert differences(entry, entry) == []
    without = {key: value for key, value in entry.items() if not key.startswith(("counters", "timestamps", "id"))}
    assert differences(entry, {**without, "timeout": 1}) == [], "counters, ids and timeouts are not compared"


@examples(50)
@given(strategies.live_entries(), strategies.live_entries())
def test_patch_contains_the_changes_and_the_identity(one: Any, other: Any) -> None:
    wanted = {**other, **{key: one[key] for key in one if key.startswith(("original.", "family", "zone", "reply."))}}
    found = differences(wanted, one)
    update = patch(found, wanted, one)
    assert identity(update) == identity(one)
    for key, _before, _after in found:
        assert key in update or key.startswith("nat.")
    kept = {"family", *(key for key in one if key.startswith(("original.", "zone", "reply.zone")))}
    changed = {change.key for change in found}
    extra = {key for key in set(update) - kept - changed if not key.startswith(INSEPARABLE)}
    assert all(key.endswith((".window_scale", "_mask")) for key in extra)


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ({"mark": 5}, {}, {"mark": (0, 5)}),
        ({"mark": 0}, {"mark": 5}, {"mark": (5, 0)}),
        ({"mark": 0}, {"mark": None}, {}),
        ({"mark": "0x1/0xf"}, {"mark": 0xF1}, {}),
        ({"mark": "0x1/0xf"}, {"mark": 0xF2}, {"mark": ("0x2/0xf", "0x1/0xf")}),
        ({"labels": [3]}, {}, {"labels": ([], [3])}),
        ({"labels": []}, {"labels": 8}, {"labels": ([3], [])}),
        ({"labels": []}, {}, {}),
        ({"helper": ""}, {}, {}),
        ({"helper": ""}, {"helper": "ftp"}, {"helper": ("ftp", "")}),
        ({"helper": "ftp"}, {}, {"helper": (None, "ftp")}),
        ({"timeout": 5}, {}, {}),
        ({"synproxy": {"isn": 0, "its": 0, "tsoff": 0}}, {}, {}),
        ({"status": ["confirmed", "src_nat_done", "helper", "dying"]}, {}, {}),
        ({"status": ["assured"]}, {}, {"status": (["confirmed"], ["assured", "confirmed"])}),
        ({"status": []}, {"status": 0xE}, {"status": (["seen_reply", "assured", "confirmed"], ["confirmed"])}),
        ({"tcp": {"state": "close"}}, {"tcp.state": 3}, {"tcp.state": ("established", "close")}),
        ({"tcp": {"state": "none"}}, {}, {}),
        ({"tcp": {"original": {"flags": ["be_liberal"]}}}, {"tcp.original.flags": 9}, {}),
        ({"tcp": {"original": {"flags": []}}}, {"tcp.original.flags": 0}, {}),
        # Gathered before the reply, and declared again when the connection has its flags
        ({"tcp": {"state": "syn_sent", "reply": {"flags": []}}}, {"tcp.state": 1, "tcp.reply.flags": 0x2B}, {}),
        ({"tcp": {"original": {"flags": []}}}, {"tcp.original.flags": 0xF0}, {}),
        (
            {"tcp": {"original": {"flags": []}}},
            {"tcp.original.flags": 0x2B},
            {"tcp.original.flags": (["window_scale", "sack_permitted", "be_liberal", "maxack_set"], ["maxack_set"])},
        ),
        (
            {"tcp": {"original": {"flags": ["be_liberal"]}}},
            {"tcp.original.flags": 1},
            {"tcp.original.flags": (["window_scale"], ["window_scale", "be_liberal"])},
        ),
        ({"master": {**FLOW, "destination_port": 21}}, {}, {}),
        ({"id": 5, "use": 9, "counters": {"original": {"bytes": 5}}, "extra": {"99": "00"}}, {}, {}),
    ],
)
def test_differences(wanted: Any, there: Any, found: Any) -> None:
    entry = {key: value for key, value in actual(**there).items() if value is not None}
    if "master" in wanted:
        entry.update({key: value for key, value in declared(**wanted).items() if key.startswith("master.")})
    assert changes(declared(**wanted), entry) == found


def test_differences_show_label_names() -> None:
    found = differences(declared(labels=[1]), actual(labels=4), LabelMap({"voip": 1, "bulk": 2}))
    assert found == [Change("labels", ["bulk"], ["voip"])]
    assert found[0].as_document() == {"key": "labels", "before": ["bulk"], "after": ["voip"]}


@pytest.mark.parametrize("offloaded", [OFFLOAD, HW_OFFLOAD])
def test_an_offloaded_entry_shows_no_protocol_state(offloaded: int) -> None:
    wanted = declared(tcp={"state": "close", "original": {"flags": ["be_liberal"]}}, mark=1)
    assert set(changes(wanted, actual(status=8 | offloaded))) == {"mark"}


def test_reply_can_be_declared_with_or_without_the_result_of_nat() -> None:
    plain = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 1000}
    nat = {"source": {"address": "198.51.100.1"}}
    there = actual(**{"status": 0x198, "reply.destination": bytes([198, 51, 100, 1])})
    for reply in ({}, {"reply": plain}, {"reply": {**plain, "destination": "198.51.100.1"}}):
        assert changes(declared(nat=nat, **reply), there) == {}
    assert set(changes(declared(reply=plain), there)) == {"reply.destination"}


@pytest.mark.parametrize(
    ("nat", "there", "differs"),
    [
        ({"source": {"address": "10.0.0.1"}}, {}, False),
        ({"source": {"port": 1000}}, {}, False),
        ({"source": {"port": 1001}}, {}, True),
        ({"source": {"address": "198.51.100.1-198.51.100.9", "port": "900-2000"}}, {}, True),
        ({"source": {"address": "198.51.100.1-198.51.100.9", "port": "900-2000"}}, {"translated": True}, False),
        ({"source": {"address": "198.51.100.1", "port": 1}}, {"translated": True}, True),
        ({"destination": {"address": "10.0.0.2", "port": 80}}, {"translated": True}, False),
        ({"destination": {"port": 81}}, {"translated": True}, True),
        # the tuples differ but the status has no NAT bit: the kernel changes no packet
        ({"source": {"address": "198.51.100.5"}}, {"translated": True, "status": 8}, True),
    ],
)
def test_nat_is_compared_with_the_nat_in_effect(nat: Any, there: Any, differs: bool) -> None:
    keys: dict[str, Any] = {}
    if there.pop("translated", False):
        keys = {"status": 0x198, "reply.destination": bytes([198, 51, 100, 5]), "reply.destination_port": 1000}
    found = changes(declared(nat=nat), actual(**{**keys, **there}))
    assert bool(found) is differs
    assert all(key.startswith("nat.") for key in found)


@pytest.mark.parametrize(
    ("wanted", "there", "reason"),
    [
        ({"nat": {"source": {"port": 5}}}, {}, "it is set when an entry is created and stays"),
        ({"master": FLOW}, {}, "it is set when an entry is created and stays"),
        ({"helper": "ftp"}, {}, "a helper can be attached only when an entry is created"),
        ({"helper": ""}, {"helper": "ftp", "status": 8 | EXPECTED}, "an expected connection keeps its helper"),
        ({"status": ["seen_reply"]}, {"status": 0xE}, "status bits can be set but not cleared (assured)"),
        ({"tcp": {"original": {"window_scale": 7}}}, {}, "flag window_scale in both directions, tcp.original.flags"),
    ],
)
def test_changes_that_require_replacement_have_a_reason(wanted: Any, there: Any, reason: str) -> None:
    wanted, entry = declared(**wanted), actual(**there)
    found = forces_replacement(differences(wanted, entry), wanted, entry)
    assert found
    assert all(reason in text for text in found.values())


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({"mark": 1}, {}),
        ({"labels": [1]}, {}),
        ({"helper": ""}, {"helper": "ftp"}),
        ({"status": ["assured", "fixed_timeout"]}, {}),
        ({"tcp": {"state": "close"}}, {"tcp.state": 3}),
        ({"tcp": {"original": {"window_scale": 7}}}, {"tcp.original.flags": 1, "tcp.reply.flags": 1}),
    ],
)
def test_changes_in_place_require_no_replacement(wanted: Any, there: Any) -> None:
    wanted, entry = declared(**wanted), actual(**there)
    assert differences(wanted, entry)
    assert forces_replacement(differences(wanted, entry), wanted, entry) == {}


def test_change_of_a_fixed_timeout_requires_replacement() -> None:
    wanted = declared(timeout=5)
    assert forces_replacement([Change("timeout", 1, 5)], wanted, actual()) == {}
    assert "is fixed" in forces_replacement([Change("timeout", 1, 5)], wanted, actual(status=8 | FIXED))["timeout"]


def test_window_scale_of_one_direction_alone_is_not_compared() -> None:
    half = {"tcp": {"original": {"window_scale": 7, "flags": ["window_scale"]}, "reply": {"window_scale": 0}}}
    wanted = declared(**half)
    assert changes(wanted, actual(**{"tcp.original.flags": 1})) == {}
    assert unsupported_on_create(wanted) == {}
    both = actual(**{"tcp.original.flags": 1, "tcp.reply.flags": 1})
    assert changes(wanted, both) == {"tcp.original.window_scale": (None, 7)}
    alone = declared(tcp={"original": {"window_scale": 7}})
    assert "lacks it" in unsupported_on_create(alone)["tcp.original.window_scale"]


def test_patch_is_minimal_and_keeps_other_bits() -> None:
    wanted = declared(zone=5, mark="0x10/0xf0", status=["assured"], tcp={"reply": {"flags": ["be_liberal"]}}, timeout=9)
    there = actual(**{"zone": 5, "mark": 0x2F, "status": 0x18A, "tcp.reply.flags": 1, "labels": 3, "id": 77})
    update = patch(differences(wanted, there), wanted, there)
    changed = {key: value for key, value in update.items() if not key.startswith(("original.", "family", "zone"))}
    assert changed == {"mark": 0x10, "mark_mask": 0xF0, "status": 0x18A | 4, "tcp.reply.flags": 9}
    assert update["zone"] == 5
    assert merged_value("mark", wanted, there) == 0x1F


def test_masked_labels_are_compared_shown_and_sent_with_the_mask() -> None:
    """Otherwise a change of one label would remove a label that a rule has set in the meantime."""
    wanted = {**declared(), "labels": 1 << 5, "labels_mask": 1 << 5 | 1 << 127}
    there = actual(labels=1 << 3 | 1 << 127)
    assert changes(wanted, there) == {"labels": ([127], [5])}
    update = patch(differences(wanted, there), wanted, there)
    assert (update["labels"], update["labels_mask"]) == (1 << 5, 1 << 5 | 1 << 127)
    assert merged_value("labels", wanted, there) == 1 << 3 | 1 << 5
    assert changes(wanted, actual(labels=1 << 3 | 1 << 5)) == {}
    assert changes({**wanted, "labels": 0}, actual()) == {}


@pytest.mark.parametrize(
    ("wanted", "there", "sent"),
    [
        (
            {"tcp": {"original": {"window_scale": 7}}},
            {"tcp.original.flags": 1, "tcp.reply.flags": 1, "tcp.reply.window_scale": 3},
            {"tcp.original.window_scale": 7, "tcp.reply.window_scale": 3},
        ),
        ({"synproxy": {"its": 7}}, {}, {"synproxy.isn": 0, "synproxy.its": 7, "synproxy.tsoff": 0}),
        (
            {"sequence_adjustment": {"reply": {"after": -3}}},
            {"sequence_adjustment.reply.position": 9, "sequence_adjustment.reply.before": 1},
            {
                "sequence_adjustment.reply.position": 9,
                "sequence_adjustment.reply.before": 1,
                "sequence_adjustment.reply.after": -3,
            },
        ),
    ],
)
def test_groups_are_sent_as_a_whole(wanted: Any, there: Any, sent: Any) -> None:
    wanted, entry = declared(**wanted), actual(**there)
    update = patch(differences(wanted, entry), wanted, entry)
    assert {key: value for key, value in update.items() if key.startswith(("tcp.", "syn", "seq"))} == sent


def test_groups_are_completed_for_a_new_entry() -> None:
    sctp = fill_groups(declared("sctp", sctp={"state": "closed"}))
    assert (sctp["sctp.original_vtag"], sctp["sctp.reply_vtag"]) == (0, 0)
    adjusted = fill_groups(declared(sequence_adjustment={"reply": {"after": 1}}))
    assert {key for key in adjusted if key.startswith("seq")} == {
        f"sequence_adjustment.reply.{member}" for member in ("position", "before", "after")
    }
    assert "tcp.reply.window_scale" in fill_groups(declared(tcp={"original": {"window_scale": 1}}))
    assert fill_groups(declared()) == declared()


@examples(50)
@given(strategies.live_entries(), strategies.live_entries())
def test_entries_are_equal_in_every_key_or_differ_in_one(one: Any, other: Any) -> None:
    everything = {key.partition(".")[0] for key in {*one, *other}}
    assert equal(one, dict(one), everything)
    assert equal(one, other, everything) == (one == other)
    for key in {*one, *other}:
        assert equal(one, other, [key]) == (one.get(key, "absent") == other.get(key, "absent"))


@pytest.mark.parametrize(
    ("there", "keys", "same"),
    [
        ({"mark": 0}, ["mark"], True),
        ({"mark": 1}, ["mark"], False),
        ({"mark": 1}, ["original", "reply", "family"], True),
        ({"original.source_port": 1}, ["original"], False),
        ({"original.source_port": 1}, ["original.source", "reply"], True),
        ({"original.zone": 0}, ["original"], False),
        ({"zone": 0}, ["zone"], False),
        ({"timeout": 1}, ["mark", "timeout"], False),
    ],
)
def test_entries_are_equal_in_chosen_keys(there: Any, keys: Any, same: bool) -> None:
    assert equal(actual(), actual(**there), keys) is same
    assert equal(actual(**there), actual(), keys) is same


@pytest.mark.parametrize("key", ["marks", "original.", "origin", "", "counters.packets"])
def test_unknown_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidValue, match="no entry has such a key"):
        equal(actual(), actual(), [key])
