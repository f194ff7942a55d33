# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook preview predicts exactly what happens when gateways with flows load the ruleset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from tests import programs
from tests.lab import Flow, Gateway, Host, Lab
from tests.plays import Controller

Document = dict[str, Any]

OLD, NEW = Gateway.OUTSIDE
PASSWORD = "secret"
RULESET = f"""
flush ruleset
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "server" snat to {NEW} comment "to the internet"
    }}
}}
table inet filter {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr 10.2.0.2 drop comment "<b>blocked</b>"
        udp dport 5353 limit rate 10/second accept
        udp dport 5353 drop
    }}
}}
"""
#: On gateway-b: one flow that the ruleset keeps, one that it refuses, and one for which a rate limit decides.
FLOWS = ("-s 10.3.0.2 --sport 1 --dport 53", "-s 10.2.0.2 --sport 2 --dport 53", "-s 10.3.0.2 --sport 3 --dport 5353")
#: Enters a namespace in which another file replaces the TUN device.
WITHOUT_TUN = "unshare --mount sh -c 'mount --bind {} /dev/net/tun && exec nsenter \"$@\"' sh"


class Preview:
    """Two gateways, with two real flows through the first, and the playbook for both."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        topology = lab.gateway_topology()
        self.gateways: dict[str, Host] = {"gateway-a": topology.gateway}
        self.moved: Flow = topology.client1.udp(topology.SERVER, topology.PORT, source_port=40001)
        self.cut: Flow = topology.client2.tcp(topology.SERVER, topology.PORT, source_port=40002)
        assert [flow.seen_as().address for flow in (self.moved, self.cut)] == [OLD, OLD]
        gateway = self.gateways["gateway-b"] = lab.host("gateway-b", forwarding=True)
        lab.link(gateway, topology.server, [f"{OLD}/24", f"{NEW}/24"])
        for number in (2, 3):
            lab.link(gateway, lab.host(f"lan{number}"), [f"10.{number}.0.1/24"])
        for flow in FLOWS:
            common = f"-I -p udp -d {topology.SERVER} -t 600 -u SEEN_REPLY --src-nat {NEW}"
            gateway.conntrack(*common.split(), *flow.split())
        self.controller = Controller(folder / "controller")
        self.ruleset = folder / "gateway.nft"
        self.ruleset.write_text(RULESET)
        self.before = self.state()

    def state(self) -> list[Any]:
        """Return the rules and the flows of the gateways, without values that change over time."""
        return [
            (
                gateway.run(["nft", "-s", "-a", "list", "ruleset"]).stdout,
                sorted(str((flow["original"], flow["reply"])) for flow in gateway.table()),
            )
            for gateway in self.gateways.values()
        ]

    def play(self, inventory: dict[str, Document], *options: str, **variables: Any) -> tuple[int, str]:
        status, printed = self.controller.play("preview", inventory, *options, **variables)
        assert self.state() == self.before
        left = self.controller.folder / "remote"
        assert [path for path in left.rglob("*") if path.is_file()] == []
        return status, printed


@pytest.fixture(scope="module")
def preview(tun: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preview]:
    programs.require("nft")
    folder = tmp_path_factory.mktemp("preview")
    (folder / "controller").mkdir()
    with Lab() as lab:
        yield Preview(lab, folder)


def verdicts(printed: str) -> dict[str, dict[str, int]]:
    """Return the verdicts that the playbook shows for each host."""
    shown = printed.partition("[Show the verdicts")[2].partition("\nTASK ")[0]
    found = re.findall(r"^ok: \[(.*?)\] => (\{\n.*?^\})", shown, re.DOTALL | re.MULTILINE)
    return {host: json.loads(text)["msg"]["verdicts"] for host, text in found}


A = {"unchanged": 0, "nat_changed": 1, "refused": 1, "untracked": 0, "uncertain": 0}
B = {"unchanged": 1, "nat_changed": 0, "refused": 1, "untracked": 0, "uncertain": 1}


def test_all_hosts_evaluate_a_ruleset_of_the_controller(preview: Preview) -> None:
    """One host cannot judge its flows. The threshold is exceeded on one of the others."""
    (preview.folder / "no-tun").touch()
    paths = {name: gateway.path for name, gateway in preview.gateways.items()}
    inventory = {
        "gateway-c": {
            "ansible_netns_name": paths["gateway-b"],
            "ansible_netns_nsenter": WITHOUT_TUN.format(preview.folder / "no-tun"),
        },
        **{name: {"ansible_netns_name": path} for name, path in paths.items()},
    }
    report = preview.folder / "report"
    status, printed = preview.play(
        inventory,
        conntrack_ruleset=str(preview.ruleset),
        conntrack_report_path=str(report / "preview.html"),
        conntrack_report_junit_path=str(report / "preview.xml"),
        conntrack_fail_when={"refused_percent_above": 49, "hosts_without_facts_above": 1},
    )
    assert status != 0
    assert "Threshold exceeded: refused_percent_above (limit 49.0\u202f%), 50.0\u202f% on gateway-a." in printed
    assert verdicts(printed) == {"gateway-a": A, "gateway-b": B}
    assert re.search(r'"1 refused, inet filter forward, handle \d+, <b>blocked</b>"', printed)
    assert re.search(r'"1 uncertain \(limit\), inet filter forward, handle \d+"', printed)

    document = json.loads((report / "preview.json").read_text())
    judged = {host["name"]: (host["figures"] or {}).get("stale") for host in document["hosts"]}
    assert judged["gateway-c"] is None
    assert judged["gateway-a"]["refused_percent"] == 50
    assert judged["gateway-b"]["verdicts"] == B
    decided = {(row["verdict"], row["rule"]["comment"], row["reason"]) for row in document["fleet"]["stale"]["rules"]}
    assert decided == {
        ("refused", "<b>blocked</b>", None),
        ("nat_changed", "to the internet", None),
        ("uncertain", None, "limit"),
    }
    page = (report / "preview.html").read_text()
    assert "<title>Preview of a ruleset</title>" in page
    assert "stale flows cannot be found here: no TUN device" in page
    assert "&lt;b&gt;blocked&lt;/b&gt;" in page
    assert "<b>" not in page
    suite = ET.parse(report / "preview.xml").getroot()[0]
    failed = [(case.attrib["classname"], case.attrib["name"]) for case in suite if case.find("failure") is not None]
    assert failed == [("gateway-a", "refused_percent_above")]


def test_files_of_hosts_and_encrypted_files_in_check_mode(preview: Preview) -> None:
    """Each host has a ruleset of its own. One is missing, and nft refuses another."""
    vault = VaultLib([("default", VaultSecret(PASSWORD.encode()))])
    (preview.folder / "password").write_text(PASSWORD)
    (preview.folder / "encrypted.nft").write_bytes(vault.encrypt(RULESET, vault.secrets[0][1]))
    (preview.folder / "wrong.nft").write_text("flush ruleset\ntable inet {\n")
    preview.controller.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(preview.folder / "password")
    a, b = (gateway.path for gateway in preview.gateways.values())
    inventory = {
        "gateway-a": {
            "ansible_netns_name": a,
            "conntrack_ruleset": str(preview.ruleset),
            "conntrack_ruleset_remote_src": True,
        },
        "gateway-b": {"ansible_netns_name": b, "conntrack_ruleset": str(preview.folder / "encrypted.nft")},
        "gateway-c": {"ansible_netns_name": b, "conntrack_ruleset": str(preview.folder / "missing.nft")},
        "gateway-d": {"ansible_netns_name": b, "conntrack_ruleset": str(preview.folder / "wrong.nft")},
        "gateway-e": {
            "ansible_netns_name": b,
            "conntrack_ruleset": "/nowhere/gateway.nft",
            "conntrack_ruleset_remote_src": True,
        },
    }
    before = sorted(preview.folder.rglob("*.html"))
    status, printed = preview.play(inventory, "--check", conntrack_fail_when={"stale_above": 1})
    assert status != 0
    assert verdicts(printed) == {"gateway-a": A, "gateway-b": B}
    assert (
        "Thresholds exceeded: stale_above (limit 1), 2 on gateway-a; hosts_without_facts_above (limit 0), 3." in printed
    )
    plain = " ".join(printed.replace("\\n", " ").split())
    assert re.search(rf"ruleset: .*{preview.folder}/missing\.nft", plain)
    wrong = preview.folder / "wrong.nft"
    assert f"ruleset: nft refuses {wrong}: {wrong}:2:12-12: Error: syntax error" in plain
    assert "ruleset: /nowhere/gateway.nft cannot be read: No such file or directory" in plain
    assert sorted(preview.folder.rglob("*.html")) == before


def test_loaded_ruleset_has_the_predicted_results(preview: Preview) -> None:
    """The flow with a different NAT result has the new address, and the refused flow is removed."""
    gateway = preview.gateways["gateway-a"]
    gateway.run(["nft", "-f", str(preview.ruleset)])
    assert [flow.seen_as().address for flow in (preview.moved, preview.cut)] == [OLD, OLD]
    gateway.empty()
    assert preview.moved.seen_as().address == NEW
    with pytest.raises(TimeoutError):
        preview.cut.seen_as(timeout=1)
