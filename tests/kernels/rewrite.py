# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cache the test files with pytest's rewritten assertions, because this takes long in the slow machine.

The machine's own Python runs this script, with its own pytest. Arguments: the root of the machine, and files in it.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from _pytest.assertion import rewrite

root, *files = sys.argv[1:]
for name in files:
    file = Path(root, name)
    source, path = file.read_bytes(), f"/{name}"
    tree = ast.parse(source, path)
    rewrite.rewrite_asserts(tree, source, path)
    folder = file.parent / "__pycache__"
    folder.mkdir(exist_ok=True)
    with (folder / f"{file.stem}{rewrite.PYC_TAIL}").open("wb") as output:
        rewrite._write_pyc_fp(output, importlib.util.source_hash(source), compile(tree, path, "exec", 0, True))
