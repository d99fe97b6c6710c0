"""Finished arrays: normalized, compared, stored in fewer bytes, named after what made them."""
