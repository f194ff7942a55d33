# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of the controller is read unchanged, or decrypted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import SourceFault
from ansible_collections.netops.conntrack.plugins.plugin_utils._src_task import as_lines, read_with

ENTRY = {"protocol": "udp", "original": {"source": "10.0.0.1"}, "labels": [], "mark": 16, "status": None}
OTHER = {"protocol": "tcp", "counters": {"packets": 1.5}, "helper": "ftp: x", "ä": "\n", "zone": True}


def test_a_file_is_read_and_decrypted(tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl").write_text(as_lines([ENTRY, OTHER]))
    loader = DataLoader()
    assert read_with(loader, str(tmp_path / "plain.jsonl")) == [ENTRY, OTHER]
    secrets = [("default", VaultSecret(b"secret"))]
    encrypted = tmp_path / "encrypted.yml"
    encrypted.write_bytes(VaultLib(secrets).encrypt(yaml.safe_dump([ENTRY]), secrets[0][1]))
    with pytest.raises(SourceFault, match=rf"^src: {encrypted}: .*vault password"):
        read_with(loader, str(encrypted))
    loader.set_vault_secrets(secrets)
    assert read_with(loader, str(encrypted)) == [[ENTRY]]
    assert not loader._tempfiles


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yml")
    with pytest.raises(SourceFault, match=r"^src: .*config.yml cannot be read: it is a FIFO, not a regular file$"):
        read_with(DataLoader(), str(tmp_path / "config.yml"))


def test_fault_in_an_encrypted_file_names_that_file(tmp_path: Path) -> None:
    secrets = [("default", VaultSecret(b"secret"))]
    encrypted = tmp_path / "encrypted.yml"
    encrypted.write_bytes(VaultLib(secrets).encrypt("a: 1\nb: [", secrets[0][1]))
    loader = DataLoader()
    loader.set_vault_secrets(secrets)
    with pytest.raises(SourceFault, match=rf"^{encrypted} line "):
        read_with(loader, str(encrypted))
    assert not loader._tempfiles
