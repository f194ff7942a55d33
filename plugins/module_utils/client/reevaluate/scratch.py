# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace of its own, without a name and without a way out, in which packets can be replayed.

A thread makes the namespace and opens its sockets; then the thread ends. The namespace exists as long as
its sockets and TUN devices, so it ends with the process. The namespace of the caller does not change.

Source: network_namespaces(7), Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import Callable, Iterable, TypeVar

from ..errors import ConntrackError, NotPermitted, kernel_error
from ..host import namespace
from ..netlink.socket import Closing, NetlinkSocket, NetlinkTransport
from . import numbers as n
from .network import Network, make_network, route_socket, set_up

_Result = TypeVar("_Result")

TUN = "/dev/net/tun"
_IFREQ = struct.Struct("=16sH22x")
_INDEX = struct.Struct("=I")
_IPV6_HDRINCL = 36
#: Bytes of events and of traces that may wait.
RECEIVE_BUFFER = 4 << 20

#: Settings that decide how the kernel treats a packet, by their path under /proc/sys/net. `*` stands for a link, and
#: for `all` and `default`.
_COPIED = (
    *("ipv4/ip_forward", "ipv4/ip_nonlocal_bind", "ipv4/fib_multipath_hash_policy", "ipv4/fwmark_reflect"),
    *(f"ipv4/conf/*/{name}" for name in ("forwarding", "rp_filter", "accept_local", "route_localnet")),
    "ipv4/conf/*/src_valid_mark",
    *("ipv6/fib_multipath_hash_policy", "ipv6/fwmark_reflect", "ipv6/ip_nonlocal_bind"),
    *(f"ipv6/conf/*/{name}" for name in ("disable_ipv6", "forwarding", "accept_source_route")),
    *("netfilter/nf_conntrack_tcp_loose", "netfilter/nf_conntrack_helper"),
)
#: Settings of the scratch namespace alone: it sends nothing by itself, and its entries expire at once.
_QUIET = {
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/router_solicitations": "0",
    "ipv6/conf/default/dad_transmits": "0",
    # So that packets that the kernel sends differ from replayed ones, whose hop limit is lower
    "ipv4/ip_default_ttl": "200",
    **{f"ipv6/conf/{name}/hop_limit": "200" for name in ("all", "default", "lo")},
    # Otherwise another processor may handle a packet after the system call that sent it
    "core/rps_default_mask": "0",
    "netfilter/nf_conntrack_checksum": "0",
    "netfilter/nf_conntrack_log_invalid": "0",
    "netfilter/nf_conntrack_events": "1",
    "netfilter/nf_conntrack_acct": "0",
}
_PROC = "/proc/sys/net"


class CannotReevaluate(ConntrackError):
    """The flows of this host cannot be judged. The message says why."""


class Settings:
    """The sysctls of the network namespace of a thread, by their path under /proc/sys/net."""

    def __init__(self, directory: str = _PROC) -> None:
        self._directory = directory

    def read(self, links: Iterable[str]) -> dict[str, str]:
        """Return the settings that are copied. Those that the kernel lacks are left out."""
        found: dict[str, str] = {}
        names = ["all", "default", *links]
        for path in _COPIED:
            for each in [path.replace("*", name) for name in names] if "*" in path else [path]:
                full = os.path.join(self._directory, each)
                with contextlib.suppress(OSError), open(full, encoding="ascii") as file:
                    found[each] = file.read().strip()
        return found

    def write(self, settings: dict[str, str]) -> None:
        """Write settings that differ. Raises `CannotReevaluate` if that is forbidden."""
        for path, value in settings.items():
            full = os.path.join(self._directory, path)
            try:
                with open(full, encoding="ascii") as file:
                    if file.read().strip() == value:
                        continue
                with open(full, "w", encoding="ascii") as file:
                    file.write(value)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CannotReevaluate(
                    f"stale flows cannot be found here: {full} cannot be written in the scratch namespace "
                    f"({error.strerror}); this needs /proc/sys writable, as it is outside of most containers"
                ) from error

    def expire_at_once(self) -> None:
        """Set all timeouts of connection tracking to 0."""
        directory = os.path.join(self._directory, "netfilter")
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(directory) if "_timeout" in name]
            self.write({f"netfilter/{name}": "0" for name in names})


class Scratch(Closing):
    """The namespace: its links, routes and settings are those of `network` and `settings`.

    `ruleset` is a socket for requests to nf_tables, and `routes` is one for lookups. `listen` returns those for events.
    """

    def __init__(self, network: Network, settings: dict[str, str]) -> None:
        self._closing = contextlib.ExitStack()
        self._devices: dict[int, int] = {}
        self._senders: dict[bytes, socket.socket] = {}
        try:
            namespace.run_in_thread(lambda: self._make(network, settings))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets and devices of the namespace."""
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()
        for device in self._devices.values():
            os.close(device)
        self._devices.clear()
        self._closing.close()

    def _make(self, network: Network, settings: dict[str, str]) -> None:
        try:
            namespace.leave_for_a_new_one()
        except PermissionError as error:
            raise NotPermitted(
                "making a scratch network namespace",
                errno.EPERM,
                hint="Finding stale flows needs CAP_SYS_ADMIN besides CAP_NET_ADMIN: run as root (become: true), and "
                "in a container with this capability",
            ) from error
        except OSError as error:
            raise kernel_error("making a scratch network namespace", error.errno or errno.EIO) from error
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._closing.callback(os.close, self._namespace)
        self.ruleset = self._closing.enter_context(NetlinkSocket(NetlinkTransport(receive_buffer=RECEIVE_BUFFER)))
        self.routes = self._closing.enter_context(route_socket())
        here = Settings()
        here.write(_QUIET)
        here.expire_at_once()
        set_up(self.routes, 1)
        for link in network.ingress_links():
            self._devices[link.number] = _tun(link.number, link.name)
            set_up(self.routes, link.number, link.group)
        here.write(settings)
        make_network(self.routes, network)

    def listen(self, group: int) -> NetlinkTransport:
        """Return a socket for the messages of a multicast group of this namespace."""
        transport = self.inside(lambda: NetlinkTransport(timeout=0.01, receive_buffer=RECEIVE_BUFFER, groups=(group,)))
        self._closing.callback(transport.close)
        return transport

    def inside(self, function: Callable[[], _Result]) -> _Result:
        """Call a function in a thread inside the namespace."""

        def call() -> _Result:
            namespace.enter(f"/proc/self/fd/{self._namespace}")
            return function()

        return namespace.run_in_thread(call)

    def receive_on(self, link: int, packet: bytes) -> bool:
        """Let a packet come in by a link. Return whether the link exists here.

        The kernel has processed the packet when this returns.
        """
        device = self._devices.get(link)
        if device is None:
            return False
        os.write(device, packet)
        return True

    def send_from_host(self, source: bytes, destination: bytes, packet: bytes) -> None:
        """Send a packet from an address of the host. The kernel has processed it when this returns.

        Raises `OSError`: EPERM if a rule refuses it, ENETUNREACH and others without a route.
        """
        family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
        sender = self._senders.get(source)
        if sender is None:
            if len(self._senders) >= 64:
                self._senders.popitem()[1].close()
            sender = self._senders[source] = self.inside(lambda: _raw_socket(family, source))
        sender.sendto(packet, (socket.inet_ntop(family, destination), 0))


def _raw_socket(family: int, source: bytes) -> socket.socket:
    sender = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    try:
        if family == socket.AF_INET:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        sender.bind((socket.inet_ntop(family, source), 0))
    except BaseException:
        sender.close()
        raise
    return sender


def _tun(index: int, name: str) -> int:
    """Return a new TUN device of this name and index in the namespace of this thread. Raises `CannotReevaluate`."""
    import fcntl

    try:
        device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CannotReevaluate(
            f"stale flows cannot be found here: {TUN} cannot be opened ({error.strerror}); load the kernel module tun, "
            "or let the container have the device"
        ) from error
    try:
        fcntl.ioctl(device, n.TUNSETIFINDEX, _INDEX.pack(index))
        fcntl.ioctl(device, n.TUNSETIFF, _IFREQ.pack(os.fsencode(name), n.IFF_TUN | n.IFF_NO_PI))
        # To remove a device takes some 30 ms. The kernel removes those of a namespace together, in the background
        fcntl.ioctl(device, n.TUNSETPERSIST, 1)
    except OSError as error:
        os.close(device)
        raise CannotReevaluate(f"stale flows cannot be found here: no TUN device {name} ({error.strerror})") from error
    return device
