# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ruleset that is not loaded yet: let the program nft load a file in the scratch namespace."""

from __future__ import annotations

import os
import re

from .. import input_file
from ..errors import InvalidValue
from .ruleset import Ruleset, copy_ruleset, delete_ruleset, read_ruleset
from .scratch import CannotReevaluate, Scratch

#: Where the program is, also where PATH is that of a user.
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
#: Seconds in which the program must load a file.
_TIMEOUT = 300
#: A line of the program about an error: file, place, and message. The lines after it quote the file.
_ERROR = re.compile(r"^(?P<file>.+?):(?P<place>\d+:\d+-\d+): Error: (?P<message>.*)$", re.MULTILINE)
#: The file of errors that the program finds in no file.
_NO_FILE = "internal"
#: The most errors in a message.
_MOST_ERRORS = 5


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
    try:
        os.close(input_file.descriptor(path))
    except OSError as error:
        raise InvalidValue("ruleset", f"{path} cannot be read: {error.strerror}; name a file for nft -f") from error
    copy_ruleset(scratch.ruleset, ruleset)
    try:
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
        raise CannotReevaluate(f"ruleset: {program} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise InvalidValue("ruleset", f"nft did not load {path} in {_TIMEOUT} seconds") from error
    if done.returncode != 0:
        raise InvalidValue("ruleset", f"nft refuses {path}: {_errors(done.stderr.decode('utf-8', 'replace'), path)}")
    changed = read_ruleset(scratch.ruleset)
    delete_ruleset(scratch.ruleset)
    return changed


def _errors(output: str, path: str) -> str:
    """Return the errors in the output of the program, without what it quotes.

    The file may include others, which only root may read. Of errors in these, only the place is returned.
    """
    found = []
    for error in _ERROR.finditer(output):
        is_shown = error["file"] in (path, _NO_FILE)
        found.append(f"{error['file']}:{error['place']}: Error{': ' + error['message'] if is_shown else ''}")
    more = [f"{len(found) - _MOST_ERRORS} more errors"] if len(found) > _MOST_ERRORS else []
    return "; ".join([*found[:_MOST_ERRORS], *more]) or "nft reported no reason"
