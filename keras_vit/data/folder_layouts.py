"""How a folder says which images are of which class and of which split.

Guesses are told in remarks; what can be read in two ways is refused with what was seen.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
import re
import unicodedata

from keras_vit_device.images import LeftOut, image_names, not_of_the_data, why_no_image

# Folders of each class; several where its name is spelled in two ways.
Classes = dict[str, list[pathlib.Path]]

WITHOUT_CLASS = "image without a class folder"
_NO_IMAGES = "folder without images"
_BESIDE_SPLITS = "image in a folder beside the splits, without class folders"

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
_ORDER = ("train", "validation", "test")
# Words that say nothing: `training_set`, `test_images`.
_FILLERS = {
    "set",
    "data",
    "dataset",
    "split",
    "folder",
    "image",
    "images",
    "img",
    "imgs",
}
_FILLED = re.compile(r"(set|data|images?|imgs?)$")
# Siblings of which each has all classes, though no word says which split it is.
_PART_WORDS = {"fold", "part", "split", "subset", "batch", "chunk", "site", "camera"}
_PART_WORDS |= {"raw", "processed", "original", "augmented", "resized", "cropped"}
_PART_WORDS |= {"dev", "eval", "evaluation", "holdout", "extra", "query", "gallery"}
_IMAGE_WORDS = {"image", "images", "img", "imgs", "jpegimages"}
_LABEL_WORDS = {"label", "labels", "mask", "masks", "annotation", "annotations"}
_LABEL_WORDS |= {"segmentation", "segmentations", "bboxes", "groundtruth"}
# What lies beside the classes and has no images, however many folders it holds.
_PAPERS = _LABEL_WORDS | {"attributes", "code", "doc", "docs", "lists", "meta"}
_PAPERS |= {"metadata", "papers", "parts", "scripts"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which folders are read as what.

    Attributes:
        splits: Classes by split. Only `"train"` where the folder says no splits.
        remarks: What was guessed, a line each.
    """

    splits: dict[str, Classes]
    remarks: tuple[str, ...] = ()


def find_layout(root: pathlib.Path, left_out: LeftOut) -> Layout:
    """Finds classes and splits below a folder.

    Args:
        root: Has one subfolder a class, or one a split with these inside, or is around
            such a folder.
        left_out: Counts images that have no class, and what holds none.

    Raises:
        ValueError: If there are fewer than two classes, or splits that are not told
            apart with certainty.
    """
    remarks = []
    inner = _innermost(root, left_out)
    if inner != root:
        remarks.append(f"The classes are looked for in '{inner}'.")
    subfolders = _subfolders(inner, left_out)
    _refuse_annotations(inner, subfolders)
    subfolders = _without_papers(subfolders, left_out)
    splits = _named_splits(inner, subfolders, left_out)
    if splits:
        found = _classes_of_splits(splits, left_out, remarks)
        told = ", ".join(f"{split} '{splits[split].name}'" for split in found)
        remarks.insert(0, f"The folder has splits: {told}.")
        return Layout(found, tuple(remarks))
    if inverse := _splits_of_classes(subfolders):
        remarks.append(f"Every class has splits of its own: {', '.join(inverse)}.")
        return Layout(inverse, tuple(remarks))
    _refuse_a_second_whole(inner, subfolders)
    remarks += _alike(inner, subfolders)
    return Layout({"train": _classes(inner, subfolders, remarks)}, tuple(remarks))


def same_name(name: str) -> str:
    """One spelling of names that look alike: macOS and Linux encode accents apart."""
    return unicodedata.normalize("NFC", name)


def _subfolders(
    folder: pathlib.Path, left_out: LeftOut | None = None
) -> list[pathlib.Path]:
    """Folders that may be of classes or splits; counts what else lies there."""
    found = []
    for child in sorted(folder.iterdir()):
        reason = not_of_the_data(child.name)
        if reason is None and child.is_dir():
            if not child.name.startswith("__"):
                found.append(child)
                continue
            reason = "folder whose name begins with __"
        if left_out is not None:
            reason = reason or why_no_image(child) or WITHOUT_CLASS
            left_out.add(reason, child)
    return found


def _innermost(root: pathlib.Path, left_out: LeftOut) -> pathlib.Path:
    """The folder itself, or the first below it that holds more than one other."""
    folder, passed = root, []
    for _ in range(10):  # a link may lead in circles
        aside = LeftOut()
        subfolders = _without_papers(_subfolders(folder, aside), aside)
        if len(subfolders) != 1 or WITHOUT_CLASS in aside.counts:
            break
        passed.append(folder)
        folder = subfolders[0]
    if len(subfolders) < 2:
        return root
    for outer in passed:
        _without_papers(_subfolders(outer, left_out), left_out)
    return folder


def _without_papers(
    subfolders: list[pathlib.Path], left_out: LeftOut
) -> list[pathlib.Path]:
    """Those that hold images, or may be meant to."""
    found = []
    for it in subfolders:
        if _words(it.name) & _PAPERS and not _has_image(it):
            left_out.add(_NO_IMAGES, it)
        else:
            found.append(it)
    return found


def _words(name: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", name.lower()))


def _split_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """`"seg_train2"` -> `("train", ("seg",))`; `None` where no one word is a split."""
    words = re.findall(r"[^\W\d_]+", same_name(name).lower())
    bare = [_FILLED.sub("", word) or word for word in words]
    found = [index for index, word in enumerate(bare) if word in _SPLIT_WORDS]
    if len(found) != 1:
        return None
    rest = [word for index, word in enumerate(words) if index != found[0]]
    return _SPLIT_WORDS[bare[found[0]]], tuple(w for w in rest if w not in _FILLERS)


def _named_splits(
    folder: pathlib.Path, subfolders: list[pathlib.Path], left_out: LeftOut
) -> dict[str, pathlib.Path]:
    """The folder of each split, if subfolders have names of splits.

    One alone may be a class: trains among other vehicles. So may two that share no
    other word: a train station and a test tube.
    """
    kinds = {it: kind for it in subfolders if (kind := _split_of(it.name))}
    groups = collections.defaultdict(list)
    for it, (_, rest) in kinds.items():
        groups[rest].append(it)
    groups = [
        group for group in groups.values() if len({kinds[it][0] for it in group}) > 1
    ]
    if not groups:
        return {}
    group = groups[0]
    splits = {kinds[it][0]: it for it in group}
    others = [it for it in subfolders if it not in group]
    if (
        len(groups) > 1
        or len(splits) < len(group)
        or "train" not in splits
        or any(len(_subfolders(it)) > 1 and _has_image(it) for it in others)
    ):
        raise ValueError(
            "A folder with splits holds train, and validation and test once each at "
            "most, and nothing else. Received: "
            f"{', '.join(it.name for it in subfolders)} in '{folder}'"
        )
    if not _subfolders(splits["train"]):
        raise ValueError(
            f"{', '.join(it.name for it in group)} in '{folder}' are named like splits, "
            f"in which each class has a subfolder (if they are classes, name them "
            f"otherwise). Received: {_in_it(splits['train'])}"
        )
    for it in others:
        _leave_out(it, left_out, _BESIDE_SPLITS)
    return {split: splits[split] for split in _ORDER if split in splits}


def _classes_of_splits(
    splits: dict[str, pathlib.Path], left_out: LeftOut, remarks: list[str]
) -> dict[str, Classes]:
    found: dict[str, Classes] = {}
    for split, folder in splits.items():
        inner = _innermost(folder, left_out)
        subfolders = _subfolders(inner)
        known = found.get("train", {})
        names = {same_name(it.name) for it in subfolders}
        if split != "train" and len(names) < 2 and not names & _spellings(known):
            count = _leave_out(folder, left_out, WITHOUT_CLASS)
            remarks.append(
                f"'{folder}' has {count:,} images and no class folders, so a {split} "
                "part is held out of the training images."
            )
            continue
        subfolders = _subfolders(inner, left_out)
        if split == "train":
            _refuse_a_second_whole(inner, subfolders)
            remarks += _alike(inner, subfolders)
        classes = _classes(inner, subfolders, remarks)
        found[split] = _as_named(classes, known, inner) if known else classes
    return found


def _spellings(classes: Classes) -> set[str]:
    return {same_name(name) for name in classes}


def _as_named(classes: Classes, known: Classes, folder: pathlib.Path) -> Classes:
    """The classes of a split, spelled as those of train."""
    given = {same_name(name): folders for name, folders in classes.items()}
    if unknown := set(given) - _spellings(known):
        raise ValueError(
            "Every split needs the classes of train. Received: "
            f"{', '.join(sorted(unknown))} in '{folder}'"
        )
    return {name: given.get(same_name(name), []) for name in known}


def _classes(
    folder: pathlib.Path, subfolders: list[pathlib.Path], remarks: list[str]
) -> Classes:
    by_spelling = collections.defaultdict(list)
    for it in subfolders:
        by_spelling[same_name(it.name)].append(it)
    if len(by_spelling) < 2:
        raise ValueError(
            "A folder of images needs at least two subfolders, one a class. "
            f"Received: {len(subfolders)} in '{folder}'"
            + (f"; {_in_it(folder)}" if _has_image(folder) else "")
        )
    found = {}
    for name, folders in by_spelling.items():
        if len(folders) > 1:
            remarks.append(f"'{name}' is written in {len(folders)} ways: one class.")
        found[folders[0].name if len(folders) == 1 else name] = folders
    by_place = collections.defaultdict(list)
    for it in subfolders:
        by_place[os.path.realpath(it)].append(it.name)
    for place, names in by_place.items():
        if len(names) > 1:
            raise ValueError(
                f"Each class has a folder of its own. Received: {', '.join(names)} in "
                f"'{folder}', which all lead to '{place}'"
            )
    return found


def _splits_of_classes(subfolders: list[pathlib.Path]) -> dict[str, Classes]:
    """Splits where every class has folders of the same ones, as `cat/train`."""
    found = collections.defaultdict(dict)
    shared = None
    for it in subfolders:
        inner = {
            kind[0]: sub for sub in _subfolders(it) if (kind := _split_of(sub.name))
        }
        shared = set(inner) if shared is None else shared
        if set(inner) != shared or len(_subfolders(it)) != len(inner):
            return {}
        for split, sub in inner.items():
            found[split][it.name] = [sub]
    if len(found) < 2 or "train" not in found:
        return {}
    return {split: found[split] for split in _ORDER if split in found}


def _alike(folder: pathlib.Path, subfolders: list[pathlib.Path]) -> list[str]:
    """What to say of folders that all hold subfolders of the same names.

    Raises:
        ValueError: If their names are those of parts: then these are the classes.
    """
    inner = {tuple(same_name(sub.name) for sub in _subfolders(it)) for it in subfolders}
    if len(subfolders) < 2 or len(inner) != 1 or len(names := inner.pop()) < 2:
        return []
    outer, shown = [it.name for it in subfolders], ", ".join(names[:5])
    if all(_split_of(name) or _words(name) & _PART_WORDS for name in outer):
        raise ValueError(
            f"{', '.join(outer[:5])} in '{folder}' hold subfolders of the same names, "
            "so they are parts of the data and no classes; parts that are read are "
            f"called train, validation and test. Received: {shown} in each"
        )
    few = ", ".join(outer[:5]) + (", ..." if outer[5:] else "")
    return [f"The classes are {few}, not the subfolders that each has: {shown}."]


def _refuse_annotations(folder: pathlib.Path, subfolders: list[pathlib.Path]) -> None:
    """Refuses images that lie apart from what says what they show."""
    images = [it for it in subfolders if _words(it.name) & _IMAGE_WORDS]
    labels = [it for it in subfolders if _words(it.name) & _LABEL_WORDS]
    if not images or not labels:
        return
    has_classes = any(len(_subfolders(it)) > 1 for it in images)
    if not has_classes or any(map(_has_image, labels)):
        raise ValueError(
            "Images and their annotations lie apart, as for detection or segmentation; "
            "for a class each, images go into a subfolder a class. Received: "
            f"{', '.join(it.name for it in subfolders)} in '{folder}'"
        )


def _refuse_a_second_whole(
    folder: pathlib.Path, subfolders: list[pathlib.Path]
) -> None:
    """Refuses a folder among the classes that has them all once more."""
    names = {same_name(it.name) for it in subfolders}
    for it in subfolders:
        again = names & {same_name(sub.name) for sub in _subfolders(it)}
        if len(again) > 1:
            raise ValueError(
                f"'{it}' holds folders named as those beside it, so it is no class; "
                f"move it away. Received: {', '.join(sorted(again)[:5])} in both"
            )


def _has_image(folder: pathlib.Path) -> bool:
    return next(image_names(folder), None) is not None


def _leave_out(folder: pathlib.Path, left_out: LeftOut, reason: str) -> int:
    """Counts the images of a folder that has no class to give them."""
    count = 0
    for name in image_names(folder, left_out):
        left_out.add(reason, folder / name)
        count += 1
    if not count:
        left_out.add(_NO_IMAGES, folder)
    return count


def _in_it(folder: pathlib.Path) -> str:
    """What lies in a folder that has no classes, and what its names tell."""
    names = list(itertools.islice(image_names(folder), 100_000))
    found = [re.match(r"(.*/)?([^\W\d_]+)[^/]*\d", name) for name in names]
    stems = {it[2] for it in found if it}
    told = f"{len(names):,} images in '{folder}'"
    if None in found or not 2 <= len(stems) <= min(20, len(names) // 2):
        return told
    return (
        f"{told}, whose names begin with {', '.join(sorted(stems))}: move those of each "
        "into a subfolder of that name"
    )
