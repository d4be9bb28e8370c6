"""Int8: integer convolutions and matrix products over the processor's dot products."""
