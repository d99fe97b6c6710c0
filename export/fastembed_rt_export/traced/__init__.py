"""Encoders without a builder: traced by optimum, compared with what was traced."""
