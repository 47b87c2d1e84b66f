"""Checks of generation options that look at more than one value, or make plain data of one. Used by `options.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dgrt.errors import InvalidArgument
from dgrt.messages import RESERVED_NAMES
from dgrt.plain import checked_flag, checked_ids, named, plain_data, plain_items, plain_text

if TYPE_CHECKING:
    from dgrt.options import GenerateOptions

LOWEST_TEMPERATURE = 1e-4  # as in csrc/common/sampler_options.h
TEMPLATE_FIELDS = {"tools": None, "thinking": None, "continue_final_message": False, "template_arguments": None}


def check_tier(options: GenerateOptions) -> None:
    """Refuses options that do not go together: each guarantee has its own."""
    guarantee, drafter = options.guarantee, options.drafter
    if guarantee != "exact" and options.pipeline == "on":
        why = "has no commits to foresee" if guarantee == "causal" else "does not compute ahead"
        raise InvalidArgument(f"pipeline 'on' needs guarantee 'exact': guarantee '{guarantee}' {why}")
    if drafter == "overlap" and guarantee != "verified":
        raise InvalidArgument(f"drafter 'overlap' needs guarantee 'verified', got guarantee '{guarantee}'")
    if guarantee == "exact" and drafter not in ("none", "auto"):
        raise InvalidArgument(f"drafter '{drafter}' needs guarantee 'causal' or 'verified', got guarantee 'exact'")
    if guarantee != "causal" and options.temperature is not None:
        raise InvalidArgument(f"temperature needs guarantee 'causal'; guarantee '{guarantee}' has t_min and t_max")
    if options.temperature and options.temperature < LOWEST_TEMPERATURE:
        raise InvalidArgument(
            f"temperature must be 0 or at least {LOWEST_TEMPERATURE:g}, got {options.temperature:g}"
        )
    if guarantee == "causal" and options.trace:
        raise InvalidArgument("trace needs guarantee 'exact': guarantee 'causal' has no denoise steps to record")
    if guarantee != "exact" and options.logprobs:
        raise InvalidArgument("logprobs needs guarantee 'exact'")
    if options.pipeline == "on" and options.logprobs:
        raise InvalidArgument("logprobs needs a commit pass of its own: pipeline must be 'auto' or 'off', got 'on'")


def checked_draft(options: GenerateOptions) -> str | tuple[int, ...]:
    """Returns the draft as text or plain ids, or refuses it."""
    if options.guarantee != "verified":
        raise InvalidArgument(f"draft needs guarantee 'verified', got guarantee '{options.guarantee}'")
    if options.drafter in ("model", "overlap"):
        raise InvalidArgument(
            f"draft needs drafter 'suffix' or 'auto', which copy from it, got drafter '{options.drafter}'"
        )
    given = options.draft
    draft = plain_text("draft", given) if isinstance(given, str) else checked_ids("draft", given)
    if not draft:
        raise InvalidArgument("the draft is empty")
    return draft


def checked_template_fields(options: GenerateOptions) -> dict[str, Any]:
    """Returns what goes to the chat template as plain data, by field."""
    values: dict[str, Any] = {}
    if options.tools is not None:
        values["tools"] = _tools(options.tools)
    if options.thinking is not None:
        values["thinking"] = checked_flag("thinking", options.thinking)
    name = "continue_final_message"
    key = options.continue_final_message
    values[name] = plain_text(name, key) if isinstance(key, str) else checked_flag(name, key)
    if options.template_arguments is not None:
        values["template_arguments"] = _template_arguments(options)
    return values


def _tools(values: Any) -> tuple[Mapping[str, Any], ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidArgument(f"tools must be a list of JSON schemas, got {named(values)}")
    tools = []
    for index, tool in enumerate(plain_data("tools", plain_items("tools", values))):
        if not isinstance(tool, dict):
            raise InvalidArgument(
                f"tools[{index}] must be a JSON schema (transformers.utils.get_json_schema makes one of a function),"
                f" got {named(tool)}"
            )
        tools.append(tool)
    return tuple(tools)


def _template_arguments(options: GenerateOptions) -> dict[str, Any]:
    values = options.template_arguments
    if not isinstance(values, Mapping):
        raise InvalidArgument(f"template_arguments must be a mapping of names to values, got {named(values)}")
    plain: dict[str, Any] = plain_data("template_arguments", values)
    for name in plain:
        if not isinstance(name, str):
            raise InvalidArgument(f"template_arguments: a name must be a string, got {named(name)}")
        if name in RESERVED_NAMES:
            raise InvalidArgument(f"template_arguments: '{name}' is set by the prompt and by options of its own")
        if name == "enable_thinking" and options.thinking is not None:
            raise InvalidArgument("template_arguments: 'enable_thinking' is what thinking= sets; give one of them")
    documents = plain.get("documents")
    if documents is not None and not (
        isinstance(documents, (list, tuple)) and all(isinstance(one, dict) for one in documents)
    ):
        raise InvalidArgument("template_arguments: 'documents' must be a list of mappings")
    return plain
