"""Independent programs as second opinion, each out of process in an environment of its own.

A peer is one script that reads a JSON job from standard input and prints a JSON answer; it imports nothing of this project.
`environment` makes the environments on demand, `compare` sets the answers beside the simulator's.
"""
