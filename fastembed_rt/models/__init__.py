"""What users hold: a model directory opened as the class of its task; texts in, vectors or scores out."""
