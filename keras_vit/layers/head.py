"""From one vector to the classes."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_vit.config import (
    HEAD_ACTIVATIONS,
    OUTPUTS,
    check_choice,
    check_class_names,
)


@keras.saving.register_keras_serializable(package="keras_vit")
class ClassificationHead(layers.Layer):
    """Dense layers from one vector to the classes; knows the classes' names.

    Each hidden layer is f(x W + b). The last layer starts at zero, so an untrained
    head predicts every class equally.

    Args:
        num_classes: Number of classes.
        hidden: Widths of the dense layers before the last one.
        activation: Their f, `"gelu"` or `"tanh"`.
        dropout: Dropout rate before each dense layer, in [0, 1).
        head_output: `"logits"`, or `"softmax"` for probabilities that sum to 1.
        class_names: Name of each class, or `()`.

    Input shape: `(b, d)`.  Output shape: `(b, num_classes)`, at least float32.

    Raises:
        ValueError: If activation or output are unknown, or the names are not one a
            class.

    Source: https://arxiv.org/abs/2010.11929, sections 3.1 and 3.2.
    """

    def __init__(
        self,
        num_classes: int,
        hidden: Sequence[int] = (),
        activation: str = "gelu",
        dropout: float = 0.0,
        head_output: str = "logits",
        class_names: Sequence[str] = (),
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("activation", activation, HEAD_ACTIVATIONS)
        check_choice("head_output", head_output, OUTPUTS)
        check_class_names(tuple(class_names), num_classes)
        self.num_classes = num_classes
        self.hidden = tuple(hidden)
        self.activation = activation
        self.dropout = dropout
        self.head_output = head_output
        self.class_names = tuple(class_names)
        self._dropout = layers.Dropout(dropout, dtype=self.dtype_policy)
        self._hidden = [
            layers.Dense(
                units,
                activation=activation,
                dtype=self.dtype_policy,
                name=f"hidden_{i}",
            )
            for i, units in enumerate(self.hidden)
        ]
        self.logits = layers.Dense(
            num_classes,
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="logits",
        )

    def build(self, input_shape):
        for dense in (*self._hidden, self.logits):
            dense.build(input_shape)
            input_shape = (*input_shape[:-1], dense.units)

    def call(self, pooled, training=False):
        for dense in self._hidden:
            pooled = dense(self._dropout(pooled, training=training))
        logits = self.logits(self._dropout(pooled, training=training))
        # Losses and probabilities need more than half precision.
        logits = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
        return ops.softmax(logits) if self.head_output == "softmax" else logits

    def get_config(self):
        return super().get_config() | {
            "num_classes": self.num_classes,
            "hidden": self.hidden,
            "activation": self.activation,
            "dropout": self.dropout,
            "head_output": self.head_output,
            "class_names": self.class_names,
        }
