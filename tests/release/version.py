# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version of a release: whether it can be the next one, and the files that contain it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from ansible.utils.version import SemanticVersion

#: Folders with `version_added`; the wheel reads its version from galaxy.yml.
DOCUMENTED = ("plugins", "extensions", "roles")


class Refused(Exception):
    """The release cannot begin. The text is one sentence; nothing was changed."""


def check(root: Path, version: str) -> None:
    """Check that a release with this version can begin in a checkout.

    :raises Refused: if the working tree has changes, or the version is not a semantic version above the last release.
    """
    wanted = SemanticVersion()
    try:
        wanted.parse(version)
    except ValueError:
        raise Refused(f"VERSION: {version!r} is not a semantic version; write for example VERSION=1.0.0") from None
    last = max(released(root), default=None)
    if last is not None and wanted <= last:
        raise Refused(f"VERSION: {version} is not newer than the last release; write a version above {last.vstring}")
    if changed := _git(root, "status", "--porcelain").splitlines():
        raise Refused(
            f"The working tree has changes in {changed[0][3:]}{' and other files' if changed[1:] else ''}; "
            "commit or remove them first"
        )


def released(root: Path) -> list[SemanticVersion]:
    """Return the versions that the changelog or a tag names."""
    changelog = yaml.safe_load((root / "changelogs/changelog.yaml").read_text(encoding="utf-8"))
    found = []
    for name in {*changelog["releases"], *_git(root, "tag", "--list").split()}:
        try:
            found.append(SemanticVersion(name))
        except ValueError:
            continue
    return found


def current(root: Path) -> str:
    """Return the version in galaxy.yml: that of the last release, or that which was planned next."""
    version: str = yaml.safe_load((root / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    return version


def write(root: Path, version: str) -> list[str]:
    """Write the version to galaxy.yml, and to each `version_added` that has the planned version.

    A planned version that was never released exists only until the release. A `version_added` with the version of an
    earlier release remains.

    :returns: The names of the changed files.
    """
    before = current(root)
    planned = SemanticVersion(before) not in released(root)
    files = ["galaxy.yml", *(_git(root, "ls-files", *DOCUMENTED).splitlines() if planned else [])]
    line = re.compile(rf"^(version|\s*version_added)(: ['\"]?){re.escape(before)}(?=['\"]?$)", re.MULTILINE)
    changed = []
    for name in files:
        path = root / name
        if path.suffix not in (".py", ".yml"):
            continue
        old = path.read_text(encoding="utf-8")
        new = line.sub(rf"\g<1>\g<2>{version}", old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            changed.append(name)
    return changed


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout
