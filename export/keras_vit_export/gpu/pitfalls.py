"""Shapes in a `.tflite` that a GPU is known to read otherwise than a CPU, in silence.

A GPU's memory has four axes, batch, height, width and channels. A tensor of lower rank
is laid on them by guessing, and of two that meet in an elementwise operation each may
be laid by another guess. Our own graphs leave nothing to guess (`forward.py`); models of
another make are looked through here.
"""

from keras_vit_device.tflite.operations import Operand, Operation, read_operations

ELEMENTWISE = (
    "ADD",
    "DIV",
    "FLOOR_DIV",
    "MAXIMUM",
    "MINIMUM",
    "MUL",
    "POW",
    "SQUARED_DIFFERENCE",
    "SUB",
)


def pitfalls(model: bytes) -> dict[str, str]:
    """Operations of a `.tflite` that some GPU answers wrongly or refuses, with the why.

    Returns:
        A reason by name of the operation's output; nothing for graphs of ours.

    Source: one-operation models on LiteRT 2.3.0's GPU accelerator, and LiteRT's issues
    141, 8593, 8980, 9191 and 9272.
    """
    found, products = {}, set()
    for operation in read_operations(model):
        if reason := _pitfall(operation, products):
            found[operation.outputs[0]] = f"{operation.kind}: {reason}"
        # A cast of a product is still that product.
        cast = operation.kind in ("QUANTIZE", "DEQUANTIZE")
        if operation.kind == "BATCH_MATMUL" or (
            cast and products & {*operation.inputs}
        ):
            products |= {*operation.outputs}
    return found


def _pitfall(operation: Operation, products: set[str]) -> str:
    operands = operation.operands
    if operation.kind == "BROADCAST_TO":
        return "refused (LiteRT 9191)"
    if operation.kind == "PAD" and len(operands[0].shape) == 3:
        return "padding of three axes shifts rows (LiteRT 9272)"
    if operation.kind in ELEMENTWISE and len(operands) == 2:
        return _misread(*operands, products)
    return ""


def _misread(left: Operand, right: Operand, products: set[str]) -> str:
    """How two operands of an elementwise operation may be read; empty if one way only."""
    constants = [it for it in (left, right) if it.constant]
    for constant in constants:
        if len(constant.shape) in (2, 3) and constant.shape[0] > 1:
            other = right if constant is left else left
            if len(other.shape) == len(constant.shape):
                return (
                    f"a constant {_text(constant)} that differs along the first axis of "
                    f"{_text(other)}, which becomes the batch"
                )
    if constants:
        return ""
    if len(left.shape) != len(right.shape):
        return f"tensors of two ranks, {_text(left)} and {_text(right)} (LiteRT 8980)"
    if left.shape == right.shape:
        return ""
    if products & {left.name, right.name}:
        return "a product of matrices meets a smaller tensor (LiteRT 8593, up to 2.1.5)"
    if any(a < b for a, b in zip(left.shape, right.shape, strict=True)):
        return (
            f"{_text(left)}, on the left, is stretched to {_text(right)} (LiteRT 141)"
        )
    return ""


def _text(operand: Operand) -> str:
    return f"({', '.join(map(str, operand.shape))})"
