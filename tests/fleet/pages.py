# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follow pages of the documentation as a reader does.

A block with a caption is a file. A block of `console` contains commands, each followed by its output:

    $ ansible-playbook block.yml -i inventory.yml
    ...
    gw1  : ok=2  changed=2 ...
    root@gw1:~# conntrack -L -s 10.1.0.2
    conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.

A command after `$` runs on the controller, in the folder with the files; a command after `root@gw1:~#` runs on that
host. The command must succeed and must print exactly what the page shows; `...` stands for omitted text, within a line
or as a line of its own. A command without output on the page may print anything. A command that ends with `^C` is
interrupted when it has printed the output above it. Pages contain no other blocks of code, and every command in a
sentence is also in a block, so that a test runs every command.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.lab import Machine, Namespace
from tests.plays import CHECKOUT, TIMEOUT, Controller

FOLDER = CHECKOUT / "docs/docsite/rst"

BLOCK = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\S+)\n(?:(?P=indent) {4}:caption: (?P<caption>\S+)\n)?"
    r"\n(?P<text>(?:(?:(?P=indent) {4}.*)?\n)+)",
    re.MULTILINE,
)
#: All markup for literal blocks.
LITERAL = re.compile(r"^ *(?:\.\. (?:code|parsed-literal|literalinclude|sourcecode)\b.*|(?!\.\. ).*::)$", re.MULTILINE)
#: A command in the middle of a sentence.
INLINE = re.compile(r"``((?:ansible|conntrack|nft)[\w-]* [^`]+)``")
PROMPT = re.compile(r"^(?:\$|root@(?P<host>[\w.-]+):~#) ", re.MULTILINE)
CONTINUED = re.compile(r"(?:.*\\\n)*.*\n?")

#: The parts that differ from run to run: padding, the remaining timeout, the date and time, and the duration.
VARIES = [
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" \*+$", re.MULTILINE), " ***"),
    (re.compile(r"^((?:tcp|udp|icmp) \d+) \d+ ", re.MULTILINE), r"\1 N "),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+"), "MOMENT"),
    (re.compile(r"\b\d+(?:\.\d+)? (?=s\b|seconds\b)"), "N "),
    (re.compile(r"(?<=^conntrack v)[\d.]+", re.MULTILINE), "N"),
]


class Command(NamedTuple):
    """A command, the host that runs it (None for the controller), and the output that the page shows."""

    place: str
    host: str | None
    text: str
    shows: str


class Page:
    """The files and commands of a page.

    :raises ValueError: if the page contains something that cannot be followed.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_text()
        self.files: dict[str, str] = {}
        self.commands: list[Command] = []
        blocks = list(BLOCK.finditer(content))
        if len(blocks) != len(LITERAL.findall(content)):
            raise ValueError(f"{path.name}: a block is neither a file nor a list of commands")
        for block in blocks:
            place = f"{path.name}:{content.count(chr(10), 0, block.start()) + 1}"
            text = textwrap.dedent(block["text"]).strip("\n") + "\n"
            if block["caption"]:
                self.files[block["caption"]] = text
            elif block["language"] == "console":
                self.commands += _commands(place, text)
            else:
                raise ValueError(f"{place}: has no caption, so it is not a file")
        for inline in INLINE.findall(content):
            if not any(" ".join(inline.split()) in command.text for command in self.commands):
                raise ValueError(f"{path.name}: {inline!r} in a sentence is not among the commands")


def _commands(place: str, text: str) -> list[Command]:
    before, *rest = PROMPT.split(text)
    if before or not rest:
        raise ValueError(f"{place}: does not begin with a command after a prompt")
    found = []
    for host, record in zip(rest[::2], rest[1::2], strict=True):
        command = CONTINUED.match(record)
        assert command is not None
        found.append(Command(place, host, command[0].strip(), record[command.end() :]))
    return found


class Reader:
    """A reader who follows a page, with a controller and these hosts, which have the names that the page gives them.

    If the host is a machine with namespaces, it is the only one, and the controller runs on it, too.

    Use it as a context manager. At its end, every command has been run. `folders` are folders of the machine that the
    commands see with other content, empty at first: each command sees the changes of those before it.
    """

    def __init__(
        self,
        page: Page,
        controller: Controller,
        hosts: Mapping[str, Namespace | Machine],
        folders: Sequence[str] = (),
    ) -> None:
        self.left = list(page.commands)
        self._hosts = {name: host for name, host in hosts.items() if isinstance(host, Namespace)}
        self._machine = next((host for host in hosts.values() if isinstance(host, Machine)), None)
        self._folders = folders
        self.folder = controller.folder / "reader"
        self._environment = {
            **controller.environment,
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self.folder.mkdir()
        for name, text in page.files.items():
            self._write(name, text)
        # The real location of each host; host_vars override the inventory of the page
        for name in hosts:
            connection = {"ansible_connection": "local"}
            if name in self._hosts:
                connection = {
                    "ansible_connection": "netops.conntrack.netns",
                    "ansible_netns_name": self._hosts[name].path,
                }
            more = {"ansible_python_interpreter": sys.executable, "ansible_become": False}
            self._write(f"host_vars/{name}.json", json.dumps({**connection, **more}))

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        assert failure or not self.left, f"not run: {self.left}"

    def run_commands(self, to: str | None = None) -> None:
        """Run one command after another: up to the next one that contains this text, or all remaining commands."""
        while self.left and (to is None or to not in self.left[0].text):
            self.run_next()
        assert to is None or self.left, f"the page has no more command with {to}"

    def run_next(self) -> None:
        """Run the next command."""
        command = self.left.pop(0)
        shows, interrupted, _nothing = command.shows.partition("^C\n")
        with self._started(command.text, command.host) as (process, printed):
            end = time.monotonic() + TIMEOUT
            while process.poll() is None and time.monotonic() < end:
                if interrupted and agree(f"{shows}...\n", printed()):
                    os.killpg(process.pid, signal.SIGINT)
                    process.wait(timeout=TIMEOUT)
                time.sleep(0.05)
            status = process.poll()
        record = f"{command.place}: {command.text}\n--- status {status}, shows\n{command.shows}--- prints\n{printed()}"
        print(record)
        assert interrupted or status == 0, record
        assert agree(f"{shows}...\n" if interrupted else shows, printed()), record

    @contextlib.contextmanager
    def _started(self, command: str, host: str | None) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
        """Start a process that ends with the block, and collect its output."""
        output = [self.folder.with_name(name) for name in ("stdout", "stderr")]
        with contextlib.ExitStack() as stack:
            stdout, stderr = (stack.enter_context(path.open("w")) for path in output)
            isolated = [*self._isolated(), "bash", "-c", command]
            arguments = self._machine.shell(command, self.folder) if self._machine else isolated
            with self._hosts[host].entered() if host in self._hosts else contextlib.nullcontext():
                process = subprocess.Popen(
                    arguments,
                    cwd=self.folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            try:
                # Like a terminal, which shows buffered output before the messages at the end
                yield process, lambda: "".join(path.read_text() for path in output)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _isolated(self) -> list[str]:
        """Return a command that runs another one in a mount namespace with the folders."""
        if not self._folders:
            return []
        mounts = []
        for number, place in enumerate(self._folders):
            instead = self.folder.with_name(f"mount{number}")
            instead.mkdir(exist_ok=True)
            mounts.append(f"mount --bind {instead} {place}")
        return ["unshare", "--mount", "sh", "-c", f'{" && ".join(mounts)} && exec "$@"', "sh"]

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def agree(shown: str, printed: str) -> bool:
    """Return whether a command printed the output that a page shows."""
    if not shown:
        return True
    for varies, instead in VARIES:
        shown, printed = varies.sub(instead, shown), varies.sub(instead, printed)
    lines = (
        r"(?:.*\n)*" if line.strip() == "..." else ".*".join(map(re.escape, line.rstrip().split("..."))) + r" ?\n"
        for line in shown.splitlines()
    )
    return re.fullmatch("".join(lines), printed.rstrip() + "\n") is not None
