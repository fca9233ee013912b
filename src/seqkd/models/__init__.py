"""One package per model: its configuration, its modeling file, and the converter of its authors' checkpoints."""
