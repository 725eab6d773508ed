"""Decisions as optimisation problems, one a file, each with a certificate."""
