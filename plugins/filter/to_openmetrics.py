# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that writes facts as metrics for Prometheus."""

from __future__ import annotations

DOCUMENTATION = r"""
name: to_openmetrics
short_description: Write facts as metrics for Prometheus
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Returns the facts that M(netops.conntrack.conntrack_facts) has gathered on one host as metrics, for the textfile
    collector of node_exporter or another program that reads metrics.
  - The filter writes only the subsets that were gathered. It leaves out metrics without a value, for example if the
    kernel does not have a counter.
  - R(The how-to, ansible_collections.netops.conntrack.docsite.howto_prometheus) lists the metrics. Their names are
    stable. The facts C(top), C(timeout_policies) and C(capabilities) do not become metrics.
  - The values of Prometheus labels contain only valid characters. The filter replaces control characters, and shortens
    values to 128 characters.
positional: labels
options:
  _input:
    description:
      - The facts, as in C(ansible_facts.conntrack).
    type: dict
    required: true
  labels:
    description:
      - Labels for all metrics. Prometheus adds C(instance) and C(job) when it scrapes.
    type: dict
  gathered:
    description:
      - The time at which the facts were gathered, in ISO 8601 with its time zone, for the metric
        C(conntrack_gathered_timestamp_seconds). By default, this metric is left out.
    type: str
  form:
    description:
      - The format. Both formats contain the same samples.
      - V(prometheus) is the text format of Prometheus. The textfile collector of node_exporter and
        C(promtool check metrics) read this format.
      - V(openmetrics) is OpenMetrics 1.0, with units and C(# EOF) at the end, for servers that send metrics as
        C(application/openmetrics-text). The textfile collector reads it as well, but loses the types and descriptions
        of counters.
    type: str
    choices: [prometheus, openmetrics]
    default: prometheus
seealso:
  - module: netops.conntrack.conntrack_facts
"""

EXAMPLES = r"""
- name: Gather facts on connection tracking
  netops.conntrack.conntrack_facts:
    gather_subset: [summary, statistics, snat_ports]
  become: true

- name: Show them as metrics
  ansible.builtin.debug:
    msg: "{{ ansible_facts.conntrack | netops.conntrack.to_openmetrics(labels={'site': 'fra'}) }}"
"""

RETURN = r"""
_value:
  description: The metrics.
  type: str
  sample: |
    # HELP conntrack_entries Entries in the table.
    # TYPE conntrack_entries gauge
    conntrack_entries{site="fra"} 18233
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.netops.conntrack.plugins.plugin_utils._native import to_native
from ansible_collections.netops.conntrack.plugins.plugin_utils._openmetrics import BadInput, render


def to_openmetrics(facts: Any, labels: Any = None, gathered: Any = None, form: Any = "prometheus") -> str:
    """The metrics of the facts of a host."""
    try:
        return render(*map(to_native, (facts, labels, gathered, form)))
    except BadInput as fault:
        raise AnsibleFilterError(f"to_openmetrics: {fault}") from None


class FilterModule:
    """The filter under its name."""

    def filters(self) -> dict[str, Any]:
        return {"to_openmetrics": to_openmetrics}
