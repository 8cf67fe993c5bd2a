"""A trained model as plain arrays, rewritten exactly, and as a float `.tflite`."""
