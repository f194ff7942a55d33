# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run code in processes that share a preparation and end as interpreters do.

An interpreter runs the preparation once. Each process is a fork of this interpreter: its main thread runs the code in
the namespace of the preparation, and Python then ends it as it ends a program. Only the imports and the data are
already loaded.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

#: Seconds after which a process is killed. The slowest takes two; on a busy machine, many times as long.
PATIENCE = 300.0

#: The child leaves the loop, so that the code is the last that the interpreter runs.
SERVER = """
import json, os, resource, sys
exec(json.loads(sys.stdin.readline()))
for _line in sys.stdin:
    _request = json.loads(_line)
    _child = os.fork()
    if not _child:
        break
    print(_child, flush=True)
    print(os.waitpid(_child, 0)[1], flush=True)
    del _request
else:
    os._exit(0)
for _number, _name in enumerate((os.devnull, _request["stdout"], _request["stderr"])):
    _file = os.open(_name, os.O_RDWR | os.O_CREAT)
    os.dup2(_file, _number)
    os.close(_file)
resource.setrlimit(resource.RLIMIT_FSIZE, (_request["room"], resource.RLIM_INFINITY))
sys.argv = ["-c", *_request["arguments"]]
exec(_request["code"])
"""


class Ended(NamedTuple):
    """The result of a process: its exit status or the negative number of a signal, and its output."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Prepared:
    """An interpreter that has run a preparation, and whose forks run the code."""

    def __init__(self, preparation: str, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = os.pathsep.join(filter(None, sys.path))
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
        self._send(preparation)

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._server.communicate()  # it ends when its standard input ends
        self._folder.cleanup()

    def run(self, code: str, *arguments: Any, room: int = resource.RLIM_INFINITY) -> Ended:
        """Run the code in a process of its own.

        :param arguments: The items of `sys.argv` after the first.
        :param room: The maximum size of the files that it writes.
        """
        printed = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        for file in printed:
            file.write_bytes(b"")
        request = {"code": code, "arguments": list(map(str, arguments)), "room": room}
        self._send({**request, **{file.name: str(file) for file in printed}})
        end = threading.Timer(PATIENCE, os.kill, (self._read(), signal.SIGKILL))
        end.start()
        try:
            status = self._read()
        finally:
            end.cancel()
        stdout, stderr = (file.read_bytes() for file in printed)
        returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return Ended(returncode, stdout, stderr)

    def _send(self, what: Any) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()

    def _read(self) -> int:
        assert self._server.stdout is not None
        answer = self._server.stdout.readline()
        assert answer, "the preparation failed; its error is above"
        return int(answer)
