"""One conversation through two renderers: the native one, and the one that transformers has."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundary import c_api


@dataclass(frozen=True)
class Outcome:
    """A text, or the error instead of it."""

    text: str | None
    error: str = ""

    @property
    def is_unsupported(self) -> bool:
        return self.error.startswith("DGRT_UNSUPPORTED")


def native(folder: Path, template: str | bytes, conversation: dict[str, Any] | bytes) -> Outcome:
    """Renders with libdgrt.

    Args:
        folder: Gets the template as its chat_template.jinja.
        template: The Jinja text.
        conversation: What dgrt_chat_template_render takes.
    """
    content = template if isinstance(template, bytes) else template.encode()
    (folder / "chat_template.jinja").write_bytes(content)
    try:
        with closing(_Closing(folder)) as chat:
            return Outcome(chat.render(conversation))
    except c_api.Failure as failure:
        return Outcome(None, str(failure))


class _Closing(c_api.ChatTemplate):
    def close(self) -> None:
        self.destroy()


def reference(template: str, conversation: dict[str, Any]) -> Outcome:
    """Renders with transformers' own function, after what `apply_chat_template` does before it calls that."""
    from transformers.utils.chat_template_utils import render_jinja_template

    given = json.loads(json.dumps(conversation))  # the renderer changes what it gets
    messages = [{key: value for key, value in turn.items() if value is not None} for turn in given.pop("messages")]
    if given.get("continue_final_message") and given.get("add_generation_prompt"):
        return Outcome(None, "ValueError: continue_final_message and add_generation_prompt are not compatible")
    try:
        texts, _ = render_jinja_template([messages], chat_template=template, **given)
    except Exception as error:  # a template may fail in any way
        return Outcome(None, f"{type(error).__name__}: {error}")
    return Outcome(texts[0])
