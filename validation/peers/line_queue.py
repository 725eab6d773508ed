"""Mean wait in a queue by LINE's mean value analysis. Job: servers, service ("constant" or "exponential", mean 1 s), load."""

import contextlib
import json
import sys

import line_solver as line  # type: ignore[import-not-found]

job = json.load(sys.stdin)
with contextlib.redirect_stdout(sys.stderr):  # the solver reports its progress on standard output
    model = line.Network("queue")
    source, queue, sink = (
        line.Source(model, "source"),
        line.Queue(model, "queue", line.SchedStrategy.FCFS),
        line.Sink(model, "sink"),
    )
    customers = line.OpenClass(model, "customers")
    source.set_arrival(customers, line.Exp(job["load"] * job["servers"]))
    queue.set_service(customers, line.Det(1.0) if job["service"] == "constant" else line.Exp(1.0))
    queue.set_number_of_servers(job["servers"])
    model.link(line.Network.serial_routing(source, queue, sink))
    table = line.SolverMVA(model).avg_table()
response_s = float(table["RespT"].iloc[1])
json.dump({"wait_mean_s": response_s - 1.0}, sys.stdout)
