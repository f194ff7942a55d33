# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A release begins only from a clean tree with a newer version, sets it everywhere, and reports an incomplete run."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT
from ansible_collections.netops.conntrack.tests.release import __main__ as release
from ansible_collections.netops.conntrack.tests.release import bom, contents, version

#: Files and folders that users need.
PACKAGED = {
    *(
        "CHANGELOG.rst",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "FILES.json",
        "LICENSES",
        "MANIFEST.json",
        "README.md",
        "REUSE.toml",
    ),
    *("SECURITY.md", "bindep.txt", "changelogs", "docs", "examples", "extensions", "meta", "playbooks", "plugins"),
    *("requirements.txt", "roles"),
}
MODULE = """\
DOCUMENTATION = r'''
version_added: 1.1.0
options:
  old:
    version_added: '1.0.0'
  new:
    version_added: '1.1.0'
    description: Since 1.1.0 it works.
'''
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Create a repository in which 1.0.0 is released, and 1.1.0 is planned."""
    files = {
        "galaxy.yml": "name: conntrack\nversion: 1.1.0\nbuild_ignore: [tests, .gitignore, changelogs/fragments]\n",
        "changelogs/changelog.yaml": "releases:\n  1.0.0: {}\n",
        "changelogs/fragments/one.yml": "bugfixes: [one]\n",
        "plugins/modules/one.py": MODULE,
        "roles/one/meta/argument_specs.yml": "version_added: 1.1.0\n",
        "tests/test_one.py": "version_added: 1.1.0\n",
        ".gitignore": "/left\n",
        "left": "over",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "1.0.0")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


# whether it can begin


@pytest.mark.parametrize("wanted", ["1.0.1", "1.1.0", "1.1.0-rc.1", "2.0.0"])
def test_a_newer_version_is_accepted(checkout: Path, wanted: str) -> None:
    version.check(checkout, wanted)


@pytest.mark.parametrize("wanted", ["", "1", "1.1", "v1.1.0", "1.1.0.1", "1.01.0", "latest"])
def test_another_form_of_version_is_refused(checkout: Path, wanted: str) -> None:
    with pytest.raises(version.Refused, match=r"^VERSION: '.*' is not a semantic version; write .* VERSION=1\.0\.0$"):
        version.check(checkout, wanted)


@pytest.mark.parametrize("wanted", ["1.0.0", "0.9.9", "1.0.0-rc.1"])
def test_a_version_that_is_not_newer_is_refused(checkout: Path, wanted: str) -> None:
    with pytest.raises(version.Refused, match=f"^VERSION: {wanted} is not newer .* above 1.0.0$"):
        version.check(checkout, wanted)


def test_tags_are_releases_too(checkout: Path) -> None:
    git(checkout, "tag", "1.3.0")
    git(checkout, "tag", "not-a-version")
    with pytest.raises(version.Refused, match=r"above 1\.3\.0$"):
        version.check(checkout, "1.2.0")


@pytest.mark.parametrize(("name", "more"), [("galaxy.yml", ""), ("a new file", " and other files")])
def test_changes_in_the_working_tree_are_refused(checkout: Path, name: str, more: str) -> None:
    (checkout / name).write_text("version: 1.1.0\n")
    if more:
        (checkout / "galaxy.yml").unlink()
        name = "galaxy.yml"
    with pytest.raises(version.Refused, match=f"^The working tree has changes in {name}{more}; commit"):
        version.check(checkout, "1.1.0")


def test_a_refusal_is_one_sentence_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = git(CHECKOUT, "status", "--porcelain")
    assert release.main(["latest"]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.endswith("VERSION=1.0.0. Nothing was changed.\n")
    assert git(CHECKOUT, "status", "--porcelain") == before


# the version


def test_the_planned_version_becomes_the_version_of_the_release(checkout: Path) -> None:
    written = ["galaxy.yml", "plugins/modules/one.py", "roles/one/meta/argument_specs.yml"]
    assert version.write(checkout, "2.0.0") == written
    assert version.current(checkout) == "2.0.0"
    assert (checkout / "plugins/modules/one.py").read_text() == MODULE.replace("added: 1.1.0", "added: 2.0.0").replace(
        "added: '1.1.0'", "added: '2.0.0'"
    )
    git(checkout, "checkout", ".")
    assert git(checkout, "status", "--porcelain") == ""


def test_a_released_version_remains_in_the_documentation(checkout: Path) -> None:
    (checkout / "changelogs/changelog.yaml").write_text("releases:\n  1.0.0: {}\n  1.1.0: {}\n")
    assert version.write(checkout, "1.2.0") == ["galaxy.yml"]


def test_the_checkout_names_its_version_only_where_a_release_sets_it() -> None:
    now = version.current(CHECKOUT)
    places = git(CHECKOUT, "grep", "-lwF", f"version: {now}", "--", ":!tests").splitlines()
    assert places == ["galaxy.yml"]


# the package


def test_the_package_has_tracked_files_without_ignored_ones(checkout: Path) -> None:
    assert contents.expected(checkout) == {
        "changelogs/changelog.yaml",
        "plugins/modules/one.py",
        "roles/one/meta/argument_specs.yml",
        *contents.ADDED,
    }


def test_the_package_has_only_what_users_need() -> None:
    expected = contents.expected(CHECKOUT)
    assert {name.partition("/")[0] for name in expected} - PACKAGED == set()
    assert {
        "plugins/modules/conntrack_flush.py",
        "docs/docsite/extra-docs.yml",
        "meta/runtime.yml",
        "roles/gateway/meta/argument_specs.yml",
    } <= expected


def test_the_bill_of_materials_describes_the_collection(tmp_path: Path) -> None:
    about = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"collection_info": about}))
    for name in ("requirements.txt", "meta"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    project = tomllib.loads(bom.project(tmp_path))["project"]
    assert (project["name"], project["version"]) == ("netops.conntrack", about["version"])
    assert project["license"] == "GPL-3.0-or-later"
    assert {line.split()[0] for line in project["dependencies"]} == {"ansible-core", "jsonschema", "pyroute2"}
    assert project["urls"]["Repository"] == about["repository"]
    main = {"name": "netops.conntrack", "version": "1.0.0"}
    document = bom.complete({"metadata": {"component": main}}, "00ff")
    assert document["metadata"]["component"] == {
        **main,
        "purl": "pkg:generic/netops.conntrack@1.0.0",
        "hashes": [{"alg": "SHA-256", "content": "00ff"}],
    }


# an incomplete run


def fail(reason: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise reason

    return step


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (release.Failed("no such rule."), "no such rule"),
        (KeyboardInterrupt(), "interrupted"),
        (OSError(28, "full"), "full"),
    ],
)
def test_a_failure_names_the_step_what_was_done_and_how_to_undo_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: BaseException, shown: str
) -> None:
    done: list[str] = []
    steps = [
        ("set it", lambda: done.append("set")),
        ("write it", fail(reason)),
        ("build it", lambda: done.append("no")),
    ]
    monkeypatch.setattr(release.Release, "steps", lambda self: steps)
    monkeypatch.setattr(release.version, "check", lambda root, wanted: None)
    assert release.main(["9.9.9"]) == 1
    failed, before, undo = capsys.readouterr().err.strip().splitlines()
    assert failed.startswith("Failed to write it: ")
    assert failed.endswith(f"{shown}.")
    assert before == "Done before: set it."
    assert "'git checkout .' restores the working tree" in undo
    assert done == ["set"]


def test_a_command_that_fails_shows_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(release.Failed, match=r"^'sh -c echo the reason; exit 3' ended with status 3$"):
        release._run("sh", "-c", "echo the reason; exit 3")
    assert capsys.readouterr().err == "the reason\n"


def test_the_last_lines_are_the_commands_that_publish(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release.Release, "steps", lambda self: [])
    monkeypatch.setattr(release.version, "check", lambda root, wanted: None)
    assert release.main(["9.9.9"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [line[:2] for line in lines] == [["git", "add"], ["git", "commit"], ["git", "tag"], ["git", "push"]]
