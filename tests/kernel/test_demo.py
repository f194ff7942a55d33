# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo where it cannot run; where it can, make demo checks itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import clock

CHECKOUT = Path(__file__).parents[2]


def test_forbidden_namespaces_are_told_in_one_sentence(root: None) -> None:
    """As on a machine that lets users make no namespaces: no trace of Python, but what to do."""
    forbid = "for kind in user net; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done"
    script = f'{forbid}; exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-m", "tests.demo"],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=clock.HUNG,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "user.max_user_namespaces" in done.stderr


@pytest.mark.thorough
def test_the_demo_goes_on_without_tun_devices(root: None) -> None:
    """It says why no flow is found without a match, and all the rest is shown."""
    script = 'mount --bind /dev/null /dev/net/tun && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "tests.demo"],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=clock.HUNG,
    )
    assert done.returncode == 0, done.stdout
    assert "Nothing was removed without a match, because stale flows cannot be found here: no TUN device" in done.stdout
    assert "other entries stayed as they were" in done.stdout
