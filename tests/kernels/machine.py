# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One machine under QEMU, without hardware acceleration: it boots, tests, returns a JUnit file, and ends."""

from __future__ import annotations

import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

MEMORY = 2048  # MiB
#: The name of the file with the table that tests/kernel/test_exchange.py saved
SAVED = "exchange.json"
#: Maximum seconds without output on the console, where each test ends with a letter. The total time is not limited,
#: because tests take many times as long on a busy machine
SILENT = 600
#: Number of console lines to show if a machine fails
LAST_WORDS = 30


class NoAnswer(RuntimeError):
    """The machine did not boot, or did not complete its tests; the message contains its last console lines."""


def test(qemu: Sequence[str], image: Path, archives: Sequence[Path], folder: Path) -> ET.Element:
    """Boot a kernel with the root file system from the archives, and return the JUnit file of the tests.

    The folder keeps the console, and the table that was saved for other kernels (`SAVED`).

    :param qemu: The command that runs QEMU.

    :raises NoAnswer: if the machine writes no JUnit file in time.
    """
    console, answer, saved, initrd = (folder / name for name in ("console", "junit.xml", SAVED, "initrd"))
    for file in (console, answer, saved):
        file.unlink(missing_ok=True)
    with initrd.open("wb") as whole:
        for archive in archives:
            with archive.open("rb") as part:
                shutil.copyfileobj(part, whole)
    command = (
        *(*qemu, "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY), "-no-reboot"),
        *("-nodefaults", "-display", "none", "-nic", "none"),
        *("-serial", f"file:{console}", "-serial", f"file:{answer}", "-serial", f"file:{saved}"),
        *("-kernel", str(image), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 quiet panic=-1 rdinit=/init"),
    )
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as machine:
        try:
            problem = _watch(machine, console)
        finally:
            machine.kill()
            machine.wait()
            initrd.unlink()
    try:
        return ET.parse(answer).getroot()
    except (OSError, ET.ParseError):
        raise NoAnswer(f"{problem or 'ended without a result'}\n{_last_lines(console)}") from None


def _watch(machine: subprocess.Popen[str], console: Path) -> str | None:
    """Wait for the machine to end, and return the problem if it does not."""
    spoken, since = 0, time.monotonic()
    while machine.poll() is None:
        size = console.stat().st_size if console.exists() else 0
        if size != spoken:
            spoken, since = size, time.monotonic()
        if time.monotonic() - since > SILENT:
            return f"printed nothing for {SILENT} s"
        time.sleep(0.2)
    assert machine.stderr is not None
    complaint = machine.stderr.read().strip()
    return f"QEMU ended with {machine.returncode}: {complaint}" if machine.returncode else None


def _last_lines(console: Path) -> str:
    lines = console.read_text(errors="replace").splitlines() if console.exists() else []
    return "\n".join(lines[-LAST_WORDS:]) or "(nothing was printed on its console)"
