"""The folder of a training run: settings, checkpoints, figures."""
