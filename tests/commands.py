"""The command line, as a process of its own or in this one."""

import subprocess
import sys


def run(*arguments):
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "keras_vit_cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def complaint(capfd, *arguments):
    """The one line that a wrong command answers with."""
    from keras_vit_cli.main import main

    assert main([str(argument) for argument in arguments]) == 2
    captured = capfd.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("keras-vit: ")
    assert "Traceback" not in captured.err
    return lines[0]
