"""Encord's SDK reads uploads and ontologies into its own types."""

import json
from pathlib import Path
from typing import Any

from encord.objects import OntologyStructure
from encord.orm.storage import DataUploadItems
from validate import require, require_images


def check(folder: Path) -> None:
    items = []
    for file in sorted(folder.glob("upload*.json")):
        upload = json.loads(file.read_bytes())
        read = DataUploadItems.from_dict(upload).to_dict()
        # The SDK ignores keys that it does not know. It takes snake case for its camel case.
        written = {_camel(key): part for key, part in upload.items()}
        require(_holds(read, written), f"{file.name}: what the SDK reads is less than what is written")
        items += [image["clientMetadata"]["item_id"] for image in upload["images"]]
    require_images(folder, items)
    if (folder / "ontology.json").exists():
        ontology = json.loads((folder / "ontology.json").read_bytes())
        read = OntologyStructure.from_dict(ontology).to_dict()
        require(_holds(read, ontology), "ontology.json: what the SDK reads is less than what is written")


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def _holds(read: Any, written: Any) -> bool:
    """Whether all that was written is in what was read; which may have further keys, its defaults."""
    if isinstance(written, dict):
        return isinstance(read, dict) and all(_holds(read.get(key), part) for key, part in written.items())
    if isinstance(written, list):
        return isinstance(read, list) and len(read) == len(written) and all(map(_holds, read, written))
    return bool(read == written)
