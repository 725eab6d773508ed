"""Queueing theory of continuous batching: what is proved, sufficient or approximate says so by name."""
