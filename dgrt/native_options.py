"""Options of a generation in the form that native code takes: numbers for names, and draft text as ids."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from dgrt.errors import native_module
from dgrt.options import DRAFTERS, GUARANTEES, PACKINGS, PIPELINES, REDRAFTS, GenerateOptions
from dgrt.prompt import PromptEncoder

if TYPE_CHECKING:
    from dgrt import _native


def native_options(runtime: _native.Runtime, options: GenerateOptions, encoder: PromptEncoder) -> _native.Options:
    """Returns resolved options for native code, which checks what needs the engine.

    Args:
        runtime: The engine.
        options: Resolved: without None in the sampler fields that its guarantee uses.
        encoder: Turns a draft into ids.

    Raises:
        InvalidArgument: For a draft that is none, or values that do not go together.
        Unsupported: For a drafter or pipeline that the engine does not have.

    Example:
        >>> type(native_options(rt._handle(), rt.defaults, rt._encoder)).__name__
        'Options'
    """
    verify = asdict(options.verify) | {
        "packing": PACKINGS.index(options.verify.packing), "redraft": REDRAFTS.index(options.verify.redraft),
    }  # fmt: skip
    made: _native.Options = native_module().Options(
        runtime,
        max_new_tokens=-1 if options.max_new_tokens is None else options.max_new_tokens,
        seed=options.seed,
        request=options.request,
        max_denoising_steps=options.max_denoising_steps,
        entropy_bound=options.entropy_bound,
        t_min=options.t_min,
        t_max=options.t_max,
        stability_threshold=options.stability_threshold,
        confidence_threshold=options.confidence_threshold,
        stop_ids=options.stop_ids,
        guarantee=GUARANTEES.index(options.guarantee),
        drafter=DRAFTERS.index(options.drafter),
        pipeline=PIPELINES.index(options.pipeline),
        logprobs=options.logprobs,
        causal_temperature=1.0 if options.temperature is None else options.temperature,
        draft=encoder.encode_draft(options.draft, options.stop_ids or ()),
        **{f"verify_{name}": value for name, value in verify.items()},
        deadline_ms=0.0 if options.deadline_s is None else 1000.0 * options.deadline_s,
    )
    return made
