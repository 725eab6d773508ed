"""`stability watch`: the bundled recording, files, a server over HTTP, and what cannot be watched."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stability.errors import InputError
from stability.io.metrics.endpoint import Endpoint
from stability.monitor.live import live
from stability.monitor.watch import Watch


def page(second: int, *, overloaded: bool = True) -> str:
    waiting = 20 * second if overloaded else 0
    return (
        f'vllm:num_requests_running{{engine="0",model_name="m"}} 8.0\nvllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}.0\n'
        f'vllm:request_success_total{{engine="0",finished_reason="stop",model_name="m"}} {2 * second}.0\n'
        f'vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.5\n'
    )


class Server:
    """A /metrics page that moves on by a second with each request; some requests fail."""

    def __init__(self) -> None:
        self.requests = 0
        self.failing: set[int] = set()
        self.overloaded = True
        self.pages: dict[int, str] = {}
        """Pages shown instead, by request."""
        self.counting = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = outer.requests
                outer.requests += 1
                code = 503 if number in outer.failing else (404 if self.path != "/metrics" else 200)
                text = outer.pages.get(number, page(number, overloaded=outer.overloaded))
                if not outer.counting:
                    text = "".join(line for line in text.splitlines(keepends=True) if "success" not in line)
                body = text.encode() if code == 200 else b""
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.http.shutdown()
    found.http.server_close()
    thread.join()


class Clock:
    """Time that passes only when someone waits."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The command waits in this clock's time."""
    found = Clock()
    monkeypatch.setattr(live, "__kwdefaults__", live.__kwdefaults__ | {"clock": found, "pause": found.pause})
    monkeypatch.setattr(Endpoint.__init__, "__kwdefaults__", Endpoint.__init__.__kwdefaults__ | {"pause": found.pause})
    return found


def test_the_bundled_recording_is_overloaded(cli) -> None:
    found = cli("watch")
    assert found.code == 1
    assert "overload called" in found.out
    assert "UNSTABLE" in found.out
    assert len(found.out.splitlines()) < 60


def test_the_bundled_recording_as_json(cli) -> None:
    found = cli("watch", "--json", "--queue-limit", 500)
    assert found.code == 1
    assert found.json["schema"] == "stability/watch/1"
    # The rate doubles after 300 s, to 1.6 of the capacity.
    assert 300 < found.json["overloads"][0]["called_s"] - found.json["begun_s"] < 450
    assert len(found.json["points"]) == found.json["scrapes"] == 91


def test_a_capacity_calls_it_earlier(cli) -> None:
    alone = cli("watch", "--json").json["overloads"][0]
    known = cli("watch", "--json", "--capacity", "4.6/s").json["overloads"][0]
    assert known["test"] == "arrivals"
    assert known["called_s"] < alone["called_s"]


def test_a_file_and_a_picture(cli, tmp_path: Path) -> None:
    file = tmp_path / "recording.prom"
    file.write_text("".join(f"# scrape {100 + k}\n{page(k)}" for k in range(12)))
    found = cli("watch", file, "--queue-limit", 1000, "--plot", tmp_path / "watch.png")
    assert found.code == 1
    assert "queue limit in 39 s" in found.out
    assert (tmp_path / "watch.png").stat().st_size > 5000


def test_undetermined_is_3(cli, tmp_path: Path) -> None:
    file = tmp_path / "recording.prom"
    file.write_text(page(0, overloaded=False) + page(1, overloaded=False))
    assert cli("watch", file, "--interval", "5s").code == 3


def test_a_plan_gives_capacity_and_says_how_many_replicas(cli, tmp_path: Path) -> None:
    from stability.io.plan import example_text

    plan = tmp_path / "plan.yaml"
    plan.write_text(example_text())
    file = tmp_path / "recording.prom"
    file.write_text("".join(f"# scrape {100 + k}\n{page(k)}" for k in range(4)))
    assert "1 of 8 replicas" in cli("watch", file, "--plan", plan).out
    found = cli("watch", file, "--plan", plan, "--replicas", 8)
    assert "of 8 replicas" not in found.out


def test_a_server_over_http(cli, server: Server, clock: Clock) -> None:
    found = cli("watch", server.address, "--for", "30s", "--interval", "2s", "--queue-limit", 1000)
    assert found.code == 1
    assert server.requests == 16
    lines = found.out.splitlines()
    assert lines[0].split()[:3] == ["time", "running", "waiting"]
    assert lines[1].startswith("0 s")
    assert "overload called" in found.out


def test_a_server_as_json_lines_until_the_first_call(cli, server: Server, clock: Clock) -> None:
    found = cli("watch", server.address, "--for", "60s", "--json", "--stop")
    lines = [json.loads(line) for line in found.out.splitlines()]
    assert lines[-1]["schema"] == "stability/watch/1"
    assert [line["verdict"] for line in lines[:-1]].count("unstable") == 1
    assert lines[-2]["verdict"] == "unstable"


def test_a_stable_server_is_undetermined_at_first(cli, server: Server, clock: Clock) -> None:
    server.overloaded = False
    assert cli("watch", server.address, "--for", "30s").code == 3


def test_scrapes_that_fail_are_tried_again_or_missed(cli, server: Server, clock: Clock) -> None:
    server.failing = {1, 4, 5, 6}
    found = cli("watch", server.address, "--for", "30s")
    assert found.code == 1
    assert found.err.count("missed: ") == 1
    assert "HTTP 503" in found.err


def test_a_server_that_stays_away_ends_the_watch(cli, server: Server, clock: Clock) -> None:
    server.failing = set(range(3, 1000))
    found = cli("watch", server.address, "--retries", 0)
    assert found.code == 2
    assert found.err.count("missed: ") == 4
    assert found.err.splitlines()[-1].startswith(f"error: {server.address}/metrics does not answer (HTTP 503)")


@pytest.mark.parametrize("text", ["", "<html>maintenance</html>", "vllm:kv_cache_usage_perc 0.5\n", "up 1\n"])
def test_a_page_without_the_metrics_is_missed(cli, server: Server, clock: Clock, text: str) -> None:
    server.pages = {3: text, 4: text}
    found = cli("watch", server.address, "--for", "30s")
    assert found.code == 1
    assert found.err.count("missed: ") == 2
    server.requests, server.pages = 0, dict.fromkeys(range(2, 99), text)
    assert cli("watch", server.address, "--for", "60s").code == 2
    server.requests, server.pages = 0, {0: text}
    assert cli("watch", server.address, "--for", "60s").code == 2


def test_a_server_that_does_not_count_ended_requests_is_refused(cli, server: Server, clock: Clock) -> None:
    """As a recording of it is; only SGLang shows the counter no sooner than a request has ended, so it is waited for."""
    server.counting = False
    found = cli("watch", server.address)
    assert found.code == 2
    assert "has no counter of ended requests" in found.err.splitlines()[-1]
    assert "unstable" not in found.out.lower()
    assert server.requests == 12


def test_interruption_prints_what_was_seen(cli, server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = 0

    def interrupted(seconds: float) -> None:
        nonlocal waits
        waits += 1
        clock.pause(seconds)
        if waits == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(live, "__kwdefaults__", live.__kwdefaults__ | {"pause": interrupted})
    found = cli("watch", server.address)
    assert found.code == 130
    assert "10 scrapes" in found.out
    assert "UNSTABLE" in found.out


def test_a_reader_that_has_seen_enough_ends_the_watch(server: Server, root: Path) -> None:
    """As under `stability watch ADDRESS | head -3`; the verdict so far is the exit code."""
    command = [sys.executable, "-c", "from stability.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "watch", server.address, "--interval", "0.05"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(3):
        assert process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait() in (1, 3), errors) == (True, b"")


def test_an_unreachable_server_is_one_sentence(cli) -> None:
    message = cli("watch", "http://127.0.0.1:9/metrics", "--retries", 0).error()
    assert message.startswith("http://127.0.0.1:9/metrics does not answer (")
    assert "must be a reachable /metrics page" in message


def test_a_page_that_is_no_metrics(cli, server: Server) -> None:
    message = cli("watch", f"{server.address}/other").error()
    assert "HTTP 404" in message
    assert server.requests == 1, "a page that is not there is not asked for again"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.prom",), "absent.prom does not exist"),
        (("--plan", "plan.yaml", "--capacity", "3"), "both given"),
        (("--replicas", "2"), "--replicas is given without --plan"),
        (("--for", "3s"), "--for and --stop are for a server"),
        (("--label", "engine"), "--label = 'engine'"),
        (("--label", "engine=9"), "no series with labels"),
        (("--interval", "soon"), "--interval = 'soon'"),
        (("--capacity", "0"), "--capacity = 0.0"),
        (("--alpha", "0.9"), "alpha = 0.9"),
        (("--queue-limit", "-3"), "queue_limit = -3"),
    ],
)
def test_bad_input(cli, arguments: tuple[str, ...], message: str) -> None:
    assert message in cli("watch", *arguments).error()


def test_address_without_a_path_means_metrics() -> None:
    assert Endpoint("http://host:8000").address == "http://host:8000/metrics"
    assert Endpoint("http://host:8000/").address == "http://host:8000/metrics"
    assert Endpoint("http://host/v1/metrics").address == "http://host/v1/metrics"


def test_live_needs_a_first_scrape(server: Server, clock: Clock) -> None:
    server.failing = set(range(10))
    endpoint = Endpoint(server.address, retries=1)
    with pytest.raises(InputError, match="does not answer"):
        next(live(endpoint, Watch("server"), interval_s=1.0))
    assert server.requests == 2


def test_live_and_recorded_say_the_same(
    server: Server, clock: Clock, tmp_path: Path, cli: Callable[..., object]
) -> None:
    seen = Watch("server")
    points = list(live(Endpoint(server.address), seen, interval_s=1.0, for_s=11.0))
    file = tmp_path / "recording.prom"
    file.write_text("".join(f"# scrape {1_700_000_000 + k}\n{page(k)}" for k in range(12)))
    recorded = cli("watch", file, "--json").json
    assert [json.dumps(point.to_dict()) for point in points] == [json.dumps(point) for point in recorded["points"]]
