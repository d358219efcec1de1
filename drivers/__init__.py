"""The street side: one folder per field protocol, every folder with the same files."""
