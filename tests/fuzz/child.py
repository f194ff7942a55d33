# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that fuzzes one target: `python -m tests.fuzz.child TARGET FINDINGS [option of libFuzzer ...]`."""

from __future__ import annotations

import hashlib
import sys
import traceback
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import collection_tree

collection_tree.use()

# Measure the coverage of the collection, and of the readers that it uses
_MEASURED = [
    "ansible_collections.netops.conntrack.plugins",
    "ansible_collections.netops.conntrack.plugins.module_utils",
    "json",
    "gzip",
    "xml.etree.ElementTree",
]


def main(name: str, findings: Path, options: list[str]) -> None:
    """Fuzz until the time is over, and write the inputs that break a guarantee."""
    with atheris.instrument_imports(include=_MEASURED):
        from ansible_collections.netops.conntrack.tests.fuzz.guard import limited
        from ansible_collections.netops.conntrack.tests.fuzz.targets import TARGETS

        target = TARGETS[name]
        run = target.run
        for data in target.samples().values():
            run(data)  # also measure modules that are imported only when they are used

    known: set[tuple[type[BaseException], str, int]] = set()

    def check(data: bytes) -> None:
        try:
            with limited(seconds=0):
                run(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # The fuzzer continues, and writes each cause once
            frame = traceback.extract_tb(error.__traceback__)[-1]
            cause = (type(error), frame.filename, frame.lineno or 0)
            if cause not in known:
                known.add(cause)
                write_finding(findings, data, traceback.format_exc())

    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


def write_finding(findings: Path, data: bytes, text: str) -> None:
    """Write an input and its traceback."""
    path = findings / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(text, encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
