# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the running kernel lacks, by the names that `conntrack_facts` reports under capabilities."""

from __future__ import annotations

import functools

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.probe import probe

_probe = functools.cache(probe)


def lacks(feature: str) -> bool:
    """Whether the kernel was asked for the feature and does not have it."""
    return _probe().get(feature) is False


def needs(feature: str) -> None:
    """Skip the test where the kernel lacks the feature, and say so; no other reason counts in `make kernels`."""
    if lacks(feature):
        pytest.skip(f"this kernel lacks {feature}")
