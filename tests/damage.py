"""Files are damaged, and tried in processes whose deaths by a signal are counted."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# Files a process, so that few are lost with one that dies.
BATCH = 50
# Most seconds that a file may take, of a machine that has other work too.
PATIENCE = 20

# Takes pairs of a model and an image from a file in JSON, and says how each ended.
TRY = """
import contextlib, io, json, resource, sys, time
from keras_vit_export.cli import main
from keras_vit_export.runtime import Classifier

# What asks for more is refused memory instead of taking the machine's.
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

def by_interface(model, image):
    try:
        answer = Classifier(model)(image)
    except (OSError, ValueError) as error:
        assert str(error) and "\\n" not in str(error), error
        return "refused"
    assert abs(sum(answer.values()) - 1) < 0.01, answer
    return "answered"

def by_command(model, image):
    streams = [io.TextIOWrapper(io.BytesIO()) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status = main(["classify", model, image])
    out, err = (it.buffer.getvalue().decode() for it in streams if not it.flush())
    lines = len(out.splitlines()), len(err.splitlines())
    assert lines == {0: (1, 0), 2: (0, 1)}[status], (status, out, err)
    return {0: "answered", 2: "refused"}[status]

for model, image in json.load(open(sys.argv[1])):
    begin, path = time.perf_counter(), (model, image)
    print(json.dumps("begin"), flush=True)
    try:
        found = by_interface(*path), by_command(*path)
        assert len(set(found)) == 1, found
        assert time.perf_counter() - begin < float(sys.argv[2]), "took too long"
        print(json.dumps(found[0]), flush=True)
    except BaseException as error:
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
"""


def outcomes(pairs, folder, python=sys.executable, patience=PATIENCE):
    """How each pair of a model and an image ended: answered, refused, or badly.

    Args:
        pairs: Paths of a model and of an image.
        folder: Where a file is written that lists them.
        python: The Python that tries them.
        patience: Most seconds that a pair may take.
    """
    found = []
    while len(found) < len(pairs):
        some = pairs[len(found) : len(found) + BATCH]
        (folder / "pairs.json").write_text(json.dumps([[*map(str, it)] for it in some]))
        run = subprocess.run(
            [python, "-c", TRY, folder / "pairs.json", str(patience)],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=BATCH * patience,
        )
        assert "Traceback" not in run.stderr, run.stderr
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        ended = [line for line in lines if line != "begin"]
        if len(ended) < len(some):  # the last that began took the process with it
            ended.append(f"died with status {run.returncode}: {run.stderr[-500:]}")
        found += ended
    return found


def bad(pairs, found):
    return [
        (*pair, how)
        for pair, how in zip(pairs, found, strict=True)
        if how not in ("answered", "refused")
    ]


def mutated(content, rng):
    """The content with some damage of a random kind."""
    content = bytearray(content)
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice((1, 4, 64, 1000)))
    kind = rng.randrange(7)
    if kind == 0:
        return bytes(content[:start])
    if kind == 1:
        for place in rng.choices(range(len(content)), k=rng.choice((1, 3, 20))):
            content[place] ^= 1 << rng.randrange(8)
    elif kind == 2:  # where sizes are
        for place in rng.choices(range(min(len(content), 64)), k=3):
            content[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 3:
        content[start:stop] = bytes(stop - start)
    elif kind == 4:
        del content[start:stop]
    elif kind == 5:
        content[start:start] = content[start:stop]
    else:
        content[start:stop] = rng.randbytes(stop - start)
    return bytes(content)


def damaged(content, count, rng, folder):
    """Files in the folder: the first has the content as it is, `count` a damaged one."""
    paths = [folder / f"{index}.tflite" for index in range(count + 1)]
    for path in paths:
        path.write_bytes(content if path == paths[0] else mutated(content, rng))
    return paths
