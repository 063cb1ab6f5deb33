"""Other libraries that searched networks are made known to."""
