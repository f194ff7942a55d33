# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation page about injected faults."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from . import TABLES, WRITING, Row

CHECKOUT = Path(__file__).parents[2]
PUBLISHED = CHECKOUT / "docs/docsite/rst/guide_faults.rst"
WIDTH = 120

_START = """\
..
  SPDX-FileCopyrightText: netops.conntrack contributors
  SPDX-License-Identifier: GPL-3.0-or-later

  python -m tests.faults writes this page from tests/faults/__init__.py.

.. _ansible_collections.netops.conntrack.docsite.guide_faults:

Behaviour after faults
======================

The tests of this collection inject faults into the system calls of its modules on a running kernel. They then read the
tables of the kernel with other programs. Some tests use a model of the kernel in Python instead, which can fail at any
message. This page lists each fault, the guarantee, and the test that checks it.

After every fault on this page:

- Each entry, expectation, timeout policy or setting of the task is as before, or as the task declares it. All others
  are unchanged. The tables name the exceptions.
- The result is correct. ``changed`` is ``true`` if anything was changed. Counts never include a change that was not
  made.
- If a module cannot determine whether a change was made, ``changed`` is ``true``, and the task fails. Its error reports
  that the result is unknown. ``conntrack_snapshot`` counts such entries in ``unknown`` and adds a warning instead.
- If the cause no longer exists, a second run completes the task.

If the kernel cannot change a value in place, a module with ``replace: true`` deletes the old entry, expectation or
policy and creates the new one. The tables call this a replacement.
"""


def text() -> str:
    """Return the whole page."""
    names = ", ".join(f"``{name}``" for name in WRITING)
    modules = textwrap.fill(f"In the tables, the modules that write are {names}.", WIDTH, break_on_hyphens=False)
    parts = [_START, "", modules, ""]
    for heading, rows in TABLES.items():
        parts += ["", heading, "-" * len(heading), "", *_table(rows)]
    return "\n".join(parts) + "\n"


def _table(rows: tuple[Row, ...]) -> Iterator[str]:
    yield ".. list-table::"
    yield "    :header-rows: 1"
    yield "    :widths: 25 25 30 20"
    yield ""
    yield from _cells("Fault", "Where", "Guarantee", "Test")
    for row in rows:
        tests = "; ".join(f"``{test.rpartition('::')[2]}`` in ``{test.partition('::')[0]}``" for test in row.tests)
        yield from _cells(row.injected, row.where, row.guarantee, tests)


def _cells(*cells: str) -> Iterator[str]:
    for number, cell in enumerate(cells):
        first = "    * - " if number == 0 else "      - "
        yield from textwrap.wrap(
            cell, WIDTH, initial_indent=first, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False
        )
