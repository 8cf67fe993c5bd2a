"""Training with a teacher: what it answers is learnt beside the labels."""

import hashlib

import keras
from keras import ops

from keras_vit.evaluation import are_probabilities
from keras_vit.reuse import config_of
from keras_vit.training.recipes import TrainingRecipe


class Student(keras.Model):
    """A model that learns from labels and from another model's answers.

    With a distillation token that token learns the answers and the class token the
    labels, each by a head of its own; without one, the head learns both.

    It shares its layers with `student`, is compiled and fitted in its place, and is not
    saved itself. Validation sees what the student's users will see: the mean of the two
    heads, against labels.

    Args:
        student: Built by `build_vit`.
        teacher: Any functional or sequential model from the same images, pixels in
            0..255, to logits or probabilities of the same classes; see `check_teacher`.
        recipe: Its `distillation`, `temperature` and `teacher_weight`.

    Sources: https://arxiv.org/abs/2012.12877, section 4, equations 2 and 3; soft
        targets https://arxiv.org/abs/1503.02531, section 2.
    """

    def __init__(
        self, student: keras.Model, teacher: keras.Model, recipe: TrainingRecipe
    ):
        config = config_of(student)
        by_label = by_teacher = student.get_layer("head").output
        if config.distillation_token:
            by_teacher = student.get_layer("head_distillation").output
        super().__init__(student.input, [student.output, by_label, by_teacher])
        self._two_heads = config.distillation_token
        self._probabilities = config.head_output == "softmax"
        self._weight = recipe.teacher_weight
        self._soft = recipe.distillation == "soft"
        self._temperature = recipe.temperature if self._soft else 1.0
        self._cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True)
        # Its own: of a model with three outputs, Keras' versions name it differently.
        self._accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
        # In a function, Keras doesn't take the teacher's weights for the student's.
        self._answer = lambda images: logits_of(teacher(images, training=False))

    # Keras passes `training` to those only that name it.
    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        output, by_label, by_teacher = y_pred
        if not training:
            return super().compute_loss(x, y, output, sample_weight, training)
        if self._probabilities and self._two_heads:
            by_label = ops.softmax(by_label)
        elif self._probabilities:
            by_teacher = logits_of(by_teacher)
        loss = super().compute_loss(x, y, by_label, sample_weight, training)
        taught = self.teacher_loss(self._answer(x), by_teacher)
        return (1 - self._weight) * loss + self._weight * taught

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self._accuracy.update_state(y, y_pred[0], sample_weight)
        return self.get_metrics_result()

    def teacher_loss(self, teacher_logits, student_logits):
        """How far the student is from the teacher's answers, as a mean over the batch.

        Args:
            teacher_logits: Shape `(b, num_classes)`.
            student_logits: Shape `(b, num_classes)`.

        Returns:
            Cross-entropy with the teacher's most probable class; or, for soft answers,
            with its probabilities at the temperature, times the temperature's square.
            That is the papers' Kullback-Leibler divergence but for a term that doesn't
            depend on the student.
        """
        answers = ops.softmax(teacher_logits / self._temperature)
        if not self._soft:
            classes = ops.argmax(answers, axis=-1)
            answers = ops.one_hot(classes, answers.shape[-1], dtype=answers.dtype)
        loss = self._cross_entropy(answers, student_logits / self._temperature)
        return loss * self._temperature**2


def check_teacher(student: keras.Model, teacher: keras.Model) -> None:
    """Checks that one model can teach another.

    Raises:
        ValueError: If the teacher takes other images, knows other classes, or has no
            fixed input and output.
    """
    config = config_of(student)
    taken, given = (
        getattr(teacher, f"{end}_shape", None) for end in ("input", "output")
    )
    if not all(isinstance(shape, tuple) for shape in (taken, given)):
        raise ValueError(
            "The teacher must be a functional or sequential model of one input and one "
            f"output. Received: a {type(teacher).__name__}"
        )
    images, classes = taken[1:], given[-1]
    expected = (*config.image_size, config.channels)
    if len(images) != 3 or any(
        a not in (None, b) for a, b in zip(images, expected, strict=True)
    ):
        raise ValueError(
            "The teacher must take the student's images. Received: images of "
            f"{images} and {expected}"
        )
    if classes != config.num_classes:
        raise ValueError(
            "The teacher must know the student's classes. Received: "
            f"{classes} and {config.num_classes} classes"
        )
    names = _class_names_of(teacher)
    if names and config.class_names and names != config.class_names:
        raise ValueError(
            "The teacher must know the student's classes, in the same order. Received: "
            f"{names[:5]} and {config.class_names[:5]}"
        )


def _class_names_of(model: keras.Model) -> tuple[str, ...]:
    """Names of the classes, where a model of `build_vit` knows them, else `()`."""
    try:
        return config_of(model).class_names
    except ValueError:
        return ()


def fingerprint(model: keras.Model) -> str:
    """Tells models with other weights apart."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()[:16]


def logits_of(output):
    """Logits from a model's output; of probabilities the logarithms."""
    output = ops.cast(output, "float32")
    # Not 0: its logarithm is infinite. float32 has no smaller probability of use.
    logarithms = ops.log(ops.maximum(output, 1e-9))
    return ops.where(are_probabilities(output), logarithms, output)
