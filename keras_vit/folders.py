"""A folder of images: which files, which classes, and whether they can be read."""

import dataclasses
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from keras_vit.config import check_choice

LabelledFile = tuple[pathlib.Path, int]

_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
} | {"test": "test"}


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


def read_image(path: str | pathlib.Path) -> np.ndarray:
    """Decodes a file, turned as its EXIF orientation says: uint8 `(height, width, 3)`.

    Raises:
        OSError: If the file is no image, is cut off, or cannot be opened.
    """
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


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
        if child.is_dir() and not child.name.startswith(".")
    )


def _split_roots(root: pathlib.Path) -> dict[str, pathlib.Path]:
    subfolders = _subfolders(root)
    roots = {_SPLIT_NAMES.get(folder.name): folder for folder in subfolders}
    if "train" in roots and None not in roots and len(roots) == len(subfolders):
        return roots
    return {"train": root}


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
        for path in sorted((folder / name).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
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
            leave=False,
        )
        return dict(zip(paths, bar, strict=True))


def _image_shape(path):
    try:
        height, width, _ = read_image(path).shape
        with Image.open(path) as image:
            return height, width, 1 if image.mode in ("1", "L", "LA") else 3
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _check_every_class(pairs, class_names, folder) -> None:
    present = {label for _, label in pairs}
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        raise ValueError(
            f"Every class needs a readable image. Received: none of "
            f"{', '.join(empty)} in '{folder}'"
        )
