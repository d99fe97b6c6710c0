"""What a checkpoint says: its modules and their settings, limits, routes, the user's word against it."""
