"""Where the points of a sweep are computed: processes here, a Dask or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import joblib

from ..errors import InputError, check_choice

BACKENDS = ("loky", "dask", "ray")


@contextmanager
def backend(name: str, *, address: str | None = None, jobs: int = -1) -> Iterator[None]:
    """Send joblib's work to `name` inside a `with` block.

    A short form of what the three offer: with `joblib.parallel_config` and a client of your own everything else is open, too.

    Parameters
    ----------
    name : {"loky", "dask", "ray"}
        Processes on this machine, a Dask cluster, a Ray cluster.
    address : str, optional
        Of a running cluster: "tcp://host:8786" for Dask, "host:6379" or "auto" for Ray. Without it a local one is started.
    jobs : int
        Points computed at a time; -1 for as many as there are processors.

    Raises
    ------
    InputError
        If the package behind `name` is not installed, `address` is given for processes, or nothing answers there.
    """
    check_choice("backend", name, BACKENDS)
    if name == "loky":
        if address is not None:
            raise InputError(f"address = {address!r}, must be left out with loky. Choose the backend dask or ray.")
        with joblib.parallel_config(backend="loky", n_jobs=jobs):
            yield
    elif name == "dask":
        with _dask(address, jobs):
            yield
    else:
        with _ray(address, jobs):
            yield


@contextmanager
def _dask(address: str | None, jobs: int) -> Iterator[None]:
    try:
        from dask.distributed import Client
    except ModuleNotFoundError:
        raise _missing("dask") from None
    if address is None:
        local = {"n_workers": joblib.effective_n_jobs(jobs), "threads_per_worker": 1, "dashboard_address": None}
        client = Client(**local)
    else:
        try:
            client = Client(address)
        except OSError as error:
            raise _unreachable(address, error) from None
    with client, joblib.parallel_config(backend="dask", n_jobs=jobs):
        yield


@contextmanager
def _ray(address: str | None, jobs: int) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ModuleNotFoundError:
        raise _missing("ray") from None
    ours = not ray.is_initialized()
    if ours and address is None:
        ray.init(address="local", num_cpus=joblib.effective_n_jobs(jobs), log_to_driver=False)
    elif ours:
        try:
            ray.init(address=address, log_to_driver=False)
        except OSError as error:
            raise _unreachable(address, error) from None
    register_ray()
    try:
        with joblib.parallel_config(backend="ray", n_jobs=jobs):
            yield
    finally:
        if ours:
            ray.shutdown()


def _missing(name: str) -> InputError:
    return InputError(
        f"backend = {name!r}, but {name} is not installed. Run `pip install 'llm-stability[{name}]'`, or choose loky."
    )


def _unreachable(address: str | None, error: OSError) -> InputError:
    return InputError(
        f"address = {address!r} cannot be reached ({type(error).__name__}), must be of a running cluster that lets this "
        "machine in. Check the address, and the cluster's own means of authentication."
    )
