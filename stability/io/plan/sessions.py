"""The `sessions` of a workload, or of one of its classes."""

from __future__ import annotations

from pydantic import Field

from ...errors import InputError
from ...model.sessions import Sessions
from .lengths import MarginalSection
from .section import Count, NonNegative, Section, Time, Tokens, TokensOrNone


class SystemPromptsSection(Section):
    """System prompts that sessions share."""

    tokens: TokensOrNone | list[TokensOrNone] = Field(description="the length of all of them, or of each, tokens")
    count: Count = Field(default=1, description="how many there are, if they have one length")
    zipf: NonNegative = Field(default=0.0, description="popularity of the i-th is proportional to i to the minus this")


class SessionsSection(Section):
    """Conversations of several turns; every prompt repeats all that was said before. Rates count turns."""

    turns: MarginalSection = Field(description="the law of the number of turns")
    new_tokens: MarginalSection = Field(description="the law of the user's tokens in a turn")
    output: MarginalSection = Field(description="the law of output lengths")
    think_s: Time = Field(description="the mean time from the completion of a turn to the next, s")
    think_cv: NonNegative = Field(default=1.0, description="its coefficient of variation; 1 is exponential, 0 constant")
    system_prompts: SystemPromptsSection | None = Field(default=None, description="system prompts; none if omitted")
    limit_tokens: Tokens | None = Field(
        default=None, description="a session ends before prompt and longest output would exceed it, tokens"
    )

    def build(self) -> Sessions:
        """The sessions."""
        prompts = self.system_prompts or SystemPromptsSection(tokens=0)
        if isinstance(prompts.tokens, list) and prompts.count not in (1, len(prompts.tokens)):
            raise InputError(
                f"count = {prompts.count} system prompts but {len(prompts.tokens)} lengths in tokens, must be as many. Drop count, or give "
                "tokens one length for all."
            )
        sizes = prompts.tokens if isinstance(prompts.tokens, list) else [prompts.tokens] * prompts.count
        return Sessions(
            self.turns.build(),
            self.new_tokens.build(),
            self.output.build(),
            think_s=self.think_s,
            think_cv=self.think_cv,
            system_prompt_tokens=sizes,
            popularity=prompts.zipf,
            limit_tokens=self.limit_tokens,
        )
