"""Training data: reading, layouts, drawn rain, and batches made of them."""
