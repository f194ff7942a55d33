# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the client as a Python package, install it into an empty environment, and use it without Ansible."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.lab import Namespace

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from netops_conntrack import Conntrack

ends = {"source": "10.1.0.2", "destination": "192.0.2.53", "source_port": 1000, "destination_port": 53}
with Conntrack() as conntrack:
    conntrack.create({"protocol": "udp", "original": ends, "mark": 5, "timeout": 600})
    print([entry["original"]["source"] for entry in conntrack.dump(match={"mark": 5})])
print(sorted(name for name in sys.modules if name.startswith("ansible")))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT / "wheel"))
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def test_wheel_contains_the_whole_client_and_py_typed(wheel: Path) -> None:
    client = ROOT / "plugins/module_utils/client"
    files = {f"netops_conntrack/{path.relative_to(client)}" for path in client.rglob("*.py")}
    own = {"netops_conntrack/__init__.py", "netops_conntrack/py.typed"}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files | own


def oldest_python() -> str:
    """Return Python 3.8 if it is installed and starts, otherwise the Python that runs the tests."""
    found = shutil.which("python3.8")
    return found if found and subprocess.run((found, "-c", ""), check=False).returncode == 0 else sys.executable


@pytest.mark.parametrize("python", [pytest.param("oldest", marks=pytest.mark.thorough), "own"])
def test_wheel_works_in_an_empty_environment(wheel: Path, python: str, namespace: Namespace, tmp_path: Path) -> None:
    interpreter = oldest_python() if python == "oldest" else sys.executable
    subprocess.run((interpreter, "-m", "venv", str(tmp_path)), check=True)
    empty = str(tmp_path / "bin/python")
    subprocess.run((empty, "-m", "pip", "install", "--quiet", "--no-index", str(wheel)), check=True)
    assert namespace.run((empty, "-I", "-c", PROGRAM)).stdout == "['10.1.0.2']\n[]\n"
    assert [flow["mark"] for flow in namespace.table()] == [5]
