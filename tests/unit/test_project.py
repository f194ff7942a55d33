# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package contains exactly the files that users need, and its tools have the same versions everywhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

IGNORED = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))["build_ignore"]


def kept_by_git() -> set[str]:
    """Return the paths of files and folders that git tracks."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True)
    files = [Path(name) for name in listing.stdout.split("\0") if name]
    return {str(path) for file in files for path in (file, *file.parents)}


def test_build_ignore_names_only_what_exists() -> None:
    left_by_tools = {line.strip("/") for line in (CHECKOUT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    assert set(IGNORED) - kept_by_git() - left_by_tools == set()


def test_no_hidden_file_is_packaged() -> None:
    hidden = {name for name in kept_by_git() if name.startswith(".") and name != "." and "/" not in name}
    assert hidden - set(IGNORED) == set()


def test_pre_commit_uses_the_versions_of_the_sessions() -> None:
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    requirements = {
        line
        for file in (CHECKOUT / "tests/requirements").glob("*.txt")
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    shared = {line for hook in hooks for line in hook["additional_dependencies"] if line in requirements}
    assert {line.split()[0] for line in shared} == {"ruff", "antsibull-changelog"}


def test_documentation_is_in_the_documented_folder() -> None:
    place = "dist/docs/build/html"
    session = (CHECKOUT / "noxfile.py").read_text(encoding="utf-8")
    assert 'target = ROOT / "dist/docs"' in session
    assert "{target / 'build/html/index.html'}" in session
    for name in ("CONTRIBUTING.md", "Makefile"):
        assert place in (CHECKOUT / name).read_text(encoding="utf-8"), name
