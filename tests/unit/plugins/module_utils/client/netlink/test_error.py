# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that an error of netlink becomes an exception with the errno, the text and the attribute of the reply."""

from __future__ import annotations

import errno
import struct

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import MalformedMessage, NotFound
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.error import (
    ErrorReply,
    RequestRejected,
    errno_of,
    errno_of_failure,
    error_reply,
    rejections,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message, parse
from ansible_collections.netops.conntrack.tests.unit.support import corpus

pytestmark = pytest.mark.portability


@pytest.mark.parametrize("answer", [corpus.CAPPED, corpus.UNCAPPED], ids=["capped", "uncapped"])
def test_text_and_attribute_of_an_error(answer: bytes) -> None:
    ((_sequence, reply),) = parse(answer)
    assert error_reply(reply, dict(parse(corpus.REFUSED))) == ErrorReply(
        errno.ERANGE, "Attribute failed policy validation", 8
    )
    assert error_reply(reply, {}) == ErrorReply(errno.ERANGE, "Attribute failed policy validation")


def test_acknowledgement_is_not_an_error() -> None:
    assert error_reply(Message(2, 0, struct.pack("=i", 0)), {}) is None


def test_an_error_without_a_number() -> None:
    with pytest.raises(MalformedMessage, match="has 3 bytes, too few"):
        errno_of(Message(2, 0, b"\0\0\0"))


def test_the_errno_of_a_failure() -> None:
    assert errno_of_failure(OSError(errno.ENOBUFS, "")) == errno.ENOBUFS
    assert errno_of_failure(OSError()) == errno.EIO
    assert errno_of_failure(MalformedMessage()) == errno.EBADMSG


def test_rejection_names_the_operation() -> None:
    with pytest.raises(NotFound) as caught, rejections("reading the ruleset"):
        raise RequestRejected(ErrorReply(errno.ENOENT, "gone"))
    assert str(caught.value).startswith("reading the ruleset: ")
    assert "the kernel reports: gone" in str(caught.value)
