"""Names to directories: the Hugging Face hub and its cache."""
