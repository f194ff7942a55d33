# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Protocols that announce a connection in another connection, each with a small client and server.

Each has a connection tracking helper in Linux. A conversation has two steps: `announce` makes the helper expect a
connection, and `follow` opens that connection. The caller can look at the gateway in between.

This file imports only the standard library, because the integration tests load it without the lab.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

#: Seconds to wait for a packet that must arrive.
TIMEOUT = 120.0
ACK = b"received"

Tuple = dict[str, Any]


class Host(NamedTuple):
    """One end of a conversation: its address, and a context manager that enters its network namespace."""

    address: str
    entered: Callable[[], contextlib.AbstractContextManager[None]]


class Conversation:
    """A client behind a gateway with source NAT, and a server outside."""

    #: The name of the helper in the kernel, and the protocol and the port of the connections that it follows.
    helper: ClassVar[str]
    transport: ClassVar[str]
    port: ClassVar[int]
    #: The families for which the kernel registers the helper.
    families: ClassVar[tuple[str, ...]] = ("ipv4", "ipv6")
    #: The families in which the kernel translates the announced address.
    translated: ClassVar[tuple[str, ...]] = ("ipv4", "ipv6")
    #: The helper of the announced connection, if any.
    next_helper: ClassVar[str | None] = None
    #: Whether the client is the gateway itself.
    local: ClassVar[bool] = False

    def __init__(self, client: Host, server: Host, outside: str) -> None:
        """:param outside: The address with which the gateway replaces that of the client."""
        self.client, self.server, self.outside = client, server, outside
        #: The client's port of the connection that the helper follows.
        self.control_port = 0
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets."""
        self._closing.close()

    @classmethod
    def rules(cls) -> str:
        """Return the nftables ruleset that assigns the helper. It also turns on tracking for all packets."""
        name = f"{cls.transport}-{cls.port}"
        rule = f'{cls.transport} dport {cls.port} ct helper set "{name}"'
        return f"""
table inet helpers {{
  ct helper {name} {{
    type "{cls.helper}" protocol {cls.transport}
  }}
  chain prerouting {{
    type filter hook prerouting priority mangle
    {rule}
  }}
  chain output {{
    type filter hook output priority mangle
    {rule}
  }}
}}
"""

    def announce(self) -> None:
        """Send messages until the helper has processed the announcement."""
        raise NotImplementedError

    def follow(self, timeout: float = TIMEOUT) -> None:
        """Open the announced connection, and pass data both ways.

        :raises TimeoutError: if a packet does not arrive.
        """
        raise NotImplementedError

    def expected(self) -> list[Tuple]:
        """Return the tuples that the helper expects, as they arrive at the gateway. A source port of 0 is any port."""
        raise NotImplementedError

    def related(self) -> Tuple:
        """Return the original tuple of the connection that `follow` opens. A source port of 0 is any port."""
        return self.expected()[0]

    def left(self) -> list[Tuple]:
        """Return the tuples of `expected` that the helper still expects after `follow`."""
        return []

    # sockets

    def _datagram(self, host: Host, port: int = 0) -> socket.socket:
        with host.entered():
            made = socket.socket(_family(host.address), socket.SOCK_DGRAM)
        return self._bound(made, host, port)

    def _listener(self, host: Host, port: int = 0) -> socket.socket:
        with host.entered():
            made = socket.socket(_family(host.address), socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound = self._bound(made, host, port)
        bound.listen()
        return bound

    def _bound(self, made: socket.socket, host: Host, port: int) -> socket.socket:
        self._closing.enter_context(made)
        made.settimeout(TIMEOUT)
        made.bind((host.address, port))
        return made

    def _connected(
        self, host: Host, address: str, listener: socket.socket, timeout: float = TIMEOUT, port: int = 0
    ) -> tuple[socket.socket, socket.socket]:
        """Open a TCP connection from a host to a listener, on its port or on the port to which a gateway maps it."""
        with host.entered():
            here = socket.socket(_family(address), socket.SOCK_STREAM)
        self._closing.enter_context(here)
        here.settimeout(timeout)
        here.connect((address, port or listener.getsockname()[1]))
        here.settimeout(TIMEOUT)
        there = self._closing.enter_context(listener.accept()[0])
        there.settimeout(TIMEOUT)
        return here, there

    def _questioner(self) -> socket.socket:
        """Return the client's socket for the UDP flow that the helper follows."""
        client = self._datagram(self.client)
        self.control_port = client.getsockname()[1]
        return client

    def _control(self) -> tuple[socket.socket, socket.socket]:
        """Open the TCP connection that the helper follows, and return both of its sockets."""
        with self._listener(self.server, self.port) as listener:
            client, server = self._connected(self.client, self.server.address, listener)
        self.control_port = client.getsockname()[1]
        return client, server

    # tuples

    def _inbound(self, protocol: str, port: int) -> Tuple:
        """Return a tuple from the server to the outside address."""
        return _tuple(protocol, self.server.address, self.outside, port)

    def _outbound(self, protocol: str, port: int) -> Tuple:
        """Return a tuple from the client to the server."""
        return _tuple(protocol, self.client.address, self.server.address, port)


def _tuple(protocol: str, source: str, destination: str, port: int) -> Tuple:
    return {
        "protocol": protocol,
        "source": source,
        "destination": destination,
        "source_port": 0,
        "destination_port": port,
    }


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _exchange(here: socket.socket, there: socket.socket, data: bytes) -> bytes:
    """Send on one end of a TCP connection, and return what the other end receives."""
    here.sendall(data)
    return there.recv(4096)


class Tftp(Conversation):
    """TFTP (RFC 1350): the server answers a read request from a new port."""

    helper, transport, port = "tftp", "udp", 69

    def announce(self) -> None:
        self._client = self._questioner()
        with self._datagram(self.server, self.port) as server:
            self._client.sendto(b"\0\1file\0octet\0", (self.server.address, self.port))
            self._asked_from = server.recvfrom(512)[1]

    def follow(self, timeout: float = TIMEOUT) -> None:
        server = self._datagram(self.server)
        server.sendto(b"\0\3\0\1content", self._asked_from)
        self._client.settimeout(timeout)
        block, answering = self._client.recvfrom(516)
        assert block == b"\0\3\0\1content"
        self._client.sendto(b"\0\4\0\1", answering)
        assert server.recv(516) == b"\0\4\0\1"

    def expected(self) -> list[Tuple]:
        return [self._inbound("udp", self._asked_from[1])]


class Dcc(Conversation):
    """IRC (CTCP's DCC): the client sends its address to another user, in a message that the server forwards."""

    helper, transport, port = "irc", "tcp", 6667
    families = ("ipv4",)
    #: The command before the address and the port, and the size of the file after them.
    command: ClassVar[str]
    size: ClassVar[str] = ""

    def announce(self) -> None:
        self._listening = self._listener(self.client)
        client, server = self._control()
        own = int(ipaddress.ip_address(self.client.address))
        request_text = f"PRIVMSG other :\1DCC {self.command} {own} {self._listening.getsockname()[1]}{self.size}\1\r\n"
        passed_on = _exchange(client, server, request_text.encode()).decode()
        address, port = passed_on.strip("\1\r\n").removesuffix(self.size).split()[-2:]
        self._there = (str(ipaddress.ip_address(int(address))), int(port))

    def follow(self, timeout: float = TIMEOUT) -> None:
        address, port = self._there
        other, client = self._connected(self.server, address, self._listening, timeout, port)
        assert _exchange(client, other, b"content") == b"content"
        assert _exchange(other, client, ACK) == ACK

    def expected(self) -> list[Tuple]:
        assert self._there[0] == self.outside  # the message after the gateway
        anybody = "0.0.0.0"  # the message does not contain the address of the other user
        return [{**self._inbound("tcp", self._there[1]), "source": anybody}]

    def related(self) -> Tuple:
        return self._inbound("tcp", self._there[1])


class DccSend(Dcc):
    """DCC SEND offers a file."""

    command, size = "SEND file", " 7"


class DccChat(Dcc):
    """DCC CHAT offers a chat without the server."""

    command = "CHAT chat"


class Pptp(Conversation):
    """PPTP (RFC 2637): the control connection agrees on a call ID for each direction of a GRE tunnel."""

    helper, transport, port = "pptp", "tcp", 1723
    families = ("ipv4",)

    MAGIC = 0x1A2B3C4D
    START_REQUEST, START_REPLY, CALL_REQUEST, CALL_REPLY = 1, 2, 7, 8

    def announce(self) -> None:
        client, server = self._control()
        # Two conversations never have the same call IDs
        self._client_call, self._server_call = self.control_port ^ 0x0F0F, self.control_port ^ 0x5A5A
        _exchange(client, server, self._message(self.START_REQUEST, struct.pack("!HHIIHH128x", 0x100, 0, 3, 3, 0, 1)))
        _exchange(server, client, self._message(self.START_REPLY, struct.pack("!HBBIIHH128x", 0x100, 1, 0, 3, 3, 0, 1)))
        call = struct.pack("!HHIIIIHHHH128x", self._client_call, 1, 300, 100000000, 3, 3, 64, 0, 0, 0)
        received_data = _exchange(client, server, self._message(self.CALL_REQUEST, call))
        # The gateway replaces the client's ID with another one
        self._mapped_call = struct.unpack_from("!H", received_data, 12)[0]
        answer = struct.pack("!HHBBHIHHI", self._server_call, self._mapped_call, 1, 0, 0, 100000000, 64, 0, 0)
        received_data = _exchange(server, client, self._message(self.CALL_REPLY, answer))
        assert struct.unpack_from("!HH", received_data, 12) == (self._server_call, self._client_call)

    def follow(self, timeout: float = TIMEOUT) -> None:
        client, server = self._tunnel(self.client), self._tunnel(self.server)
        client.settimeout(timeout)
        server.settimeout(timeout)
        client.sendto(self._packet(self._server_call), (self.server.address, 0))
        assert server.recv(4096)[20:] == self._packet(self._server_call)
        server.sendto(self._packet(self._mapped_call), (self.outside, 0))
        assert client.recv(4096)[20:] == self._packet(self._client_call)

    def expected(self) -> list[Tuple]:
        return [
            _keys(self.client.address, self.server.address, self._client_call, self._server_call),
            _keys(self.server.address, self.outside, self._server_call, self._mapped_call),
        ]

    def _message(self, kind: int, body: bytes) -> bytes:
        return struct.pack("!HHIHH", 12 + len(body), 1, self.MAGIC, kind, 0) + body

    def _tunnel(self, host: Host) -> socket.socket:
        with host.entered():
            made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
        return self._bound(made, host, 0)

    @staticmethod
    def _packet(call: int) -> bytes:
        """Return PPP in GRE version 1, with the key and without sequence numbers."""
        return struct.pack("!HHHH", 0x2001, 0x880B, 4, call) + b"\xff\x03\xc0\x21"


def _keys(source: str, destination: str, source_key: int, destination_key: int) -> Tuple:
    return {
        "protocol": "gre",
        "source": source,
        "destination": destination,
        "source_key": source_key,
        "destination_key": destination_key,
    }


class Sip(Conversation):
    """SIP (RFC 3261): the client calls, and its SDP contains the port for RTP. The next port is for RTCP."""

    helper, transport, port = "sip", "udp", 5060

    def announce(self) -> None:
        client = self._questioner()
        # RTP has an even port. Linux drops a call for the RTP port of another client (nf_nat_sip.c).
        self._rtp = self._datagram(self.client, (self.control_port & ~1) - 2)
        with self._datagram(self.server, self.port) as server:
            client.sendto(self._invite().encode(), (self.server.address, self.port))
            received_data = server.recv(4096).decode()
        assert f"c={_sdp(self.outside)}\r\n" in received_data
        self._media = int(received_data.partition("m=audio ")[2].split()[0])

    def follow(self, timeout: float = TIMEOUT) -> None:
        server = self._datagram(self.server)
        server.sendto(b"speech", (self.outside, self._media))
        self._rtp.settimeout(timeout)
        speech, speaking = self._rtp.recvfrom(4096)
        assert speech == b"speech"
        self._rtp.sendto(ACK, speaking)
        assert server.recv(4096) == ACK

    def expected(self) -> list[Tuple]:
        return [self._inbound("udp", port) for port in (self._media, self._media + 1)]

    def left(self) -> list[Tuple]:
        return self.expected()[1:]

    def _invite(self) -> str:
        port, media = self.control_port, self._rtp.getsockname()[1]
        client, server = _uri_host(self.client.address), _uri_host(self.server.address)
        connection = _sdp(self.client.address)
        body = ["v=0", f"o=- 1 1 {connection}", "s=-", f"c={connection}", "t=0 0", f"m=audio {media} RTP/AVP 0", ""]
        described = "\r\n".join(body)
        return "\r\n".join(
            [
                f"INVITE sip:b@{server}:{self.port} SIP/2.0",
                f"Via: SIP/2.0/UDP {client}:{port};branch=z9hG4bK1",
                f"From: <sip:a@{client}:{port}>;tag=1",
                f"To: <sip:b@{server}:{self.port}>",
                "Call-ID: 1",
                "CSeq: 1 INVITE",
                f"Contact: <sip:a@{client}:{port}>",
                "Content-Type: application/sdp",
                f"Content-Length: {len(described)}",
                "",
                described,
            ]
        )


def _uri_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _sdp(address: str) -> str:
    return f"IN IP{6 if ':' in address else 4} {address}"


class Amanda(Conversation):
    """Amanda: a backup server requests data from a host, and the host answers with its listening ports."""

    helper, transport, port = "amanda", "udp", 10080

    def announce(self) -> None:
        client = self._questioner()
        self._listening = [self._listener(self.server) for _name in ("DATA", "MESG", "INDEX")]
        data, message, index = self._ports()
        request = b"Amanda 2.4 REQ HANDLE 000-0 SEQ 1\nSERVICE sendbackup\n"
        answer = f"Amanda 2.4 REP HANDLE 000-0 SEQ 1\nCONNECT DATA {data} MESG {message} INDEX {index}\n".encode()
        with self._datagram(self.server, self.port) as server:
            client.sendto(request, (self.server.address, self.port))
            server.sendto(answer, server.recvfrom(4096)[1])
        assert client.recv(4096) == answer

    def follow(self, timeout: float = TIMEOUT) -> None:
        client, server = self._connected(self.client, self.server.address, self._listening[0], timeout)
        assert _exchange(server, client, b"content") == b"content"
        assert _exchange(client, server, ACK) == ACK

    def expected(self) -> list[Tuple]:
        return [self._outbound("tcp", port) for port in self._ports()]

    def left(self) -> list[Tuple]:
        return self.expected()[1:]

    def _ports(self) -> list[int]:
        return [listening.getsockname()[1] for listening in self._listening]


class Sane(Conversation):
    """SANE's network protocol: the client starts a scan, and the server answers with the port for the image."""

    helper, transport, port = "sane", "tcp", 6566

    START, SUCCESS, LITTLE_ENDIAN = 7, 0, 0x1234

    def announce(self) -> None:
        client, server = self._control()
        self._listening = self._listener(self.server)
        _exchange(client, server, struct.pack("!II", self.START, 0))
        port = self._listening.getsockname()[1]
        _exchange(server, client, struct.pack("!IHHII", self.SUCCESS, 0, port, self.LITTLE_ENDIAN, 0))

    def follow(self, timeout: float = TIMEOUT) -> None:
        client, server = self._connected(self.client, self.server.address, self._listening, timeout)
        assert _exchange(server, client, b"content") == b"content"
        assert _exchange(client, server, ACK) == ACK

    def expected(self) -> list[Tuple]:
        return [self._outbound("tcp", self._listening.getsockname()[1])]


class Broadcast(Conversation):
    """A broadcast request in the network of the gateway. Hosts answer from their own addresses.

    The kernel follows only broadcasts of its own host.
    """

    transport = "udp"
    families = ("ipv4",)
    translated = ()
    local = True
    question: ClassVar[bytes]

    NETWORK = 24

    def announce(self) -> None:
        self._client = self._questioner()
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        with self._datagram(Host("", self.server.entered), self.port) as server:
            self._client.sendto(self.question, (self._everyone(), self.port))
            question, self._asked_from = server.recvfrom(4096)
        assert question == self.question

    def follow(self, timeout: float = TIMEOUT) -> None:
        self._client.settimeout(timeout)
        with self._datagram(self.server, self.port) as server:
            server.sendto(b"answer", self._asked_from)
            answer, answering = self._client.recvfrom(4096)
            assert (answer, answering) == (b"answer", (self.server.address, self.port))
            self._client.sendto(ACK, answering)
            assert server.recv(4096) == ACK

    def expected(self) -> list[Tuple]:
        return [{**self.related(), "source": self._everyone()}]

    def related(self) -> Tuple:
        return {**self._inbound("udp", self._asked_from[1]), "source_port": self.port}

    def left(self) -> list[Tuple]:
        return self.expected()  # other hosts may answer, too

    def _everyone(self) -> str:
        interface = ipaddress.ip_interface(f"{self.client.address}/{self.NETWORK}")
        return str(interface.network.broadcast_address)


class NetbiosNs(Broadcast):
    """NetBIOS name service (RFC 1002): a query for the host with a name."""

    helper, port = "netbios-ns", 137
    question = struct.pack("!HHHHHH", 1, 0x0110, 1, 0, 0, 0) + b"\x20" + b"CK" + b"CA" * 15 + b"\0" + b"\0\x20\0\1"


class Snmp(Broadcast):
    """SNMP version 1 (RFC 1157): a query for the description of a system."""

    helper, port = "snmp", 161
    question = bytes.fromhex("302902010004067075626c6963a01c02040000000102010002010030 0e300c06082b060102010101000500")


class SnmpTrap(Conversation):
    """A trap of SNMP version 2 with the address of its sender (snmpTrapAddress). It announces no connection."""

    helper, transport, port = "snmp_trap", "udp", 162
    families = ("ipv4",)

    def announce(self) -> None:
        head, variable = "302b 020101 0406 7075626c6963 a71e 020101 020100 020100", "3013 3011 0609 2b0601060312010300"
        before = bytes.fromhex(f"{head} {variable} 4004")
        client = self._questioner()
        with self._datagram(self.server, self.port) as server:
            client.sendto(before + ipaddress.ip_address(self.client.address).packed, (self.server.address, self.port))
            received_data = server.recv(4096)
        #: The address in the trap that the server received.
        self.agent = str(ipaddress.ip_address(received_data[len(before) :]))

    def follow(self, timeout: float = TIMEOUT) -> None:
        raise NotImplementedError("a trap announces nothing")

    def expected(self) -> list[Tuple]:
        return []


class H323(Conversation):
    """H.225 and Q.931, encoded by hand: fields without content are zero."""

    translated = ("ipv4",)

    #: itu-t recommendation h 2250 version 4
    VERSION = bytes.fromhex("060008914a0004")

    def follow(self, timeout: float = TIMEOUT) -> None:
        server, client = self._connected(self.server, self.outside, self._listening, timeout, self._announced()[1])
        assert _exchange(client, server, b"content") == b"content"
        assert _exchange(server, client, ACK) == ACK

    def expected(self) -> list[Tuple]:
        address, port = self._announced()
        assert address == self.outside  # the message after the gateway
        return [self._inbound("tcp", port)]

    def _announced(self) -> tuple[str, int]:
        """Return the address in the message that the server received."""
        size = 16 if ":" in self.outside else 4
        address = self._heard[self._place : self._place + size]
        return str(ipaddress.ip_address(address)), struct.unpack_from("!H", self._heard, self._place + size)[0]

    def _address(self) -> bytes:
        """Return a TransportAddress: a choice of four bits (IPv6: and of no extension), the address and the port."""
        packed = ipaddress.ip_address(self.client.address).packed
        choice = b"\x00" if len(packed) == 4 else b"\x30"
        return choice + packed + struct.pack("!H", self._listening.getsockname()[1])


class Q931(H323):
    """A call: the SETUP message of Q.931 contains the address for H.245."""

    helper, transport, port = "Q.931", "tcp", 1720
    next_helper = "H.245"

    def announce(self) -> None:
        self._listening = self._listener(self.client)
        client, server = self._control()
        before = b"\x00\x40" + self.VERSION  # setup, with an h245Address
        after = bytes(2 + 16 + 1)  # sourceInfo, activeMC; conferenceID; conferenceGoal, callType
        body = b"\x05" + before + self._address() + after
        message = b"\x08\x02\x00\x01\x05" + b"\x7e" + struct.pack("!H", len(body)) + body
        self._heard = _exchange(client, server, b"\x03\x00" + struct.pack("!H", 4 + len(message)) + message)
        self._place = 4 + 5 + 3 + 1 + len(before) + 1


class Ras(H323):
    """A registration with a gatekeeper: it contains the address for calls, which come from the gatekeeper."""

    helper, transport, port = "RAS", "udp", 1719
    next_helper = "Q.931"

    def announce(self) -> None:
        self._listening = self._listener(self.client)
        client = self._questioner()
        before = b"\x0c\x00\x00\x00" + self.VERSION + b"\x00\x01"  # registrationRequest with one callSignalAddress
        after = bytes(2 + 4)  # terminalType, endpointVendor
        message = before + self._address() + b"\x01" + self._address() + after
        with self._datagram(self.server, self.port) as server:
            client.sendto(message, (self.server.address, self.port))
            self._heard = server.recv(4096)
        self._place = len(before) + 1

    def left(self) -> list[Tuple]:
        return self.expected()  # more calls may come


#: Every conversation, by the name of the protocol.
PROTOCOLS: dict[str, type[Conversation]] = {
    "tftp": Tftp,
    "dcc-send": DccSend,
    "dcc-chat": DccChat,
    "pptp": Pptp,
    "sip": Sip,
    "amanda": Amanda,
    "sane": Sane,
    "netbios-ns": NetbiosNs,
    "snmp": Snmp,
    "q931": Q931,
    "ras": Ras,
}
