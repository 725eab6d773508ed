"""Mean wait in a queue by SimPy. Job: servers, service ("constant" or "exponential", mean 1 s), load, customers, seed."""

import json
import random
import sys
from collections.abc import Iterator

import simpy  # type: ignore[import-not-found]

job = json.load(sys.stdin)
random.seed(job["seed"])
environment = simpy.Environment()
servers = simpy.Resource(environment, capacity=job["servers"])
waits = [0.0] * job["customers"]


def customer(index: int) -> Iterator[simpy.Event]:
    """Wait for a server, then hold it."""
    arrived = environment.now
    with servers.request() as granted:
        yield granted
        waits[index] = environment.now - arrived
        yield environment.timeout(1.0 if job["service"] == "constant" else random.expovariate(1.0))


def arrivals() -> Iterator[simpy.Event]:
    """Poisson arrivals."""
    for index in range(job["customers"]):
        yield environment.timeout(random.expovariate(job["load"] * job["servers"]))
        environment.process(customer(index))


environment.process(arrivals())
environment.run()
warm = waits[len(waits) // 20 :]
json.dump({"wait_mean_s": sum(warm) / len(warm)}, sys.stdout)
