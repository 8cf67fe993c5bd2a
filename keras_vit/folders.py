"""A folder of images: which files, which classes, and whether they can be read."""

import dataclasses
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

from keras_vit.config import check_choice
from keras_vit_pixels import open_image

LabelledFile = tuple[pathlib.Path, int]

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """What a folder holds.

    Attributes:
        class_names: Names of the subfolders, sorted; a label is a place in this list.
        files: Readable files with their labels, by split. Only `"train"` where the
            folder has no subfolder a split.
        image_shape: (height, width, channels) shared by all images, or `None`.
        skipped: Files that are no readable image.
    """

    class_names: tuple[str, ...]
    files: dict[str, list[LabelledFile]]
    image_shape: tuple[int, int, int] | None
    skipped: tuple[pathlib.Path, ...]


def find_images(root: pathlib.Path, broken: str = "skip") -> FoundImages:
    """Finds and reads once every image below a folder.

    Args:
        root: Has one subfolder a class, or subfolders `train`, `validation` (`val`)
            and `test` with these inside, of which `validation` and `test` may lack.
        broken: `"skip"` leaves unreadable files out, `"refuse"` raises.

    Raises:
        ValueError: If there are fewer than two classes, a class has no readable image,
            the splits differ in classes, or a file is unreadable and
            `broken="refuse"`.
    """
    check_choice("broken", broken, ("skip", "refuse"))
    split_roots = _split_roots(root)
    class_names = [folder.name for folder in _subfolders(split_roots["train"])]
    if len(class_names) < 2:
        raise ValueError(
            "A folder of images needs at least two subfolders, one a class. "
            f"Received: {len(class_names)} in '{split_roots['train']}'"
        )
    files = {
        split: _labelled_files(folder, class_names)
        for split, folder in split_roots.items()
    }
    shapes = _image_shapes([path for pairs in files.values() for path, _ in pairs])
    skipped = tuple(path for path, shape in shapes.items() if shape is None)
    if skipped and broken == "refuse":
        raise ValueError(f"{len(skipped)} unreadable: {describe_files(skipped)}")
    files = {
        split: [(path, label) for path, label in pairs if shapes[path]]
        for split, pairs in files.items()
    }
    for split, pairs in files.items():
        _check_every_class(pairs, class_names, split_roots[split])
    common = set(shapes.values()) - {None}
    shape = common.pop() if len(common) == 1 else None
    return FoundImages(tuple(class_names), files, shape, skipped)


def describe_files(paths: tuple[pathlib.Path, ...], most: int = 5) -> str:
    """The first few names of many, on one line."""
    names = ", ".join(str(path) for path in paths[:most])
    return names + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith((".", "__"))
    )


def _split_roots(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folder of each split; that of `"train"` alone is the root where none is."""
    subfolders = _subfolders(root)
    splits = {
        folder: _SPLIT_NAMES[folder.name.lower()]
        for folder in subfolders
        if folder.name.lower() in _SPLIT_NAMES and _subfolders(folder)
    }
    # One alone may be a class: trains among other vehicles.
    if not splits or (len(splits) == 1 and len(subfolders) > 1):
        return {"train": root}
    roots = {split: folder for folder, split in splits.items()}
    if (
        len(roots) < len(splits)
        or "train" not in roots
        or len(splits) < len(subfolders)
    ):
        raise ValueError(
            "A folder with splits holds train, and validation and test once each at "
            "most, and nothing else. Received: "
            f"{', '.join(folder.name for folder in subfolders)} in '{root}'"
        )
    return roots


def _labelled_files(folder, class_names) -> list[LabelledFile]:
    unknown = {child.name for child in _subfolders(folder)} - set(class_names)
    if unknown:
        raise ValueError(
            "Every split needs the classes of train. Received: "
            f"{', '.join(sorted(unknown))} in '{folder}'"
        )
    return [
        (path, label)
        for label, name in enumerate(class_names)
        for path in visible_files(folder / name)
    ]


def visible_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files below a folder, sorted, but for what is hidden or in a hidden folder."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _image_shapes(paths) -> dict[pathlib.Path, tuple[int, int, int] | None]:
    """Shape of each image, `None` where a file cannot be read to its end."""
    from tqdm import tqdm

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shapes = pool.map(_image_shape, paths)
        bar = tqdm(
            shapes,
            total=len(paths),
            desc="Checking images",
            unit="",
            delay=2,
            disable=None,  # unless a person is watching
            leave=False,
        )
        return dict(zip(paths, bar, strict=True))


def _image_shape(path: pathlib.Path) -> tuple[int, int, int] | None:
    try:
        image = open_image(path)
    except OSError:
        return None
    return image.height, image.width, len(image.getbands())


def _check_every_class(pairs, class_names, folder) -> None:
    present = {label for _, label in pairs}
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        raise ValueError(
            f"Every class needs a readable image. Received: none of "
            f"{', '.join(empty)} in '{folder}'"
        )
