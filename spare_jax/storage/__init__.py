"""What lies on disk: files that are whole or not there, and the work directory."""
