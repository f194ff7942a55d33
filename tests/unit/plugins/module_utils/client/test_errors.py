# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an error says is all that a user has to go on."""

from __future__ import annotations

import errno

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import errors


def test_an_invalid_value_is_named_by_its_path() -> None:
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
        (524, errors.KernelError),  # ENOTSUPP, the kernel's own, which no header of libc has
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


def test_a_lost_answer_is_not_taken_for_a_refusal() -> None:
    assert issubclass(errors.Overrun, errors.ResultUnknown)
    for refused in (errors.NotFound, errors.Exists, errors.NotPermitted):
        assert not issubclass(refused, errors.ResultUnknown)


def test_a_kernel_error_tells_all_that_is_known() -> None:
    error = errors.kernel_error("creating x", errno.EINVAL, "bad mark", "mark")
    assert str(error) == "creating x: Invalid argument (EINVAL) at mark; the kernel says: bad mark"
    advised = error.advised("Write another")
    assert type(advised) is type(error)
    assert str(advised) == f"{error}. Write another"
    assert (advised.request, advised.errno, advised.text, advised.attribute) == (
        "creating x", errno.EINVAL, "bad mark", "mark"
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind", [errors.NotPermitted, errors.TableFull, errors.Unavailable, errors.ResultUnknown, errors.Overrun]
)
def test_what_has_a_cure_names_it(kind: type) -> None:
    assert kind("reading", errno.EIO).remedy in str(kind("reading", errno.EIO))
    assert kind("reading", errno.EIO).remedy
