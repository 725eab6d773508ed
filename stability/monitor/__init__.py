"""Watching a server through its metrics: current load, headroom, verdict, time to overflow."""
