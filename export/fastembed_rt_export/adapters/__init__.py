"""LoRA adapters: what they say, the whole checkpoint made of one and its base, the weights of both merged."""
