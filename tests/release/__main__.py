# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Set the version, write the changelog, build and check the packages, and print the commands that publish them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from . import bom, contents, version
from .version import Refused

CHECKOUT = Path(__file__).parents[2]
DIST = CHECKOUT / "dist"
#: The packages that a user installs with the collection.
USER = CHECKOUT / "tests/requirements/lock/demo.txt"
SUMS = "SHA256SUMS"
#: The number of lines of a failed command's output that are shown.
SHOWN = 40


class Failed(Exception):
    """A step failed. The text is one sentence."""


class Release:
    """A release with one version. The packages are in a temporary folder until all steps have succeeded."""

    def __init__(self, wanted: str, folder: Path) -> None:
        self.version = wanted
        self.built = folder / "built"
        self.built.mkdir()
        self.python = folder / "user/bin/python"
        self.collections = folder / "collections"
        self.folder = folder
        self.tarball = self.built / f"netops-conntrack-{wanted}.tar.gz"

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the steps with what they do, in order."""
        return [
            ("set the version", self._set_version),
            ("write the changelog", self._write_changelog),
            ("build the collection", self._build_collection),
            ("import it with galaxy-importer", self._import_collection),
            ("install it in an empty folder, and run the demo from there", self._demonstrate),
            ("build the Python package, and import it in an empty environment", self._build_wheel),
            ("write the software bill of materials", self._write_bom),
            (f"write {SUMS}, and move everything to dist/", self._keep),
        ]

    def commands(self) -> list[str]:
        """Return the commands that publish the release."""
        return [
            "git add --all",
            f"git commit --message 'Release {self.version}'",
            f"git tag --annotate {self.version} --message 'netops.conntrack {self.version}'",
            f"git push origin HEAD {self.version}",
        ]

    def _set_version(self) -> None:
        for name in version.write(CHECKOUT, self.version):
            print(f"  {name}")
        if version.current(CHECKOUT) != self.version:
            raise Failed(f"galaxy.yml has the version {version.current(CHECKOUT)} instead of {self.version}")

    def _write_changelog(self) -> None:
        _run("antsibull-changelog", "lint")
        _run("antsibull-changelog", "release", "--version", self.version)
        _run("antsibull-changelog", "lint-changelog-yaml", "changelogs/changelog.yaml")
        changelog = yaml.safe_load((CHECKOUT / "changelogs/changelog.yaml").read_text(encoding="utf-8"))
        if self.version not in changelog["releases"]:
            raise Failed(f"changelogs/changelog.yaml has no release {self.version}")

    def _build_collection(self) -> None:
        # From a copy of the tracked files: ansible-galaxy would also pack files that git ignores
        source = self.folder / "source"
        for name in contents.tracked(CHECKOUT):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, source / name)
        _run("ansible-galaxy", "collection", "build", "--output-path", str(self.built), cwd=source)
        packed, expected = contents.packed(self.tarball), contents.expected(CHECKOUT)
        if packed != expected:
            raise Failed(f"The package has other files than expected: {', '.join(sorted(packed ^ expected)[:5])}")
        print(f"  {len(packed)} files, {self.tarball.stat().st_size / 1e6:.1f} MB")

    def _import_collection(self) -> None:
        folder = self.folder / "import"
        folder.mkdir()
        shutil.copy2(self.tarball, folder)
        output = _run(sys.executable, "-m", "galaxy_importer.main", self.tarball.name, cwd=folder)
        if errors := [line for line in output.splitlines() if line.startswith("ERROR:")]:
            raise Failed(f"galaxy-importer reports {len(errors)} errors; the first is {errors[0]}")

    def _demonstrate(self) -> None:
        """Use the collection as a user does, in an environment that has only what a user installs."""
        _run(sys.executable, "-m", "venv", "--without-pip", str(self.python.parents[1]))
        pip = (sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet")
        _run(*pip, "--disable-pip-version-check", "--require-hashes", "--requirement", str(USER))
        install = ("collection", "install", "--offline", "--no-deps", "--collections-path", str(self.collections))
        _run(str(self.python), "-m", "ansible", "galaxy", *install, str(self.tarball))
        _run(str(self.python), "-m", "tests.demo", "--collections", str(self.collections), shown=True)

    def _build_wheel(self) -> None:
        build = ("--wheel", "--no-isolation", "--outdir", str(self.built), "wheel")
        _run(sys.executable, "-m", "build", *build)
        wheel = self.built / f"netops_conntrack-{self.version}-py3-none-any.whl"
        if not wheel.exists():
            names = ", ".join(path.name for path in self.built.glob("*.whl"))
            raise Failed(f"The Python package is {names} instead of {wheel.name}")
        empty = self.folder / "empty/bin/python"
        _run(sys.executable, "-m", "venv", "--without-pip", str(empty.parents[1]))
        _run(sys.executable, "-m", "pip", "--python", str(empty), "install", "--quiet", "--no-index", str(wheel))
        _run(str(empty), "-I", "-c", "from netops_conntrack import Conntrack; print(Conntrack.__doc__)")

    def _write_bom(self) -> None:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        described = self.folder / "pyproject.toml"
        described.write_text(bom.project(self.collections / "ansible_collections/netops/conntrack"), encoding="utf-8")
        listing = self.folder / "listing.json"
        _run(
            *("cyclonedx-py", "environment", "--spec-version", bom.SPECIFICATION, "--mc-type", "library"),
            *("--pyproject", str(described), "--output-file", str(listing), str(self.python)),
        )
        document = bom.complete(json.loads(listing.read_text(encoding="utf-8")), _sha256(self.tarball))
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if error := JsonStrictValidator(SchemaVersion.from_version(bom.SPECIFICATION)).validate_str(text):
            raise Failed(f"The software bill of materials is not valid: {error}")
        self.tarball.with_name(f"netops-conntrack-{self.version}.cdx.json").write_text(text, encoding="utf-8")

    def _keep(self) -> None:
        files = sorted(self.built.iterdir())
        sums = "".join(f"{_sha256(path)}  {path.name}\n" for path in files)
        (self.built / SUMS).write_text(sums, encoding="utf-8")
        DIST.mkdir(exist_ok=True)
        for path in (*files, self.built / SUMS):
            shutil.copy2(path, DIST)
            print(f"  dist/{path.name}")


def main(arguments: list[str]) -> int:
    wanted = arguments[0] if len(arguments) == 1 else ""
    try:
        version.check(CHECKOUT, wanted)
    except Refused as reason:
        print(f"{reason}. Nothing was changed.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="conntrack-release-") as name:
        release = Release(wanted, Path(name))
        done: list[str] = []
        for title, step in release.steps():
            print(f"{title[0].upper()}{title[1:]}", flush=True)
            try:
                step()
            except (Failed, OSError, KeyboardInterrupt) as reason:
                _report(done, title, reason)
                return 1
            done.append(title)
    print("\nEverything is in dist/. Nothing was committed, tagged or published. To do so:\n")
    print("\n".join(f"  {command}" for command in release.commands()), flush=True)
    return 0


def _report(done: list[str], title: str, reason: BaseException) -> None:
    """Print what was done before a failure, and how to undo it."""
    print(f"\nFailed to {title}: {str(reason).rstrip('.') or 'interrupted'}.", file=sys.stderr)
    print(f"Done before: {'; '.join(done) or 'nothing'}.", file=sys.stderr)
    print(
        "Nothing was committed, tagged or published. 'git checkout .' restores the working tree.",
        file=sys.stderr,
    )


def _run(*command: str, cwd: Path = CHECKOUT, shown: bool = False) -> str:
    """Run a command, and return its output, or show it.

    :raises Failed: if its exit status is not 0; the end of its output is then shown.
    """
    done = subprocess.run(
        command, check=False, cwd=cwd, stdout=None if shown else subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print("\n".join((done.stdout or "").splitlines()[-SHOWN:]), file=sys.stderr)
        started = " ".join(command[:4]) + " ..." * (len(command) > 4)
        raise Failed(f"'{started}' ended with status {done.returncode}")
    return done.stdout or ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
