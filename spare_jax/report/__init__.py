"""One self-contained HTML page and its figures."""
