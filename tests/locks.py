# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lock each file of tests/requirements: write the versions and hashes of all packages to tests/requirements/lock.

The arguments go to `uv pip compile`. Without arguments, packages keep their versions if the requirements permit it;
`--upgrade` selects the newest versions, and `--upgrade-package NAME` that of one package.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
REQUIREMENTS = CHECKOUT / "tests/requirements"
LOCKS = REQUIREMENTS / "lock"
#: The oldest Python on which a file is installed; a lock file is valid for all newer ones.
OLDEST_PYTHON = {"client": "3.8", "core-2.20": "3.12", "core-2.21": "3.12"}
OLDEST_CONTROLLER_PYTHON = "3.11"
HEADER = """\
# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# 'make lock' writes this file. Requirements: sha256 {digest}
"""


def names() -> list[str]:
    """Return the names of the requirement files."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def oldest_python(name: str) -> str:
    """Return the oldest Python of a requirement file."""
    return OLDEST_PYTHON.get(name, OLDEST_CONTROLLER_PYTHON)


def lines(file: Path) -> list[str]:
    """Return the requirements in a file and in the files that it includes, without comments."""
    found: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += lines(file.parent / line[3:])
        elif line and not line.startswith("#"):
            found.append(line)
    return found


def header(name: str) -> str:
    """Return the first lines of a current lock file, with a digest of the requirements."""
    text = "\n".join([f"Python {oldest_python(name)}", *lines(REQUIREMENTS / f"{name}.txt")])
    return HEADER.format(digest=hashlib.sha256(text.encode()).hexdigest())


def lock(name: str, *options: str) -> None:
    """Write the lock file of a requirement file."""
    target = LOCKS / f"{name}.txt"
    target.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", oldest_python(name)]
        + ["--generate-hashes", "--no-header", "--no-annotate", "--output-file", str(target), *options]
        + [str(REQUIREMENTS / f"{name}.txt")],
        check=True,
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
    )
    target.write_text(f"{header(name)}\n{target.read_text(encoding='utf-8')}", encoding="utf-8")


if __name__ == "__main__":
    for file in LOCKS.glob("*.txt"):
        if file.stem not in names():
            file.unlink()
    for each in names():
        lock(each, *sys.argv[1:])
