"""Our defaults beside what users have elsewhere."""
