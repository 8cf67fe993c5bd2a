"""Which files below a folder are images, and why the others are not. Pillow only.

One rule for training, `classify`, `features` and the CSV of a folder: what Pillow opens
in this process, by the suffix, or by the first bytes where the suffix tells nothing.
What is left out is counted by reason.
"""

import collections
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from keras_vit_device.pixels import HEIC_REASON, decoded_formats, is_heic

HIDDEN = "hidden"
SYSTEM = "of a system, not of the data"
NO_IMAGE = "no image"
DANGLING = "link to nothing"
NO_FILE = "no regular file"
CLOSED = "folder that can't be opened"
READ_ANYWAY = "link to a folder that is read anyway"
RAW = "raw file of a camera, which Pillow does not develop"
NOT_READ = "of a format that Pillow does not read"

# What file managers, network drives and archives leave, in lower case.
_SYSTEM_NAMES = {
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@tmp",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "picasa.ini",
    "system volume information",
    "thumbs.db",
}
_SYSTEM_PREFIXES = (".ds_store", "._", ".trash", ".spotlight-", ".fseventsd")
_HEIC_SUFFIXES = {".heic", ".heics", ".heif", ".heifs", ".hif"}
# Of their TIFF, Pillow gives the thumbnail.
_RAW_SUFFIXES = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}
_OTHER_SUFFIXES = {".ai", ".emf", ".eps", ".exr", ".jxl", ".jxr", ".svg", ".wmf"}
# Those whose first bytes leave no doubt.
_SIGNED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
_IMAGE_REASONS = {CLOSED, DANGLING, HEIC_REASON, RAW, NOT_READ}


class LeftOut:
    """Counts of what was left out, by reason, with the first few names of each.

    Takes as much memory for a million files as for ten.
    """

    FEW = 3

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str | os.PathLike[str], count: int = 1) -> None:
        """Counts a file or a folder, or several with the first one's name."""
        self.counts[reason] += count
        names = self._names.setdefault(reason, [])
        if len(names) < self.FEW:
            names.append(_shorten(str(name)))

    @property
    def images(self) -> int:
        """How many are images that can't be read here."""
        return sum(n for reason, n in self.counts.items() if reason in _IMAGE_REASONS)

    @property
    def lines(self) -> list[str]:
        """A line a reason: `"2 left out, no image: a/notes.txt, b/notes.txt"`."""
        return [
            f"{count:,} left out, {reason}: {', '.join(self._names[reason])}"
            + (", ..." if count > len(self._names[reason]) else "")
            for reason, count in self.counts.most_common()
        ]

    def explain_none(self, folder: str | os.PathLike[str]) -> str:
        """What to say of a folder in which there is no image."""
        return " ".join([f"There is no image in folder '{folder}'.", *self.lines])


def _shorten(name: str) -> str:
    """A name that fits a line: paths may have thousands of characters."""
    return name if len(name) <= 200 else f"{name[:100]}...{name[-60:]}"


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes of what this process decodes, in lower case; HEIC with pillow-heif."""
    formats = decoded_formats()
    known = Image.registered_extensions()
    decoded = {suffix for suffix, name in known.items() if name in formats}
    return frozenset(decoded | {".mpo"})  # opened as JPEG, so registered to save only


def not_of_the_data(name: str) -> str | None:
    """The reason to pass over a file or folder of this name, whatever it holds."""
    lower = name.lower()
    if lower in _SYSTEM_NAMES or lower.startswith(_SYSTEM_PREFIXES):
        return SYSTEM
    return HIDDEN if name.startswith(".") else None


def why_no_image(file: pathlib.Path | os.DirEntry[str]) -> str | None:
    """The reason why a file is no image that can be read here; `None` if it may be."""
    path = os.fspath(file)
    if not _holds(file.is_file):
        return DANGLING if file.is_symlink() else NO_FILE
    suffix = os.path.splitext(path)[1].lower()
    if suffix in suffixes():
        return None
    if suffix in _RAW_SUFFIXES:
        return RAW
    if _begins_as_image(path):
        return None
    if suffix in _HEIC_SUFFIXES or is_heic(path):
        return HEIC_REASON
    return NOT_READ if suffix in _OTHER_SUFFIXES else NO_IMAGE


def _holds(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False


def _begins_as_image(path: str) -> bool:
    try:
        with Image.open(path, formats=_SIGNED):
            return True
    except Exception:  # noqa: BLE001 - decoders raise each its own
        return False


def image_names(
    folder: str | os.PathLike[str],
    left_out: LeftOut | None = None,
    elsewhere: Sequence[str | os.PathLike[str]] = (),
) -> Iterator[str]:
    """Names of all images below a folder, relative to it with `/`, sorted.

    Links to files and folders are followed, each folder once, so that none leads in
    circles. Holds the names of the folders on one path at a time.

    Args:
        folder: Where to look.
        left_out: Counts what is passed over.
        elsewhere: Folders that others go through: no link leads into them.
    """
    return _Walk(pathlib.Path(folder), left_out, elsewhere).names()


class _Walk:
    def __init__(self, folder, left_out, elsewhere):
        self.folder = folder
        self.left_out = LeftOut() if left_out is None else left_out
        self.roots = [os.path.realpath(it) for it in (folder, *elsewhere)]
        self.has_followed = False

    def names(self) -> Iterator[str]:
        # Not by recursion: folders may be nested deeper than Python's calls.
        depth = [self._entries("")]
        while depth:
            name, entry = next(depth[-1], (None, None))
            if entry is None:
                depth.pop()
                continue
            reason = not_of_the_data(entry.name)
            if reason is None and _holds(entry.is_dir):
                if self._is_new(entry):
                    depth.append(self._entries(f"{name}/"))
                    continue
                reason = READ_ANYWAY
            reason = reason or why_no_image(entry)
            if reason is None:
                yield name
            else:
                self.left_out.add(reason, self.folder / name)

    def _entries(self, within: str) -> Iterator[tuple[str, os.DirEntry]]:
        """What a folder holds, by its name from the root's on, sorted."""
        try:
            with os.scandir(self.folder / within) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # not ours to read, or its path is too long for the system
            self.left_out.add(CLOSED, self.folder / within)
            return
        for entry in ordered:
            yield within + entry.name, entry

    def _is_new(self, entry: os.DirEntry) -> bool:
        is_link = entry.is_symlink()
        if not is_link and not self.has_followed:
            return True  # no link can have led here
        real = os.path.realpath(entry.path)
        if not is_link:
            return real not in self.roots
        if any(_goes_through(root, real) for root in self.roots):
            return False
        self.roots.append(real)
        self.has_followed = True
        return True


def _goes_through(root: str, folder: str) -> bool:
    """Whether a walk from a root comes to a folder."""
    inner = os.path.relpath(folder, root)
    parts = [] if inner == os.curdir else inner.split(os.sep)
    return os.pardir not in parts and not any(map(not_of_the_data, parts))
