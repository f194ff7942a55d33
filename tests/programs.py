# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs of the machine that tests run. A test without its program is skipped."""

from __future__ import annotations

import os
import shutil
import unittest
from collections.abc import Mapping

#: Debian's packages by program, if they have a different name.
PACKAGES = {
    "ip": "iproute2",
    "ip6tables-nft-restore": "iptables",
    "iptables-nft": "iptables",
    "iptables-nft-restore": "iptables",
    "java": "openjdk-17-jre-headless",
    "mount": "util-linux",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "promtool": "prometheus",
    "setpriv": "util-linux",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sysctl": "procps",
    "tc": "iproute2",
    "unshare": "util-linux",
}


def extend_path() -> None:
    """Append the folders of root's programs to PATH. In Debian, the PATH of other users lacks them."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders += [folder for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin") if folder not in folders]
    os.environ["PATH"] = os.pathsep.join(folders)


def exists(name: str) -> bool:
    """Return whether a program is installed."""
    return shutil.which(name) is not None


def require(*names: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the path of the program, or of the first one.

    :param environment: Has the PATH, like os.environ.
    :raises unittest.SkipTest: if a program is absent. The message names all that are.
    """
    path = (os.environ if environment is None else environment).get("PATH")
    found = {name: shutil.which(name, path=path) for name in names}
    missing = [name for name in names if found[name] is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES.get(name, name) for name in missing))
        noun, verb = ("program", "is") if len(missing) == 1 else ("programs", "are")
        raise unittest.SkipTest(f"the {noun} {', '.join(missing)} {verb} absent (apt-get install {packages})")
    return found[names[0]] or ""
