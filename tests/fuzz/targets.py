# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of input, each with its check, its samples, its corpus and its regressions."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Callable, NamedTuple

HERE = Path(__file__).resolve().parent
_PACKAGE = "ansible_collections.netops.conntrack.tests.fuzz"


class Target(NamedTuple):
    """One kind of input. Its module is imported on first use, because declarations require Ansible and PyYAML."""

    name: str
    module: str
    run_name: str = "run"
    samples_name: str = "samples"
    longest: int = 4096

    def _part(self, name: str) -> Any:
        return getattr(importlib.import_module(f"{_PACKAGE}.{self.module}"), name)

    @property
    def run(self) -> Callable[[bytes], None]:
        """Return the check of one input. It raises every error that the collection does not name."""
        run: Callable[[bytes], None] = self._part(self.run_name)
        return run

    def samples(self) -> dict[str, bytes]:
        """Return valid inputs by name, from which the corpus is made."""
        made: dict[str, bytes] = self._part(self.samples_name)()
        return made

    @property
    def corpus(self) -> Path:
        """Return the folder of valid inputs."""
        return HERE / "corpus" / self.name

    @property
    def regressions(self) -> Path:
        """Return the folder of inputs that once broke a guarantee and no longer do."""
        return HERE / "regressions" / self.name

    def inputs(self) -> list[Path]:
        """Return the inputs of the corpus."""
        return sorted(self.corpus.glob("*.bin"))

    def fixed(self) -> list[Path]:
        """Return the inputs that once broke a guarantee."""
        return sorted(self.regressions.glob("*.bin"))


TARGETS = {
    target.name: target
    for target in (
        Target("messages", "messages"),
        Target("snapshots", "snapshots"),
        Target("declarations", "declarations"),
        Target("xml", "texts", "run_xml", "xml_samples"),
        Target("text", "texts", "run_text", "text_samples"),
    )
}
