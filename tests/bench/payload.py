# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that Ansible sends to a host for each module, packed by ansible-core itself."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from .process import CHECKOUT, WorkFailed
from .rows import OURS, Results, Row, Side
from .stage import Stage

CLIENT = "ansible_collections/netops/conntrack/plugins/module_utils/"


def measure(stage: Stage, results: Results) -> None:
    """Return the size of each module with all its imports, and the number of the collection's files in it."""
    stage.say("what each module sends")
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        check=False,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={
            **stage.runner.environment,
            "ANSIBLE_HOME": str(stage.folder / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(stage.folder / "collections"),
        },
    )
    if done.returncode:
        raise WorkFailed(f"payload: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    for name, (size, files) in json.loads(done.stdout).items():
        sides = [Side(OURS, [size / 1024])]
        results.add(Row(f"payload of {name}", f"what {name} sends", sides, unit="kB", note=f"{files} files of ours"))


def modules() -> list[Path]:
    """Return the modules that run on a target. Modules whose action plugin does all the work are left out."""
    found = sorted((CHECKOUT / "plugins/modules").glob("conntrack_*.py"))
    return [path for path in found if "def main(" in path.read_text()]


def sizes() -> dict[str, tuple[int, int]]:
    """Return for each module the size of its zip file in bytes, and the number of the collection's files in it."""
    from ansible.executor.module_common import modify_module
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar

    init_plugin_loader()
    templar = Templar(loader=DataLoader())
    found = {}
    for path in modules():
        # Use its path in the collection, because its imports are resolved from there.
        place = os.path.join(_collection(), "plugins/modules", path.name)
        built: Any = modify_module(
            module_name=f"netops.conntrack.{path.stem}",
            module_path=place,
            module_args={},
            templar=templar,
            task_vars={"ansible_python_interpreter": sys.executable},
            module_compression="ZIP_DEFLATED",
        )
        data: bytes = built[0] if isinstance(built, tuple) else built.b_module_data
        found[path.stem] = _size_of(data)
    return found


def _collection() -> str:
    return os.path.join(os.environ["ANSIBLE_COLLECTIONS_PATH"], "ansible_collections/netops/conntrack")


def _size_of(wrapper: bytes) -> tuple[int, int]:
    zipped = base64.b64decode(max(re.findall(rb"[A-Za-z0-9+/=]{64,}", wrapper), key=len))
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        ours = [info for info in archive.infolist() if info.filename.startswith(CLIENT) and info.file_size]
    return len(zipped), len(ours)


if __name__ == "__main__":
    print(json.dumps(sizes()))
