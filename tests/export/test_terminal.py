import os

import pytest
from keras_vit_device.terminal import quiet


def test_lines_of_libraries_are_held_back(capfd):
    with quiet():
        os.write(2, b"oneDNN custom operations are on\n")
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_they_are_shown_if_the_block_fails(capfd):
    with pytest.raises(RuntimeError), quiet():
        os.write(2, b"the reason\n")
        raise RuntimeError
    assert capfd.readouterr().err == "the reason\n"


@pytest.mark.parametrize("mistake", [ValueError, MemoryError])
def test_a_users_mistake_explains_itself(mistake, capfd):
    with pytest.raises(mistake), quiet():
        os.write(2, b"noise\n")
        raise mistake
    assert capfd.readouterr().err == ""
