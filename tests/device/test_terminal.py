import contextlib
import io
import os
import sys

import pytest
from keras_vit_device.terminal import quiet


def test_lines_of_libraries_are_held_back(capfd):
    with quiet():
        os.write(2, b"oneDNN custom operations are on\n")
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_they_are_shown_if_the_block_fails(capfd):
    with pytest.raises(ZeroDivisionError), quiet():
        os.write(2, b"the reason\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "the reason\n"


@pytest.mark.parametrize("mistake", [ValueError, MemoryError, RuntimeError])
def test_a_users_mistake_explains_itself(mistake, capfd):
    with pytest.raises(mistake), quiet():
        os.write(2, b"noise\n")
        raise mistake
    assert capfd.readouterr().err == ""


def test_what_stands_in_place_of_stderr_gets_what_python_writes(capfd):
    # As in a notebook, where file descriptor 2 is not what people see.
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), quiet():
        print("ours", file=sys.stderr)
        os.write(2, b"noise\n")
    assert (shown.getvalue(), capfd.readouterr().err) == ("ours\n", "")
