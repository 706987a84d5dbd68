"""Says what an image is made of, as CycloneDX 1.5 and as a list of licences for people.

Rules:
- Pure: dpkg's list, copyright files and wheels' metadata in, documents out, sorted, without a time of their own.
- What does not name its licence in a form that a machine reads is listed as `see copyright file`, never left out.
"""

import email.parser
import re
import uuid
from dataclasses import dataclass
from typing import Any

UNNAMED = "see copyright file"
_DEP5_LICENSE = re.compile(r"^License:[ \t]*(\S.*?)\s*$", re.MULTILINE)
_NAMESPACE = uuid.UUID("c2b1f6f4-6c3b-4b55-9d2e-0d4f1f7f9a51")


@dataclass(frozen=True, order=True)
class Component:
    """One Debian package or one wheel."""

    kind: str
    """deb or pypi."""
    name: str
    version: str
    licences: tuple[str, ...]
    architecture: str = ""

    @property
    def purl(self) -> str:
        """Its package URL."""
        if self.kind == "deb":
            return f"pkg:deb/debian/{self.name}@{self.version.replace(':', '%3A')}?arch={self.architecture}"
        return f"pkg:pypi/{self.name}@{self.version}"


def debian_components(status: str, copyrights: dict[str, str]) -> list[Component]:
    """Return the packages in dpkg's `status`, with what `/usr/share/doc/PACKAGE/copyright` says of each."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = email.parser.HeaderParser().parsestr(paragraph.strip())
        if fields["Package"] and fields["Status"] == "install ok installed":
            licences = licences_in(copyrights.get(fields["Package"], ""))
            found.append(Component("deb", fields["Package"], fields["Version"], licences, fields["Architecture"]))
    return sorted(found)


def wheel_component(metadata: str) -> Component:
    """Return the component that a wheel's METADATA describes."""
    fields = email.parser.HeaderParser().parsestr(metadata)
    licence = fields["License-Expression"] or ""
    if not licence:
        classifiers = [line.split(" :: ")[-1] for line in fields.get_all("Classifier", []) if "License ::" in line]
        stated = (fields["License"] or "").strip()
        licence = " / ".join(classifiers) or (stated if stated and "\n" not in stated and len(stated) < 80 else UNNAMED)
    return Component("pypi", fields["Name"].lower(), fields["Version"], (licence,))


def licences_in(copyright_file: str) -> tuple[str, ...]:
    """Return the short names of licences in a machine-readable copyright file (DEP 5), sorted."""
    if "copyright-format" not in copyright_file[:1000]:
        return (UNNAMED,)
    return tuple(sorted(set(_DEP5_LICENSE.findall(copyright_file)))) or (UNNAMED,)


def cyclonedx(image: str, digest: str, components: list[Component]) -> dict[str, Any]:
    """Return the bill of materials of an image whose root has this SHA-256."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "operating-system",
                "name": image,
                "version": digest[:16],
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": component.purl,
                "name": component.name,
                "version": component.version,
                "purl": component.purl,
                "licenses": [{"license": {"name": name}} for name in component.licences],
            }
            for component in sorted(components)
        ],
    }


def licence_list(components: list[Component]) -> str:
    """Return a line for each component: what, which version, under which licences."""
    return "".join(f"{c.kind}\t{c.name}\t{c.version}\t{', '.join(c.licences)}\n" for c in sorted(components))
