"""The `workload` of a plan: request classes, their rates and the spacing of their arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from ...model.arrivals import Arrivals, Poisson, RateSchedule, Renewal
from ...model.lengths import Lengths
from ...model.workload import RequestClass, Workload
from ..traces import Trace
from .lengths import LengthsSection
from .problems import Problems
from .schedule import ScheduleSection
from .section import NonNegative, PositiveRate, Rate, Section, Text, Tokens, TokensOrNone
from .sessions import SessionsSection
from .source import Key

_REPLAY = " = 'replay', must come"
_NO_RATE = "there is no rate_per_s, must be one unless a trace has its own. Give the rate, 1/s."


class RenewalSection(Section):
    """Independent gaps that are not exponential."""

    cv: NonNegative = Field(description="standard deviation over mean of the gaps; above 1 is burstier than Poisson")


class ArrivalsSection(Section):
    """How arrivals are spaced: `poisson`, `replay` (of a trace) or `{renewal: {cv: 2}}`."""

    bare: ClassVar[str] = "process"
    one_of: ClassVar[tuple[str, ...]] = ("process", "renewal")
    process: Literal["poisson", "replay"] | None = Field(default=None, description="a process without parameters")
    renewal: RenewalSection | None = Field(default=None, description="gamma-distributed gaps with a given cv")

    def build(self) -> Arrivals:
        """The process; replay is built from its trace."""
        return Poisson() if self.renewal is None else Renewal(self.renewal.cv)


class ClassSection(Section):
    """Requests of one kind."""

    one_of: ClassVar[tuple[str, ...]] = ("lengths", "sessions")
    name: Text = Field(description="a name of its own")
    rate_per_s: Rate | None = Field(default=None, description="the mean arrival rate, 1/s; a trace's own if omitted")
    lengths: LengthsSection | None = Field(default=None, description="the lengths of prompt and output")
    sessions: SessionsSection | None = Field(default=None, description="the sessions that its requests are turns of")
    value: NonNegative = Field(default=1.0, description="what serving one request is worth")
    max_output_tokens: Tokens | None = Field(
        default=None, description="the output limit that reservation sets aside, tokens"
    )
    cached_prefix_tokens: TokensOrNone = Field(default=0, description="leading prompt tokens found in the prefix cache")


class WorkloadSection(Section):
    """What arrives at the fleet."""

    one_of: ClassVar[tuple[str, ...]] = ("lengths", "sessions", "classes")
    rate_per_s: PositiveRate | None = Field(default=None, description="the mean arrival rate over all classes, 1/s")
    lengths: LengthsSection | None = Field(default=None, description="the lengths of prompt and output, for one class")
    sessions: SessionsSection | None = Field(
        default=None, description="conversations of several turns, for one class; rate_per_s counts turns"
    )
    classes: list[ClassSection] | None = Field(default=None, min_length=1, description="request classes")
    arrivals: ArrivalsSection | None = Field(
        default=None, description="the spacing of arrivals; replay for a trace, poisson for anything else if omitted"
    )
    schedule: ScheduleSection | None = Field(default=None, description="the total rate over time")
    max_output_tokens: Tokens | None = Field(
        default=None, description="the output limit that reservation sets aside, tokens"
    )
    cached_prefix_tokens: TokensOrNone | None = Field(
        default=None, description="leading prompt tokens found in the prefix cache"
    )

    def build(self, problems: Problems, key: Key) -> Workload | None:
        """The workload, or None after noting why there is none."""
        schedule = None
        if self.schedule is not None:
            section = self.schedule
            schedule = problems.attempt((*key, "schedule"), lambda: section.build(problems.source))
            if schedule is None:
                return None
        if self.sessions is not None:
            return self._of_sessions(problems, key, self.sessions, schedule)
        if self.lengths is None:
            return self._of_classes(problems, key, schedule)
        if self.replays:
            return self._replay(problems, key, self.lengths)
        return self._drawn(problems, key, self.lengths, schedule)

    def _of_sessions(
        self, problems: Problems, key: Key, section: SessionsSection, schedule: RateSchedule | None
    ) -> Workload | None:
        if self.arrivals is not None and self.arrivals.process == "replay":
            problems.note((*key, "arrivals"), f"{_REPLAY} with lengths of a trace, not with sessions. Use poisson.")
        if self.cached_prefix_tokens is not None:
            what = f" = {self.cached_prefix_tokens}, must be absent with sessions, whose hits follow from the cache. Remove it."
            problems.note((*key, "cached_prefix_tokens"), what)
        rate = self.rate_per_s if schedule is None else self._at_rate(schedule)
        if rate is None:
            problems.note(key, _NO_RATE)
            return None
        sessions = problems.attempt((*key, "sessions"), section.build)
        if sessions is None:
            return None
        limit = self.max_output_tokens

        def workload() -> Workload:
            item = RequestClass("sessions", rate, sessions.lengths, max_output_tokens=limit, sessions=sessions)
            return Workload([item], self._process())

        return problems.attempt(key, workload)

    @property
    def replays(self) -> bool:
        """Whether the arrivals of a trace are replayed: unless the plan says how they are spaced or how often they come."""
        if self.arrivals is not None:
            return self.arrivals.process == "replay"
        return self.lengths is not None and self.lengths.trace is not None and self.schedule is None

    def _replay(self, problems: Problems, key: Key, lengths: LengthsSection) -> Workload | None:
        if lengths.trace is None:
            problems.note(
                (*key, "arrivals"), f"{_REPLAY} with lengths of a trace. Use poisson, or lengths: {{trace: FILE}}."
            )
            return None
        if self.schedule is not None:
            problems.note(
                (*key, "arrivals"), f"{_REPLAY} without a schedule: the trace has its times. Remove one of them."
            )
            return None
        trace = problems.attempt((*key, "lengths"), lambda: lengths.read_trace(problems.source))
        return None if trace is None else problems.attempt(key, lambda: self._replayed(trace, lengths.prefix_hits))

    def _replayed(self, trace: Trace, prefix_hits: bool) -> Workload:
        workload = trace.workload(prefix_hits=prefix_hits)
        if self.rate_per_s is not None:
            workload = workload.scaled(rate_per_s=self.rate_per_s)
        return Workload([self._limited(workload.classes[0])], workload.arrivals)

    def _drawn(
        self, problems: Problems, key: Key, section: LengthsSection, schedule: RateSchedule | None
    ) -> Workload | None:
        given = self.rate_per_s if schedule is None else schedule.mean_per_s
        drawn = problems.attempt((*key, "lengths"), lambda: section.build(problems.source, given))
        if drawn is None:
            return None
        lengths, own_rate = drawn
        rate = own_rate if schedule is None else self._at_rate(schedule)
        if rate is None:
            problems.note(key, _NO_RATE)
            return None
        return problems.attempt(
            key, lambda: Workload([self._limited(RequestClass("requests", rate, lengths))], self._process())
        )

    def _of_classes(self, problems: Problems, key: Key, schedule: RateSchedule | None) -> Workload | None:
        sections = self.classes
        assert sections is not None
        for name in ("max_output_tokens", "cached_prefix_tokens"):
            if getattr(self, name) is not None:
                problems.note(
                    (*key, name), f" = {getattr(self, name)}, must stand in a class. Move it into the classes."
                )
        if self.arrivals is not None and self.arrivals.process == "replay":
            problems.note((*key, "arrivals"), f"{_REPLAY} with lengths of a trace, not with classes. Use poisson.")
        classes = [_class(item, problems, (*key, "classes", index)) for index, item in enumerate(sections)]
        built = [item for item in classes if item is not None]
        if len(built) < len(sections):
            return None
        return problems.attempt((*key, "classes"), lambda: self._mixed(built, schedule))

    def _mixed(self, classes: Sequence[RequestClass], schedule: RateSchedule | None) -> Workload:
        workload = Workload(classes, self._process())
        if self.rate_per_s is not None:
            workload = workload.scaled(rate_per_s=self.rate_per_s)
        if schedule is None:
            return workload
        schedule = self._at_rate(schedule)
        total = workload.rate_per_s
        parts = [item.with_rate(schedule.scaled(item.mean_rate_per_s / total)) for item in workload.classes]
        return Workload(parts, workload.arrivals)

    def _at_rate(self, schedule: RateSchedule) -> RateSchedule:
        """The schedule with the plan's mean rate, if it gives one."""
        return schedule if self.rate_per_s is None else schedule.scaled(self.rate_per_s / schedule.mean_per_s)

    def _process(self) -> Arrivals:
        return Poisson() if self.arrivals is None else self.arrivals.build()

    def _limited(self, item: RequestClass) -> RequestClass:
        return replace(
            item, max_output_tokens=self.max_output_tokens, cached_prefix_tokens=self.cached_prefix_tokens or 0
        )


def _class(section: ClassSection, problems: Problems, key: Key) -> RequestClass | None:
    sessions, rate = None, section.rate_per_s
    if section.sessions is not None:
        sessions = problems.attempt((*key, "sessions"), section.sessions.build)
        if sessions is None:
            return None
        lengths: Lengths = sessions.lengths
    else:
        of = section.lengths
        assert of is not None
        drawn = problems.attempt((*key, "lengths"), lambda: of.build(problems.source, section.rate_per_s))
        if drawn is None:
            return None
        lengths, rate = drawn
    if rate is None:
        problems.note(key, _NO_RATE)
        return None
    return problems.attempt(
        key,
        lambda: RequestClass(
            section.name,
            rate,
            lengths,
            value=section.value,
            max_output_tokens=section.max_output_tokens,
            cached_prefix_tokens=section.cached_prefix_tokens,
            sessions=sessions,
        ),
    )
