"""What GPUs make of a `.tflite`: 16-bit floats, shapes that they misread, a trial."""
