# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that Python compiles each import of a module once, in the zip file of the task, and changes nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils import _fast_import

pytestmark = pytest.mark.portability

FOLDER = "ansible_collections/netops/conntrack/plugins/module_utils"
PACKAGE = FOLDER.replace("/", ".")
#: The zip file's content besides the file under test. The task imports `before` first, as it does with the options.
FILES = {
    f"{FOLDER}/before.py": "",
    f"{FOLDER}/single.py": "from .package import inner\n",
    f"{FOLDER}/package/__init__.py": "",
    f"{FOLDER}/package/inner.py": "\n\ndef fail():\n    raise RuntimeError('as it should')\n",
    "ansible_collections/other/__init__.py": "",
    "ansible_collections/other/module.py": "",
}
AFFECTED = sys.version_info < (3, 14)

#: The code of a task, which receives the path of the zip file. It prints how often each file was compiled,
#: and the result of the import.
TASK = f"""
import json, runpy, sys, traceback, zipimport
place, task_payload = sys.argv[1:3]
sys.path.insert(0, place)
counts = {{}}
compiled = zipimport._compile_source

def counting(path, source):
    name = path[len(place) + 1:].replace({FOLDER + "/"!r}, "")
    counts[name] = counts.get(name, 0) + 1
    return compiled(path, source)

zipimport._compile_source = counting
if task_payload:
    _modlib_path = task_payload
from {PACKAGE} import before, importing
hooks = len(sys.path_hooks)
importing.compile_once()
from {PACKAGE} import package, single
import ansible_collections.other.module
try:
    single.inner.fail()
except RuntimeError:
    trace = traceback.format_exc()
try:
    import {PACKAGE}.missing
except ModuleNotFoundError:
    missing = True
print(json.dumps({{
    "counts": counts, "hooks": len(sys.path_hooks) - hooks, "trace": trace, "missing": missing,
    "files": [single.__file__, package.__file__, single.inner.__file__],
    "paths": list(package.__path__), "source": single.__spec__.loader.get_source(single.__name__),
}}))
"""

Result = Dict[str, Any]


@pytest.fixture(name="payload")
def payload_of_a_task(tmp_path: Path) -> Path:
    """Create a zip file as Ansible does."""
    place = tmp_path / "payload.zip"
    parents = [str(parent) for parent in Path(FOLDER).parents if parent.name] + [FOLDER]
    with zipfile.ZipFile(str(place), "w", zipfile.ZIP_DEFLATED) as archive:
        for parent in parents:
            archive.writestr(f"{parent}/__init__.py", "")
        for name, text in FILES.items():
            archive.writestr(name, text)
        archive.write(_fast_import.__file__, f"{FOLDER}/importing.py")
    return place


def run(place: Path, task_payload: object) -> Result:
    ended = subprocess.run(
        [sys.executable, "-I", "-c", TASK, str(place), str(task_payload)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    result: Result = json.loads(ended.stdout)
    return result


@pytest.mark.skipif(not AFFECTED, reason="this Python compiles each import once")
def test_later_imports_are_compiled_once(payload: Path) -> None:
    result = run(payload, payload)
    counts = result["counts"]
    assert {name: counts[name] for name in ("before.py", "importing.py")} == {"before.py": 2, "importing.py": 2}
    later = ("single.py", "package/__init__.py", "package/inner.py")
    assert {name: counts[name] for name in later} == dict.fromkeys(later, 1)
    assert counts["ansible_collections/other/module.py"] == 2
    assert result["hooks"] == 1


def test_modules_are_otherwise_unchanged(payload: Path) -> None:
    result, usual = run(payload, payload), run(payload, "")
    assert {**result, "counts": 0, "hooks": 0} == {**usual, "counts": 0, "hooks": 0}
    folder = payload / FOLDER
    assert result["files"] == [
        str(folder / "single.py"),
        str(folder / "package/__init__.py"),
        str(folder / "package/inner.py"),
    ]
    assert result["paths"] == [str(folder / "package")]
    assert result["source"] == FILES[f"{FOLDER}/single.py"]
    assert f'File "{folder / "package/inner.py"}", line 4, in fail' in result["trace"]


def test_nothing_changes_outside_of_a_task(payload: Path) -> None:
    for task_payload in ("", payload.parent / "another.zip", payload.parent, str(payload)[:-1]):
        result = run(payload, task_payload)
        assert result["hooks"] == 0
        assert len(set(result["counts"].values())) == 1


def test_nothing_changes_in_a_folder(payload: Path) -> None:
    """Ansible unpacks the zip file if a user debugs a module."""
    folder = payload.parent / "debug_dir"
    with zipfile.ZipFile(str(payload)) as archive:
        archive.extractall(str(folder))
    assert run(folder, folder)["hooks"] == 0


def test_importer_handles_only_its_folder(payload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = f"{payload}/{FOLDER}"
    cache = {folder: None, f"{folder}/package": None, f"{folder}_other": None, str(payload): None}
    hooks: list[Any] = []
    monkeypatch.setattr(sys, "path_importer_cache", cache)
    monkeypatch.setattr(sys, "path_hooks", hooks)
    _fast_import._install(folder)
    assert sorted(cache) == sorted([f"{folder}_other", str(payload)])
    (hook,) = hooks
    assert isinstance(hook(f"{folder}/package"), _fast_import.SourceImporter)
    for other in (str(payload), f"{folder}_other", f"{payload}/ansible_collections/other", str(payload.parent)):
        with pytest.raises(ImportError):
            hook(other)


def test_missing_module_has_no_file_name(payload: Path) -> None:
    with pytest.raises(ImportError):
        _fast_import.SourceImporter(f"{payload}/{FOLDER}").get_filename("missing")
