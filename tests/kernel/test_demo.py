# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo on machines with restrictions, and its output in the README. `make demo` itself verifies its statements."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import clock

CHECKOUT = Path(__file__).parents[2]


def test_forbidden_namespaces_are_reported_in_one_sentence(root: None) -> None:
    """On a machine that forbids namespaces, the output is one sentence with the remedy, without a traceback."""
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
def test_output_of_the_demo_matches_the_readme(tun: None) -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^\$ make demo\n(.*?)^```\n", readme, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo"], check=False, cwd=CHECKOUT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert shown
    printed = iter(done.stdout.splitlines())
    assert all(line in printed for line in shown[1].splitlines()), done.stdout  # in this order


@pytest.mark.thorough
def test_demo_continues_without_tun_devices(root: None) -> None:
    """The demo explains why it finds no flow without a match, and shows all other steps."""
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
    assert "The flush of stale flows removes nothing: stale flows cannot be found here: no TUN device" in done.stdout
    assert "other entries are unchanged" in done.stdout
