"""What a command said, in this process, held to what every command keeps to."""

import contextlib
import io
from collections.abc import Sequence

from keras_vit_cli.main import main


def said(*arguments: object) -> tuple[int, Sequence[str], Sequence[str]]:
    """Its status and the lines of both its streams.

    Raises:
        AssertionError: If one could write to the terminal but text, or a refusal is
            not one line.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as wrong:  # of the options
            status = wrong.code
    for stream in streams:
        stream.flush()
    out, err = (it.buffer.getvalue().decode("utf-8").split("\n") for it in streams)
    assert all(line.isprintable() for line in (*out, *err)), (out, err)
    assert not any("Traceback" in line for line in err), err
    out, err = ([line for line in lines if line] for lines in (out, err))
    assert status in (0, 2, 3), (status, err)
    assert status != 2 or len(err) >= 1, "it failed without a word"
    return status, out, err


def refusal(job, *arguments: object) -> str:
    """The one line that a function refuses with, or nothing.

    Raises:
        AssertionError: If it has none or several, or is as long as a page.
    """
    try:
        job(*arguments)
    except (OSError, ValueError) as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 1000, repr(text)
        return text
    return ""
