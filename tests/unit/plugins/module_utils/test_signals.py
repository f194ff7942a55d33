# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a signal ends a task and that the task leaves no incomplete change or file."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._signals import cleanup_on_signal, held
from ansible_collections.netops.conntrack.tests.unit.support.prepared import Prepared

pytestmark = pytest.mark.portability

UTILS = "ansible_collections.netops.conntrack.plugins.module_utils"
FAKES = "ansible_collections.netops.conntrack.tests.unit.support"
TESTS = "ansible_collections.netops.conntrack.tests.unit.plugins.module_utils"
ENDING = [signal.SIGTERM, signal.SIGHUP]

#: The imports of the processes below
PREPARED = f"""
import errno, os, signal, sys
from {FAKES} import fake_kernel
from {TESTS}._reconcile import test_expectation, test_timeout_policy
from {UTILS} import _signals
from {UTILS}._snapshot import save
"""

#: A script that saves a table to a file; the signal arrives when the task requests the entries.
SAVE = f"""
import os, signal, sys
from {FAKES}.fake_kernel import GET, UDP, Connection, Ends, Kernel, Zone
from {UTILS} import _atomic_file as atomic_file
from {UTILS}.client.entry.labels import LabelMap
from {UTILS}.client.match.match import EVERYTHING
from {UTILS}._snapshot.save import save

path, number = sys.argv[1], int(sys.argv[2])
if sys.argv[3] == "named":
    atomic_file._UNNAMED = 0
ends = Ends(b"\\n\\0\\0\\1", b"\\n\\0\\0\\2", UDP, (1, 2))
kernel = Kernel()
kernel.connections = [Connection(2, ends, ends.inverted(), Zone(), 60)]

def meanwhile(_number, request):
    if request.type == GET:
        print(len(os.listdir(os.path.dirname(path))), flush=True)
        os.kill(os.getpid(), number)

kernel.meanwhile = meanwhile
with kernel.table() as table:
    save(table, path, EVERYTHING, LabelMap(), False)
"""

#: A script that sends two requests for one change; the signal arrives before the second. It prints each state.
PAIR = f"""
import errno, os, sys
from {UTILS}.client.entry.labels import LabelMap
from {UTILS}.client.entry.document import from_document
from {UTILS}.client.errors import PartialFailure
from {UTILS}._reconcile.reconciler import Policy
from {UTILS}._reconcile.entry import reconcile
from {FAKES} import fake_kernel
from {TESTS}._reconcile import test_expectation, test_timeout_policy

what, number, fails = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fails"

def declare(more, **policy):
    ends = {{"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": 53}}
    with kernel.table() as table:
        entry = from_document({{"protocol": "udp", "original": ends, **more}})
        reconcile(table, entry, Policy(**policy), LabelMap(), False)

if what in ("entry", "labels"):
    kernel = fake_kernel.Kernel(label_rule=False)
    requests = [fake_kernel.DELETE, fake_kernel.NEW]
    def there():
        return [(one.mark, one.tuples[1].destination[3]) for one in kernel.connections]
if what == "entry":
    declare({{"mark": 5}})
    def change():
        declare({{"nat": {{"source": {{"address": "203.0.113.7", "port": 1}}}}}}, replace=True)
if what == "labels":
    requests.reverse()  # the entry that was created without its labels is deleted
    def change():
        declare({{"labels": [1]}})
if what in ("expectation", "timeout"):
    kernel = test_expectation.filled()
    requests = [test_expectation.NEW, test_expectation.NEW]
    declared = {{**test_expectation.DECLARED, "timeout": 60}}
    def there():
        return [(one.attributes[8][3], int(one.deadline)) for one in kernel.expectations]
    def change():
        test_expectation.run(kernel, declared)
if what == "expectation":
    requests[0] = test_expectation.DELETE
    change()
    def change():
        test_expectation.run(kernel, {{**declared, "flags": ["permanent"]}}, replace=True)
if what == "policy":
    kernel = test_timeout_policy.Kernel()
    requests = [test_timeout_policy.DELETE, test_timeout_policy.NEW]
    web = {{"name": "web", "family": "ipv4", "replace": True}}
    test_timeout_policy.run(kernel, protocol="tcp", timeouts={{"close": 5}}, **web)
    def there():
        return [policy["kind"][1][0] for policy in kernel.policies.values()]
    def change():
        test_timeout_policy.run(kernel, protocol="udp", timeouts={{"replied": 5}}, **web)

respond, seen = kernel.respond, []

def watched(request):
    if request.type not in requests:
        return respond(request)
    seen.append(request.type)
    if seen == requests:
        os.kill(os.getpid(), number)
        if fails:
            return [fake_kernel.refusal(request, errno.ENOMEM)]
    answers = list(respond(request))
    print(there(), flush=True)
    return answers

kernel.respond = watched
try:
    change()
except PartialFailure as failure:
    print(failure, flush=True)
print("continued", flush=True)
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Set the default handlers, and restore the handlers of this process after the test."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def has_unnamed_files(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def processes() -> Iterator[Prepared]:
    with Prepared(PREPARED) as prepared:
        yield prepared


@pytest.mark.parametrize(
    ("number", "file"),
    [*((number, "named") for number in ENDING), *((number, "unnamed") for number in (*ENDING, signal.SIGKILL))],
)
def test_interrupted_save_keeps_the_old_snapshot_and_no_other_file(
    processes: Prepared, number: int, file: str, tmp_path: Path
) -> None:
    if file == "unnamed" and not has_unnamed_files(tmp_path):
        pytest.skip("this file system has no O_TMPFILE")
    (tmp_path / "it.gz").touch()
    ended = processes.run(SAVE, tmp_path / "it.gz", int(number), file)
    assert ended.stdout == (b"2\n" if file == "named" else b"1\n"), ended.stderr
    assert ended.returncode == -number
    assert ended.stderr == b""
    assert os.listdir(str(tmp_path)) == ["it.gz"]
    assert (tmp_path / "it.gz").stat().st_size == 0


def test_second_signal_does_not_prevent_the_cleanup(processes: Prepared) -> None:
    code = f"""
import os, signal
from {UTILS}._signals import cleanup_on_signal
with cleanup_on_signal():
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        print("undone", flush=True)
"""
    ended = processes.run(code)
    assert (ended.stdout, ended.returncode, ended.stderr) == (b"undone\n", -signal.SIGHUP, b"")


def test_process_ends_even_if_the_exception_is_replaced_or_caught(processes: Prepared) -> None:
    """Another error can replace the exception on the way out, or code can catch every exception."""
    for outcome in ("raise OSError", "pass"):
        code = f"""
import os, signal
from {UTILS}._signals import cleanup_on_signal
with cleanup_on_signal():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        {outcome}
"""
        ended = processes.run(code)
        assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, b"")


def test_signal_handlers_are_restored() -> None:
    """A process that imports the client continues after its work."""
    with cleanup_on_signal():
        assert [signal.getsignal(number) for number in ENDING].count(signal.SIG_DFL) == 0
    with pytest.raises(KeyError), cleanup_on_signal():
        raise KeyError
    assert [signal.getsignal(number) for number in ENDING] == [signal.SIG_DFL] * 2


def test_ignored_or_handled_signals_are_not_intercepted(processes: Prepared) -> None:
    """With nohup, for example, the task must continue when the session ends."""
    code = f"""
import os, signal
from {UTILS}._signals import cleanup_on_signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda number, _frame: print(number, flush=True))
with cleanup_on_signal():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, callable(signal.getsignal(signal.SIGTERM)))
"""
    ended = processes.run(code)
    assert (ended.stdout, ended.returncode) == (b"15\nTrue True\n", 0), ended.stderr


def test_work_in_another_thread_runs_without_signal_handlers() -> None:
    """Python sets no signal handlers in other threads."""
    done = []

    def work() -> None:
        with cleanup_on_signal():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]


@pytest.mark.parametrize(
    ("what", "outcomes", "number"),
    [
        ("entry", ["[]", "[(5, 7)]"], signal.SIGTERM),
        ("entry", ["[]", "[(5, 7)]"], signal.SIGHUP),
        ("entry", ["[]", "[(5, 7)]"], signal.SIGINT),
        ("labels", ["[(0, 1)]", "[]"], signal.SIGTERM),
        ("expectation", ["[]", "[(1, 300)]", "[(1, 60)]"], signal.SIGTERM),
        ("timeout", ["[(0, 300)]", "[(0, 60)]"], signal.SIGTERM),
        ("policy", ["[]", "[17]"], signal.SIGTERM),
    ],
)
def test_both_requests_of_one_change_are_sent_despite_a_signal(
    processes: Prepared, what: str, outcomes: list[str], number: int
) -> None:
    ended = processes.run(PAIR, what, int(number), "")
    assert ended.stdout.decode().splitlines() == outcomes, ended.stderr
    assert ended.returncode == -number


@pytest.mark.parametrize(
    ("what", "outcomes"),
    [
        ("entry", ["[]", "[(5, 1)]"]),
        ("expectation", ["[]", "[(0, 300)]", "[(0, 60)]"]),
        ("policy", ["[]", "[6]"]),
    ],
)
def test_first_request_is_undone_if_the_second_fails(processes: Prepared, what: str, outcomes: list[str]) -> None:
    ended = processes.run(PAIR, what, int(signal.SIGTERM), "fails")
    assert ended.stdout.decode().splitlines() == outcomes, ended.stderr
    assert ended.returncode == -signal.SIGTERM


def test_deferred_signal_is_delivered_afterwards() -> None:
    done = []

    def work() -> None:
        with held():
            with held():
                os.kill(os.getpid(), signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [signal.getsignal(number) for number in ENDING] == [signal.SIG_DFL] * 2


def test_signals_are_not_deferred_in_another_thread() -> None:
    done = []

    def work() -> None:
        with held():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]
