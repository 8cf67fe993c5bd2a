"""A folder -> one CSV: whole and in order, whatever happens on the way."""

import contextlib
import csv
import io
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from keras_vit_export import Classifier, bulk, metadata
from keras_vit_export.cli import main
from PIL import Image
from sklearn.datasets import load_digits

from .conftest import complaint

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = ROOT / "models/digits.tflite"
# A shell starts what it runs in the background deaf to interruptions.
PROGRAM = (
    "import signal, sys; from keras_vit_export.cli import main; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
)


def write_digits(folder, count):
    """Real digits as PNG files in seven folders, named so that order matters."""
    images = load_digits().images
    for index in range(count):
        path = folder / f"{index % 7}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (images[index % len(images)] * 15.9).astype("uint8")
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), 600)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """The CSV of a run that nothing happened to."""
    path = tmp_path_factory.mktemp("whole") / "whole.csv"
    summary = bulk.classify_folder(DIGITS, digits, path, workers=2)
    assert summary == bulk.Summary(600, ())
    return path.read_bytes()


def start(folder, output, *options):
    arguments = ["classify", DIGITS, folder, "--output", output, *options]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_for(condition, process=None):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.001)


def children(process):
    """Process numbers of the workers."""
    listed = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [
        int(number)
        for number in listed.read_text().split()
        if b"spawn_main" in pathlib.Path(f"/proc/{number}/cmdline").read_bytes()
    ]


def read(content):
    text = content.decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_csv_has_one_row_an_image_in_order_with_the_three_best(digits, whole):
    rows = read(whole)
    names = sorted(path.relative_to(digits) for path in digits.rglob("*.png"))
    assert [row["file"] for row in rows] == list(map(str, names))
    classifier = Classifier(DIGITS)
    for row in rows[::50]:
        expected = list(classifier(digits / row["file"]).items())[:3]
        columns = ("", "_2", "_3")
        assert expected == [
            (row[f"class{it}"], pytest.approx(float(row[f"probability{it}"]), abs=1e-4))
            for it in columns
        ]
        assert row["error"] == "" and len(row["model"]) == 12
    labels = load_digits().target
    right = [row["class"] == str(labels[int(row["file"][2:-4])]) for row in rows]
    assert np.mean(right) > 0.97


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(workers, digits, whole, tmp_path):
    bulk.classify_folder(DIGITS, digits, tmp_path / "new/out.csv", workers=workers)
    assert (tmp_path / "new/out.csv").read_bytes() == whole


def test_the_command_says_what_it_did_and_a_second_one_has_nothing_to_do(
    digits, whole, tmp_path
):
    for _ in range(2):
        status, out, err = finished(start(digits, tmp_path / "out.csv"))
        assert (status, err) == (0, "")
        assert out == f"600 images in '{tmp_path / 'out.csv'}'\n"
        assert (tmp_path / "out.csv").read_bytes() == whole


def kill_and_go_on(folder, output, seed, kills, expected):
    """Kills with SIGKILL once some random part is written, and starts again.

    Returns:
        How many runs were killed; others were quicker.
    """
    rng, killed = random.Random(seed), 0
    for _ in range(kills):
        process = start(folder, output)
        size = output.stat().st_size if output.exists() else 0
        goal = size + rng.randrange((len(expected) - size) // 2)
        while process.poll() is None:
            if output.exists() and output.stat().st_size > goal:
                process.kill()
                break
            time.sleep(0.0005)
        status, _, err = finished(process)
        assert status in (0, -signal.SIGKILL) and err == ""
        killed += status != 0
    assert finished(start(folder, output))[::2] == (0, "")
    return killed


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
        bulk, "_rows", lambda model, folder, names, workers: _made(rows, names)
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


def test_a_worker_that_is_killed_ends_the_run_and_keeps_what_was_done(
    digits, whole, tmp_path
):
    output = tmp_path / "out.csv"
    process = start(digits, output, "--workers", 2)
    wait_for(lambda: output.exists() and output.stat().st_size > 2000, process)
    os.kill(children(process)[-1], signal.SIGKILL)
    status, _, err = finished(process)
    assert status == 4
    assert len(err.splitlines()) == 1
    assert "a worker died of SIGKILL with '" in err and ".png' in hand" in err
    assert "rows are kept" in err
    assert 2000 < output.stat().st_size < len(whole)
    assert finished(start(digits, output))[0] == 0
    assert output.read_bytes() == whole


def test_workers_end_when_the_run_is_killed(digits, tmp_path):
    output = tmp_path / "out.csv"
    process = start(digits, output, "--workers", 2)
    wait_for(lambda: output.exists() and output.stat().st_size > 2000, process)
    left = children(process)
    assert len(left) == 2
    process.kill()
    process.wait()

    def gone(number):
        try:
            state = pathlib.Path(f"/proc/{number}/stat").read_text()
        except OSError:
            return True
        return state.rpartition(")")[2].split()[0] == "Z"  # ended, not yet collected

    wait_for(lambda: all(map(gone, left)))
    process.communicate()


def test_a_crash_names_the_image_in_hand(digits, tmp_path, monkeypatch):
    """A worker finds this module by its name, so it runs this `_row` too."""
    monkeypatch.setattr(bulk, "_work", _work_and_crash)
    with pytest.raises(bulk.WorkerDiedError, match=r"SIGSEGV with '3/10\.png' in hand"):
        bulk.classify_folder(DIGITS, digits, tmp_path / "out.csv", workers=2)


def _work_and_crash(*arguments):
    answer = bulk._row

    def row(classifier, folder, name):
        if name == "3/10.png":
            os.kill(os.getpid(), signal.SIGSEGV)
        return answer(classifier, folder, name)

    bulk._row = row
    WORK(*arguments)


WORK = bulk._work


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


def test_broken_images_have_a_row_with_an_error_and_are_listed(digits, tmp_path, capfd):
    folder, output = tmp_path / "images", tmp_path / "out.csv"
    shutil.copytree(digits / "0", folder)
    content = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(content[:60])
    (folder / "empty.jpg").touch()
    (folder / "text.gif").write_text("no image")
    figures = tmp_path / "figures.json"
    assert main(["classify", str(DIGITS), str(folder), "--output", str(output)]) == 0
    first = output.read_bytes()
    shown = capfd.readouterr()
    assert "3 unreadable, see the column error: cut.png, empty.jpg, text.gif" in (
        shown.out
    )
    assert shown.err == ""
    broken = [row for row in read(first) if row["error"]]
    assert [row["file"] for row in broken] == ["cut.png", "empty.jpg", "text.gif"]
    for row in broken:
        assert row["class"] == row["probability"] == row["class_3"] == ""
        assert "unreadable or no image" in row["error"]
    again = ["--output", str(output), "--json", str(figures)]
    assert main(["classify", str(DIGITS), str(folder), *again]) == 0
    assert '"unreadable": 3' in figures.read_text()
    assert output.read_bytes() == first


def test_any_name_is_kept_and_what_is_hidden_or_linked_in_a_circle_is_left_out(
    digits, tmp_path
):
    folder, output = tmp_path / "images", tmp_path / "out.csv"
    names = [
        "a,b.png",
        'quote".PNG',
        "line\nbreak\r.png",
        os.fsdecode(b"not-utf-8-\xff.png"),
        "été 🐈.png",
        "=1+1.png",
        " .png",
        "deep/er/est.png",
    ]
    hidden = [".hidden.png", ".hidden/a.png", "deep/.b.png", "notes.txt"]
    for name in [*names, *hidden]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(digits / "0/0.png", folder / name)
    (folder / "deep/circle").symlink_to(folder)
    (folder / "nothing.png").symlink_to(folder / "none.png")
    (folder / "linked.png").symlink_to(digits / "0/0.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    status, _, err = finished(start(folder, output))
    assert (status, err) == (0, "")
    rows = read(output.read_bytes())
    expected = sorted([*names, "linked.png"], key=lambda name: name.split("/"))
    assert [row["file"] for row in rows] == expected
    assert {row["class"] for row in rows} == {"0"}
    before = output.read_bytes()
    assert finished(start(folder, output))[0] == 0
    assert output.read_bytes() == before


def test_two_classes_leave_the_third_empty():
    class Two:
        class_names = ("cat", "dog")

        def read(self, path):
            return path

        def probabilities(self, images):
            return np.array([[0.25, 0.75]])

    row = bulk._row(Two(), pathlib.Path("folder"), "a.png")
    assert row == ["a.png", "dog", "0.7500", "cat", "0.2500", "", "", ""]


def test_a_csv_of_another_model_folder_or_kind_is_refused_and_left(
    digits, whole, tmp_path, capfd
):
    output = tmp_path / "out.csv"
    other = tmp_path / "other.tflite"
    content = DIGITS.read_bytes()
    names, contract = metadata.read(content)
    flatbuffer = content[: content.index(b"PK\x03\x04")]
    contract["recipe"] = "another"
    other.write_bytes(metadata.attach(flatbuffer, names, contract))

    def line(model, folder):
        before = output.read_bytes()
        shown = complaint(capfd, "classify", model, folder, "--output", output)
        assert output.read_bytes() == before
        return shown

    output.write_bytes(whole)
    assert "holds answers of another model" in line(other, digits)
    assert "images were added or removed" in line(DIGITS, digits / "1")
    few = tmp_path / "few"
    shutil.copytree(digits, few, ignore=shutil.ignore_patterns("599.png"))
    assert "599.png' where" in line(DIGITS, few)
    for text in ("a,b\r\n1,2\r\n", "a", "file,class\r\n", "a\rb", "x" * 200_000):
        output.write_bytes(text.encode())
        assert "is no CSV of classified images" in line(DIGITS, digits)
    damaged = whole.replace(b"\r\n", b"\n", 300)
    output.write_bytes(damaged)
    assert "is no CSV of classified images" in line(DIGITS, digits)


def test_images_that_come_later_in_the_order_are_added(digits, whole, tmp_path):
    folder, output = tmp_path / "images", tmp_path / "out.csv"
    shutil.copytree(digits, folder)
    shutil.move(folder / "6", tmp_path / "6")
    bulk.classify_folder(DIGITS, folder, output, workers=1)
    assert whole.startswith(output.read_bytes())
    shutil.move(tmp_path / "6", folder / "6")
    assert bulk.classify_folder(DIGITS, folder, output, workers=1).images == 600
    assert output.read_bytes() == whole


def test_two_runs_do_not_write_one_csv(digits, whole, tmp_path, capfd):
    output = tmp_path / "out.csv"
    with bulk._locked(output):
        line = complaint(capfd, "classify", DIGITS, digits, "--output", output)
    assert "is being written by another process" in line


def test_a_users_mistake_is_one_line_and_writes_nothing(digits, tmp_path, capfd):
    output = tmp_path / "out.csv"

    def line(*arguments):
        shown = complaint(capfd, "classify", *arguments)
        assert not output.exists()
        return shown

    out = ["--output", output]
    assert "by a .tflite" in line(ROOT / "models/digits.keras", digits, *out)
    assert "There is no file" in line(tmp_path / "none.tflite", digits, *out)
    assert "There is no folder" in line(DIGITS, tmp_path / "none", *out)
    assert "There is no folder" in line(DIGITS, digits / "0/0.png", *out)
    assert "takes one folder" in line(DIGITS, digits, digits, *out)
    assert "one or more. Received: 0" in line(DIGITS, digits, *out, "--workers", 0)
    assert "--workers needs --output" in line(DIGITS, digits, "--workers", 2)
    assert "is a folder" in line(DIGITS, digits, "--output", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "There is no image" in line(DIGITS, tmp_path / "empty", *out)
    (tmp_path / "bad.tflite").write_bytes(DIGITS.read_bytes()[:1000])
    assert "cut off or is no TFLite" in line(tmp_path / "bad.tflite", digits, *out)


def test_no_process_of_a_run_loads_tensorflow(digits, tmp_path):
    script = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'keras_vit'): sys.modules[name] = None\n"
        "from keras_vit_export.cli import main\n"
        "if __name__ == '__main__': sys.exit(main())\n"
    )
    program = tmp_path / "program.py"  # which each worker imports
    program.write_text(script)
    output = tmp_path / "out.csv"
    subprocess.run(
        [sys.executable, program, "classify", DIGITS, digits / "0", "--output", output],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
        check=True,
        capture_output=True,
    )
    assert len(read(output.read_bytes())) == 86


def peaks(process):
    """Most resident memory in bytes, of the run and of its largest worker."""

    def peak(number):
        try:
            lines = pathlib.Path(f"/proc/{number}/status").read_text().splitlines()
        except OSError:
            return 0
        return max([int(it.split()[1]) * 1024 for it in lines if "VmHWM" in it] + [0])

    own = largest = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            largest = max([largest, *map(peak, children(process))])
        own = max(own, peak(process.pid))
        time.sleep(0.02)
    assert finished(process)[::2] == (0, "")
    return np.array([own, largest])


@pytest.mark.long
def test_ten_thousand_images_killed_and_started_again(tmp_path):
    folder = write_digits(tmp_path / "many", 10_000)
    few = write_digits(tmp_path / "few", 1_000)
    one, many = tmp_path / "one.csv", tmp_path / "many.csv"
    grown = peaks(start(folder, many)) - peaks(start(few, one))
    assert (grown < 8e6).all()  # 10,000 names of images in lists would fit, no images
    expected = many.read_bytes()
    names = [row["file"] for row in read(expected)]
    assert len(names) == len(set(names)) == 10_000
    killed = 0
    for seed in range(10):
        output = tmp_path / f"{seed}.csv"
        killed += kill_and_go_on(folder, output, seed, 3, expected)
        assert output.read_bytes() == expected
    assert killed > 20
