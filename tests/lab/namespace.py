# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network namespace: enter it, run programs in it, configure it, and read its conntrack table."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

from tests import clock, programs

from . import isolation, table
from .child import call_in_child
from .events import EventLog
from .firewall import Firewall

T = TypeVar("T")

NETLINK_NETFILTER = 12
#: linux/netlink.h, linux/netfilter/nfnetlink_conntrack.h
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 0x1, 0x4, 2
CTNETLINK, DELETE, GET_STATS = 1 << 8, 2, 5
#: linux/sockios.h, linux/if.h: an ifreq is 40 bytes long, the name first, then the flags
SIOCSIFFLAGS, IFF_UP, IFREQ = 0x8914, 0x1, struct.Struct("=16sh22x")
#: Seconds, and settings of timeouts of flows that packets create. A flow without traffic must not expire while a test
#: runs, even if the machine stands still.
LASTING = 600
SHORT_TIMEOUTS = (
    *("udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout", "gre_timeout", "gre_timeout_stream"),
    *(f"tcp_timeout_{state}" for state in ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait")),
    *("tcp_timeout_close", "tcp_timeout_max_retrans", "tcp_timeout_unacknowledged"),
    *("sctp_timeout_closed", "sctp_timeout_cookie_wait", "sctp_timeout_established", "dccp_timeout_request"),
)


class Namespace:
    """An empty network namespace with its loopback interface up. It ends with close(), the block, or this process.

    Events are on from the start (nf_conntrack_events=1). By default, the kernel sends no events about an entry that was
    created without a listener. The timeouts of flows that packets create are `LASTING` seconds.
    """

    def __init__(self, name: str = "namespace") -> None:
        self.name = name
        self._network = isolation.new_network()
        self._cleanup = contextlib.ExitStack()
        self._cleanup.callback(os.close, self._network)
        try:
            with self.entered():
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                    fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ.pack(b"lo", IFF_UP))
                # The kernel loads conntrack on a request; then this namespace has the settings of conntrack
                _ask_conntrack(GET_STATS)
            self.sysctl("nf_conntrack_events", 1)
            self._extend_timeouts()
        except BaseException:
            self.close()
            raise

    def _extend_timeouts(self) -> None:
        with self.entered():
            for name in SHORT_TIMEOUTS:
                with contextlib.suppress(FileNotFoundError):  # the kernel lacks the protocol
                    fd = os.open(f"/proc/sys/net/netfilter/nf_conntrack_{name}", os.O_WRONLY)
                    os.write(fd, str(LASTING).encode())
                    os.close(fd)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.path}>"

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        """Return the path of the namespace for other processes: for netns options, nsenter(1), the netns connection."""
        return f"/proc/{os.getpid()}/fd/{self._network}"

    def close(self) -> None:
        """End all processes in the namespace and remove it. A second call has no effect."""
        self._cleanup.close()

    # Enter the namespace

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Run the block with the calling thread in the namespace. Sockets of the block stay in the namespace."""
        return isolation.entered(self._network)

    def call(self, function: Callable[..., T], *arguments: Any, timeout: float = clock.HUNG) -> T:
        """Call a function in a forked child in the namespace, and return its result.

        The result, or the exception, is pickled.

        :raises TimeoutError: after `timeout` seconds. The child is killed.
        :raises ChildProcessError: if the child ends without an answer.
        """
        with self.entered():
            return call_in_child(function, arguments, timeout)

    # Run programs in the namespace

    def run(
        self,
        arguments: Sequence[str],
        *,
        check: bool = True,
        timeout: float = clock.HUNG,
        **more: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the namespace to its end. Its output is text.

        :param more: For subprocess.run: input, env, cwd.
        :raises unittest.SkipTest: without the program.
        :raises subprocess.CalledProcessError: if the program fails and check is true, with its output as a note.
        """
        programs.require(arguments[0], environment=more.get("env"))
        with self.entered():
            done = subprocess.run(list(arguments), check=False, capture_output=True, text=True, timeout=timeout, **more)
        try:
            if check:
                done.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(f"in {self.name}: {done.stdout}{done.stderr}")
            raise
        return done

    def start(self, arguments: Sequence[str], **more: Any) -> subprocess.Popen[str]:
        """Start a program in the namespace. It runs until close(), or until the thread that started it ends.

        Its output goes to a pipe, which holds 64 KiB. Pass stdout and stderr for a program with more output.

        :raises unittest.SkipTest: without the program.
        """
        programs.require(arguments[0], environment=more.get("env"))
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.STDOUT)
        with self.entered():
            process = subprocess.Popen(  # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
                list(arguments),
                text=True,
                start_new_session=True,
                preexec_fn=isolation.end_with_parent,
                **more,
            )
        self._cleanup.callback(_end, process)
        return process

    # Configure the namespace

    @contextlib.contextmanager
    def rtnetlink(self) -> Iterator[IPRoute]:
        """Yield pyroute2's IPRoute in the namespace, for links, addresses and routes."""
        with self.entered(), IPRoute() as rtnetlink:
            yield rtnetlink

    @functools.cached_property
    def firewall(self) -> Firewall:
        """Return the firewall of this namespace. The kernel tracks packets only after the first rule that needs it."""
        return Firewall(self.entered)

    def nft(self, rules: str) -> None:
        """Load a ruleset with nft(8), for rules that `firewall` does not support.

        :raises unittest.SkipTest: without the program.
        :raises subprocess.CalledProcessError: if the program or the kernel rejects the rules.
        """
        self.run(["nft", "-f", "-"], input=rules)

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Read a setting, or write it and return the earlier value.

        :param name: A name under net.netfilter such as nf_conntrack_acct, or a full name such as net.ipv4.ip_forward.
        """
        full = name if "." in name or "/" in name else f"net.netfilter.{name}"
        path = os.path.join("/proc/sys", full if "/" in full else full.replace(".", "/"))
        with self.entered():
            with open(path, encoding="ascii") as file:
                before = file.read().strip()
            if value is not None:
                with open(path, "w", encoding="ascii") as file:
                    file.write(str(value))
        return before

    # Read the conntrack table

    def conntrack(self, *arguments: str, check: bool = True, **more: Any) -> str:
        """Return the output of conntrack(8) in the namespace: namespace.conntrack("-L", "-o", "extended,id").

        :raises unittest.SkipTest: without the program.
        :raises subprocess.CalledProcessError: if the program fails and check is true.
        """
        return self.run(["conntrack", *arguments], check=check, **more).stdout

    def table(self) -> list[table.Flow]:
        """Return every entry, as an independent reader returns it: see the module table."""
        if programs.exists("conntrack"):
            return table.from_program(self.conntrack("-L", "-o", "extended,id"))
        with self.entered():
            return table.from_pyroute2()

    def expectations(self, *families: str) -> list[table.Flow]:
        """Return every expectation, or those of the families, as conntrack(8) shows it: see the module table."""
        listed = [self.conntrack("-L", "expect", "-f", family) for family in families or ("ipv4", "ipv6")]
        return table.expectations_from_program("".join(listed))

    def count(self) -> int:
        """Return the number of entries that the kernel counts."""
        return int(self.sysctl("nf_conntrack_count"))

    def subscriptions(self) -> list[int]:
        """Return the multicast groups, as a bit mask, of each netfilter socket in the namespace, without the kernel's.

        Source: netlink_seq_show in net/netlink/af_netlink.c. Pointers in the list may have the form of a mask.
        """
        with self.entered():
            lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        return [int(row[3], 16) for row in rows if row[1] == str(NETLINK_NETFILTER) and row[2] != "0"]

    def wait_for_subscriber(self) -> None:
        """Return when a program in the namespace has subscribed to events.

        :raises TimeoutError: if none subscribes.
        """
        clock.wait_until(
            lambda: any(self.subscriptions()), lambda: f"no program in {self.name} is subscribed to events"
        )

    def wait_for_reader(self) -> None:
        """Return when a program in the namespace has subscribed to events, has read the table, and sleeps.

        :raises TimeoutError: if none subscribes, or one does not sleep.
        """
        self.wait_for_subscriber()
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError):  # it has ended
                clock.wait_until_asleep(pid)

    def processes(self) -> list[int]:
        """Return the IDs of all processes in the namespace."""
        inside, found = os.fstat(self._network).st_ino, []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                if (folder / "ns/net").stat().st_ino == inside:
                    found.append(int(folder.name))
        return found

    def empty(self) -> None:
        """Delete every entry. This also deletes the expectations."""
        with self.entered():
            _ask_conntrack(DELETE)

    def events(self) -> EventLog:
        """Return the log of the changes during a block: with namespace.events() as changes: ...; assert not changes."""
        return EventLog(self.entered)


def _ask_conntrack(request: int) -> None:
    """Send a request without attributes, in the namespace of the calling thread, and wait for the acknowledgement.

    :raises OSError: if the kernel rejects the request.
    """
    message = struct.pack("=IHHII BBH", 20, CTNETLINK | request, NLM_F_REQUEST | NLM_F_ACK, 1, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.sendto(message, (0, 0))
        while True:
            answer = netlink.recv(1 << 16)
            if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR:
                (error,) = struct.unpack_from("=i", answer, 16)
                if error:
                    raise OSError(-error, os.strerror(-error))
                return


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and its children, which have their own session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout:
        process.stdout.close()
