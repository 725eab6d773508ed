"""The nouns: lengths, workloads, step-time laws, engines, replicas, fleets. No algorithms."""
