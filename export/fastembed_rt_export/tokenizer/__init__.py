"""The tokenizer as transformers makes it, from a checkpoint's files, without transformers."""
