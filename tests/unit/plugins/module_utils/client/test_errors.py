# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the error messages, because they are the only information that a user gets about a failure."""

from __future__ import annotations

import errno
import json

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import errors


def test_invalid_value_is_reported_with_its_path() -> None:
    fault = errors.InvalidValue("source_port", "is missing; write it")
    assert str(fault) == "source_port: is missing; write it"
    assert str(fault.under("original")) == "original.source_port: is missing; write it"
    assert fault.under("entries[3]").under("config").key == "config.entries[3].source_port"
    whole = errors.InvalidValue("", "is not a dictionary")
    assert str(whole) == "is not a dictionary"
    assert whole.under("entries[0]").key == "entries[0]"
    assert isinstance(fault, ValueError)
    assert isinstance(fault, errors.ConntrackError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EPERM, errors.NotPermitted),
        (errno.ENOENT, errors.NotFound),
        (errno.EEXIST, errors.Exists),
        (errno.EBUSY, errors.Busy),
        (errno.EOPNOTSUPP, errors.Unsupported),
        (errno.ENOMEM, errors.TableFull),
        (errno.ENOSPC, errors.TableFull),
        (errno.EPROTONOSUPPORT, errors.Unavailable),
        (errno.ENOBUFS, errors.Overrun),
        (errno.ETIMEDOUT, errors.ResultUnknown),
        (errno.EMSGSIZE, errors.ResultUnknown),
        (errno.EINVAL, errors.KernelError),
        (524, errors.KernelError),  # ENOTSUPP, which only the kernel uses and no header of libc defines
        (4095, errors.KernelError),
    ],
)
def test_each_errno_has_its_exception(code: int, kind: type) -> None:
    error = errors.kernel_error("creating x", code)
    assert error.__class__ is kind
    assert error.errno == code
    assert str(error).startswith("creating x: ")
    name = "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, str(code))
    assert f"({name})" in str(error)


def test_lost_answer_is_not_a_refusal() -> None:
    assert issubclass(errors.Overrun, errors.ResultUnknown)
    for refused in (errors.NotFound, errors.Exists, errors.NotPermitted):
        assert not issubclass(refused, errors.ResultUnknown)


def test_kernel_error_contains_all_details() -> None:
    error = errors.kernel_error("creating x", errno.EINVAL, "bad mark", "mark")
    assert str(error) == "creating x: Invalid argument (EINVAL) at mark; the kernel reports: bad mark"
    advised = error.with_hint("Write another")
    assert type(advised) is type(error)
    assert str(advised) == f"{error}. Write another"
    assert (advised.request, advised.errno, advised.text, advised.attribute) == (
        "creating x", errno.EINVAL, "bad mark", "mark"
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind", [errors.NotPermitted, errors.TableFull, errors.Unavailable, errors.ResultUnknown, errors.Overrun]
)
def test_errors_contain_their_hints(kind: type) -> None:
    assert kind("reading", errno.EIO).hint in str(kind("reading", errno.EIO))
    assert kind("reading", errno.EIO).hint


#: Values in a document from an untrusted source.
HOSTILE = ["x" * 100_000, "\x1b]0;title\x07\x1b[2J", "\ud800", "a\nb\u2028c\x9b1m", "\u202e" * 5000]


@pytest.mark.parametrize("text", HOSTILE, ids=["long", "escapes", "half", "lines", "long escapes"])
def test_message_is_short_and_printable(text: str) -> None:
    for error in (
        errors.InvalidValue(text, f"{text!r} is wrong"),
        errors.ConntrackError(text),
        errors.NotFound(text, 2, text),
    ):
        message = str(error)
        assert message.isprintable()
        assert len(message) <= errors.LONGEST_MESSAGE
        assert json.loads(json.dumps(message).encode("utf-8")) == message
    assert str(errors.InvalidValue("mark", f"{text!r} is out of range; write a number")).endswith("; write a number")


def test_printable_characters_are_unchanged() -> None:
    assert str(errors.InvalidValue("host", "gäteway is \u2026")) == "host: gäteway is \u2026"
    assert str(errors.ConntrackError("\x1b[31m")) == "\\x1b[31m"
