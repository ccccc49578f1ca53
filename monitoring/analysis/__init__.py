"""What the log is for: drift, quality, comparison of versions. Pure functions; no Ray."""
