"""Strings to token ids: the tokenizer, what counts as a text, streams of texts in bounded pieces."""
