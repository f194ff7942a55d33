# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages of the documentation, followed as a reader follows them.

A block with a caption is a file. In a block of `console` are commands, each with what it prints below it:

    $ ansible-playbook block.yml -i inventory.yml
    ...
    gw1  : ok=2  changed=2 ...
    root@gw1:~# conntrack -L -s 10.1.0.2
    conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.

After `$` it is run on the controller, in the folder with the files; after `root@gw1:~#`, on the host of this name. It
has to succeed, and to print just what is shown; `...` stands for what was left out, in a line or as a line of its own.
A command below which nothing is shown may print what it will, and one that ends by `^C` is interrupted when all that is
above it has been printed. There are no other blocks of code, nor commands in sentences that are not in blocks as well:
none that nobody tries.
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.lab import Namespace
from tests.lab.namespace import SYSTEM_PATH
from tests.plays import CHECKOUT, TIMEOUT, Controller

FOLDER = CHECKOUT / "docs/docsite/rst"

BLOCK = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\S+)\n(?:(?P=indent) {4}:caption: (?P<caption>\S+)\n)?"
    r"\n(?P<text>(?:(?:(?P=indent) {4}.*)?\n)+)",
    re.MULTILINE,
)
#: All ways to show what is not prose.
LITERAL = re.compile(r"^ *(?:\.\. (?:code|parsed-literal|literalinclude|sourcecode)\b.*|(?!\.\. ).*::)$", re.MULTILINE)
#: A command in the middle of a sentence.
INLINE = re.compile(r"``((?:ansible|conntrack|nft)[\w-]* [^`]+)``")
PROMPT = re.compile(r"^(?:\$|root@(?P<host>[\w.-]+):~#) ", re.MULTILINE)
CONTINUED = re.compile(r"(?:.*\\\n)*.*\n?")

#: What differs from run to run: how a line is filled up, what is left of a countdown, when it was, how long it took.
VARIES = [
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" \*+$", re.MULTILINE), " ***"),
    (re.compile(r"^((?:tcp|udp|icmp) \d+) \d+ ", re.MULTILINE), r"\1 N "),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+"), "MOMENT"),
    (re.compile(r"\b\d+(?:\.\d+)? (?=s\b|seconds\b)"), "N "),
    (re.compile(r"(?<=^conntrack v)[\d.]+", re.MULTILINE), "N"),
]


class Command(NamedTuple):
    """A command, the host on which it is run, or None for the controller, and what the page shows of its output."""

    place: str
    host: str | None
    text: str
    shows: str


class Page:
    """What is on a page.

    :raises ValueError: when something is there that could not be followed.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_text()
        self.files: dict[str, str] = {}
        self.commands: list[Command] = []
        blocks = list(BLOCK.finditer(content))
        if len(blocks) != len(LITERAL.findall(content)):
            raise ValueError(f"{path.name}: a block is neither a file nor one of commands")
        for block in blocks:
            place = f"{path.name}:{content.count(chr(10), 0, block.start()) + 1}"
            text = textwrap.dedent(block["text"]).strip("\n") + "\n"
            if block["caption"]:
                self.files[block["caption"]] = text
            elif block["language"] == "console":
                self.commands += _commands(place, text)
            else:
                raise ValueError(f"{place}: has no caption, and so is no file")
        for inline in INLINE.findall(content):
            if not any(" ".join(inline.split()) in command.text for command in self.commands):
                raise ValueError(f"{path.name}: {inline!r} in a sentence is not among the commands")


def _commands(place: str, text: str) -> list[Command]:
    before, *rest = PROMPT.split(text)
    if before or not rest:
        raise ValueError(f"{place}: does not begin with a command after a prompt")
    found = []
    for host, said in zip(rest[::2], rest[1::2], strict=True):
        command = CONTINUED.match(said)
        assert command is not None
        found.append(Command(place, host, command[0].strip(), said[command.end() :]))
    return found


class Reader:
    """Who follows a page, with a controller at hand and these hosts, which bear the names that the page gives them.

    It is a context, at whose end every command has been run.
    """

    def __init__(self, page: Page, controller: Controller, hosts: Mapping[str, Namespace]) -> None:
        self.left = list(page.commands)
        self._hosts = hosts
        self.folder = controller.folder / "reader"
        self._environment = {
            **controller.environment,
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "PYTHONUNBUFFERED": "1",
        }
        self.folder.mkdir()
        for name, text in page.files.items():
            self._write(name, text)
        # Where they really are; what the inventory of the page says is weaker
        for name, host in hosts.items():
            self._write(
                f"host_vars/{name}.json",
                json.dumps(
                    {
                        "ansible_connection": "netops.conntrack.netns",
                        "ansible_netns_name": host.path,
                        "ansible_python_interpreter": sys.executable,
                        "ansible_become": False,
                    }
                ),
            )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        assert failure or not self.left, f"not run: {self.left}"

    def go_on(self, to: str | None = None) -> None:
        """Run one command after the other: up to the next that has this in it, or all that are left."""
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
        said = f"{command.place}: {command.text}\n--- status {status}, shows\n{command.shows}--- prints\n{printed()}"
        print(said)
        assert interrupted or status == 0, said
        assert agree(f"{shows}...\n" if interrupted else shows, printed()), said

    @contextlib.contextmanager
    def _started(self, command: str, host: str | None) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
        """A process that ends with the block, and what it has printed so far."""
        output = [self.folder.with_name(name) for name in ("stdout", "stderr")]
        with contextlib.ExitStack() as stack:
            stdout, stderr = (stack.enter_context(path.open("w")) for path in output)
            with self._hosts[host].entered() if host else contextlib.nullcontext():
                process = subprocess.Popen(
                    ["bash", "-c", command],
                    cwd=self.folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            try:
                # As on a terminal, where what is left in a buffer comes before what is said at the end
                yield process, lambda: "".join(path.read_text() for path in output)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def agree(shown: str, printed: str) -> bool:
    """Whether a command printed what a page shows of it."""
    if not shown:
        return True
    for varies, instead in VARIES:
        shown, printed = varies.sub(instead, shown), varies.sub(instead, printed)
    lines = (
        r"(?:.*\n)*" if line.strip() == "..." else ".*".join(map(re.escape, line.rstrip().split("..."))) + r" ?\n"
        for line in shown.splitlines()
    )
    return re.fullmatch("".join(lines), printed.rstrip() + "\n") is not None
