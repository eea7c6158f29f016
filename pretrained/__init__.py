"""The published checkpoints: table, fetcher, reproduction."""
