"""A run or a worker that ends too early, and the run that goes on."""

import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from keras_vit_device import bulk
from keras_vit_device.bulk import workers

from .running import (
    DIGITS,
    ROOT,
    children,
    finished,
    kill_and_go_on,
    read,
    start,
    wait_for,
)


def test_killed_at_random_moments_it_ends_as_if_it_was_not(digits, whole, tmp_path):
    killed = 0
    for seed in range(3):
        output = tmp_path / f"{seed}.csv"
        killed += kill_and_go_on(digits, output, seed, 2, whole)
        assert output.read_bytes() == whole
    assert killed


def test_cut_off_at_any_byte_a_csv_is_mended(digits, whole, tmp_path, monkeypatch):
    """Also within the header, a line's end, and a name in quotes over two lines."""
    folder, output = tmp_path / "few", tmp_path / "out.csv"
    (folder / "a\r\n").mkdir(parents=True)
    for name in ('a\r\n/b",.png', "c.png"):
        shutil.copy(digits / "0/0.png", folder / name)
    rows = [[name, *["x"] * 6, ""] for name in ('a\r\n/b",.png', "c.png")]
    # Without processes: there are some 200 cuts.
    monkeypatch.setattr(
        bulk.folder, "rows_of", lambda model, folder, names, workers: _made(rows, names)
    )
    bulk.classify_folder(DIGITS, folder, output)
    expected = output.read_bytes()
    assert expected.count(b"\n") == 4
    for end in range(len(expected)):
        output.write_bytes(expected[:end])
        bulk.classify_folder(DIGITS, folder, output)
        assert output.read_bytes() == expected, end


def _made(rows, names):
    for name in names:
        yield [row for row in rows if row[0] == name]


def test_a_worker_that_is_killed_is_replaced(digits, whole, tmp_path):
    output = tmp_path / "out.csv"
    process = start(digits, output, "--workers", 2)
    wait_for(lambda: output.exists() and output.stat().st_size > 2000, process)
    os.kill(children(process)[-1], signal.SIGKILL)
    assert finished(process)[::2] == (0, "")
    assert output.read_bytes() == whole


def test_workers_end_when_the_run_is_killed(digits, tmp_path):
    output = tmp_path / "out.csv"
    process = start(digits, output, "--workers", 2)
    wait_for(lambda: output.exists() and output.stat().st_size > 2000, process)
    left = children(process)
    assert len(left) == 2
    process.kill()
    process.wait()

    wait_for(lambda: all_ended(left))
    process.communicate()


def all_ended(numbers):
    return not any(map(is_alive, numbers))


def is_alive(number):
    try:
        state = pathlib.Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"  # ended, not yet collected


def test_an_image_that_crashes_its_reader_has_a_row_that_says_so(
    digits, whole, tmp_path, monkeypatch
):
    ours = "tests.device.bulk.test_stopping import work_and_crash as work"
    program = workers.PROGRAM.replace("keras_vit_device.bulk.workers import work", ours)
    monkeypatch.setattr(workers, "PROGRAM", program)
    output = tmp_path / "out.csv"
    summary = bulk.classify_folder(DIGITS, digits, output, workers=2)
    assert summary.unreadable == ("3/10.png",)
    rows = {row["file"]: row for row in read(output.read_bytes())}
    expected = {row["file"]: row for row in read(whole)}
    lost = rows.pop("3/10.png")
    assert lost["error"] == "the process that read it died of SIGSEGV"
    assert lost["class"] == "" and expected.pop("3/10.png")["class"]
    assert rows == expected


def test_workers_that_can_not_begin_end_the_run(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "PROGRAM", "import os; os._exit(9)")
    with pytest.raises(bulk.WorkerDiedError, match="2 workers died of exit status 9"):
        bulk.classify_folder(DIGITS, digits, tmp_path / "out.csv", workers=2)


def work_and_crash(*arguments):
    """What a worker does, and dies of one image."""
    answer = workers._row

    def row(classifier, folder, name):
        if name == "3/10.png":
            os.kill(os.getpid(), signal.SIGSEGV)
        return answer(classifier, folder, name)

    workers._row = row
    workers.work(*arguments)


def test_workers_leave_an_interruption_to_the_run(digits, whole, tmp_path):
    """A terminal sends Ctrl-C to them too."""
    output = tmp_path / "out.csv"
    process = start(digits, output, "--workers", 2)
    wait_for(lambda: output.exists() and output.stat().st_size > 2000, process)
    for number in children(process):
        os.kill(number, signal.SIGINT)
    assert finished(process)[::2] == (0, "")
    assert output.read_bytes() == whole


def test_an_interrupted_run_is_130_in_one_line_and_goes_on(digits, whole, tmp_path):
    output = tmp_path / "out.csv"
    process = start(digits, output)
    wait_for(lambda: output.exists() and output.stat().st_size > 2000, process)
    for number in [*children(process), process.pid]:  # as a terminal does
        os.kill(number, signal.SIGINT)
    status, _, err = finished(process)
    assert status == 130
    assert len(err.splitlines()) == 1
    assert "interrupted." in err and f"rows are kept in '{output}'" in err
    assert finished(start(digits, output))[0] == 0
    assert output.read_bytes() == whole


CALL = """
import sys
from keras_vit_device import bulk
bulk.classify_folder(*sys.argv[1:])
"""


def test_a_run_that_is_killed_while_workers_begin_says_nothing(digits, tmp_path):
    """A model that doesn't fit a pipe's buffer is still on its way to them."""
    model = tmp_path / "large.tflite"
    shutil.copy(DIGITS, model)
    with zipfile.ZipFile(model, "a") as archive:
        archive.writestr("padding", bytes(30 << 20))
    for index in range(4):
        given = [*map(str, (model, digits, tmp_path / f"{index}.csv"))]
        # Not the command, which holds back what others write.
        process = subprocess.Popen(
            [sys.executable, "-c", CALL, *given],
            env=os.environ | {"PYTHONPATH": str(ROOT / "export")},
            stderr=subprocess.PIPE,
        )
        wait_for(functools.partial(children, process), process)
        left = children(process)
        time.sleep(0.05 * index)
        process.kill()
        assert process.stderr.read() == b""  # of all that have it open
        wait_for(functools.partial(all_ended, left))
