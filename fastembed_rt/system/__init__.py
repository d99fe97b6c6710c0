"""What the operating system gives and asks, without a word of models: threads, paths, unfinished files, a bar."""
