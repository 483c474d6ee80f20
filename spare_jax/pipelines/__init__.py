"""Pipelines: what each stage reads, asks and writes."""
