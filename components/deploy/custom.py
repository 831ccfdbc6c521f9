"""I/O: which CustomResourceDefinitions still have objects. Deleting a definition deletes them too, whoever made them,
so a deployment that no longer declares one leaves it alone while somebody uses it.
"""

from collections.abc import Mapping
from typing import Final

from components.deploy import inventory
from components.deploy.cluster import Cluster
from components.deploy.inventory import Entry
from components.deploy.refs import Ref

KIND: Final = "CustomResourceDefinition"


def in_use(doomed: Mapping[str, Entry], cluster: Cluster) -> dict[str, str]:
    """By key, the definitions among these whose objects are not all doomed themselves; with a note that counts them."""
    found: dict[str, str] = {}
    for key, entry in doomed.items():
        live = cluster.get(entry.ref) if entry.kind == KIND else None
        if live is None:
            continue
        spec = live["spec"]
        served = next((each["name"] for each in spec["versions"] if each.get("served", True)), "")
        if not served:
            continue
        objects = cluster.list(f"{spec['group']}/{served}", spec["names"]["kind"])
        left = [each for each in objects if inventory.object_key(Ref.of(each)) not in doomed]
        if left:
            found[key] = f"{len(left)} objects of it exist, which would go with it; delete them first"
    return found
