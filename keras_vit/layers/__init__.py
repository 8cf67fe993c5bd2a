"""The layers of a Vision Transformer, one idea a file.

Axes in every shape, here and in the lessons:

    b  images of the batch          h  attention heads
    n  tokens                       e  width of a head (the papers' d_k), d / h
    d  width of a token             m  width of the feed-forward's hidden layer
    g  patches along a side         p  side of a patch in pixels
    c  channels

Layers use `keras.ops` and `keras.random` alone, rebuild from their own `get_config()`,
and hand their dtype policy to the layers inside them.
"""

from keras_vit.layers.attention import MultiHeadAttention, scaled_dot_product_attention
from keras_vit.layers.head import ClassificationHead
from keras_vit.layers.mlp import FeedForward
from keras_vit.layers.patches import PatchDropout, PatchEmbedding
from keras_vit.layers.pixels import PixelScaling
from keras_vit.layers.pooling import (
    AttentionPool,
    MeanPool,
    SequencePool,
    TokenAndMeanPool,
    TokenPool,
)
from keras_vit.layers.positions import (
    LearnedPositions,
    SinCos2DPositions,
    Sinusoidal1DPositions,
    sincos_2d,
    sinusoidal_1d,
)
from keras_vit.layers.reduction import PoolTokens, PruneTokens
from keras_vit.layers.residual import DropPath, LayerScale
from keras_vit.layers.stem import ConvStem
from keras_vit.layers.tokens import FirstTokens, PrefixTokens

__all__ = [
    "AttentionPool",
    "ClassificationHead",
    "ConvStem",
    "DropPath",
    "FeedForward",
    "FirstTokens",
    "LayerScale",
    "LearnedPositions",
    "MeanPool",
    "MultiHeadAttention",
    "PatchDropout",
    "PatchEmbedding",
    "PixelScaling",
    "PoolTokens",
    "PrefixTokens",
    "PruneTokens",
    "SequencePool",
    "SinCos2DPositions",
    "Sinusoidal1DPositions",
    "TokenAndMeanPool",
    "TokenPool",
    "scaled_dot_product_attention",
    "sincos_2d",
    "sinusoidal_1d",
]
