# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin passes a ruleset of the controller to the module byte for byte, and changes nothing without one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.netops.conntrack.plugins.action import conntrack_facts, conntrack_info

Document = dict[str, Any]

#: Bytes that YAML, JSON or another encoding would change.
CONTENT = b"\xef\xbb\xbf# \xff\x00 {{ x }}\r\nflush ruleset"
SECRETS = [("default", VaultSecret(b"secret"))]


class Host:
    """A host that receives files and runs the module."""

    def __init__(self, action: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, **result: Any) -> None:
        self.files: dict[str, bytes] = {}
        self.calls: list[tuple[str, Document, bool]] = []
        self.result = result
        self.loader = DataLoader()
        self.loader.set_basedir(str(folder))
        shell = SimpleNamespace(tmpdir="/tmp/x", join_path=os.path.join)
        task = SimpleNamespace(async_val=0, check_mode=False, args={}, get_search_path=lambda: [str(folder)])
        arguments: list[Any] = [task, SimpleNamespace(_shell=shell), None, self.loader, None, None]
        self.action = action.ActionModule(*arguments)
        monkeypatch.setattr(self.action, "_execute_module", self.execute)
        monkeypatch.setattr(self.action, "_transfer_file", self.transfer)
        monkeypatch.setattr(self.action, "_fixup_perms2", lambda _paths: None)
        self.removed: list[str] = []
        monkeypatch.setattr(self.action, "_remove_tmp_path", self.removed.append)

    def transfer(self, local: str, remote: str) -> None:
        self.files[remote] = Path(local).read_bytes()

    def execute(self, module: str, arguments: Document, task_vars: Any, wrap_async: bool) -> Document:
        self.calls.append((module, arguments, wrap_async))
        if "raises" in self.result:
            raise AnsibleError(self.result["raises"])
        return dict(self.result)

    def run(self, **options: Any) -> Document:
        self.action._task.args = options
        result: Document = self.action.run(task_vars={})
        assert not self.loader._tempfiles
        return result


@pytest.fixture(params=[conntrack_info, conntrack_facts], ids=["info", "facts"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return Host(request.param, monkeypatch, tmp_path)


def encrypted(content: bytes) -> bytes:
    return bytes(VaultLib(SECRETS).encrypt(content, SECRETS[0][1]))


@pytest.mark.parametrize("form", [bytes, encrypted])
def test_the_file_is_copied_byte_for_byte(host: Host, tmp_path: Path, form: Callable[[bytes], bytes]) -> None:
    (tmp_path / "new.nft").write_bytes(form(CONTENT))
    host.loader.set_vault_secrets(SECRETS)
    host.run(stale=True, ruleset="new.nft", remote_src="no")
    assert host.files == {"/tmp/x/ruleset.nft": CONTENT}
    ((module, arguments, wrap_async),) = host.calls
    assert module == host.action.MODULE
    assert arguments == {"stale": True, "ruleset": "/tmp/x/ruleset.nft", "remote_src": True}
    assert not wrap_async


@pytest.mark.parametrize(
    "options", [{}, {"ruleset": None}, {"ruleset": "new.nft", "remote_src": "yes"}, {"limit": "{", "remote_src": 7}]
)
def test_options_are_unchanged_without_a_controller_file(host: Host, options: Document) -> None:
    host.action._task.async_val = 60
    assert host.run(**options) == {}
    assert (host.files, host.calls) == ({}, [(host.action.MODULE, options, True)])


@pytest.mark.parametrize(
    ("options", "expected_message"),
    [
        ({"ruleset": "old.nft"}, "ruleset: Could not find or access 'old.nft'"),
        ({"ruleset": ""}, "ruleset: '' is not a path; write the path of a file."),
        ({"ruleset": "", "remote_src": True}, "ruleset: '' is not a path; write the path of a file."),
        ({"ruleset": ["new.nft"]}, "ruleset: ['new.nft'] is not a path; write the path of a file."),
        ({"ruleset": "new.nft", "remote_src": "perhaps"}, "remote_src: 'perhaps' is neither; write true or false."),
        ({"ruleset": "folder"}, "ruleset: {}/folder cannot be read: Is a directory."),
        ({"ruleset": "fifo"}, "ruleset: {}/fifo cannot be read: it is a FIFO, not a regular file."),
        ({"ruleset": "locked.nft"}, "ruleset: {}/locked.nft: A vault password or secret must be specified"),
    ],
)
def test_error_names_the_option_and_the_host_is_not_contacted(
    host: Host, tmp_path: Path, options: Document, expected_message: str
) -> None:
    (tmp_path / "new.nft").write_bytes(CONTENT)
    (tmp_path / "locked.nft").write_bytes(encrypted(CONTENT))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    result = host.run(**options)
    assert result["msg"].startswith(expected_message.format(tmp_path))
    assert result["msg"].endswith(".")
    assert not result["msg"].endswith("..")
    assert result == {"changed": False, **host.action.NOTHING_DONE, "failed": True, "msg": result["msg"]}
    assert (host.files, host.calls) == ({}, [])


@pytest.mark.parametrize(
    ("result", "removed"),
    [({"ansible_job_id": "j1"}, []), ({"failed": True}, ["/tmp/x"]), ({"raises": "cannot become root"}, ["/tmp/x"])],
)
def test_a_job_that_is_not_started_leaves_no_copy(
    host: Host, tmp_path: Path, result: Document, removed: list[str]
) -> None:
    (tmp_path / "new.nft").write_bytes(CONTENT)
    host.action._task.async_val = 60
    host.result = result
    with contextlib.suppress(AnsibleError):
        host.run(ruleset="new.nft")
    assert host.removed == removed


def test_a_message_names_the_file_of_the_controller(host: Host, tmp_path: Path) -> None:
    (tmp_path / "new.nft").write_bytes(CONTENT)
    host.result = {"failed": True, "msg": "nft refuses /tmp/x/ruleset.nft: /tmp/x/ruleset.nft:1:2", "exception": "x"}
    path = tmp_path / "new.nft"
    assert host.run(ruleset="new.nft") == {"failed": True, "msg": f"nft refuses {path}: {path}:1:2"}
    host.result = {"failed": True, "msg": ["other"], "exception": "x"}
    assert host.run(ruleset="new.nft") == host.result
