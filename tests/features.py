# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The features that the running kernel lacks, by the names that `conntrack_facts` reports under capabilities."""

from __future__ import annotations

import functools

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.probe import probe

_probe = functools.cache(probe)


def lacks(feature: str) -> bool:
    """Return whether `conntrack_facts` probed the feature and the kernel does not have it."""
    return _probe().get(feature) is False


def needs(feature: str) -> None:
    """Skip the test if the kernel lacks the feature, and name the feature. `make kernels` counts no other reason."""
    if lacks(feature):
        pytest.skip(f"this kernel lacks {feature}")
