"""A teacher's answers: what is learnt from them, and which teachers are refused."""

import json
import re

import keras
import numpy as np
import pytest

import keras_vit
from keras_vit.training.distillation import Student, logits_of


@pytest.fixture
def data(stripes, rng):
    return stripes(rng).load(batch_size=16)


@pytest.fixture
def student(tiny):
    fields = {"num_classes": 2, "class_names": ("across", "down")}
    return keras_vit.build_vit(tiny(distillation_token=True, **fields))


def convolutional(classes=2, side=8, activation=None):
    """A model that `build_vit` did not make."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((side, 12, 3)),
            layers.Rescaling(1 / 127.5, -1.0),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(classes, activation=activation),
        ]
    )


class Subclassed(keras.Model):
    def call(self, images):
        return keras.ops.mean(images, axis=(1, 2))


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_loss_is_that_of_the_paper(kind, student, randomize, rng):
    recipe = keras_vit.TrainingRecipe(
        distillation=kind, temperature=2.0, teacher_weight=0.3, label_smoothing=0.0
    )
    randomize(student)
    teacher = convolutional()
    model = Student(student, teacher, recipe)
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    images = rng.uniform(0, 255, (4, 8, 12, 3)).astype("float32")
    labels = np.eye(2, dtype="float32")[[0, 1, 1, 0]]
    output, by_label, by_teacher = (np.asarray(part) for part in model(images))
    answers = np.asarray(teacher(images))
    cross_entropy = -np.mean(np.sum(labels * np.log(softmax(by_label)), axis=1))
    if kind == "hard":
        chosen = softmax(by_teacher)[np.arange(4), answers.argmax(axis=1)]
        taught = -np.mean(np.log(chosen))
    else:
        soft = softmax(answers / 2)
        logs = np.log(softmax(by_teacher / 2))
        taught = -np.mean(np.sum(soft * logs, axis=1)) * 4
    loss = model.compute_loss(images, labels, model(images), training=True)
    assert float(loss) == pytest.approx(0.7 * cross_entropy + 0.3 * taught, rel=1e-5)
    # Validation is of what the student's users see.
    seen = -np.mean(np.sum(labels * np.log(softmax(output)), axis=1))
    loss = model.compute_loss(images, labels, model(images), training=False)
    assert float(loss) == pytest.approx(seen, rel=1e-5)


def test_probabilities_are_taken_for_logits_too(rng):
    logits = rng.normal(size=(3, 5)).astype("float32")
    np.testing.assert_array_equal(logits_of(logits), logits)
    given = softmax(logits)
    np.testing.assert_allclose(softmax(np.asarray(logits_of(given))), given, rtol=1e-5)


@pytest.mark.parametrize("output", ["logits", "softmax"])
def test_a_student_learns_from_its_teacher_alone(
    output, tiny, data, tmp_path, without_xla
):
    teacher = convolutional()
    teacher.layers[-1].bias.assign([-100.0, 100.0])  # "down", whatever it sees
    config = tiny(
        num_classes=2,
        class_names=("across", "down"),
        depth=1,
        distillation_token=True,
        head_output=output,
    )
    student = keras_vit.build_vit(config)
    before = [weight.copy() for weight in teacher.get_weights()]
    recipe = keras_vit.TrainingRecipe(epochs=3, learning_rate=1e-2, teacher_weight=1.0)
    teacher.save(tmp_path / "teacher.keras")
    run = keras_vit.train(
        student,
        data,
        recipe,
        teacher=tmp_path / "teacher.keras",
        output=tmp_path / "run",
        verbose=0,
    )
    head = student.get_layer("head_distillation")
    features = keras.Model(student.input, head.output)
    images = next(data.test.as_numpy_iterator())[0]
    assert (np.asarray(features(images)).argmax(axis=1) == 1).all()
    for weight, first in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, first)
    kept = keras.saving.load_model(tmp_path / "run/model.keras")
    assert kept.count_params() == student.count_params()
    # Validation is of the kept model against labels; the teacher has no part in it.
    kept.compile(
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=output == "logits", label_smoothing=recipe.label_smoothing
        )
    )
    validation = data.validation.map(lambda x, y: (x, keras.ops.one_hot(y, 2)))
    best = run.history["val_loss"][run.best_epoch - 1]
    assert kept.evaluate(validation, verbose=0) == pytest.approx(best, rel=1e-5)
    settings = json.loads((tmp_path / "run/run.json").read_text())
    assert settings["teacher"].endswith("teacher.keras")


def test_teachers_that_do_not_fit_are_refused(tiny, student, data, tmp_path):
    cases = {
        "student's classes": convolutional(classes=3),
        "the same order": keras_vit.build_vit(
            tiny(num_classes=2, class_names=("down", "across"))
        ),
        "student's images": convolutional(side=16),
        "images of (288,)": keras.Sequential(
            [keras.Input((288,)), keras.layers.Dense(2)]
        ),
        "a Subclassed": Subclassed(),
    }
    for message, teacher in cases.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            keras_vit.train(student, data, teacher=teacher, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
