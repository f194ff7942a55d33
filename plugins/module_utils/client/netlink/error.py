# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netlink errors: error replies with their extended acknowledgement, and answers that were lost.

`errors.py` has the exceptions, by errno. `Table` adds what a request was about.

Source: nlmsgerr and nlmsgerr_attrs in include/uapi/linux/netlink.h; netlink_ack in net/netlink/af_netlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from typing import Iterator, NamedTuple

from .. import uapi
from ..errors import ConntrackError, MalformedMessage, kernel_error
from .message import ATTRIBUTE, HEADER, Message, attributes

#: The first field of struct nlmsgerr.
ERRNO = struct.Struct("=i")
_OFFSET = struct.Struct("=I")


class ErrorReply(NamedTuple):
    """An error reply: the positive errno, the kernel's text, and the number of the attribute that caused the error.

    If `lost` is true, the errno is the reason why no answer was received. The kernel may have carried out the request.
    """

    errno: int
    text: str | None = None
    attribute: int | None = None
    lost: bool = False


class RequestRejected(ConntrackError):
    """The kernel answered a single request with an error. Callers add what the request was about."""

    def __init__(self, refusal: ErrorReply) -> None:
        super().__init__(refusal.text or errno.errorcode.get(refusal.errno, str(refusal.errno)))
        self.refusal = refusal


@contextlib.contextmanager
def rejections(doing: str) -> Iterator[None]:
    """Raise a `KernelError` that contains `doing` if the kernel rejects the request in the block."""
    try:
        yield
    except RequestRejected as error:
        raise kernel_error(doing, error.refusal.errno, error.refusal.text) from None


def errno_of_failure(error: OSError | MalformedMessage) -> int:
    """Return the errno of a failure to receive an answer."""
    return (error.errno or errno.EIO) if isinstance(error, OSError) else errno.EBADMSG


def errno_of(answer: Message) -> int:
    """Return the errno of an NLMSG_ERROR or NLMSG_DONE, 0 for success. Raises `MalformedMessage`."""
    if len(answer.payload) < ERRNO.size:
        raise MalformedMessage(f"an error message has {len(answer.payload)} bytes, too few for an error number")
    code: int = -ERRNO.unpack_from(answer.payload)[0]
    return code


def error_reply(answer: Message, sent: dict[int, Message]) -> ErrorReply | None:
    """Parse an NLMSG_ERROR. Return None for an acknowledgement. `sent` contains the requests by sequence number."""
    code = errno_of(answer)
    if code == 0:
        return None
    text = attribute = None
    if answer.flags & uapi.NLM_F_ACK_TLVS and len(answer.payload) >= ERRNO.size + HEADER.size:
        echoed = HEADER.size
        length, _type, _flags, sequence, _port = HEADER.unpack_from(answer.payload, ERRNO.size)
        if not answer.flags & uapi.NLM_F_CAPPED:
            echoed = length + 3 & ~3
        for number, start, end in attributes(answer.payload, ERRNO.size + echoed, len(answer.payload)):
            value = answer.payload[start:end]
            if number == uapi.NLMSGERR_ATTR_MSG:
                text = value.rstrip(b"\0").decode("utf-8", "replace")
            elif number == uapi.NLMSGERR_ATTR_OFFS and sequence in sent and len(value) == _OFFSET.size:
                attribute = _attribute_at(sent[sequence], _OFFSET.unpack(value)[0])
    return ErrorReply(code, text, attribute)


def _attribute_at(message: Message, offset: int) -> int | None:
    """Return the number of the attribute at an offset in the framed message, None if there is none."""
    start = offset - HEADER.size
    if not 0 <= start <= len(message.payload) - ATTRIBUTE.size:
        return None
    number: int = ATTRIBUTE.unpack_from(message.payload, start)[1]
    return number & uapi.NLA_TYPE_MASK
