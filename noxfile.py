# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the test suite, one nox session each; ``make test`` runs them all.

Linting of collections comes from antsibull-nox and is set up in ``antsibull-nox.toml``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import antsibull_nox
import nox

ROOT = Path(__file__).parent
REQUIREMENTS = ROOT / "tests/requirements"
RESULTS = ROOT / ".nox/results"

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
#: The modules' Python in the integration tests, where it is not the controller's
INTEGRATION_TARGET_PYTHONS = {"2.19": "3.8", "2.20": "3.9"}

#: The client's tests; those of the floors above it run with each ansible-core, and here on older Pythons
TESTED_WITHOUT_ANSIBLE = "tests/unit/plugins/module_utils/client"
#: Of those floors, what is about Ansible or about a module itself, or needs PyYAML
NEED_ANSIBLE = ["options", "test_counters.py", "test_module.py", "test_payload.py", "test_source.py"]

nox.needs_version = ">=2026.8"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.allow_parallel = True
# What tells most in the least time comes first
nox.options.sessions = [
    *("ruff", "types", "yamllint", "antsibull-nox-config", "license-check", "extra-checks"),
    *("changelog", "docs-check", "ansible-lint", "build-import-check", "unit-client"),
    *(f"unit-core-{core}" for core in CORES),
    # These go on beside others; what follows has the machine for itself
    *(f"sanity-{core}" for core in CORES),
    *("fleet", *(f"integration-{core}" for core in CORES)),
    *("kernel", "interop", "kernels"),
]


def show_pyenv_pythons() -> None:
    """Put the Pythons of pyenv itself on PATH, for only some of its shims work at a time."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = os.environ["PATH"].split(os.pathsep)
    found = sorted(str(folder) for folder in versions.glob("3.*/bin"))
    os.environ["PATH"] = os.pathsep.join([f for f in found if f not in known] + known)


def first_installed(pythons: list[str]) -> str:
    """Return the first Python that is installed, or else the one that nox will name as missing."""
    return next((p for p in pythons if shutil.which(f"python{p}")), pythons[0])


def install(session: nox.Session, *names: str, core: str | None = None) -> None:
    """Install requirement files by their names, and one release series of ansible-core."""
    arguments = [argument for name in names for argument in ("-r", f"{REQUIREMENTS / name}.txt")]
    session.install(*arguments, *([f"ansible-core~={core}.0"] if core else []))


def results(session: nox.Session) -> Path:
    """Return the folder for a session's JUnit files, empty."""
    folder = RESULTS / session.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def importable_tree(session: nox.Session) -> Path:
    """Make the checkout importable, and known to Ansible, under the collection's name."""
    tree = Path(session.create_tmp()).absolute()
    session.env.pop("TMPDIR")  # the name of a socket in there would be longer than the kernel allows
    link = tree / "ansible_collections/netops/conntrack"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT)
    for variable in ("PYTHONPATH", "MYPYPATH", "ANSIBLE_COLLECTIONS_PATH"):
        session.env[variable] = str(tree)
    return link


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


def pytest(session: nox.Session, *arguments: str) -> None:
    importable_tree(session)
    junit = f"--junitxml={results(session) / 'pytest.xml'}"
    session.run("python", "-m", "pytest", junit, *arguments, *session.posargs)


def own_home(session: nox.Session) -> None:
    """Let ansible-test keep its environments and keys apart, so that two of it can run side by side.

    What the user has set up for pip, and what was downloaded already, is still found.
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


def ansible_test(session: nox.Session, *arguments: str) -> None:
    junit = results(session)
    own_home(session)
    with copied_tree(session) as copy, session.chdir(copy):
        try:
            session.run("ansible-test", *arguments, "--color", "no", *session.posargs)
        finally:
            for file in copy.glob("tests/output/junit/*.xml"):
                shutil.copy2(file, junit)


show_pyenv_pythons()
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
    """Check the changelog fragments."""
    install(session, "changelog")
    session.run("antsibull-changelog", "lint")


@nox.session(python=first_installed(CONTROLLER_PYTHONS))
def types(session: nox.Session) -> None:
    """Check types, strictly, for the newest Python and the oldest that mypy knows."""
    install(session, "types")
    importable_tree(session)
    package = "ansible_collections.netops.conntrack.plugins.module_utils"
    for version in ("3.10", "3.13"):
        session.run("mypy", "--python-version", version, "-p", package, *session.posargs)


# By each Python's own venv module: virtualenv makes no environments for Python 3.8 any more
@nox.session(name="unit-client", python=TARGET_PYTHONS, venv_backend="venv")
def unit_client(session: nox.Session) -> None:
    """Test what runs on the target, on each Python, with no Ansible at hand."""
    install(session, "client")
    client = Path(TESTED_WITHOUT_ANSIBLE)
    if session.python in CONTROLLER_PYTHONS:
        pytest(session, str(client))
    else:
        pytest(session, str(client.parent), *(f"--ignore={client.parent / name}" for name in NEED_ANSIBLE))


def add_core_sessions(core: str, pythons: list[str]) -> None:
    python = first_installed(pythons)

    @nox.session(name=f"unit-core-{core}", python=python)
    def unit(session: nox.Session) -> None:
        install(session, "ansible", core=core)
        pytest(session, "tests/unit", f"--ignore={TESTED_WITHOUT_ANSIBLE}")

    @nox.session(name=f"sanity-{core}", python=python)
    def sanity(session: nox.Session) -> None:
        install(session, core=core)
        ansible_test(session, "sanity", "--venv", "--junit")

    @nox.session(name=f"integration-{core}", python=python)
    def integration(session: nox.Session) -> None:
        if os.geteuid() != 0:
            session.skip("needs root")
        missing = [program for program in ("conntrack", "ip", "nft") if not shutil.which(program)]
        if missing:
            session.skip(f"needs {', '.join(missing)}")
        install(session, "controller", core=core)
        where = ["--controller", f"origin:python={python}"]
        target = INTEGRATION_TARGET_PYTHONS.get(core, python)
        if target != python and shutil.which(f"python{target}"):
            where += ["--target", f"controller:python=venv/{target}"]
        ansible_test(session, "integration", "--allow-root", "--continue-on-error", *where)

    unit.__doc__ = f"Test modules and plugins without a kernel, on ansible-core {core}."
    sanity.__doc__ = f"Run ansible-test sanity of ansible-core {core}."
    integration.__doc__ = f"Run the integration targets with ansible-core {core}."


for core, pythons in CORES.items():
    add_core_sessions(core, pythons)


def add_kernel_session(name: str, requirements: str, description: str, beside_others: bool = False) -> None:
    @nox.session(name=name, python=first_installed(CONTROLLER_PYTHONS), allow_parallel=beside_others)
    def test(session: nox.Session) -> None:
        install(session, requirements)
        pytest(session, f"tests/{name}")

    test.__doc__ = description


add_kernel_session("kernel", "kernel", "Test the client on the running kernel.")
add_kernel_session("interop", "kernel", "Test against conntrack(8) and pyroute2 on the running kernel.")
add_kernel_session("fleet", "fleet", "Test what users run: playbooks, inventories, rulebooks, documentation.", True)


# Not beside others: it keeps every core busy by itself, and slow machines are slower still
@nox.session(python=first_installed(CONTROLLER_PYTHONS), allow_parallel=False)
def kernels(session: nox.Session) -> None:
    """Test the client and the modules on other kernels, each in a machine of its own."""
    session.run("python", "-m", "tests.kernels", f"--results={results(session)}", *session.posargs)


@nox.session(default=False, python=first_installed(CONTROLLER_PYTHONS))
def schema(session: nox.Session) -> None:
    """Write the JSON Schema of declarations anew."""
    install(session, "demo")
    importable_tree(session)
    session.run("python", "-m", "tests.schema")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation as HTML in dist/docs."""
    install(session, "docs")
    importable_tree(session)
    target = ROOT / "dist/docs"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    session.run(
        "antsibull-docs", "sphinx-init", "--use-current", "--squash-hierarchy", "--lenient",
        "--dest-dir", str(target), "netops.conntrack",
    )  # fmt: skip
    session.install("-r", str(target / "requirements.txt"))
    with session.chdir(target):
        session.run("bash", "build.sh", external=True)
    session.log(f"see {target / 'build/html/index.html'}")
