# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the three archives that a machine boots: Debian with Python, a kernel with its modules, and this checkout.

The kernel unpacks one archive after another over the same root (initramfs), so that only the last archive must be
built for each run. The first two are kept in the cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .debian import Suite, unpack

CHECKOUT = Path(__file__).resolve().parent.parent.parent
COLLECTION = "collections/ansible_collections/netops/conntrack"

ROOT_SUITE = "bookworm"
ROOT_PACKAGES = (
    "conntrack coreutils dash iproute2 iptables kmod mount netbase nfct nftables python3 util-linux "
    "usr-is-merged"  # instead of usrmerge, which requires Perl
).split()
#: Imports of the tests, for the suite's Python; of ansible-core only the part for targets, without its dependencies
PYTHON = "3.11"
REQUIREMENTS = ("hypothesis", "pytest", "pyroute2 ~=0.9.5")
ANSIBLE_CORE = "ansible-core ~=2.19.0"
WHEELS_FOR = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")

#: The kernel's network modules, and the modules that these may require
MODULES = ("arch", "crypto", "lib", "net", "drivers/net/veth.*", "drivers/net/tun.*")

#: Not the machine's own QEMU: before 8.1, a kernel that patches its code while it is interrupted crashes sometimes,
#: in two of three boots of Linux 6.12 (QEMU's commit deba78709a)
QEMU_SUITE = "trixie"
QEMU_PACKAGE = "qemu-system-x86"
QEMU = "qemu-system-x86_64"

LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
LOADER = "ld-linux-x86-64.so.2"


class Kernel(NamedTuple):
    """A kernel that a machine boots."""

    release: str
    image: Path
    modules: Path


def emulator(cache: Path, mirror: str) -> tuple[str, ...]:
    """Return the command that runs QEMU."""
    tree = cache / "qemu/tree"
    if not (cache / "qemu/ready").exists():
        unpack(Suite(QEMU_SUITE, mirror, cache / "qemu").with_dependencies([QEMU_PACKAGE]), _emptied(tree))
        (cache / "qemu/ready").touch()
    firmware = (argument for name in ("qemu", "seabios") for argument in ("-L", str(tree / "usr/share" / name)))
    return (*_program(tree, f"usr/bin/{QEMU}"), *firmware)


def root_archive(cache: Path, mirror: str) -> Path:
    """Build the archive with Debian's Python, conntrack(8) and the like. Tests do not need configured packages."""
    archive, tree = cache / "root.cpio", cache / "root/tree"
    if archive.exists():
        return archive
    _emptied(tree)
    packages = Suite(ROOT_SUITE, mirror, cache / "root").with_dependencies(ROOT_PACKAGES)
    unpack(packages, tree)
    for unread in ("doc", "locale", "man"):
        shutil.rmtree(tree / "usr/share" / unread, ignore_errors=True)
    (tree / "usr/sbin/iptables").symlink_to("iptables-nft")  # the links that Debian's postinst creates
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    _install_python_packages(tree / "python")
    _compile(tree, tree / "usr/lib", tree / "python")
    _pack(tree, archive)
    return archive


def kernel_archive(cache: Path, mirror: str, suite: str, package: str) -> Kernel:
    """Build the archive with the kernel of a suite and its network modules."""
    folder = cache / suite
    if not (folder / "release").exists():
        release, packages = Suite(suite, mirror, folder).kernel(package)
        tree, kept = _emptied(folder / "unpacked"), _emptied(folder / "tree")
        unpack(packages, tree)
        modules = next(tree.glob(f"**/lib/modules/{release}"))
        for pattern in (*(f"kernel/{part}" for part in MODULES), "modules.builtin*", "modules.order"):
            for found in modules.glob(pattern):
                target = kept / "lib/modules" / release / found.relative_to(modules)
                target.parent.mkdir(parents=True, exist_ok=True)
                found.rename(target)
        subprocess.run(("depmod", "-b", kept, release), check=True)
        next(tree.glob("**/vmlinuz*")).rename(folder / "vmlinuz")
        _pack(kept, folder / "modules.cpio")
        for done in ("cache", "state", "tree", "unpacked"):
            shutil.rmtree(folder / done)
        (folder / "release").write_text(release)
    return Kernel((folder / "release").read_text(), folder / "vmlinuz", folder / "modules.cpio")


def checkout_archive(folder: Path, root: Path) -> Path:
    """Build the archive with the files of this checkout that git would keep, and the program that runs tests."""
    tree = _emptied(folder / "tree")
    listing = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listing.split("\0")):
        if (CHECKOUT / name).is_file():
            (tree / COLLECTION / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, tree / COLLECTION / name)
    shutil.copy2(Path(__file__).with_name("init"), tree / "init")
    _compile(root, tree / "collections")
    _rewrite_assertions(root, tree)
    _pack(tree, folder / "checkout.cpio")
    return folder / "checkout.cpio"


def archive_of_tests(folder: Path, tests: Sequence[str], table: Path | None = None) -> Path:
    """Build the archive that names the tests to run, with a table that another kernel saved if they restore it."""
    tree = _emptied(folder / "tests")
    (tree / "tests.txt").write_text("\n".join(tests) + "\n")
    if table is not None:
        (tree / "exchange").mkdir()
        shutil.copy2(table, tree / "exchange")
    _pack(tree, folder / "tests.cpio")
    return folder / "tests.cpio"


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _install_python_packages(folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(folder))
    wheels = ("--only-binary=:all:", f"--python-version={PYTHON}", *(f"--platform={name}" for name in WHEELS_FOR))
    subprocess.run((*pip, *wheels, *REQUIREMENTS), check=True)
    subprocess.run((*pip, *wheels, "--no-deps", ANSIBLE_CORE), check=True)


def _compile(root: Path, *folders: Path) -> None:
    """Compile Python files with the root's own Python, because this would take minutes in the slow machine."""
    python = _program(root, f"usr/bin/python{PYTHON}")
    # Some files of Debian do not compile, and are not intended to
    subprocess.run((*python, "-m", "compileall", "-qq", "--invalidation-mode=unchecked-hash", *folders), check=False)


def _rewrite_assertions(root: Path, tree: Path) -> None:
    """Cache the test files as pytest compiles them; if this fails, pytest compiles them again in the machine."""
    tests = tree / COLLECTION / "tests"
    files = (tree / COLLECTION / "conftest.py", *(tests / "kernel").glob("*.py"))
    subprocess.run(
        (*_program(root, f"usr/bin/python{PYTHON}"), Path(__file__).with_name("rewrite.py"), tree)
        + tuple(str(file.relative_to(tree)) for file in files),
        env={"PYTHONPATH": str(root / "python")}, check=False,
    )  # fmt: skip


def _program(tree: Path, name: str) -> tuple[str, ...]:
    """Return the command that runs a program of a tree on this machine, with the tree's own libraries."""
    libraries = [tree / folder for folder in LIBRARIES]
    loader = next(folder / LOADER for folder in libraries if (folder / LOADER).exists())
    return (str(loader), "--library-path", ":".join(map(str, libraries)), str(tree / name))


def _pack(tree: Path, archive: Path) -> None:
    """Create an archive that the kernel can unpack, owned by root. The file appears once it is complete."""
    names = "\0".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    unfinished = archive.with_suffix(".unfinished")
    with unfinished.open("wb") as output:
        subprocess.run(
            ("cpio", "--create", "--null", "--quiet", "--format=newc", "--owner=+0:+0", "--reproducible"),
            cwd=tree, input=names.encode(), stdout=output, check=True,
        )  # fmt: skip
    unfinished.rename(archive)
