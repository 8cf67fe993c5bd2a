"""A trained model learns to do with fewer tokens, with itself as the teacher."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_vit
from keras_vit import TrainingRecipe, config_of
from keras_vit.training.distillation import Student, logits_of
from keras_vit.training.plan import plan_again, plan_for
from keras_vit.training.recipes import TRAINING_RECIPES
from keras_vit.training.runs.settings import read_settings
from tests.conftest import pictures_off

STEPS = ((0, "prune", 0.5),)


@pytest.fixture
def source(stripes, rng):
    return stripes(rng)


@pytest.fixture
def trained(tiny, tmp_path, randomize):
    """A function from class names to the file of a model that knows them."""

    def make(*class_names):
        fields = {"num_classes": len(class_names), "class_names": class_names}
        model = randomize(keras_vit.build_vit(tiny(depth=3, **fields)))
        path = tmp_path / f"{'-'.join(class_names)}.keras"
        model.save(path)
        return str(path)

    return make


def test_the_teacher_is_the_model_itself_if_it_knows_the_classes(source, trained):
    own = trained("across", "down")
    plan = plan_for(source, origin=own, reduce_tokens=0.5)
    assert plan.recipe.distillation == "soft" and plan.teacher == own
    assert plan.recipe.epochs == TRAINING_RECIPES["fewer_tokens"].epochs
    assert config_of(plan.build()).token_counts == (7, 5, 4)
    assert not config_of(plan.build()).distillation_token
    for more in ({"image_size": (16, 24)}, {"teacher": "other.keras"}):
        other = plan_for(source, origin=own, reduce_tokens=0.5, **more)
        assert other.teacher == more.get("teacher")
    other = trained("cat", "dog", "bird")
    assert plan_for(source, origin=other, reduce_tokens=0.5).teacher is None
    assert plan_for(source, origin=own).teacher is None


def test_a_new_model_may_have_fewer_tokens_from_the_start(source):
    plan = plan_for(source, variant="nano/4", reduce_tokens="pool", image_size=(16, 16))
    assert plan.config.reduce_tokens == ((1, "pool", 2),)
    assert config_of(plan.build()) == plan.config
    assert plan.recipe.distillation == TrainingRecipe().distillation
    with pytest.raises(ValueError, match="'pool' needs a grid"):
        plan_for(source, variant="nano/4", reduce_tokens="pool", image_size=(12, 12))


def test_a_reduced_model_learns_and_its_run_goes_on(
    source, trained, tmp_path, without_xla
):
    origin = trained("across", "down")
    plan = plan_for(source, origin=origin, reduce_tokens=0.5, epochs=1)
    data = source.load(config_of(plan.build()), batch_size=16)
    fixed = {"output": tmp_path / "run", "origin": origin, "verbose": 0}
    short = dataclasses.replace(plan.recipe, passes=1)
    with pictures_off():
        run = keras_vit.train(plan.build(), data, short, teacher=plan.teacher, **fixed)
    assert np.isfinite(run.history["loss"]).all()
    kept = keras.saving.load_model(tmp_path / "run/model.keras")
    assert config_of(kept).reduce_tokens == ((0, "prune", 0.5), (1, "prune", 0.5))
    stored = read_settings(tmp_path / "run")
    again = plan_again(source, stored, epochs=2)
    assert again.reduce_tokens == config_of(kept).reduce_tokens
    assert again.teacher == origin
    assert config_of(again.build()) == config_of(kept)
    with pictures_off():
        run = keras_vit.train(
            again.build(),
            data,
            again.recipe,
            teacher=again.teacher,
            resume=True,
            **fixed,
        )
    assert len(run.history["loss"]) == 2


@pytest.mark.parametrize("output", ["logits", "softmax"])
def test_one_head_learns_from_labels_and_answers(output, tiny, randomize, rng):
    config = tiny(num_classes=2, head_output=output)
    student = randomize(keras_vit.build_vit(config))
    teacher = randomize(keras_vit.build_vit(dataclasses.replace(config, depth=1)))
    recipe = TrainingRecipe(
        distillation="soft", temperature=2.0, teacher_weight=0.3, label_smoothing=0.0
    )
    model = Student(student, teacher, recipe)
    from_logits = output == "logits"
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=from_logits))
    images = rng.uniform(0, 255, (4, 8, 12, 3)).astype("float32")
    labels = np.eye(2, dtype="float32")[[0, 1, 1, 0]]

    def log_softmax(x):
        x = np.asarray(x, "float64")
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    logits, answers = (logits_of(it(images)) for it in (student, teacher))
    by_label = -np.mean(np.sum(labels * log_softmax(logits), axis=1))
    soft = np.exp(log_softmax(np.asarray(answers) / 2))
    soft_loss = np.sum(soft * log_softmax(np.asarray(logits) / 2), axis=1)
    expected = 0.7 * by_label - 0.3 * 4 * np.mean(soft_loss)
    loss = model.compute_loss(images, labels, model(images), training=True)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
