# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sessions of the test suite. `make check`, `make test` and `make test STRICT=1` each run a selection of them.

Arguments after `--` go to the program that a session runs. If they name test files, only those run:
`nox -s unit-client-3.13 -- tests/unit/plugins/module_utils/client/codec/test_codec.py`.

antsibull-nox adds the sessions that lint the collection; `antsibull-nox.toml` configures them.
"""

from __future__ import annotations

import os
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import antsibull_nox
import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from tests import collection_tree  # noqa: E402

LOCKS = ROOT / "tests/requirements/lock"
RESULTS = ROOT / ".nox/results"

#: With STRICT=1 every session runs, on every supported version, and Hypothesis runs all examples
STRICT = os.environ.get("STRICT", "") not in ("", "0")

#: Pythons that modules and module_utils support
TARGET_PYTHONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"]
#: Pythons that ansible-core runs on, the preferred one first
CONTROLLER_PYTHONS = ["3.13", "3.12", "3.11"]
#: ansible-core by the controller Pythons that it supports, the preferred one first
CORES = {
    "2.19": ["3.11", "3.12", "3.13"],
    "2.20": ["3.12", "3.13", "3.14"],
    "2.21": ["3.13", "3.12", "3.14"],
}


def show_pyenv_pythons() -> None:
    """Put the Pythons of pyenv itself on PATH, for only some of its shims work at a time."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = os.environ["PATH"].split(os.pathsep)
    found: list[str] = []
    with suppress(PermissionError):  # PYENV_ROOT is another user's
        found = sorted(str(folder) for folder in versions.glob("3.*/bin"))
    os.environ["PATH"] = os.pathsep.join([f for f in found if f not in known] + known)


def first_installed(pythons: list[str]) -> str:
    """Return the first Python that is installed, or else the first one, which nox then reports as missing."""
    return next((p for p in pythons if shutil.which(f"python{p}")), pythons[0])


show_pyenv_pythons()
OLDEST_PYTHON, NEWEST_PYTHON = first_installed(TARGET_PYTHONS), first_installed(TARGET_PYTHONS[::-1])
#: The newest ansible-core that an installed Python runs
NEWEST_CORE = next(
    (core for core in reversed(CORES) if any(shutil.which(f"python{python}") for python in CORES[core])), "2.21"
)
#: The modules' Python in the integration tests, if it is not the controller's
INTEGRATION_TARGET_PYTHONS = {"2.19": "3.8", "2.20": "3.9"}
#: Kernels under QEMU; with STRICT=1 all that `tests/kernels` has, and all tests for them
KERNELS = [] if STRICT else ["--brief", "5.10", "7.2"]

UNIT = "tests/unit/plugins"
#: Tests that run on every target Python, without Ansible
MODULE_UTILS = f"{UNIT}/module_utils"
CLIENT = f"{MODULE_UTILS}/client"
#: Tests in MODULE_UTILS that need Ansible or PyYAML
NEED_ANSIBLE = [
    f"{MODULE_UTILS}/{name}"
    for name in (
        "_argspec",
        "_operations/test_counters.py",
        "_source/test_file.py",
        "test_module.py",
        "test_payload.py",
    )
]
#: Hypothesis profiles (tests/profiles.py): every property is tested in full once, and in brief on the other versions
FULL, BRIEF = (
    "--hypothesis-profile=thorough" if STRICT else "--hypothesis-profile=default",
    "--hypothesis-profile=smoke",
)

LINT = [
    *("ruff", "types", "yamllint", "antsibull-nox-config", "license-check", "extra-checks"),
    *("changelog", "docs-check", "ansible-lint"),
    *(["build-import-check"] if STRICT else []),
]
#: Sanity tests whose result can depend on the version of ansible-core; the newest one runs all
OLDER_SANITY = [
    f"--test={name}"
    for name in ("validate-modules", "ansible-doc", "runtime-metadata", "ignores", "action-plugin-docs")
]
#: Folders with Python files that are part of a release
SHIPPED = ["plugins/", "extensions/"]
#: A Python that the newest ansible-core does not know, by ansible-core: it compiles and imports every file
SANITY_OF_PYTHON = {"2.19": "3.8"}
UNITS = [*(f"unit-client-{python}" for python in TARGET_PYTHONS), *(f"unit-core-{core}" for core in CORES)]
SELECTED_UNITS = (
    UNITS if STRICT else [f"unit-client-{OLDEST_PYTHON}", f"unit-client-{NEWEST_PYTHON}", f"unit-core-{NEWEST_CORE}"]
)
SELECTED_CORES = list(CORES) if STRICT else [NEWEST_CORE]

nox.needs_version = ">=2026.8"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.allow_parallel = True
nox.options.sessions = [
    # The longest session first, so that both cores are busy to the end
    "fleet",
    *LINT,
    *(f"integration-{core}" for core in reversed(SELECTED_CORES)),
    "kernel",
    *SELECTED_UNITS,
    *(f"sanity-{core}" for core in reversed(SELECTED_CORES)),
    *("interop", "events", "kernels"),
]


def install(session: nox.Session, name: str) -> None:
    """Install what a file of tests/requirements lists, with the versions and hashes of its lock file.

    Nothing is installed again as long as the lock file does not change.
    """
    lock = LOCKS / f"{name}.txt"
    installed = Path(session.virtualenv.location) / "installed.txt"
    if not installed.exists() or installed.read_text() != lock.read_text():
        session.install("--require-hashes", "-r", str(lock))
        shutil.copyfile(lock, installed)


def results(session: nox.Session) -> Path:
    """Return the folder for a session's JUnit files, empty."""
    folder = RESULTS / session.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def report_skip(session: nox.Session, test: str, reason: str) -> None:
    """Add a skipped test to the session's JUnit files."""
    suite = ET.Element("testsuite")
    ET.SubElement(ET.SubElement(suite, "testcase", name=test), "skipped", message=reason)
    ET.ElementTree(suite).write(RESULTS / session.name / "skipped.xml")


def use_collection_tree(session: nox.Session) -> None:
    """Let what the session starts find the checkout under the collection's name."""
    for variable in collection_tree.VARIABLES:
        session.env[variable] = str(collection_tree.make())


@contextmanager
def copied_tree(session: nox.Session) -> Iterator[Path]:
    """Copy what git would keep to where ansible-test finds no git around it.

    Runs of ansible-test then do not write over one another, nor into the checkout.
    """
    listing = session.run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
        external=True, silent=True, log=False,
    )  # fmt: skip
    with TemporaryDirectory(prefix="conntrack-") as folder:
        copy = Path(folder) / "ansible_collections/netops/conntrack"
        for name in filter(None, str(listing).split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        yield copy


def pytest(session: nox.Session, paths: list[str], *options: str) -> None:
    """Run the tests in the paths, or those that the arguments after `--` name."""
    named = any(Path(argument.partition("::")[0]).exists() for argument in session.posargs)
    junit = f"--junitxml={results(session) / 'pytest.xml'}"
    selection = [] if STRICT or named else ["-m", "not thorough"]
    command = ["python", "-m", "pytest", junit, *selection, *options, *([] if named else paths), *session.posargs]
    # Sessions that end together would remove each other's old folders, of which pytest warns. Ansible makes sockets in
    # such a folder, so its path is short
    with TemporaryDirectory(prefix="conntrack-") as folder:
        session.run(*command, f"--basetemp={folder}/t")


def own_home(session: nox.Session) -> None:
    """Let ansible-test keep its environments and keys apart, so that two of it can run side by side.

    pip still finds the user's configuration and earlier downloads.
    """
    home, users = Path(session.virtualenv.location).absolute() / "home", Path.home()
    test = home / ".ansible/test"
    test.mkdir(parents=True, exist_ok=True)
    (users / ".ansible/test/cache").mkdir(parents=True, exist_ok=True)
    for link, target in [
        *((home / name, users / name) for name in (".cache", ".config", ".pip")),
        (test / "cache", users / ".ansible/test/cache"),
    ]:
        if not link.is_symlink():
            link.symlink_to(target)
    session.env["HOME"] = str(home)


def ansible_test(session: nox.Session, *runs: list[str]) -> None:
    """Run ansible-test once with each list of arguments."""
    junit = results(session)
    own_home(session)
    with copied_tree(session) as copy, session.chdir(copy):
        try:
            for arguments in runs:
                session.run("ansible-test", *arguments, "--color", "no", *session.posargs)
        finally:
            for file in copy.glob("tests/output/junit/*.xml"):
                shutil.copy2(file, junit)


# With it, Python reads what Ansible pipes to it byte by byte, which takes as long as the rest of a task does
os.environ.pop("PYTHONUNBUFFERED", None)
antsibull_nox.load_antsibull_nox_toml()


@nox.session
def ruff(session: nox.Session) -> None:
    """Check Python style and layout."""
    install(session, "ruff")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", "--diff", *session.posargs)


@nox.session
def changelog(session: nox.Session) -> None:
    """Check the changelog fragments, and that CHANGELOG.rst is up to date; with `-- write`, write CHANGELOG.rst."""
    install(session, "changelog")
    session.run("antsibull-changelog", "lint")
    with copied_tree(session) as copy, session.chdir(copy):
        session.run("git", "init", "--quiet", external=True)
        # The date is only in changelog.yaml, which a release writes
        session.run("antsibull-changelog", "release", "--update-existing", "--date", "1970-01-01", silent=True)
        if session.posargs == ["write"]:
            shutil.copy2("CHANGELOG.rst", ROOT)
        elif Path("CHANGELOG.rst").read_text() != (ROOT / "CHANGELOG.rst").read_text():
            session.error("CHANGELOG.rst does not match changelogs/fragments: run 'make changelog'")


@nox.session(python=first_installed(CONTROLLER_PYTHONS))
def types(session: nox.Session) -> None:
    """Check types, strictly, for the newest Python; for the oldest that mypy knows, what runs on the target."""
    install(session, "types")
    use_collection_tree(session)
    collection = "ansible_collections.netops.conntrack"
    everything = ("-p", f"{collection}.plugins", "-p", f"{collection}.extensions.eda.plugins.event_source")
    target = ("-p", f"{collection}.plugins.module_utils", "-p", f"{collection}.plugins.modules")
    for version, packages in (("3.10", target), (NEWEST_PYTHON, everything)):
        session.run("mypy", "--python-version", version, *packages, *session.posargs)


@nox.session(python=first_installed(CORES[NEWEST_CORE]))
def unit(session: nox.Session) -> None:
    """Run the unit tests that are not slow, with the newest Python and ansible-core, with few examples."""
    install(session, f"core-{NEWEST_CORE}")
    pytest(session, ["tests/unit"], BRIEF, "-m", "not slow", "--numprocesses=2", "--dist=worksteal")


# The venv module of each Python creates the environment, since virtualenv no longer supports Python 3.8
@nox.session(name="unit-client", python=TARGET_PYTHONS, venv_backend="venv", tags=["units"])
def unit_client(session: nox.Session) -> None:
    """Run the unit tests of what runs on the target, without Ansible.

    The newest Python tests the client in full. The oldest tests all of module_utils in brief. Those between import
    every file, and run the tests marked `portability`.
    """
    install(session, "client")
    without_ansible = [f"--ignore={name}" for name in NEED_ANSIBLE]
    if session.python == NEWEST_PYTHON:
        pytest(session, [CLIENT], FULL)
    elif session.python == OLDEST_PYTHON:
        pytest(session, [MODULE_UTILS, *without_ansible], BRIEF)
    else:
        marked = [
            file for file in sorted((ROOT / MODULE_UTILS).rglob("test_*.py")) if "portability" in file.read_text()
        ]
        pytest(session, [str(file.relative_to(ROOT)) for file in marked], BRIEF, "-m", "portability")


def add_core_sessions(core: str, pythons: list[str]) -> None:
    python = first_installed(pythons)
    selected = core in SELECTED_CORES

    @nox.session(name=f"unit-core-{core}", python=python, tags=["units"])
    def unit(session: nox.Session) -> None:
        install(session, f"core-{core}")
        if core == NEWEST_CORE:
            pytest(session, ["tests/unit", f"--ignore={CLIENT}"], FULL)
        else:
            pytest(session, ["tests/unit/extensions", UNIT, f"--ignore={MODULE_UTILS}", *NEED_ANSIBLE], BRIEF)

    @nox.session(name=f"sanity-{core}", python=python, tags=["sanity"] if selected else [])
    def sanity(session: nox.Session) -> None:
        install(session, f"core-{core}")
        everything = core == NEWEST_CORE and not session.posargs
        runs = [["--venv", *([] if core == NEWEST_CORE else OLDER_SANITY), *["--skip-test=pylint"] * everything]]
        if not (STRICT or session.posargs):
            # Older Pythons compile and import every file in unit-client-3.8
            runs = [[*arguments, f"--python={python}"] for arguments in runs]
        elif everything:
            # pylint takes longer than all other tests together. ruff checks the tests
            runs.append(["--venv", "--test=pylint", *SHIPPED])
        older = SANITY_OF_PYTHON.get(core)
        if older and shutil.which(f"python{older}"):
            runs.append(["--venv", f"--python={older}", "--test=compile", "--test=import"])
        ansible_test(session, *(["sanity", "--junit", *arguments] for arguments in runs))
        if older and not shutil.which(f"python{older}"):
            report_skip(session, f"import with Python {older}", f"python{older} is absent")

    @nox.session(name=f"integration-{core}", python=python, tags=["integration"] if selected else [])
    def integration(session: nox.Session) -> None:
        if os.geteuid() != 0:
            session.skip("needs root")
        missing = [program for program in ("conntrack", "ip", "nft") if not shutil.which(program)]
        if missing:
            session.skip(f"needs {', '.join(missing)}")
        install(session, f"core-{core}")
        where = ["--controller", f"origin:python={python}"]
        target = INTEGRATION_TARGET_PYTHONS.get(core, python)
        if target != python and shutil.which(f"python{target}"):
            where += ["--target", f"controller:python=venv/{target}"]
        everything = core == NEWEST_CORE and (STRICT or session.posargs)
        tags = [] if everything else ["--skip-tags=thorough"]
        ansible_test(session, ["integration", "--allow-root", "--continue-on-error", *tags, *where])

    scope = "all but the client" if core == NEWEST_CORE else "what imports Ansible"
    unit.__doc__ = f"Run the unit tests of {scope} with ansible-core {core}."
    sanity.__doc__ = f"Run ansible-test sanity of ansible-core {core}."
    integration.__doc__ = f"Run the integration targets with ansible-core {core}."


for core, pythons in CORES.items():
    add_core_sessions(core, pythons)


def add_kernel_session(
    name: str, requirements: str, tests: list[str], description: str, exclusive: bool = False
) -> None:
    @nox.session(name=name, python=first_installed(CONTROLLER_PYTHONS), allow_parallel=not exclusive)
    def test(session: nox.Session) -> None:
        install(session, requirements)
        pytest(session, tests, FULL if STRICT else BRIEF)

    test.__doc__ = description


EVENTS = "tests/kernel/test_events.py"
add_kernel_session(
    "kernel", "kernel", ["tests/kernel", f"--ignore={EVENTS}"], "Test the client on the running kernel, without events."
)
add_kernel_session("interop", "kernel", ["tests/interop"], "Test against conntrack(8) and pyroute2.")
add_kernel_session("fleet", "fleet", ["tests/fleet"], "Test playbooks, inventories, rulebooks and documentation.")
# Listeners in other namespaces change which events this one gets (nf_conntrack_events 2)
add_kernel_session("events", "kernel", [EVENTS], "Test events on the running kernel.", exclusive=True)


# It uses both cores, and emulated machines are slow
@nox.session(python=first_installed(CONTROLLER_PYTHONS), allow_parallel=False)
def kernels(session: nox.Session) -> None:
    """Test the client and the modules on other kernels, each in a machine of its own."""
    session.run("python", "-m", "tests.kernels", f"--results={results(session)}", *(session.posargs or KERNELS))


@nox.session(default=False, python=first_installed(CONTROLLER_PYTHONS))
def schema(session: nox.Session) -> None:
    """Write the JSON Schema of declarations."""
    install(session, "demo")
    use_collection_tree(session)
    session.run("python", "-m", "tests.schema")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write the lock files of tests/requirements; arguments after `--` go to uv, for example `--upgrade`."""
    install(session, "lock")
    session.run("python", "-m", "tests.locks", *session.posargs)


@nox.session(default=False, python=first_installed(CONTROLLER_PYTHONS))
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads foreign input, with coverage as the guide."""
    install(session, "fuzz")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(default=False, python=first_installed(CONTROLLER_PYTHONS))
def pages(session: nox.Session) -> None:
    """Write the pages of the documentation that are generated: about injected faults and about the event source."""
    install(session, "demo")
    for module in ("tests.faults", "tests.event_source"):
        session.run("python", "-m", module)


@nox.session(default=False, python=first_installed(CONTROLLER_PYTHONS))
def picture(session: nox.Session) -> None:
    """Write the picture of the report, with Chromium."""
    install(session, "demo")
    use_collection_tree(session)
    session.run("python", "-m", "tests.report_picture")


@nox.session(default=False, python=first_installed(CONTROLLER_PYTHONS))
def wheel(session: nox.Session) -> None:
    """Build the client as a Python package without Ansible, in dist."""
    install(session, "wheel")
    session.run("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "wheel")


@nox.session(default=False, python=first_installed(CONTROLLER_PYTHONS))
def release(session: nox.Session) -> None:
    """Prepare a release with the version after `--`: changelog, packages, checks of the packages, in dist."""
    install(session, "release")
    session.run("python", "-m", "tests.release", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation as HTML in dist/docs/build/html."""
    install(session, "docs")
    use_collection_tree(session)
    target = ROOT / "dist/docs"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    session.run(
        "antsibull-docs", "sphinx-init", "--use-current", "--squash-hierarchy", "--lenient",
        "--dest-dir", str(target), "netops.conntrack",
    )  # fmt: skip
    with (target / "conf.py").open("a") as configuration:
        configuration.write("\nextensions.append('ansible_collections.netops.conntrack.tests.reference')\n")
    # antsibull-docs copies only pages, to rst/docsite. They have the same relative paths to pictures there as in docs
    for picture in [*(ROOT / "docs").rglob("*.svg"), *(ROOT / "docs").rglob("*.png")]:
        copy = target / picture.relative_to(ROOT / "docs")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(picture, copy)
    with session.chdir(target):
        session.run("bash", "build.sh", external=True)
    session.log(f"see {target / 'build/html/index.html'}")
