# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults that the tests inject, and the guarantee of the collection for each.

This table is the source of `docs/docsite/rst/guide_faults.rst` (see `page`) and of the parameters of
`tests/kernel/test_injected_faults.py`. `python -m tests.faults` writes the page.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

#: Where a fault can happen: at any call of its kind, or at calls that receive a part of a dump.
ANY, DUMP = "any", "dump"

#: The modules that write; all others only read.
WRITING = (
    "conntrack_config",
    "conntrack_counters",
    "conntrack_entries",
    "conntrack_entry",
    "conntrack_expectation",
    "conntrack_flush",
    "conntrack_settings",
    "conntrack_snapshot",
    "conntrack_timeout_policy",
    "conntrack_update",
)


class Fault(NamedTuple):
    """A system call that fails.

    `call` is open, bind, setsockopt, getsockopt, send, receive (of a netlink socket), or write (of a file under
    /proc/sys). `how` is refused (nothing happened, `errno` is the reason), or the way in which the answer is lost or
    damaged.
    """

    name: str
    call: str
    what: str
    how: str = "refused"
    errno: int = errno.EACCES
    where: str = ANY


FAULTS = (
    Fault("open-EACCES", "open", "``socket()`` fails with EACCES"),
    Fault("bind-EACCES", "bind", "``bind()`` fails with EACCES"),
    Fault("bind-EPERM", "bind", "``bind()`` fails with EPERM", errno=errno.EPERM),
    Fault("setsockopt-EACCES", "setsockopt", "``setsockopt()`` fails with EACCES"),
    Fault("setsockopt-EPERM", "setsockopt", "``setsockopt()`` fails with EPERM", errno=errno.EPERM),
    Fault("getsockopt-EACCES", "getsockopt", "``getsockopt()`` fails with EACCES"),
    Fault("send-EACCES", "send", "``send()`` fails with EACCES"),
    Fault("send-EPERM", "send", "``send()`` fails with EPERM", errno=errno.EPERM),
    Fault("send-ENOBUFS", "send", "``send()`` fails with ENOBUFS", errno=errno.ENOBUFS),
    Fault("send-EINTR", "send", "``send()`` fails with EINTR", errno=errno.EINTR),
    Fault("receive-lost", "receive", "the answer does not arrive", "lost"),
    Fault("receive-ENOBUFS", "receive", "the receive buffer overruns (ENOBUFS)", "overrun"),
    Fault("receive-EINTR", "receive", "``recvmsg()`` fails with EINTR", errno=errno.EINTR),
    Fault("receive-EACCES", "receive", "``recvmsg()`` fails with EACCES"),
    Fault("receive-short", "receive", "the answer ends in the middle of a message", "short"),
    Fault("receive-cut-header", "receive", "the answer ends in the header of a message", "cut header"),
    Fault("receive-garbled", "receive", "the length of an attribute exceeds the answer", "garbled"),
    Fault("receive-too-long", "receive", "the answer is longer than the buffer (MSG_TRUNC)", "too long"),
    Fault("receive-DUMP_INTR", "receive", "a dump is inconsistent (NLM_F_DUMP_INTR)", "interrupted", where=DUMP),
    Fault("write-EACCES", "write", "writing to ``/proc/sys`` fails with EACCES"),
    Fault("write-EINVAL", "write", "writing to ``/proc/sys`` fails with EINVAL", errno=errno.EINVAL),
)


class Row(NamedTuple):
    """A line of the page: the fault, its place, the guarantee, and the tests, each by its file and name."""

    injected: str
    where: str
    guarantee: str
    tests: tuple[str, ...]


_MODULE_UTILS = "tests/unit/plugins/module_utils"
_ON_A_KERNEL = "tests/kernel/test_injected_faults.py::test_a_fault_does_no_harm"
_KILLED = "tests/kernel/test_killed.py::test_a_killed_task_does_no_harm"

_SIGNALS = f"{_MODULE_UTILS}/test_signals.py::"
_TRUE = "test_fault_at_any_message_is_reported_correctly_and_second_run_completes"

_ANSWER = (
    "The result of the request is unknown. The module reads the entry again and, if necessary, repeats the request. If "
    "this fails as well, the module reports the change as unknown."
)
_GUARANTEES = {
    "open": "The request is not sent. The task fails, and returns the error and the changes that it made before.",
    "getsockopt": "The task fails, and returns the error and the changes that it made before.",
    "send": "The kernel has not received the request. The module does not count the change.",
    "lost": _ANSWER,
    "overrun": _ANSWER,
    "short": f"{_ANSWER} The module never uses a part of an answer as the whole answer.",
    "cut header": f"{_ANSWER} The module never uses a part of an answer as an empty answer.",
    "garbled": _ANSWER,
    "too long": _ANSWER,
    "interrupted": "The module does not use the dump. The task fails, and returns the changes that it made before.",
    "write": "The task fails, and returns the settings that it changed before.",
}
_GUARANTEES["bind"] = _GUARANTEES["open"]
_GUARANTEES["setsockopt"] = (
    "If the module can do without the option, the task continues. Otherwise, it fails and returns the changes that it "
    "made before."
)


def _row(fault: Fault) -> Row:
    where = "each call of each module that writes"
    if fault.where == DUMP:
        where = "each part of a dump, in each module that writes"
    if fault.call == "write":
        where = "each setting that ``conntrack_settings`` and ``conntrack_config`` write"
    guarantee = _GUARANTEES.get(fault.call) or _GUARANTEES.get(fault.how) or _ANSWER
    return Row(fault.what, where, guarantee, (_ON_A_KERNEL,))


#: The tables of the page, by heading.
TABLES: dict[str, tuple[Row, ...]] = {
    "System calls that fail": (
        *map(_row, FAULTS),
        Row(
            "a lasting fault: from a given call on, every ``send()`` or every ``recvmsg()`` fails with EACCES, or no "
            "answer arrives",
            "each module that writes",
            "The result is correct. If the module cannot read a change back, it reports the change as unknown. If it "
            "can neither finish nor undo a replacement, it reports the replacement with the reason. A second run "
            "creates what is declared, but does not change the timeout of an existing expectation.",
            ("tests/kernel/test_injected_faults.py::test_a_lasting_fault_does_no_harm",),
        ),
    ),
    "Tasks that are killed": (
        Row(
            "SIGTERM before a system call",
            "flush, update, restore, purge, declared entries, replacements, and ``conntrack_config``",
            "No entry, expectation or timeout policy is lost. A replacement is finished or undone before the process "
            "ends. A second run completes the task.",
            (_KILLED, _SIGNALS + "test_both_requests_of_one_change_are_sent_despite_a_signal"),
        ),
        Row(
            "SIGTERM, and the second request of a replacement fails",
            "``conntrack_entry``, ``conntrack_expectation``, ``conntrack_timeout_policy``",
            "The module creates the old entry, expectation or policy again before the process ends.",
            (_SIGNALS + "test_first_request_is_undone_if_the_second_fails",),
        ),
        Row(
            "SIGKILL before a system call",
            "the same tasks as SIGTERM",
            "Entries, expectations, policies and settings that the task does not change are unaffected. If the task is "
            "killed between the two requests of a replacement, the old entry is deleted and the new one does not "
            "exist. A second run creates what is declared.",
            (_KILLED,),
        ),
        Row(
            "SIGTERM and SIGKILL while a snapshot is saved",
            "``conntrack_snapshot`` with ``state: saved``",
            "The file at the path is the complete old snapshot or the complete new one. No other file remains, except "
            "after SIGKILL on file systems that do not support O_TMPFILE.",
            (
                "tests/kernel/test_killed.py::test_a_killed_save_leaves_a_complete_snapshot",
                _SIGNALS + "test_interrupted_save_keeps_the_old_snapshot_and_no_other_file",
            ),
        ),
    ),
    "Faults in a model of the kernel": (
        Row(
            "an error or a lost answer, before or after the kernel carries out the request",
            "each message that ``conntrack_entry`` sends",
            "The result is correct, and a second run completes the task.",
            (f"{_MODULE_UTILS}/_reconcile/test_entry.py::{_TRUE}",),
        ),
        Row(
            "an error or a lost answer",
            "each message that ``conntrack_entries`` sends, with and without a purge",
            "The result is correct, and a second run completes the task.",
            (f"{_MODULE_UTILS}/_reconcile/test_entries.py::{_TRUE}",),
        ),
        Row(
            "an error or a lost answer",
            "each message that ``conntrack_update`` sends",
            "The result is correct, and a second run completes the task.",
            (f"{_MODULE_UTILS}/_operations/test_update.py::{_TRUE}",),
        ),
        Row(
            "an error or a lost answer",
            "each message that ``conntrack_snapshot`` with ``state: restored`` sends",
            "The result is correct, and a second run completes the task. ``unknown`` is the number of entries "
            "for which the module cannot determine whether they were created.",
            (
                f"{_MODULE_UTILS}/_snapshot/test_restore.py::{_TRUE}",
                f"{_MODULE_UTILS}/_snapshot/test_restore.py::test_creation_without_answer_counts_as_unknown_and_as_a_change",
            ),
        ),
        Row(
            "an error or a lost answer",
            "each message that ``conntrack_config`` sends",
            "The result is correct, and a second run completes the task.",
            (f"{_MODULE_UTILS}/_reconcile/test_config.py::{_TRUE}",),
        ),
        Row(
            "several errors and lost answers in one task",
            "``conntrack_flush``",
            "The module removes only matching entries. ``flushed`` is never greater than the number removed.",
            (
                f"{_MODULE_UTILS}/_operations/test_flush.py::test_faults_never_falsify_the_result_or_remove_other_entries",
            ),
        ),
        Row(
            "a lost answer",
            "each message that ``conntrack_expectation`` sends",
            "The module repeats the request, or reports that the result is unknown.",
            (f"{_MODULE_UTILS}/_reconcile/test_expectation.py::test_lost_answer_is_recovered_or_reported",),
        ),
        Row(
            "an answer with arbitrary bytes",
            "each operation of the client",
            "The operation returns a result, or raises an error that the client defines.",
            (f"{_MODULE_UTILS}/client/test_hostile.py::test_any_answer_is_a_result_or_a_named_error",),
        ),
    ),
    "Other faults": (
        Row(
            "an overrun of the receive buffer while events arrive",
            "``client.events``, which the event source and ``conntrack_wait`` use",
            "The client reports that events were lost, and continues to receive events.",
            ("tests/kernel/test_events.py::test_subscription_continues_after_an_overrun",),
        ),
        Row(
            "a missing CAP_NET_ADMIN",
            "each operation of the client",
            "The operation fails with one sentence that names the capability.",
            ("tests/kernel/test_errors.py::test_without_the_capability",),
        ),
        Row(
            "a full disk",
            "``conntrack_snapshot`` with ``state: saved``",
            "The task fails, the process ends, and no file is left.",
            (f"{_MODULE_UTILS}/test_early_end.py::test_full_disk_during_a_save_ends_the_process",),
        ),
    ),
}
