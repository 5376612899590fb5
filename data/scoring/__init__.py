"""Score tables of queries: a file, a folder, a cluster."""
