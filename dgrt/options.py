"""Options of one generation: a frozen keyword-only dataclass with units and defaults, and its checks.

`Runtime.generate` and `Runtime.stream` build one from their keywords. None in a sampler field means "what the engine's
`generation_config.json` says"; this file knows no model's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from typing import Any, TypedDict, TypeVar

from dgrt.errors import InvalidArgument, nearest
from dgrt.messages import TemplateInput
from dgrt.option_checks import TEMPLATE_FIELDS, check_tier, checked_draft, checked_template_fields
from dgrt.plain import (
    MAX_INT32,
    MAX_INT64,
    checked_flag,
    checked_ids,
    checked_integer,
    checked_number,
    named,
    plain_text,
)

T = TypeVar("T")
MAX_SEED = 2**64 - 1
MAX_REQUEST = 2**24 - 1
MAX_DEADLINE_S = 1e9
MAX_FOLDS = 16
# In the order of the native numbers.
GUARANTEES = ("exact", "causal", "verified")
DRAFTERS = ("none", "suffix", "model", "auto", "overlap")
PIPELINES = ("auto", "off", "on")
PACKINGS = ("auto", "off", "on")
REDRAFTS = ("auto", "off", "on")
SAMPLER_FIELDS = (
    "max_denoising_steps",
    "entropy_bound",
    "t_min",
    "t_max",
    "stability_threshold",
    "confidence_threshold",
    "stop_ids",
)
# Names that other libraries use, and what serves here.
_ELSEWHERE = {
    "max_tokens": "the most tokens of an answer are 'max_new_tokens'",
    "max_completion_tokens": "the most tokens of an answer are 'max_new_tokens'",
    "max_length": "'max_new_tokens' bounds the answer alone, the prompt not counted",
    "stop": "strings are not looked for; 'stop_ids' takes token ids",
    "stop_sequences": "strings are not looked for; 'stop_ids' takes token ids",
    "eos_token_id": "'stop_ids' takes token ids",
    "top_p": "the refinement loop has 'entropy_bound', 't_min' and 't_max' in its place",
    "top_k": "the refinement loop has 'entropy_bound', 't_min' and 't_max' in its place",
    "do_sample": "a seed makes an answer reproducible; guarantee='causal' with temperature=0 takes the likeliest",
    "n": "a request has one answer; submit it with several seeds",
    "num_return_sequences": "a request has one answer; submit it with several seeds",
    "enable_thinking": "it is called 'thinking'",
    "chat_template_kwargs": "variables of the chat template are 'template_arguments'",
    "documents": "they are a variable of the chat template: template_arguments={'documents': [...]}",
    "timeout": "it is called 'deadline_s'",
    "steps": "it is called 'max_denoising_steps'",
}


def _refusing_unknown(kind: str) -> Callable[[type[T]], type[T]]:
    """Makes a dataclass of options refuse an unknown field as `generate` does, with the nearest name."""

    def decorate(cls: type[T]) -> type[T]:
        plain_init: Callable[..., None] = cls.__init__
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]

        @wraps(plain_init)
        def init(self: T, *values: Any, **named_values: Any) -> None:
            reject_unknown(kind, named_values, known)
            plain_init(self, *values, **named_values)

        cls.__init__ = init  # type: ignore[assignment, method-assign]
        return cls

    return decorate


@_refusing_unknown("option of verify")
@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """The checks of guarantee "verified", and what it takes to try a draft.

    Attributes:
        trust: A draft is cut before the first token that its drafter believes less in, given that all before it are
            right; 0 .. 1.
        folds: Leave-out check: so many passes, each with another part of the draft replaced by noise, must answer with
            the draft where they did not see it. 0: off.
        causal_floor: Causal check: the causal pass, which never sees a token that it predicts, may give a drafted token
            at most so many nats less than its favourite. 0: off.
        causal_budget: The same, summed over a draft that is committed as it is, nats.
        min_confirmed: Share of the canvas (up to a drafted stop id) that all checks have to confirm; with less the
            draft is discarded; 0 .. 1.
        one_pass: Whether a draft may be committed as it is. False: it is only where refinement starts from; with both
            checks off that is what transformers does with `generate(decoder_input_ids=draft)`.
        always: Also try drafts that do not look worth the passes.
        expected_steps: Denoise steps of a canvas without a draft, until the request has had one.
        packing: Whether the checks are one pass; it changes the number of passes, never the tokens. "auto": where
            weights, not rows, are what a pass costs; so not on a CPU. "off": each is a pass of its own, and none runs
            that can change nothing any more. "on": one.
        redraft: Whether drafter "model" is asked again after each denoise step of a canvas, now knowing what the step
            found, and its draft checked beside the next step. "auto": where weights, not rows, are what a pass costs;
            so not on a CPU. "off", "on".

    Example:
        >>> VerifyOptions(folds=4).folds
        4
    """

    trust: float = 0.5
    folds: int = 2
    causal_floor: float = 7.0
    causal_budget: float = 24.0
    min_confirmed: float = 0.9
    one_pass: bool = True
    always: bool = False
    expected_steps: float = 8.0
    packing: str = "auto"
    redraft: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "folds", checked_integer("verify.folds", self.folds, 0, MAX_FOLDS))
        for name in ("trust", "causal_floor", "causal_budget", "min_confirmed", "expected_steps"):
            most = 1.0 if name in ("trust", "min_confirmed") else None
            object.__setattr__(self, name, _number(f"verify.{name}", getattr(self, name), most))
        for name, available in (("packing", PACKINGS), ("redraft", REDRAFTS)):
            object.__setattr__(self, name, _one_of(f"verify.{name}", getattr(self, name), available))
        if self.expected_steps < 1:
            raise InvalidArgument(f"verify.expected_steps must be at least 1, got {self.expected_steps}")
        for name in ("one_pass", "always"):
            object.__setattr__(self, name, checked_flag(f"verify.{name}", getattr(self, name)))


@_refusing_unknown("option")
@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What one generation may vary.

    Attributes:
        max_new_tokens: Most tokens to emit, stop id included. None: until a stop id or the end of the context.
        seed: Seed of all noise of this request, 0 .. 2**64 - 1. Same seed, same tokens.
        request: Tells apart requests that share a seed, 0 .. 2**24 - 1.
        guarantee: What the tokens promise. "exact": those of the refinement loop with this seed. "causal": those of
            plain sampling, token by token, from the distribution of the causal pass with this seed; another behaviour
            of the model, and no less exact. "verified": canvases that the model's own stop rule holds for; those of
            "exact" with this seed unless a draft was of use. One that is committed as it is has passed checks that do
            not see what they judge (`verify`); its tokens need not be those of "exact", nor distributed like them.
        drafter: Who proposes tokens that passes may then confirm. With "causal" it changes the number of passes, never
            the tokens. "none". "suffix" (not with "exact"): what followed the same words before, in prompt or output.
            "model" (not with "exact"): the engine's own drafter network, if it was exported with one. "auto": whichever
            of these has paid so far in this request, by counts and never by time, and with care not to be slower than
            "none"; "none" itself with "exact". "overlap" ("verified" only, without `draft`): the next canvas begins
            while the one before is still settling, and goes on from the steps that it has done. Nothing is checked
            then: each canvas that is committed meets the model's own stop rule, or the end of the schedule, behind the
            text before it. Passes fall; on a CPU, where rows are what a pass costs, time does not.
        draft: Of "verified". The output as you expect it: text, which is taken to end there, or token ids, a stop id
            included if it ends there. It is where the first draft comes from, and one more text for the suffix drafter,
            which it implies (or "auto"; not "model", not "overlap").
        verify: Of "verified". The checks and their thresholds.
        pipeline: Of "exact". Whether a denoise step may carry along the commit of its canvas and the first step of the
            next one, for the case that it is the last; it changes the number of passes, never the tokens. "auto": where
            weights, not rows, are what a pass costs; so not on a CPU. "off": the plain loop. "on": wherever it can be.
        logprobs: Of "exact". Also return the log-probability that the model's causal pass gives each token, in
            `GenerateResult.logprobs`; a doubt that refinement had no way to show. Costs the hidden states of the commit
            pass and one vocabulary head per canvas, and a pass for the last canvas.
        temperature: Of "causal". 0: always the most likely token. None: 1, the model's own distribution. (The
            refinement loop has a schedule instead: t_min, t_max.)
        deadline_s: Seconds after which a request that is not finished fails with `DeadlineExceeded`, looked at between
            two passes; counted from the call, time in the queue included. None: none.
        trace: Record every denoise step in `GenerateResult.trace` (about `2 * L * D * 4` bytes per step).
        raw: Take a text prompt as it is, without the chat template (a bos token is still put in front).
        tools: Tools that the model may call, for the chat template: a list of JSON schemas. None: no tools.
        thinking: Whether the model shall think first, for chat templates that know `enable_thinking`. None: as the
            template has it.
        continue_final_message: Let the model go on with the last message in place of opening a new turn. A name, such
            as "reasoning_content": with that part of it. Without it a last message of the assistant is a turn like
            others.
        template_arguments: More variables of the chat template by name, such as `{"documents": [...]}`.
        stop_ids: Tokens that end the output. None: the engine's. (): none.
        max_denoising_steps: Most denoise steps per canvas. None: the engine's.
        entropy_bound: Positions are accepted while the entropy before them is at most this, nats. None: the engine's.
        t_min: Temperature of the schedule at n = 0. None: the engine's.
        t_max: Temperature of the first step of a canvas. None: the engine's.
        stability_threshold: Steps the argmax canvas must stay unchanged before a stop; 0: not asked for.
            None: the engine's.
        confidence_threshold: Mean entropy below which a stable canvas stops, nats. None: the engine's.

    Example:
        >>> GenerateOptions(seed=7).seed
        7
    """

    max_new_tokens: int | None = None
    seed: int = 0
    request: int = 0
    guarantee: str = "exact"
    drafter: str = "none"
    draft: str | tuple[int, ...] | None = None
    verify: VerifyOptions = field(default_factory=VerifyOptions)
    pipeline: str = "auto"
    logprobs: bool = False
    temperature: float | None = None
    deadline_s: float | None = None
    trace: bool = False
    raw: bool = False
    tools: tuple[Mapping[str, Any], ...] | None = None
    thinking: bool | None = None
    continue_final_message: bool | str = False
    template_arguments: Mapping[str, Any] | None = None
    stop_ids: tuple[int, ...] | None = None
    max_denoising_steps: int | None = None
    entropy_bound: float | None = None
    t_min: float | None = None
    t_max: float | None = None
    stability_threshold: int | None = None
    confidence_threshold: float | None = None

    def __post_init__(self) -> None:
        self._check_values()
        check_tier(self)
        if self.draft is not None:
            object.__setattr__(self, "draft", checked_draft(self))
        for name, value in checked_template_fields(self).items():
            object.__setattr__(self, name, value)
        if self.raw and self.template_input:
            given = [name for name, default in TEMPLATE_FIELDS.items() if getattr(self, name) != default]
            raise InvalidArgument(f"{given[0]} is for the chat template, which raw=True leaves out")

    def _check_values(self) -> None:
        """Puts plain Python values in place of what was given, each checked on its own."""
        for name, available in (("guarantee", GUARANTEES), ("drafter", DRAFTERS), ("pipeline", PIPELINES)):
            object.__setattr__(self, name, _one_of(name, getattr(self, name), available))
        for name in ("trace", "raw", "logprobs"):
            object.__setattr__(self, name, checked_flag(name, getattr(self, name)))
        for name, low, high in _INTEGERS:
            if name not in _OPTIONAL or getattr(self, name) is not None:
                object.__setattr__(self, name, checked_integer(name, getattr(self, name), low, high))
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _number(name, getattr(self, name)))
        if self.deadline_s is not None:
            object.__setattr__(self, "deadline_s", _deadline(self.deadline_s))
        if self.stop_ids is not None:
            object.__setattr__(self, "stop_ids", checked_ids("stop_ids", self.stop_ids))
        if not isinstance(self.verify, VerifyOptions):
            raise InvalidArgument(f"verify must be a VerifyOptions, got {named(self.verify)}")

    @property
    def template_input(self) -> TemplateInput:
        """What these options say to the chat template."""
        thinking = {} if self.thinking is None else {"enable_thinking": self.thinking}
        key = "content" if self.continue_final_message is True else self.continue_final_message or None
        return TemplateInput(
            tools=None if self.tools is None else list(self.tools),
            continued=key,
            variables={**thinking, **(self.template_arguments or {})},
        )

    def resolved(self, defaults: Mapping[str, Any]) -> GenerateOptions:
        """Returns a copy in which every None sampler field holds the engine's value; with "causal" the stop ids alone.

        Args:
            defaults: What `Runtime` reports, one entry per name of `SAMPLER_FIELDS`.

        Example:
            >>> GenerateOptions(t_min=0.5).resolved({"t_min": 0.4, "t_max": 0.8}).t_max
            0.8
        """
        used = ("stop_ids",) if self.guarantee == "causal" else SAMPLER_FIELDS
        missing = {n: defaults[n] for n in used if getattr(self, n) is None and n in defaults}
        return replace(self, **missing)


class GenerateKeywords(TypedDict, total=False):
    """The keywords of `Runtime.generate` and `Runtime.stream`: the fields of `GenerateOptions`."""

    max_new_tokens: int | None
    seed: int
    request: int
    guarantee: str
    drafter: str
    draft: str | Iterable[int] | None
    verify: VerifyOptions
    pipeline: str
    logprobs: bool
    temperature: float | None
    deadline_s: float | None
    trace: bool
    raw: bool
    tools: Iterable[Any] | None
    thinking: bool | None
    continue_final_message: bool | str
    template_arguments: Mapping[str, Any] | None
    stop_ids: Iterable[int] | None
    max_denoising_steps: int | None
    entropy_bound: float | None
    t_min: float | None
    t_max: float | None
    stability_threshold: int | None
    confidence_threshold: float | None


def make_options(base: GenerateOptions | None, keywords: Mapping[str, Any]) -> GenerateOptions:
    """Returns `base` (or the defaults) with `keywords` applied.

    Raises:
        InvalidArgument: For an unknown keyword, with the nearest known name, or a value out of range.

    Example:
        >>> make_options(None, {"seed": 3}).seed
        3
    """
    known = [field.name for field in fields(GenerateOptions)]
    reject_unknown("option", keywords, known)
    if base is not None and not isinstance(base, GenerateOptions):
        raise InvalidArgument(f"options must be a GenerateOptions, got {type(base).__name__}")
    options = replace(base or GenerateOptions(), **keywords)
    if options.guarantee == "causal":
        unused = [n for n in SAMPLER_FIELDS if n != "stop_ids" and getattr(options, n) is not None]
        if unused:
            raise InvalidArgument(
                f"{unused[0]} needs guarantee 'exact' or 'verified': guarantee 'causal' has no denoise steps"
            )
    return options


def reject_unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises InvalidArgument for the first of `names` that is not in `known`, suggesting the nearest.

    Example:
        >>> reject_unknown("option", ["seed"], ["seed"])
    """
    known = list(known)
    for name in names:
        if name not in known:
            hint = f": {_ELSEWHERE[name]}" if name in _ELSEWHERE and kind == "option" else nearest(name, known)
            raise InvalidArgument(f"unknown {kind} {named(name)}{hint or f' (known: {_listed(known)})'}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


_INTEGERS: tuple[tuple[str, int, int], ...] = (
    ("max_new_tokens", 1, MAX_INT64),
    ("seed", 0, MAX_SEED),
    ("request", 0, MAX_REQUEST),
    ("max_denoising_steps", 1, MAX_INT32),
    ("stability_threshold", 0, MAX_INT32),
)
_OPTIONAL = ("max_new_tokens", "max_denoising_steps", "stability_threshold")  # of these, those that may be None
_NUMBERS = ("temperature", "entropy_bound", "t_min", "t_max", "confidence_threshold")


def _number(name: str, value: Any, most: float | None = None) -> float:
    number = checked_number(name, value)
    if number < 0:
        raise InvalidArgument(f"{name} must be at least 0, got {number:g}")
    if most is not None and number > most:
        raise InvalidArgument(f"{name} must be at most {most:g}, got {number:g}")
    return number


def _deadline(value: Any) -> float:
    seconds = checked_number("deadline_s", value)
    if not 0 < seconds <= MAX_DEADLINE_S:
        raise InvalidArgument(f"deadline_s must be above 0 and at most {MAX_DEADLINE_S:g}, got {seconds:g}")
    return seconds


def _one_of(name: str, value: Any, available: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be a string, got {named(value)}")
    text = plain_text(name, value)
    if text not in available:
        raise InvalidArgument(
            f"{name} must be one of {', '.join(available)}; got {named(text)}{nearest(text, available)}"
        )
    return text
