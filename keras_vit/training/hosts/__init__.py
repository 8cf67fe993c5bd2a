"""Training on several GPUs and on several hosts."""
