#!/usr/bin/python
# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a report on the connection tracking of many hosts; done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_report
short_description: Write a report on the connection tracking of many hosts
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Writes what M(netops.conntrack.conntrack_facts) has gathered on many hosts as one HTML page, which needs no network,
    no script and no other file, and if asked for as JSON and as JUnit.
  - The page tells first which hosts need attention and why, then how full the tables are, what is in them, who has the
    most, what the kernels have dropped and refused, how they are set up, and all of that host by host.
  - Hosts that could not be reached, or failed, are part of the report.
  - Everything is done on the controller, once for all hosts, so the task needs C(run_once). The playbook
    C(netops.conntrack.report) gathers the facts, too.
attributes:
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the
      controller.
    support: full
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying the target.
    support: full
    details:
      - Nothing is written. That thresholds are exceeded is a failure also then.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: partial
    details:
      - It says which files change, by their sizes and checksums, and not how.
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
      - By the name of each host, what M(netops.conntrack.conntrack_facts) returned there, as it was registered. Where
        that has failed or the host was unreachable, the report says so.
      - Nothing of it is trusted. What is no number, no name or far too much is left out.
    type: dict
    required: true
  path:
    description:
      - The file on the controller to write the page to. Missing directories are created.
      - An existing file is replaced. If the path leads to anything else, such as a device, a FIFO or a directory, the
        task fails and writes nothing. The same applies to O(json_path) and O(junit_path).
      - Symbolic links on the path must belong to root or to the user who runs Ansible, and must not be in a directory
        where other users may write.
      - At least one of O(path), O(json_path) and O(junit_path) is required. Without O(path), no page is written.
    type: path
  json_path:
    description:
      - Where to write the same figures as JSON.
    type: path
  junit_path:
    description:
      - Where to write the outcome of O(fail_when) as JUnit, with a test case for the facts of each host, and one for
        each threshold on each host. What fails in it is what the task fails for.
      - A host without facts is an error where too many are without, else it is skipped. So is a threshold on what a
        host has not told, for its kernel may not know it.
    type: path
  fail_when:
    description:
      - Thresholds. If one is exceeded, the task fails after everything was written.
    type: dict
    suboptions:
      usage_percent_above:
        description:
          - How full a table may be, in per cent.
        type: float
      count_above:
        description:
          - How many entries a table may have.
        type: float
      drop_above:
        description:
          - How many packets may have been dropped. Like the other counters of the kernel, it counts since the host was
            started.
        type: float
      early_drop_above:
        description:
          - How many entries may have been removed early, to make room in a full table.
        type: float
      chain_toolong_above:
        description:
          - How many entries may have been refused since their chain of the hash table was too long. Kernels before
            5.15 do not count them.
        type: float
      insert_failed_above:
        description:
          - How many entries may not have been inserted, as an equal one had come first.
        type: float
      error_above:
        description:
          - How many packets may have had an error in them.
        type: float
      invalid_above:
        description:
          - How many packets may have belonged to no connection.
        type: float
      hosts_without_facts_above:
        description:
          - How many hosts may be without facts, since they were not reached or failed.
          - If there is any other threshold, this is V(0) unless it is given. What nobody has looked at has not passed.
        type: float
  title:
    description:
      - The title of the page.
    type: str
    default: Connection tracking
  gathered:
    description:
      - When the facts were gathered, in ISO 8601 with a time zone. The page shows it in UTC.
      - Without it the page tells no time.
    type: str
  origin:
    description:
      - Where the hosts come from, such as the pattern that chose them, for the page to show.
    type: str
seealso:
  - module: netops.conntrack.conntrack_facts
"""

EXAMPLES = r"""
- name: Gather facts wherever it can be done
  netops.conntrack.conntrack_facts:
  register: gathered
  ignore_errors: true
  ignore_unreachable: true
  become: true

- name: Write the report, and fail where a table is nearly full
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
  description: The files, in the order in which they are written, and whether each has changed.
  type: list
  elements: dict
  returned: always
  sample:
    - {path: /srv/reports/conntrack.html, changed: true}
summary:
  description:
    - How many hosts there are, with facts and without, and how many of each level - C(critical), C(warning), C(notice)
      and C(quiet).
    - Empty where the options were wrong.
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
    - The first 100 thresholds that are exceeded, each with its host, the limit and the value. The host is null for
      C(hosts_without_facts_above).
  type: list
  elements: dict
  returned: always
  sample:
    - {host: gateway-a, threshold: usage_percent_above, limit: 80, value: 93.1}
"""
