"""Scores tables of queries: one file, a folder of parts, or a folder of parts on a cluster."""
