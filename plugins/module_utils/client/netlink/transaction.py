# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transactions of a netfilter subsystem: the kernel carries out all requests between two marks, or none.

Source: nfnetlink_rcv_batch in net/netfilter/nfnetlink.c.
"""

from __future__ import annotations

import struct
from typing import Sequence

from .. import uapi
from ..errors import MalformedMessage, answer_lost
from .error import ErrorReply, errno_of_failure, error_reply
from .message import Message, frame
from .socket import NetlinkSocket

_NFGENMSG = struct.Struct(">BBH")
_BEGIN, _END = 0x10, 0x11


def send_transaction(
    netlink: NetlinkSocket, subsystem: int, requests: Sequence[Message]
) -> tuple[ErrorReply | None, Message | None]:
    """Send requests as one transaction. Return the first error and its request, both None if all were carried out.

    The request is None if the error is that of the transaction itself. Raises `ResultUnknown` if the answer is lost.
    """
    first = netlink.reserve_sequence(len(requests) + 2)
    mark = _NFGENMSG.pack(0, 0, subsystem)
    sent = {first + position: request for position, request in enumerate(requests, 1)}
    last = first + len(requests)
    frames = [frame(Message(_BEGIN, 0, mark), first)]
    frames += [frame(request, number, uapi.NLM_F_ACK if number == last else 0) for number, request in sent.items()]
    frames.append(frame(Message(_END, 0, mark), last + 1))
    failed: tuple[ErrorReply | None, Message | None] = (None, None)
    try:
        for sequence, answer in netlink.exchange(b"".join(frames), first, last):
            if answer.type != uapi.NLMSG_ERROR:
                continue
            refusal = error_reply(answer, sent)
            if refusal is not None and failed[0] is None:
                failed = refusal, sent.get(sequence)
            if sequence in (first, last):
                break
    except (OSError, MalformedMessage) as error:
        raise answer_lost("waiting for an answer", errno_of_failure(error)) from error
    return failed
