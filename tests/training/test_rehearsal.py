"""What a training would take, and what is said where there is too little."""

import keras
import pytest
import tensorflow as tf

import keras_vit
from keras_vit.training.rehearsal import available_memory, rehearse


@pytest.fixture
def machine(tmp_path):
    """A function from figures in bytes to files that tell them."""

    def make(free, limit, used, read_files):
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text(
            f"MemTotal: 99999999 kB\nMemAvailable: {free // 1024} kB\nHugePages_Total: 0\n"
        )
        group = tmp_path / "sys/fs/cgroup"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 5\ninactive_file {read_files}\n")
        return tmp_path

    return make


GB = 2**30


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ((20 * GB, "max", 9 * GB, GB), 20 * GB),
        ((20 * GB, 8 * GB, 6 * GB, 0), 2 * GB),
        ((20 * GB, 8 * GB, 6 * GB, 5 * GB), 7 * GB),  # files that may be forgotten
        ((1 * GB, 8 * GB, 6 * GB, 0), 1 * GB),
    ],
)
def test_free_memory_is_the_machines_or_the_containers(machine, figures, expected):
    assert available_memory(machine(*figures)) == expected


def test_where_nothing_tells_free_memory_it_is_not_known(tmp_path):
    assert available_memory(tmp_path) is None


def test_a_batch_that_the_device_has_no_room_for_is_one_line(
    tiny, stripes, rng, tmp_path, monkeypatch
):
    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(keras.Model, "fit", fit)
    data = stripes(rng).load(batch_size=16)
    model = keras_vit.build_vit(tiny(num_classes=2, depth=1))
    said = "A step of 16 images needs more memory than the device has"
    with pytest.raises(MemoryError, match=said):
        rehearse(model, data, keras_vit.TrainingRecipe())
    with pytest.raises(MemoryError, match=said):
        keras_vit.train(model, data, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
