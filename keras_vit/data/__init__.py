"""Where images come from, and how they become batches."""

from keras_vit.data.arrays import from_arrays, from_datasets
from keras_vit.data.pipeline import ImageData, ImageSource
from keras_vit.data.sources import find_source, load_data

__all__ = [
    "ImageData",
    "ImageSource",
    "find_source",
    "from_arrays",
    "from_datasets",
    "load_data",
]
