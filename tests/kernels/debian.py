# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian's packages of any suite, by an apt configuration of one's own: the machine's apt is only asked for a mirror.

Nothing is installed, so none of it needs root.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: Whose signatures count, also on machines that are not Debian's (package debian-archive-keyring)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

#: What the machine does after its own updates is not to be done after these
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
    """What this machine has not got, as the reason why nothing can be done here."""


def find_mirror() -> str:
    """The mirror that the machine's own apt takes Debian from.

    :raises Missing: if it takes Debian from nowhere, or has none of Debian's keys.
    """
    if not KEYRING.exists():
        raise Missing(f"needs {KEYRING} (apt-get install debian-archive-keyring)")
    asked = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian")
    addresses = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    if not addresses:
        raise Missing("needs Debian among the sources of this machine's apt, and apt-get update to have run")
    return addresses[0]


class Suite:
    """One suite of Debian as seen by somebody who has nothing installed; its lists and packages are in `folder`."""

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
        """The release that a kernel's metapackage stands for, and the files with its image and its modules."""
        # Not with all that they depend on, such as what makes an initrd for a machine with disks
        dependencies = self._apt("depends", "--recurse", "--important", package, program="apt-cache")
        names = re.findall(r"^linux-(?:image|base|binary|modules)-\d\S+$", dependencies, re.MULTILINE)
        self._apt("download", *names)
        release = next(name.removeprefix("linux-image-") for name in names if name.startswith("linux-image-"))
        return release, self._downloaded()

    def with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """The files of packages and of all that they depend on."""
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
    """Lay out the files of packages in a folder, without running anything of theirs."""
    for package in packages:
        subprocess.run(("dpkg-deb", "-x", package, folder), check=True)
