# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read Debian's packages of any suite with a separate apt configuration.

The module only reads the mirror from the machine's own apt. Nothing is installed, so root is not required.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: The keys that sign Debian, also on machines with another system (package debian-archive-keyring)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

#: Clears the machine's own hooks, which must not run after these updates
CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages "none";
Acquire::Retries "3";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "root";
Dir::Cache "{folder}/cache";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
"""


class Missing(RuntimeError):
    """A requirement that this machine lacks; the message is the reason why the tests cannot run."""


def find_mirror() -> str:
    """Return the mirror from which the machine's own apt installs Debian.

    :raises Missing: if there is no such mirror, or if Debian's keys are not installed.
    """
    if not KEYRING.exists():
        raise Missing(f"needs {KEYRING} (apt-get install debian-archive-keyring)")
    query = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian")
    addresses = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()
    if not addresses:
        raise Missing("needs Debian among the sources of this machine's apt, and apt-get update to have run")
    return addresses[0]


class Suite:
    """One suite of Debian as apt resolves it without any installed package. Lists and packages are in `folder`."""

    def __init__(self, name: str, mirror: str, folder: Path) -> None:
        for part in ("cache/archives/partial", "state/lists/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {name} main\n")
        self._configuration = folder / "apt.conf"
        self._configuration.write_text(CONFIGURATION.format(folder=folder))
        self._archives = folder / "cache/archives"
        self._apt("update")

    def kernel(self, package: str) -> tuple[str, list[Path]]:
        """Return the release that a kernel's metapackage stands for, and the files with its image and its modules."""
        # Without the dependencies, such as the generator of an initrd for a machine with disks
        dependencies = self._apt("depends", "--recurse", "--important", package, program="apt-cache")
        names = re.findall(r"^linux-(?:image|base|binary|modules)-\d\S+$", dependencies, re.MULTILINE)
        self._apt("download", *names)
        release = next(name.removeprefix("linux-image-") for name in names if name.startswith("linux-image-"))
        return release, self._downloaded()

    def with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """Return the files of packages and of all their dependencies."""
        self._apt("install", "--download-only", "--yes", "--no-install-recommends", *packages)
        return self._downloaded()

    def _downloaded(self) -> list[Path]:
        return sorted(self._archives.glob("*.deb"))

    def _apt(self, *arguments: str, program: str = "apt-get") -> str:
        command = [program, "-c", str(self._configuration), "-qq", *arguments]
        done = subprocess.run(command, cwd=self._archives, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def unpack(packages: Sequence[Path], folder: Path) -> None:
    """Extract the files of packages into a folder, without running their scripts."""
    for package in packages:
        subprocess.run(("dpkg-deb", "-x", package, folder), check=True)
