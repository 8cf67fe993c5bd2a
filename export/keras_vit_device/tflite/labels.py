"""Names of classes as files have them, one a line. Standard library only."""

import codecs
import re
from collections import Counter
from collections.abc import Sequence

from keras_vit_device.terminal import printable

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def parse(content: bytes) -> tuple[str, ...]:
    """Names from the bytes of a file: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        UnicodeDecodeError: If it is neither.
    """
    text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    # Not `splitlines`: a name may have a line separator of another kind in it.
    lines = re.split(r"\r\n|\r|\n", text.rstrip())
    return tuple(line.strip() for line in lines) if text.strip() else ()


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """A name of its own for each class: ImageNet has two cranes, and files empty lines.

    What can't be shown in a name becomes an escape.
    """
    names = [printable(name) or f"class {i}" for i, name in enumerate(names)]
    counts, taken = Counter(names), set(names)
    apart = []
    for index, name in enumerate(names):
        if counts[name] > 1:
            while name in taken:
                name = f"{name} ({index})"
            taken.add(name)
        apart.append(name)
    return tuple(apart)
