"""How long derivations take: `python benchmarks/symbolic.py`, from the checkout or with the package installed.

All derivations are made in a fresh interpreter each time, import of sympy included; calls of compiled results are timed one by one
with floats. Medians over repetitions; processor time beside wall clock, which a busy machine stretches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import timeit

ALL = """
import time
wall, cpu = time.perf_counter(), time.process_time()
from stability.theory.symbolic import derive_all
count = sum(map(len, derive_all().values()))
print(count, time.perf_counter() - wall, time.process_time() - cpu)
"""


def derive(repeats: int) -> tuple[int, float, float]:
    """Number of derivations, and median wall and processor time of making them all."""
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=True)
        runs.append([float(word) for word in done.stdout.split()])
    count, wall_s, cpu_s = (statistics.median(column) for column in zip(*runs, strict=True))
    return int(count), wall_s, cpu_s


def calls(repeats: int) -> list[tuple[float, float, str]]:
    """Compile and call times of every compiled result at the point 1/2, 3/2, ...; slowest call first."""
    from stability.theory.symbolic import derive_all

    found = []
    for section in derive_all().values():
        for item in section:
            started = time.perf_counter()
            function = item.lambdify()
            compile_s = time.perf_counter() - started
            point = [0.5 + 0.25 * i for i in range(len(item.symbols))]
            try:
                function(*point)
            except (ArithmeticError, ValueError):
                continue  # a pole at this point
            timer = timeit.Timer(lambda f=function, p=point: f(*p))
            number = 200
            best = statistics.median(timer.repeat(repeat=repeats, number=number)) / number
            found.append((best, compile_s, item.title))
    return sorted(found, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each measurement (default 5)")
    repeats: int = parser.parse_args().repeats
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")

    count, wall_s, cpu_s = derive(repeats)
    verdict = "within" if wall_s < 30 else "ABOVE"
    print(f"{count} derivations, import included: {wall_s:.1f} s wall, {cpu_s:.1f} s CPU; budget 30 s: {verdict}")

    found = calls(repeats)
    times = [call_s for call_s, _, _ in found]
    below = sum(call_s < 10e-6 for call_s in times)
    print(f"compiling one result: median {1e3 * statistics.median(c for _, c, _ in found):.1f} ms")
    print(f"calling one result: median {1e6 * statistics.median(times):.2f} us; {below} of {len(times)} below 10 us")
    print("\nslowest calls")
    for call_s, _, title in found[:8]:
        print(f"{1e6 * call_s:>8.2f} us  {title}")


if __name__ == "__main__":
    main()
