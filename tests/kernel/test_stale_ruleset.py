# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stale flows with the option `ruleset`: the modules judge as if a file were loaded, and load it nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import Host
from tests.modules import run

from .stale_gateway import RULES
from .test_stale import CLIENT, CURRENT, SERVER, judged, load, tcp, to_wan

pytestmark = pytest.mark.oldest_and_newest_kernel

WITHOUT_MASQUERADE = RULES.replace('oifname "wan" ip saddr 10.1.0.0/24 masquerade comment "to the internet"', "")
CHANGE = 'insert rule inet filter forward tcp dport 443 drop comment "no HTTPS"'


@pytest.mark.parametrize(
    ("file", "verdicts", "comment"),
    [
        (f"flush ruleset\n{WITHOUT_MASQUERADE}", {(CLIENT, 443): "nat_changed"}, None),
        (CHANGE, {(CLIENT, 443): "refused", ("2001:db8:1::2", 443): "refused"}, "no HTTPS"),
        (
            "flush ruleset",
            {(flow["original"]["source"], flow["original"]["destination_port"]): "untracked" for flow in CURRENT},
            None,
        ),
    ],
    ids=["whole", "change", "none"],
)
def test_a_ruleset_that_is_not_loaded(
    gateway: Host, tmp_path: Path, file: str, verdicts: dict[tuple[str, int], str], comment: str | None
) -> None:
    load(gateway, *CURRENT)
    (tmp_path / "new.nft").write_text(file + "\n")
    before = gateway.run(["nft", "-a", "list", "ruleset"]).stdout
    found = judged(gateway, ruleset=str(tmp_path / "new.nft"), remote_src=True)
    assert {key: one["verdict"] for key, one in found.items()} == verdicts
    assert {(one["rule"] or {}).get("comment") for one in found.values()} == {comment}
    assert gateway.run(["nft", "-a", "list", "ruleset"]).stdout == before
    assert judged(gateway) == {}


@pytest.mark.parametrize(
    ("content", "error_text"),
    [
        ("table inet", "ruleset: nft refuses "),
        (None, "cannot be read: No such file or directory; name a file for nft -f"),
    ],
)
def test_a_ruleset_that_cannot_be_loaded(gateway: Host, tmp_path: Path, content: str | None, error_text: str) -> None:
    if content is not None:
        (tmp_path / "new.nft").write_text(content)
    failed = run(gateway, "conntrack_info", stale=True, ruleset=str(tmp_path / "new.nft"), remote_src=True)
    assert failed["failed"]
    assert error_text in failed["msg"]


#: Objects of a table, and rules of its forward chain that use them.
USES = {
    "counter": ('counter c { comment "all"; }', "counter name c"),
    "map of counters": ('counter c { }\nmap m { type inet_service : counter; elements = { 80 : "c" }; }', "{M}"),
    "quota": ("quota q { over 25 mbytes; }", "quota name q drop"),
    "limit": ("limit l { rate 400/minute; }", "limit name l accept"),
    "map of limits": (
        'limit l { rate 1/day burst 1 packets; }\nmap m { type inet_service : limit; elements = { 443 : "l" }; }',
        "limit name tcp dport map @m accept\n tcp dport 443 drop",
    ),
    "synproxy": ("synproxy s { mss 1460; wscale 7; }", "tcp dport 81 ct state untracked synproxy name s"),
    "helper and timeout": (
        'ct helper h { type "ftp" protocol tcp; l3proto ip; }\nct timeout t { protocol tcp; l3proto ip; }',
        "tcp dport 21 ct helper set h\n tcp dport 22 ct timeout set t",
    ),
    "set without timeouts": ("set s { type ipv4_addr; flags dynamic; }", "add @s { ip saddr ct count over 20 } drop"),
    "set with timeouts": (
        "set s { type ipv4_addr; flags dynamic,timeout; timeout 1m; }",
        "update @s { ip saddr limit rate 5/second } accept",
    ),
    "flowtable": ("flowtable f { hook ingress priority 0; devices = { lan, wan }; }", "ip protocol tcp flow add @f"),
}


#: Objects for which the result depends on the time.
UNCERTAIN = ("quota", "map of limits", "set without timeouts")


@pytest.mark.parametrize("uses", USES)
def test_changes_can_be_evaluated_with_objects_of_every_kind(gateway: Host, tmp_path: Path, uses: str) -> None:
    parts, rules = USES[uses]
    rules = rules.replace("{M}", "counter name tcp dport map @m")
    chain = f"chain forward {{ type filter hook forward priority 10; policy accept\n {rules}\n }}"
    (tmp_path / "used.nft").write_text(f"table inet used {{\n{parts}\n{chain}\n}}\n")
    done = gateway.run(["nft", "-f", str(tmp_path / "used.nft")], check=False)
    if done.returncode and "Could not process rule" in done.stderr:
        pytest.skip(f"this kernel lacks {uses.replace(' ', '_')}")
    assert done.returncode == 0, done.stderr
    https = tcp(CLIENT, 40001, SERVER, 443, **to_wan())
    load(gateway, https)
    now = run(gateway, "conntrack_info", stale=True)["verdicts"]
    expected = "uncertain" if uses in UNCERTAIN else "unchanged"
    assert now == {**dict.fromkeys(now, 0), expected: 1}
    for content in ("add table inet other\n", f"flush ruleset\n{RULES}\n{(tmp_path / 'used.nft').read_text()}"):
        (tmp_path / "new.nft").write_text(content)
        then = run(gateway, "conntrack_info", stale=True, ruleset=str(tmp_path / "new.nft"), remote_src=True)
        assert then.get("verdicts") == now, then


@pytest.mark.running_kernel_only
def test_error_shows_no_content_of_an_included_file(gateway: Host, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden:text:1\n")
    (tmp_path / "new.nft").write_text(f'table inet wrong {{\n chain {{\n }}\n}}\ninclude "{tmp_path}/secret"\n')
    failed = run(gateway, "conntrack_info", stale=True, ruleset=str(tmp_path / "new.nft"), remote_src=True)
    assert failed["failed"]
    assert f"{tmp_path}/new.nft:2:8-8: Error: syntax error, unexpected" in failed["msg"]
    assert f"{tmp_path}/secret:1:" in failed["msg"]
    assert "hidden" not in failed["msg"]
    assert "^" not in failed["msg"]


@pytest.mark.running_kernel_only
def test_a_program_that_cannot_be_started_is_reported(
    gateway: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "programs/nft"
    program.parent.mkdir()
    program.write_text("not a program\n")
    program.chmod(0o755)
    (tmp_path / "new.nft").write_text("flush ruleset\n")
    monkeypatch.setenv("PATH", str(program.parent))
    failed = run(gateway, "conntrack_info", stale=True, ruleset=str(tmp_path / "new.nft"), remote_src=True)
    assert failed["failed"]
    assert failed["msg"].startswith(f"ruleset: {program} cannot be started: Exec format error")


@pytest.mark.running_kernel_only
@pytest.mark.parametrize("module", ["conntrack_info", "conntrack_facts"])
def test_a_ruleset_that_is_null_is_an_error(gateway: Host, module: str) -> None:
    """Otherwise, an undefined variable would select the current rules."""
    options = {"stale": True} if module == "conntrack_info" else {"gather_subset": ["stale"]}
    failed = run(gateway, module, ruleset=None, **options)
    assert failed["failed"]
    assert failed["msg"].startswith("ruleset: is null")


@pytest.mark.running_kernel_only
def test_ruleset_requires_stale(gateway: Host) -> None:
    for module in ("conntrack_info", "conntrack_facts"):
        failed = run(gateway, module, ruleset="/nowhere")
        assert failed["failed"]
        assert failed["msg"].startswith("ruleset: requires ")


@pytest.mark.running_kernel_only
def test_module_without_its_action_refuses_a_controller_ruleset(gateway: Host, tmp_path: Path) -> None:
    """A file of this name may also exist on the target."""
    (tmp_path / "new.nft").write_text("flush ruleset\n")
    path = str(tmp_path / "new.nft")
    for module, options in (("conntrack_info", {"stale": True}), ("conntrack_facts", {"gather_subset": ["stale"]})):
        failed = run(gateway, module, ruleset=path, **options)
        assert failed["failed"]
        assert failed["msg"] == (
            "ruleset: a file on the controller is not available to gather_facts, which runs this module without its "
            "action; write the path of a file on the target, and remote_src: true."
        )
