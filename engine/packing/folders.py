"""Images in a folder tree, each with the files that belong to it."""

from collections import Counter
from collections.abc import Iterator

from engine.config.texts import some
from engine.errors import InputError
from engine.packing.entries import Entry, Options, OtherFiles, key_of, marked
from engine.packing.known_sources import KnownSources
from engine.packing.walking import Folder, folders_of
from engine.pool.samples import is_image_name
from engine.storage.location import Location

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
"""Names of folders that say what images are for, and not what they show."""


def entries(source: Location, options: Options, known: KnownSources, others: OtherFiles) -> Iterator[Entry]:
    """The images of a folder tree that are not known, sorted by folder and name.

    A file that is named like an image without its suffix, with more after a dot, belongs to it: IMAGE.json,
    IMAGE.seg.png. Both are counted by suffix, and so are all other files.

    Raises InputError if a folder cannot be listed, or class folders are those of splits.
    """
    classes: set[str] = set()
    for folder in folders_of(source):
        label = folder.path.partition("/")[0] or None if options.has_class_folders else None
        if folder.unusable:
            others.skipped["a name that is not UTF-8"] += folder.unusable
        for entry in _of_folder(folder, others):
            if label:
                classes.add(label)
            if entry.source not in known:
                yield entry._replace(label=label)
    if classes and {name.lower() for name in classes} <= SPLITS:
        first = min(classes)
        why = f"the folders {some(sorted(classes))} are named after splits, not classes"
        raise InputError(f"{source}: {why}; give one of them: {source}/{first}, or leave out --classes-from-folders")


def _of_folder(folder: Folder, others: OtherFiles) -> Iterator[Entry]:
    """The images of one folder, sorted by name."""
    # The longest name that an image has before its suffix, and that another file's name begins with, owns that file.
    stems = Counter(name.rpartition(".")[0] for name in folder.files if is_image_name(name) and "." in name)
    companions: dict[str, list[str]] = {}
    images = []
    for name in folder.files:
        owner = _owner_of(name, stems)
        if owner:
            suffix = name[len(owner) + 1 :]
            companions.setdefault(owner, []).append(suffix)
            others.companions[f".{suffix.lower()}"] += 1
        elif is_image_name(name) and "." in name:
            images.append(name)
        else:
            others.skipped[f".{name.rpartition('.')[2].lower()}" if "." in name else "no suffix"] += 1
    keys = Counter(key_of(name) for name in images)
    for name in images:
        path, key = folder.below(name), key_of(name)
        # That of several images which would have one key depends on the path alone, and not on which came first.
        key = folder.below(key) if keys[key] == 1 else marked(folder.below(key), path)
        stem = name.rpartition(".")[0]
        own = tuple(companions.get(stem, ())) if stems[stem] == 1 else ()
        yield Entry(key, path, folder.files[name], companions=own)


def _owner_of(name: str, stems: Counter[str]) -> str:
    """The name without suffix of the one image that a file belongs to; empty for an image, and for a file of none."""
    end = name.rpartition(".")[0]
    if not is_image_name(name) and stems[end] == 1:
        return end
    while (end := end.rpartition(".")[0]) and stems[end] != 1:
        pass
    return end
