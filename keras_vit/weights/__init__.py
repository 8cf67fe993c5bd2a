"""Published checkpoints -> models, and models -> files that timm reads."""

from keras_vit.weights.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from keras_vit.weights.saving import save_timm

__all__ = ["Checkpoint", "load_checkpoint", "read_checkpoint", "save_timm"]
