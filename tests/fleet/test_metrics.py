# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the playbook metrics, and read its file with the real node_exporter, Prometheus and promtool."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import struct
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests import clock, programs
from tests.lab import Namespace
from tests.plays import CHECKOUT, Controller

ARTEFACTS = CHECKOUT / "docs/prometheus"
ALERTS, DASHBOARD = ARTEFACTS / "conntrack_alerts.yml", ARTEFACTS / "conntrack_dashboard.json"
NODE_EXPORTER, PROMETHEUS = "127.0.0.1:9100", "127.0.0.1:9090"
LABELS = {"site": 'a "b" \\ é'}
#: linux/inotify.h, struct inotify_event
IN_MODIFY, IN_MOVED_TO, IN_CREATE, EVENT = 0x2, 0x80, 0x100, struct.Struct("=iIII")

Values = dict[tuple[tuple[str, str], ...], float]


def values(text: str) -> Values:
    """Return the values of a file by name and labels."""
    return {
        (("__name__", sample.name), *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Host:
    """A gateway with a folder that node_exporter reads, in another file system than the folder of Ansible's tasks."""

    def __init__(self, folder: Path, collected: Path) -> None:
        self.controller = Controller(folder)
        self.collected = collected
        self.file = collected / "conntrack.prom"
        self.namespace = Namespace("gateway")

    def play(self, *options: str, **variables: Any) -> tuple[int, str]:
        return self.controller.play(
            "metrics",
            {"gateway": {"ansible_netns_name": self.namespace.path}},
            *options,
            target_hosts="gateway",
            conntrack_metrics_path=str(self.file),
            **variables,
        )


@pytest.fixture(scope="module")
def host(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Create a gateway with five NATed lookups, a connection, and an expectation."""
    with TemporaryDirectory(dir="/dev/shm", prefix="conntrack-") as collected:
        found = Host(tmp_path_factory.mktemp("metrics"), Path(collected))
        with found.namespace as namespace:
            namespace.sysctl("nf_conntrack_acct", 1)
            for port in range(1000, 1005):
                flow = f"-p udp -s 10.1.0.2 -d 192.0.2.53 --sport {port} --dport 53 -t 600 --src-nat 198.51.100.1"
                namespace.conntrack("-I", *flow.split())
            flow = "-p tcp -s 10.1.0.3 -d 192.0.2.80 --sport 1 --dport 443 -t 600 --state ESTABLISHED"
            namespace.conntrack("-I", *flow.split())
            yield found


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[list[tuple[int, str]]]:
    """Collect the mask and the name of each event in a folder, until the block ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    found: list[tuple[int, str]] = []
    try:
        watch = libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_MODIFY | IN_MOVED_TO | IN_CREATE)
        assert watch >= 0, os.strerror(ctypes.get_errno())
        yield found
        with contextlib.suppress(BlockingIOError):
            while data := os.read(descriptor, 1 << 16):
                while data:
                    _watch, mask, _cookie, length = EVENT.unpack_from(data)
                    name = data[EVENT.size : EVENT.size + length].rstrip(b"\0").decode()
                    found.append((mask, name))
                    data = data[EVENT.size + length :]
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def written(host: Host) -> str:
    """Run the playbook with everything that becomes metrics, and return the file."""
    status, _printed = host.play(
        conntrack_gather_subset=["summary", "statistics", "settings", "expectations", "snat_ports"],
        conntrack_group_by=[["source", "protocol"], ["destination/24"]],
        conntrack_metrics_labels=LABELS,
    )
    assert status == 0
    return host.file.read_text()


def test_file_agrees_with_the_table(host: Host, written: str) -> None:
    found = values(written)
    label = ("site", LABELS["site"])

    def value(name: str, **labels: str) -> float:
        return found[(("__name__", f"conntrack_{name}"), *sorted([*labels.items(), label]))]

    assert value("entries") == host.namespace.count() == 6
    assert value("entries_limit") == int(host.namespace.sysctl("nf_conntrack_max"))
    assert value("protocol_entries", protocol="udp") == 5
    assert value("state_entries", protocol="tcp", state="established") == 1
    assert value("nat_entries", nat="source") == 5
    nat = {"address": "198.51.100.1", "destination": "192.0.2.53", "destination_port": "53", "protocol": "udp"}
    assert value("snat_ports", **nat, zone="0") == 5
    assert value("snat_source_ports", **nat, zone="0", source="10.1.0.2") == 5
    assert value("group_entries", by="source,protocol", source="10.1.0.2", protocol="udp") == 5
    (network,) = (found[key] for key in found if ("destination", "192.0.2.0/24") in key and "group_entries" in str(key))
    assert network == 6
    assert value("timeout_seconds", timeout="tcp_established") == 432000
    assert abs(value("gathered_timestamp_seconds") - time.time()) < 600
    shown = host.namespace.conntrack("-S")
    for cpu, drops in re.findall(r"^cpu=(\d+).* drop=(\d+)", shown, re.MULTILINE):
        assert value("drop_total", cpu=cpu) == int(drops)
    assert host.file.stat().st_mode & 0o777 == 0o644


def test_the_collector_never_reads_an_incomplete_file(host: Host, written: str) -> None:
    """Files with the suffix .prom only appear by renaming, also if the file exists and if its content changes."""
    remote = Path(host.controller.environment["ANSIBLE_REMOTE_TMP"]).parent
    if remote.stat().st_dev == host.collected.stat().st_dev:
        pytest.skip("all folders are in the same file system")
    before = host.file.stat().st_ino
    with watched(host.collected) as events:
        assert host.play()[0] == 0
    assert host.file.stat().st_ino != before
    assert host.file.stat().st_mode & 0o777 == 0o644
    assert [(mask, name) for mask, name in events if name.endswith(".prom")] == [(IN_MOVED_TO, host.file.name)]
    assert len(values(host.file.read_text())) < len(values(written)), "without the groups"


def test_check_mode_shows_the_file_and_writes_nothing(host: Host, written: str) -> None:
    before = [(path.name, path.read_bytes()) for path in sorted(host.collected.iterdir())]
    status, printed = host.play("--check", "--diff", conntrack_metrics_labels={"rack": "7"})
    assert status == 0
    assert '+conntrack_entries{rack="7"} 6' in printed
    assert [(path.name, path.read_bytes()) for path in sorted(host.collected.iterdir())] == before


# Prometheus


class Monitoring:
    """A node_exporter and a Prometheus on the loopback interface of the gateway."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.namespace = host.namespace
        config = {
            "global": {"scrape_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [NODE_EXPORTER]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        commands = [
            [
                "prometheus-node-exporter",
                "--collector.disable-defaults",
                "--collector.textfile",
                f"--collector.textfile.directory={host.collected}",
                f"--web.listen-address={NODE_EXPORTER}",
            ],
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={PROMETHEUS}",
            ],
        ]
        with (folder / "log").open("w") as log:
            for command in commands:
                self.namespace.start(command, stdout=log, stderr=subprocess.STDOUT)

    def get(self, url: str) -> str:
        """Return the answer to a request, which is empty as long as no program listens."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with self.namespace.entered(), opener.open(f"http://{url}", timeout=clock.HUNG) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of a query."""
        answer = self.get(f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        return json.loads(answer)["data"]["result"] if answer else []

    def values(self) -> Values:
        found = self.query('{__name__=~"conntrack_.+"}')
        return {
            tuple(
                sorted((key, value) for key, value in row["metric"].items() if key not in ("instance", "job"))
            ): float(row["value"][1])
            for row in found
        }


@pytest.fixture(scope="module")
def monitoring(host: Host, written: str, tmp_path_factory: pytest.TempPathFactory) -> Monitoring:
    programs.require("prometheus", "prometheus-node-exporter", "promtool")
    host.file.write_text(written)
    return Monitoring(host, tmp_path_factory.mktemp("monitoring"))


def eventually(read: Callable[[], Any], wanted: Any) -> None:
    clock.wait_until(lambda: read() == wanted, lambda: f"{read()} is not {wanted}")


def test_promtool_accepts_the_metrics(host: Host, written: str) -> None:
    checked = host.namespace.run(["promtool", "check", "metrics"], check=False, input=written)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_prometheus_has_the_values_of_the_file(monitoring: Monitoring, written: str) -> None:
    eventually(monitoring.values, {tuple(sorted(key)): value for key, value in values(written).items()})
    exposed = monitoring.get(f"{NODE_EXPORTER}/metrics")
    assert "node_textfile_scrape_error 0" in exposed
    for line in re.findall(r"^# (?:TYPE|HELP) .*\n", written, re.MULTILINE):
        assert line in exposed, "types and descriptions are those of the file"


def expressions() -> dict[str, str]:
    """Return the queries of the dashboard, with values for its variables."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$instance", ".+").replace("$window", "15m")
        for panel in panels
        for target in panel["targets"]
    }


def test_every_query_of_the_dashboard_returns_data(monitoring: Monitoring, host: Host, written: str) -> None:
    # Flows are judged only with a TUN device
    judged = re.sub(r"\{.*", "", written.splitlines()[2]).replace("gathered_timestamp_seconds", "verdict_entries")
    host.file.write_text(f'{written}# HELP {judged} Entries.\n# TYPE {judged} gauge\n{judged}{{verdict="refused"}} 3\n')
    queries = expressions()
    assert len(queries) > 20
    remaining = dict(queries)

    def all_return_data() -> bool:
        for name in [name for name, query in remaining.items() if monitoring.query(query)]:
            del remaining[name]
        return not remaining

    clock.wait_until(all_return_data, lambda: f"no data: {remaining}")


def test_every_metric_of_rules_and_dashboard_exists(written: str) -> None:
    used = set(re.findall(r"\bconntrack_\w+", f"{ALERTS.read_text()} {' '.join(expressions().values())}"))
    assert used - {name[0][1] for name in values(written)} == {"conntrack_verdict_entries"}


# Alert rules

#: For each alert: the series with their values at minutes 0, 1, 2 and so on, instead of those of `QUIET`.
ALERTING: dict[str, dict[str, str]] = {
    "ConntrackTableFilling": {"conntrack_entries": "80x20", "conntrack_entries_limit": "100x20"},
    "ConntrackTableNearlyFull": {"conntrack_entries": "91x20", "conntrack_entries_limit": "100x20"},
    "ConntrackDrops": {'conntrack_drop_total{cpu="1"}': "0x10 3x10"},
    "ConntrackEarlyDrops": {'conntrack_early_drop_total{cpu="1"}': "5x10 9x10"},
    "ConntrackInsertFailed": {'conntrack_insert_failed_total{cpu="1"}': "0x10 40x10"},
    "ConntrackSnatPortsNearlyUsedUp": {"conntrack_snat_ports": "60100x20", "conntrack_snat_ports_limit": "64512x20"},
    "ConntrackExpectationsNearlyFull": {"conntrack_expectations": "9x20", "conntrack_expectations_limit": "10x20"},
    "ConntrackMetricsOld": {"conntrack_gathered_timestamp_seconds": "-1000x20"},
}
#: The same series without a reason for an alert.
QUIET = {
    "conntrack_entries": "50x20",
    "conntrack_entries_limit": "100x20",
    'conntrack_drop_total{cpu="1"}': "3x20",
    'conntrack_early_drop_total{cpu="1"}': "9x20",
    'conntrack_insert_failed_total{cpu="1"}': "0x10 4x10",
    "conntrack_snat_ports": "30000x20",
    "conntrack_snat_ports_limit": "64512x20",
    "conntrack_expectations": "1x20",
    "conntrack_expectations_limit": "10x20",
    "conntrack_gathered_timestamp_seconds": "0+60x20",
}


def check_alerts(folder: Path, series: dict[str, str], wanted: set[str]) -> None:
    """Check which alerts are firing after 15 minutes with these series."""
    expected = [
        {
            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
            "eval_time": "15m",
            "exp_samples": [{"labels": "{}", "value": int(name in wanted)}],
        }
        for name in ALERTING
    ]
    inputs = [{"series": name, "values": shown} for name, shown in series.items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": expected}
    (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [test]}))
    command = [programs.require("promtool"), "test", "rules", str(folder / "test.yml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_alert_rules() -> None:
    done = subprocess.run(
        [programs.require("promtool"), "check", "rules", str(ALERTS)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTING)} rules found" in done.stdout


def test_no_alert_without_a_reason(tmp_path: Path) -> None:
    check_alerts(tmp_path, QUIET, set())


@pytest.mark.parametrize("alert", ALERTING)
def test_each_alert_fires_for_its_reason(tmp_path: Path, alert: str) -> None:
    wanted = {alert, "ConntrackTableFilling"} if alert == "ConntrackTableNearlyFull" else {alert}
    check_alerts(tmp_path, {**QUIET, **ALERTING[alert]}, wanted)
