#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a report on the connection tracking of many hosts; implemented by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_report
short_description: Write a report on the connection tracking of many hosts
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Writes a report of the facts that M(netops.conntrack.conntrack_facts) has gathered on many hosts. The report is an
    HTML page, a JSON file or a JUnit file, in any combination. The page needs no network, no script and no other file.
  - The page first lists the hosts that need attention, and why. It then shows how full the tables are, their content,
    the addresses and services with the most flows, the packets and entries that the kernels have dropped or refused,
    and the settings. The details of each host come last.
  - If the facts contain the subset C(stale), the page also shows the number of stale flows by verdict on each host, and
    the rules that lead to these verdicts. It then omits the sections about content and counters if these were not
    gathered.
  - The report includes hosts that could not be reached or that failed.
  - The module runs on the controller, once for all hosts, so the task needs C(run_once). To gather the facts and write
    the report in one run, use the playbook C(netops.conntrack.report) or C(netops.conntrack.preview).
attributes:
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the
      controller.
    support: full
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
    details:
      - No file is written. The task still fails if a threshold is exceeded.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: partial
    details:
      - The diff shows which files change, with their sizes and checksums, but not their content.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
      change.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: all
options:
  hosts:
    description:
      - Registered results of M(netops.conntrack.conntrack_facts), by host name. If a result is a failure or the host
        was unreachable, the report shows this.
      - The module treats the data as untrusted. It omits values that are neither numbers nor names, shortens long
        names, and limits the number of items.
    type: dict
    required: true
  path:
    description:
      - Path of the page on the controller. Missing directories are created.
      - An existing file is replaced. If the path leads to anything else, such as a device, a FIFO or a directory, the
        task fails and writes nothing. The same applies to O(json_path) and O(junit_path).
      - Symbolic links on the path must belong to root or to the user who runs Ansible, and must not be in a directory
        where other users may write.
      - At least one of O(path), O(json_path) and O(junit_path) is required. Without O(path), no page is written.
    type: path
  json_path:
    description:
      - Path of a file for the same figures as JSON.
    type: path
  junit_path:
    description:
      - Path of a file for the results of O(fail_when) as JUnit. It has a test case for the facts of each host, and one
        for each threshold on each host with facts. The task fails for the same reasons as these test cases.
      - If a host has no facts, the test case for its facts is an error if O(fail_when.hosts_without_facts_above) is
        exceeded, and skipped otherwise. The test case of a threshold is skipped if its value is unknown for the host,
        see O(fail_when).
    type: path
  fail_when:
    description:
      - Thresholds. If one is exceeded, the task fails after all files are written.
      - If a value is unknown for a host, the module cannot compare it with its threshold. The threshold does not
        count as exceeded, and the page shows its result as unknown.
      - A value is unknown if the kernel does not support it, or if its subset was not gathered. For the subset
        C(stale), see O(fail_when.stale_percent_above). Percentages of stale flows and of verdicts are also unknown if
        no flow was compared with the rules.
    type: dict
    suboptions:
      usage_percent_above:
        description:
          - Maximum usage of a table in percent.
        type: float
      count_above:
        description:
          - Maximum number of entries in a table.
        type: float
      drop_above:
        description:
          - Maximum number of dropped packets. The kernel counts them since boot, or since the network namespace was
            created. The same applies to O(fail_when.early_drop_above), O(fail_when.chain_toolong_above),
            O(fail_when.insert_failed_above), O(fail_when.error_above) and O(fail_when.invalid_above).
        type: float
      early_drop_above:
        description:
          - Maximum number of entries that were removed early to make room in a full table.
        type: float
      chain_toolong_above:
        description:
          - Maximum number of entries that were refused because their chain of the hash table was too long. Kernels
            before 5.15 do not count them.
        type: float
      insert_failed_above:
        description:
          - Maximum number of entries that were not inserted because an equal one existed already.
        type: float
      error_above:
        description:
          - Maximum number of ICMP packets that the kernel could not track, for example because of a wrong checksum.
        type: float
      invalid_above:
        description:
          - Maximum number of packets that belong to no connection.
        type: float
      stale_percent_above:
        description:
          - Maximum percentage of stale flows. 100 percent are all flows of the host that were compared with the rules.
            Stale flows are those with the verdicts V(nat_changed), V(refused) and V(untracked), see
            O(netops.conntrack.conntrack_flush#module:stale).
          - If this or another threshold of stale flows or verdicts is set, a host whose facts do not contain the subset
            C(stale) counts as a host without facts.
        type: float
      refused_percent_above:
        description:
          - Maximum share of flows with the verdict V(refused), in percent.
        type: float
      nat_changed_percent_above:
        description:
          - Maximum share of flows with the verdict V(nat_changed), in percent.
        type: float
      untracked_percent_above:
        description:
          - Maximum share of flows with the verdict V(untracked), in percent.
        type: float
      uncertain_percent_above:
        description:
          - Maximum share of flows with the verdict V(uncertain), in percent.
        type: float
      stale_above:
        description:
          - Maximum number of stale flows on a host.
        type: float
      refused_above:
        description:
          - Maximum number of flows with the verdict V(refused) on a host.
        type: float
      snat_ports_percent_above:
        description:
          - Maximum use of source NAT ports in percent. The module compares the highest use among all translated
            addresses and destinations of a host. Needs the subset C(snat_ports).
        type: float
      hosts_without_facts_above:
        description:
          - Maximum number of hosts without facts. These are hosts that were not reached, hosts that failed, and hosts
            whose facts lack the subset C(stale) although a threshold needs it.
          - The default is V(0) if any other threshold is set, because a host without facts has not been checked.
        type: float
  title:
    description:
      - Title of the page.
    type: str
    default: Connection tracking
  gathered:
    description:
      - Time at which the facts were gathered, in ISO 8601 with a time zone. The page shows it in UTC.
      - By default, the page shows no time.
    type: str
  origin:
    description:
      - Origin of the hosts, such as the pattern that selected them. The page shows it.
    type: str
seealso:
  - module: netops.conntrack.conntrack_facts
"""

EXAMPLES = r"""
- name: Gather facts on all hosts that can be reached
  netops.conntrack.conntrack_facts:
  register: gathered
  ignore_errors: true
  ignore_unreachable: true
  become: true

- name: Write the report, and fail if a table is nearly full
  netops.conntrack.conntrack_report:
    hosts: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'gathered'))) }}"
    path: reports/conntrack.html
    json_path: reports/conntrack.json
    junit_path: reports/conntrack.xml
    fail_when:
      usage_percent_above: 80
      drop_above: 0
  run_once: true
"""

RETURN = r"""
files:
  description: The files in the order in which they are written, and whether each has changed.
  type: list
  elements: dict
  returned: always
  sample:
    - {path: /srv/reports/conntrack.html, changed: true}
summary:
  description:
    - Number of all hosts, of hosts with facts and of hosts without facts. C(by_level) has the number of hosts by level,
      which is C(critical), C(warning), C(notice) or C(quiet). A host has the level of its most urgent reason, and
      without a reason, it is C(quiet). RV(attention) has only hosts that are C(critical) or C(warning).
    - Empty if the options are invalid.
  type: dict
  returned: always
  sample: {hosts: 20, with_facts: 19, without_facts: 1, by_level: {critical: 2, warning: 1, notice: 3, quiet: 14}}
attention:
  description: The first 100 hosts that need attention, the most urgent first, with the reasons.
  type: list
  elements: dict
  returned: always
  sample:
    - {host: gateway-a, level: critical, reasons: ["The table is 93.1 % full, with room for 18,090 more."]}
exceeded:
  description:
    - The first 100 exceeded thresholds, each with the host, the limit and the value. The host is null for
      C(hosts_without_facts_above).
  type: list
  elements: dict
  returned: always
  sample:
    - {host: gateway-a, threshold: usage_percent_above, limit: 80, value: 93.1}
"""
