# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reader of pages is strict: otherwise a page could show output that no user gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.pages import Command, Page, Reader, agree
from tests.plays import Controller

PAGE = """\
A title
=======

.. code-block:: yaml
    :caption: inventory.yml

    all:
      hosts:

A sentence::of colons, and ``conntrack
-C``.

  .. code-block:: console

      $ cat inventory.yml
      all:
      ...
      $ echo one \\
          two
      root@gw1:~# conntrack -C
      3
"""


def page(folder: Path, text: str) -> Page:
    path = folder / "page.rst"
    path.write_text(text)
    return Page(path)


def test_page_consists_of_files_and_commands(tmp_path: Path) -> None:
    found = page(tmp_path, PAGE)
    assert found.files == {"inventory.yml": "all:\n  hosts:\n"}
    assert found.commands == [
        Command("page.rst:13", None, "cat inventory.yml", "all:\n...\n"),
        Command("page.rst:13", None, "echo one \\\n    two", ""),
        Command("page.rst:13", "gw1", "conntrack -C", "3\n"),
    ]


@pytest.mark.parametrize(
    "block",
    [
        ".. code-block:: yaml\n\n    all:\n",
        ".. code-block:: console\n\n    conntrack -L\n",
        ".. code-block:: console\n    :linenos:\n\n    $ conntrack -L\n",
        ".. parsed-literal::\n\n    $ conntrack -L\n",
        "Run this::\n\n    $ conntrack -L\n",
        "Look at ``conntrack -L``.\n",
    ],
)
def test_page_that_cannot_be_followed_is_refused(tmp_path: Path, block: str) -> None:
    """A command outside the tested blocks is refused, because no test would run it."""
    with pytest.raises(ValueError, match=r"page\.rst"):
        page(tmp_path, f"{PAGE}\n{block}")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("one\n", "one\n\n"),
        ("one\n...\nfour\n", "one\ntwo\nthree\nfour\n"),
        ("one ... three\n...\n", "one two three\n"),
        ("TASK [x] ***\n", "TASK [x] ******************\n"),
        ("udp      17 29 src=10.1.0.2\n", "udp      17 30 src=10.1.0.2\n"),
        ("over after 0.7 seconds\n", "over after 12.1 seconds\n"),
    ],
)
def test_varying_parts_are_ignored(shown: str, printed: str) -> None:
    assert agree(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("one\n", "one\ntwo\n"),
        ("two\n", "one\ntwo\n"),
        ("one\n...\nfour\n", "one\ntwo\n"),
        ("...\n2 removed\n...\n", "3 removed\n"),
        ("1.0\n", "1x0\n"),
        ("udp      17 29 src=10.1.0.2 dport=53\n", "udp      17 29 src=10.1.0.2 dport=54\n"),
    ],
)
def test_different_output_is_detected(shown: str, printed: str) -> None:
    assert not agree(shown, printed)


def reader(folder: Path, commands: str) -> Reader:
    return Reader(page(folder, f".. code-block:: console\n\n{commands}"), Controller(folder / "controller"), {})


def test_commands_are_run_in_the_folder_of_the_files(tmp_path: Path) -> None:
    commands = "    $ echo one >file; false || cat file; echo two >&2\n    one\n    two\n    $ sleep 60\n    ^C\n"
    with reader(tmp_path, commands) as following:
        following.run_commands()


@pytest.mark.parametrize("commands", ["    $ false\n", "    $ echo one\n    two\n"])
def test_failure_and_different_output_are_reported(tmp_path: Path, commands: str) -> None:
    with pytest.raises(AssertionError, match=r"page\.rst:1"), reader(tmp_path, commands) as following:
        following.run_commands()


def test_command_that_was_not_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not run"), reader(tmp_path, "    $ true\n    $ true two\n") as following:
        following.run_commands(to="two")
