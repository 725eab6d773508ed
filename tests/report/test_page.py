"""The page: well-formed, complete, of one piece, safe, the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

import stability as st
from stability.report.svg import inline_svg, themed

VOID = {"meta", "link", "br", "img", "input", "hr"}
NASTY = "a <b>&\"' $x$"


class Checker(HTMLParser):
    """Every element closed in order, ids once, references that lead somewhere, nothing fetched."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert name not in ("src", "srcset", "onload", "onclick"), (tag, name)
            assert value is None or "://" not in value, (tag, name, value)
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                assert value is not None
                assert value.startswith("#"), value
                self.references.append(value[1:])
            if name == "aria-labelledby":
                self.references += (value or "").split()
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.stack
    assert len(checker.ids) == len(set(checker.ids))
    assert set(checker.references) <= set(checker.ids)
    return checker


def small(name: str, *, admission: str = "prompt_gate", kv: int = 20_000) -> st.Fleet:
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-5, per_kv_token_s=1e-7)
    engine = st.Engine(max_num_seqs=64, max_num_batched_tokens=512, admission=admission)
    return st.Fleet([st.Pool(name, st.Replica(iteration=law, kv_capacity_tokens=kv, engine=engine), 2)])


LENGTHS = st.lengths.Independent(st.lengths.Uniform(10, 600), st.lengths.Uniform(10, 400))


def made() -> str:
    targets = st.Targets(itl_s=0.05, ttft_p99_s=2.0, headroom=0.1)
    workload = st.Workload.poisson(5.0, LENGTHS)
    return st.html_report(
        small(NASTY), workload, targets=targets, title=NASTY, plan_text=f"pool: {NASTY}", notes=[NASTY], command=NASTY
    )


@pytest.fixture(scope="module")
def page() -> str:
    return made()


def test_the_page_is_well_formed_and_fetches_nothing(page: str) -> None:
    found = parsed(page)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert "http" not in re.sub(r"arXiv \S+", "", page)
    assert "@import" not in page


def test_headings_figures_and_tables_are_labelled(page: str) -> None:
    found = parsed(page)
    assert found.tags.count("h1") == 1
    assert found.tags.count("svg") == found.tags.count("figure") == found.tags.count("desc") == 6
    titles = re.findall(r"<svg[^>]*>\s*<title id=\"[\w-]+\">([^<]+)</title>\s*<desc id=\"[\w-]+\">([^<]+)</desc>", page)
    assert [title.split(",")[0] for title, _ in titles] == [
        "Load of each resource",
        "Rate against capacity",
        "Latency against rate",
        "KV cache against rate",
        "What one change does to capacity",
        "Capacity against headroom",
    ]
    assert all(len(text) > 20 for _, text in titles)
    assert page.count('role="img"') == 6
    assert page.count("<th scope=") == len(re.findall("<th[ >]", page))  # a reader of cells hears their column


def test_text_of_users_stays_text(page: str) -> None:
    found = parsed(page)
    assert "b" in found.tags  # of the captions
    assert "<b>&" not in page
    assert sum(NASTY in text for text in found.texts) >= 6  # title, heading, note, plan, command, tables, labels


def test_the_page_follows_light_and_dark(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    svg = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert "#000000" not in svg
    assert "#ffffff" not in svg
    assert "currentColor" in svg


def test_the_same_arguments_give_the_same_page(page: str) -> None:
    assert made() == page
    assert not re.search(r"20\d\d-\d\d-\d\d", page)
    assert "</span> STABLE</p>" in page


@pytest.mark.parametrize(
    ("rate", "targets", "word", "code"),
    [
        (5.0, st.Targets(itl_s=0.001), "STABLE, 1 target missed", 1),
        (60.0, None, "UNSTABLE", 1),
    ],
)
def test_the_banner_says_the_answer(rate: float, targets: st.Targets | None, word: str, code: int) -> None:
    workload = st.Workload.poisson(rate, LENGTHS)
    found = st.html_report(small("a", admission="reserve"), workload, targets=targets)
    assert f"</span> {word}</p>" in found
    assert f"Exit code {code}: " in found
    assert found.count("<svg") == 5  # reservation keeps nothing free: no picture of headroom


def test_a_schedule_shows_its_peak() -> None:
    schedule = st.RateSchedule([0.0, 3600.0], [2.0, 6.0], end_s=7200.0)
    workload = st.Workload([st.RequestClass("a", rate_per_s=schedule, lengths=LENGTHS)])
    found = st.html_report(small("a"), workload)
    parsed(found)
    assert "Load of each resource at the peak" in found
    assert "peak 6 req/s" in found


def test_a_large_fleet_shows_its_most_loaded_pools() -> None:
    pool = small("a").pools[0]
    fleet = st.Fleet([st.Pool(f"pool {i}", pool.replica, 1, weight=float(i + 1)) for i in range(12)])
    found = st.html_report(fleet, st.Workload.poisson(5.0, LENGTHS))
    assert "The 8 most loaded of 12 pools." in found
    assert "pool 0: " not in found.partition("<h2>Tables")[0]


def test_colours_follow_the_page() -> None:
    assert [themed(c) for c in ("#000000", "#111111", "#ffffff", "#999999", "#d55e00")] == [
        "currentColor",
        "currentColor",
        "var(--paper)",
        "#999999",
        "#d55e00",
    ]


def test_ids_of_two_figures_differ() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2], marker="o")
    both = "".join(inline_svg(figure, key=key, title="t", text="x") for key in ("a", "b"))
    parsed(both)


def test_bars_without_a_labelled_limit_have_no_legend() -> None:
    """Matplotlib warns of a legend of nothing; of sessions, too, the page is drawn without a word."""
    law = st.IterationTime(base_s=0.02, per_prefill_token_s=1e-4)
    engine = st.Engine(prefix_caching=True)
    fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=120_000, engine=engine))
    chat = st.Sessions(st.lengths.Constant(4), st.lengths.Constant(300), st.lengths.Constant(50), think_s=20)
    assert "<svg" in st.html_report(fleet, st.Workload.sessions(0.5, chat))
