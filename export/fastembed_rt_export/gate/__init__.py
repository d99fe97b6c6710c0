"""The parity gate: token ids and vectors beside the reference's, what is refused, the report."""
