"""A folder of images: which files, which classes, and whether they can be read."""

import collections
import dataclasses
import os
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from keras_vit_device.images import HIDDEN, SYSTEM, LeftOut, image_names
from keras_vit_device.pixels import UnreadableError, open_image
from PIL import Image
from tqdm import tqdm

from keras_vit.config import check_choice
from keras_vit.data.folder_layouts import Classes, find_layout

LabelledFile = tuple[pathlib.Path, int]

# Sides up to which images are taken as they are.
SMALL_SIDE = 64
# Images of the most common size, of all, from which on the others are odd ones.
_MOST = 0.9
# Images in colour, of all, up to which they are odd ones among grey ones.
_FEW_IN_COLOUR = 0.02


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """What a folder holds.

    Attributes:
        class_names: Names of the subfolders, sorted; a label is a place in this list.
        files: Readable files with their labels, by split. Only `"train"` where the
            folder has no subfolder a split.
        image_shape: (height, width, channels) shared by all images, or `None`.
        bulk: What most images are, and what a model of them should take.
        skipped: Files that were left out, but for what is hidden or of a system.
        left_out: Counts of all that was left out, by reason.
        remarks: What was guessed, a line each.
    """

    class_names: tuple[str, ...]
    files: dict[str, list[LabelledFile]]
    image_shape: tuple[int, int, int] | None
    bulk: "Bulk"
    skipped: tuple[pathlib.Path, ...]
    left_out: LeftOut
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Bulk:
    """What most images of a folder are.

    Attributes:
        shape: (height, width, channels) of most of them, or `None` where they differ.
        words: Sizes and colours with counts, to be gone on with; empty where all images
            are of that shape.
    """

    shape: tuple[int, int, int] | None
    words: str = ""


@dataclasses.dataclass(frozen=True)
class Seen:
    """One image that was decoded: its sides in pixels, and its colours."""

    height: int
    width: int
    channels: int
    is_grey: bool


def find_images(root: pathlib.Path, broken: str = "skip") -> FoundImages:
    """Finds and reads once every image below a folder.

    Args:
        root: Has one subfolder a class, or subfolders `train`, `validation` (`val`)
            and `test` with these inside, of which `validation` and `test` may lack.
            `keras_vit.data.folder_layouts` says what else is understood.
        broken: `"skip"` leaves unreadable files out, `"refuse"` raises.

    Raises:
        ValueError: If there are fewer than two classes, a class has no readable image,
            the splits differ in classes or can't be told, or a file is unreadable and
            `broken="refuse"`.
    """
    check_choice("broken", broken, ("skip", "refuse"))
    left_out = _Named()
    layout = find_layout(root, left_out)
    class_names = tuple(layout.splits["train"])
    files = {
        split: _labelled_files(classes, class_names, left_out)
        for split, classes in layout.splits.items()
    }
    seen = _look_at([path for pairs in files.values() for path, _ in pairs])
    for path, found in seen.items():
        if isinstance(found, str):
            left_out.add(found, path)
    skipped = tuple(left_out.reasons)
    if skipped and broken == "refuse":
        raise ValueError(f"{len(skipped)} unreadable: {_describe_files(skipped)}")
    files = {
        split: [pair for pair in pairs if not isinstance(seen[pair[0]], str)]
        for split, pairs in files.items()
    }
    for split, pairs in files.items():
        _check_every_class(layout.splits[split], class_names, pairs, left_out)
    whole = [it for it in seen.values() if not isinstance(it, str)]
    shapes = {(it.height, it.width, it.channels) for it in whole}
    return FoundImages(
        class_names,
        files,
        shapes.pop() if len(shapes) == 1 else None,
        find_bulk(whole),
        skipped,
        left_out,
        layout.remarks,
    )


class _Named(LeftOut):
    """Remembers every path too, but for what no one would take for data."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[pathlib.Path, str] = {}

    def add(self, reason: str, name: str | os.PathLike[str]) -> None:
        super().add(reason, name)
        if reason not in (HIDDEN, SYSTEM):
            self.reasons[pathlib.Path(name)] = reason

    def below(self, folders: Iterable[pathlib.Path]) -> str:
        """Reasons in these folders with their counts, in words."""
        found = collections.Counter(
            reason
            for path, reason in self.reasons.items()
            if any(path.is_relative_to(folder) for folder in folders)
        )
        told = ", ".join(f"{count:,}: {it}" for it, count in found.most_common())
        return f" ({told})" if told else ""


def _describe_files(paths: Sequence[pathlib.Path], most: int = 5) -> str:
    """The first few names of many, on one line."""
    names = ", ".join(str(path) for path in paths[:most])
    return names + (f" and {len(paths) - most} more" if len(paths) > most else "")


def find_bulk(seen: Sequence[Seen]) -> Bulk:
    """What a model of these images should take, by what most of them are.

    The most common size if nine in ten have it; else, where nine in ten are no larger
    than 64 pixels a side, the median of their sides. One channel if all but a few are
    grey: more than one in fifty in colour (or one in ten images) is no accident.
    """
    count = len(seen)
    in_colour = sum(not it.is_grey for it in seen)
    # Files of three channels in which nothing has a colour stay what they are.
    in_grey_files = sum(it.channels == 1 for it in seen)
    odd = max(_FEW_IN_COLOUR * count, count >= 10)
    channels = 1 if in_colour <= odd and 2 * in_grey_files >= count else 3
    sizes = collections.Counter((it.height, it.width) for it in seen)
    size, alike = sizes.most_common(1)[0]
    grey = count - in_colour
    words = f"Of {count:,} images {grey:,} are grey"
    if channels == 3 and grey > in_grey_files:
        words += f" ({grey - in_grey_files:,} in files of three channels)"
    if alike >= _MOST * count:
        words += f" and {alike:,} are {size[0]} x {size[1]} pixels"
        uniform = alike == count and in_grey_files in (0, count)
        return Bulk((*size, channels), "" if uniform else words)
    sides = [[getattr(it, side) for it in seen] for side in ("height", "width")]
    size = tuple(int(statistics.median_low(lengths)) for lengths in sides)
    words += f"; they differ in size, with a median of {size[0]} x {size[1]} pixels"
    small = sum(max(it.height, it.width) <= SMALL_SIDE for it in seen)
    return Bulk((*size, channels) if small >= _MOST * count else None, words)


def _labelled_files(
    classes: Classes, class_names: Sequence[str], left_out: LeftOut
) -> list[LabelledFile]:
    every = [folder for folders in classes.values() for folder in folders]
    return [
        (folder / name, label)
        for label, class_name in enumerate(class_names)
        for folder in classes.get(class_name, ())
        for name in image_names(folder, left_out, every)
    ]


def _look_at(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, Seen | str]:
    """What each image is, or the reason why it cannot be read to its end."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(_look, paths)
        bar = tqdm(
            found,
            total=len(paths),
            desc="Checking images",
            unit="",
            delay=2,
            disable=None,  # unless a person is watching
            leave=False,
        )
        return dict(zip(paths, bar, strict=True))


def _look(path: pathlib.Path) -> Seen | str:
    try:
        image = open_image(path)
    except UnreadableError as error:
        return error.reason
    return Seen(
        image.height, image.width, len(image.getbands()), not _has_colour(image)
    )


def _has_colour(image: Image.Image) -> bool:
    if image.mode == "L":
        return False
    # Almost every image in colour shows it in a thousand pixels.
    few = image.resize((32, 32), Image.Resampling.NEAREST)
    return any(map(_differ, (few, image)))


def _differ(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels[..., :2] != pixels[..., 1:]).any())


def _check_every_class(
    classes: Classes, class_names: Sequence[str], pairs: list[LabelledFile], left_out
) -> None:
    present = {label for _, label in pairs}
    empty = [name for label, name in enumerate(class_names) if label not in present]
    if empty:
        told = (name + left_out.below(classes.get(name, ())) for name in empty)
        folder = next(it[0].parent for it in classes.values() if it)
        raise ValueError(
            f"Every class needs a readable image. Received: none of {', '.join(told)} "
            f"in '{folder}'"
        )
