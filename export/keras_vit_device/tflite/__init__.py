"""What a `.tflite` is and carries: its two ends, its operations, what is behind it."""
