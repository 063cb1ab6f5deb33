"""What becomes of a finished run: export, engine, validation, profile, and what there is to show."""
