# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The software bill of materials of the collection, in CycloneDX's JSON.

`cyclonedx-py environment` lists the packages of an environment with their versions and licences. This module describes
the collection to it, and adds what it cannot know.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

#: The version of CycloneDX.
SPECIFICATION = "1.6"


def project(collection: Path) -> str:
    """Describe an installed collection as a pyproject.toml, which is how cyclonedx-py reads the main component."""
    about = json.loads((collection / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"]
    (licence,) = about["license"]
    lines = {
        "name": f"{about['namespace']}.{about['name']}",
        "version": about["version"],
        "description": about["description"],
        "license": licence,
        "authors": [{"name": name} for name in about["authors"]],
        "dependencies": requirements(collection),
    }
    urls = {"Documentation": about["documentation"], "Repository": about["repository"], "Issues": about["issues"]}
    return "\n".join(
        ["[project]", *(f"{key} = {_toml(value)}" for key, value in lines.items()), "[project.urls]"]
        + [f"{key} = {_toml(value)}" for key, value in urls.items()]
    )


def requirements(collection: Path) -> list[str]:
    """Return what the collection needs on the controller: ansible-core, and the packages of requirements.txt."""
    core = yaml.safe_load((collection / "meta/runtime.yml").read_text(encoding="utf-8"))["requires_ansible"]
    lines = (collection / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [f"ansible-core {core}", *(line for line in lines if line and not line.startswith("#"))]


def complete(document: dict[str, Any], sha256: str) -> dict[str, Any]:
    """Add to the main component what cyclonedx-py does not know: its purl, and the digest of its package.

    :param sha256: The SHA-256 of the package, as hexadecimal digits.
    :returns: The document, changed.
    """
    main = document["metadata"]["component"]
    main["purl"] = f"pkg:generic/{main['name']}@{main['version']}"
    main["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return document


def _toml(value: Any) -> str:
    """Format strings and lists of strings or of tables. JSON strings are TOML strings."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
