# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ruleset that is not loaded yet: let the program nft load a file in the scratch namespace."""

from __future__ import annotations

import os

from .. import input_file
from ..errors import InvalidValue
from .ruleset import Ruleset, copy_ruleset, delete_ruleset, read_ruleset
from .scratch import CannotReevaluate, Scratch

#: Where the program is, also where PATH is that of a user.
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
#: Seconds in which the program must load a file.
_TIMEOUT = 300


def changed_ruleset(scratch: Scratch, ruleset: Ruleset, path: str) -> Ruleset:
    """Return the ruleset that a host would have after `nft -f` of a file. The scratch namespace has none afterwards.

    The file may be a whole ruleset that begins with `flush ruleset`, or a change. Raises `InvalidValue` if the program
    refuses it, `CannotReevaluate` without the program.
    """
    import shutil
    import subprocess

    program = shutil.which("nft", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_FOLDERS)))
    if program is None:
        raise CannotReevaluate("ruleset: the program nft is missing, which reads such a file; install nftables")
    copy_ruleset(scratch.ruleset, ruleset)
    try:
        os.close(input_file.descriptor(path))
        done = scratch.inside(
            lambda: subprocess.run(  # pylint: disable=ansible-bad-function  # there may be no Ansible
                [program, "-f", path],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                env={**os.environ, "LC_ALL": "C"},
            )
        )
    except OSError as error:
        raise InvalidValue("ruleset", f"{path} cannot be read: {error.strerror}; name a file for nft -f") from error
    except subprocess.TimeoutExpired as error:
        raise InvalidValue("ruleset", f"nft did not load {path} in {_TIMEOUT} seconds") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise InvalidValue("ruleset", f"nft refuses {path}: {said}")
    changed = read_ruleset(scratch.ruleset)
    delete_ruleset(scratch.ruleset)
    return changed
