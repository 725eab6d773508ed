"""Mean wait in a queue by Ciw. Job: servers, service ("constant" or "exponential", mean 1 s), load, customers, seed."""

import json
import sys

import ciw  # type: ignore[import-not-found]

job = json.load(sys.stdin)
service = ciw.dists.Deterministic(1.0) if job["service"] == "constant" else ciw.dists.Exponential(1.0)
network = ciw.create_network(
    arrival_distributions=[ciw.dists.Exponential(job["load"] * job["servers"])],
    service_distributions=[service],
    number_of_servers=[job["servers"]],
)
ciw.seed(job["seed"])
simulation = ciw.Simulation(network)
simulation.simulate_until_max_customers(job["customers"])
waits = [record.waiting_time for record in sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)]
warm = waits[len(waits) // 20 :]
json.dump({"wait_mean_s": sum(warm) / len(warm)}, sys.stdout)
