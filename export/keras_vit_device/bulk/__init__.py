"""A folder of any number of images -> one CSV, on all cores. No TensorFlow.

A run that was stopped or killed goes on where its CSV ends, and the end is the same to
the byte. Rows come in the order of the sorted names; memory does not grow with them.
"""

from keras_vit_device.bulk.folder import Summary, classify_folder
from keras_vit_device.bulk.workers import WorkerDiedError

__all__ = ["Summary", "WorkerDiedError", "classify_folder"]
