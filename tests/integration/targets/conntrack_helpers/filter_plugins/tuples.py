# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the tuples of expectations, entries and their masters."""

from __future__ import annotations


def without_zeros(tuple_):
    """Return the known parts of a tuple; 0 stands for any port."""
    return {key: value for key, value in tuple_.items() if value != 0}


def as_master(entry):
    """Return the tuple by which expectations and related entries refer to this entry."""
    return {"protocol": entry["protocol"], **entry["original"]}


class FilterModule:
    def filters(self):
        return {"without_zeros": without_zeros, "as_master": as_master}
