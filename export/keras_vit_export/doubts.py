"""What nothing in a model tells is held against labelled images, or said to be open."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from keras_vit_device import meaning
from keras_vit_device.meaning import Meaning
from keras_vit_device.pixel_scale import common
from keras_vit_device.pixels import check_pixels

from keras_vit.chance import beats_chance
from keras_vit_export.any_classifier import AnyClassifier
from keras_vit_export.splits import look_through

# Labelled images that ranges of pixels are compared on.
IMAGES = 256
# Standard deviations that make a difference.
_SURE = 3.0


def settle(
    classifier: AnyClassifier, batches: tf.data.Dataset | None
) -> tuple[str, ...]:
    """Finds out by labelled images what the model does not say of its two ends.

    Args:
        classifier: Whose `meaning` it sets to logits, if it is unknown and the largest
            number of a row is the right class more often than chance has it.
        batches: Of images and labels, which none of the reported figures needs; or
            `None`.

    Returns:
        What is taken for granted, a line each; nothing where the model says all.

    Raises:
        ValueError: If another range of pixels suits the model clearly better, or it
            stays unknown what its numbers mean.
    """
    settled = classifier.scale_source and not classifier.is_guess
    if settled and classifier.meaning.is_known:
        return ()
    if batches is None:
        classifier.check_meaning()
        line = f"{classifier.doubt} Without labelled images nothing was checked."
        return (line,) if classifier.doubt else ()
    images, labels, _ = look_through(batches, IMAGES)
    check_pixels(images)
    labels = labels.reshape(-1)
    rows = classifier.output(images)
    right = rows.argmax(axis=1) == labels
    if not classifier.meaning.is_known:
        # Patterns may not show it, which are like nothing that it has seen.
        if meaning.are_bounded(rows):
            classifier.meaning = Meaning(meaning.BOUNDED, "all are in -1..1")
        if not classifier.meaning.may_be_logits or not beats_chance(
            int(right.sum()), labels
        ):
            classifier.check_meaning()
        count = f"{right.mean():.1%} right on {len(labels)} labelled images"
        classifier.meaning = Meaning(meaning.LOGITS, f"the largest is {count}")
    return () if settled else _compare_scales(classifier, images, labels, right)


def match_classes(classifier: AnyClassifier, names: Sequence[str]) -> None:
    """Gives the classes of a model without names those of its images.

    Raises:
        ValueError: If a model with names has the same in another order.
    """
    if not classifier.named:
        classifier.name_classes(names)
    elif sorted(names) == sorted(classifier.class_names) and (
        tuple(names) != classifier.class_names
    ):
        raise ValueError(
            "The images have the model's classes in another order. Received: "
            f"{names[:5]} and {classifier.class_names[:5]}"
        )


def _compare_scales(
    classifier: AnyClassifier, images: np.ndarray, labels: np.ndarray, right: np.ndarray
) -> tuple[str, ...]:
    """One line with top-1 by range of pixels, where nothing else tells it.

    Raises:
        ValueError: If another range than the one taken is right clearly more often.
    """
    own, found = classifier.scale.name, {}
    for scale in common(images.shape[-1]):
        if scale.name != own:
            rows = classifier.output_of(scale(images))
            found[scale.name] = rows.argmax(axis=1) == labels
    best = max(found, key=lambda name: found[name].mean())
    others = ", ".join(f"{it.mean():.1%} as {name}" for name, it in found.items())
    shown = f"{right.mean():.1%} as {own}, {others}"
    # Images that only one of the two has right: McNemar's test.
    gained, lost = (
        int(np.sum(a & ~b)) for a, b in ((found[best], right), (right, found[best]))
    )
    said = "Nothing in the model says what range its pixels have"
    if classifier.is_guess:
        said = f"By {classifier.scale_source} pixels are of {own}"
    if gained - lost > _SURE * np.sqrt(gained + lost):
        raise ValueError(
            f"{said}, and another range suits the model better: top-1 on {len(labels)} "
            f"labelled images is {shown}. Say which: --input-scale {best} "
            f"(input_scale={best!r}), or {own} to have it so."
        )
    if classifier.is_guess:
        return ()
    line = f"{said}; {own} is taken, as top-1 on {len(labels)} labelled images is "
    return (f"{line}{shown}.",)
