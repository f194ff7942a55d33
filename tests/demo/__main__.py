# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Create two clients, a gateway with NAT and a server, run the playbook, and check its results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests import programs
from tests.lab import Forbidden, Lab, become_root

from .story import Story


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument(
        "--collections",
        type=Path,
        metavar="FOLDER",
        help="use the collection in this folder, not the checkout",
    )
    installed: Path | None = parser.parse_args().collections
    programs.extend_path()
    try:
        become_root()
    except Forbidden as reason:
        print(f"The demo needs network namespaces, but {reason}.", file=sys.stderr)
        return 2
    with Lab() as lab, Story(lab.gateway_topology(), installed) as story:
        story.tell()
        return 0 if story.is_true() else 1


if __name__ == "__main__":
    sys.exit(main())
