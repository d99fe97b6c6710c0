"""The calls of other libraries on our models: change an import, keep the program."""
