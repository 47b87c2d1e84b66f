"""Turns whatever a caller gives as a prompt into checked token ids.

Text becomes a user turn of the engine's chat template, message lists are rendered by it, ids are taken as they are.
Called by `Runtime`; the native side checks again what needs the session (room in the context).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgrt.errors import DgrtError, DgrtWarning, InvalidArgument
from dgrt.info import EngineInfo
from dgrt.messages import ChatTemplate, Message, TemplateInput
from dgrt.plain import has, is_message, named, plain_items, plain_text
from dgrt.tokenizer import Tokenizer

Prompt = str | Sequence[int] | NDArray[Any] | Sequence[Message]


class PromptEncoder:
    """Encodes prompts for one engine. Any thread.

    Args:
        info: Facts of the engine: vocabulary size and bos id.
        tokenizer: The engine's, or None.
        chat: The engine's chat template, or None.

    Example:
        >>> PromptEncoder(rt.info, rt.tokenizer, None).encode("Hi").dtype
        dtype('int32')
    """

    def __init__(self, info: EngineInfo, tokenizer: Tokenizer | None, chat: ChatTemplate | None) -> None:
        self._info = info
        self._tokenizer = tokenizer
        self._chat = chat
        self._warned = False  # that there is no template

    def encode(self, prompt: Prompt, *, raw: bool = False, given: TemplateInput | None = None) -> NDArray[np.int32]:
        """Returns the ids of a prompt, [n] int32.

        Args:
            prompt: Text, messages (`{"role", "content"}` dicts, dataclasses or pydantic models), or token ids.
            raw: Take text as it is; only a bos token is put in front where the model has one and the text has none.
            given: What the chat template gets beside the prompt.

        Raises:
            InvalidArgument: For an empty prompt, an id outside the vocabulary, text without a tokenizer, text that
                cannot fit into the context, or `raw` or `given` with what no template renders.
        """
        given = given or TemplateInput()
        if isinstance(prompt, str):
            return self._encode_text(plain_text("the prompt", prompt), raw, given)
        if not isinstance(prompt, (Sequence, np.ndarray)) and has(prompt, "__array__"):  # a tensor, a pandas series
            prompt = _array(prompt)
        if isinstance(prompt, (bytes, bytearray, Mapping)) or not isinstance(prompt, (Sequence, np.ndarray)):
            hint = _mapping_hint(prompt) if isinstance(prompt, Mapping) else ""
            kind = type(prompt).__name__
            raise InvalidArgument(
                f"a prompt is a string, a list of messages or a sequence of token ids, got {kind}{hint}"
            )
        if isinstance(prompt, np.ndarray) and prompt.ndim != 1:
            raise InvalidArgument(
                f"token ids must have one dimension, got shape {list(prompt.shape)}; one call takes one prompt"
            )
        try:
            count = len(prompt)
            first = prompt[0] if count else None
        except Exception as error:  # a sequence of the caller's
            raise InvalidArgument(f"the prompt cannot be read: {type(error).__name__}: {error}") from None
        if count == 0:
            raise InvalidArgument("the prompt is empty")
        if isinstance(first, (str, list, tuple, np.ndarray)) and not _is_pair(first):
            kind = "texts" if isinstance(first, str) else "lists"
            raise InvalidArgument(
                f"one call takes one prompt, got a list of {count} {kind}; for several:"
                " [runtime.submit(prompt) for prompt in prompts]"
            )
        if raw:
            raise InvalidArgument(
                "raw=True is for plain text; messages always go through the chat template, token ids never do"
            )
        if is_message(first) or has(first, "role") or _is_pair(first):
            return self._encode_messages(prompt, given)  # type: ignore[arg-type]
        if given:
            raise InvalidArgument("token ids do not go through the chat template; give messages with its options")
        self._check_length("prompt", count)
        return self._check_ids(prompt)

    def encode_draft(self, draft: str | Sequence[int] | None, stop_ids: Sequence[int]) -> list[int]:
        """Returns the ids of an expected output; text gets the stop id that ends a turn behind it.

        Args:
            draft: Text, token ids, or None for none.
            stop_ids: Those of the request.

        Raises:
            InvalidArgument: For an id outside the vocabulary, or text without a tokenizer.

        Example:
            >>> PromptEncoder(rt.info, rt.tokenizer, None).encode_draft([5, 1], ())
            [5, 1]
        """
        if draft is None:
            return []
        if not isinstance(draft, str):
            self._check_length("draft", len(draft))
            return [int(token) for token in self._check_ids(draft)]
        return [*self._tokenize(draft, "draft").tolist(), *self._turn_end(stop_ids)]

    def encode_rendered(self, text: str) -> NDArray[np.int32]:
        """Returns the ids of what the chat template made, [n] int32.

        Raises:
            InvalidArgument: If it cannot fit into the context, or has a token that the model does not know.
        """
        return self._tokenize(text)

    def _turn_end(self, stop_ids: Sequence[int]) -> list[int]:
        """The stop id that the chat template ends a turn with; without one, the first."""
        try:
            turns = self._encode_messages([{"role": "user", "content": "x"}], TemplateInput())
        except DgrtError:  # no template, or one that asks for more
            turns = np.empty(0, np.int32)
        return [int(token) for token in turns if token in stop_ids][-1:] or list(stop_ids[:1])

    def _encode_text(self, text: str, raw: bool, given: TemplateInput) -> NDArray[np.int32]:
        if not text:
            raise InvalidArgument("the prompt is empty")
        if given.continued is not None:
            raise InvalidArgument("continue_final_message is for a list of messages, got a text")
        if not raw and self._chat is not None:
            return self._encode_messages([{"role": "user", "content": text}], given)
        if given:
            raise InvalidArgument("this engine has no chat template; tools, thinking and template_arguments need one")
        ids = self._tokenize(text)
        if not raw:
            self._warn_about_no_template()
        bos = self._info.bos_token_id
        if bos is None or (ids.size and ids[0] == bos):
            return ids
        return np.concatenate([np.array([bos], np.int32), ids])

    def _warn_about_no_template(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "this engine has no chat template: the text goes to the model as it is (raw=True says that it shall)",
                DgrtWarning,
                stacklevel=2,
            )

    def _encode_messages(self, messages: Sequence[Message], given: TemplateInput) -> NDArray[np.int32]:
        self._need_tokenizer()
        if self._chat is None:
            raise InvalidArgument("this engine has no chat template; give plain text or token ids instead of messages")
        return self._tokenize(self._chat.render(messages, given))

    def _check_length(self, what: str, count: int) -> None:
        if count > self._info.context_len:
            raise InvalidArgument(
                f"{what} of {count} tokens leaves no room for one canvas in the context of {self._info.context_len}"
            )

    def _tokenize(self, text: str, what: str = "prompt") -> NDArray[np.int32]:
        tokenizer = self._need_tokenizer()
        ids = np.asarray(tokenizer.encode(text, most=self._info.context_len, what=what), np.int32)
        unknown = np.flatnonzero(ids >= self._info.vocab_size)
        if unknown.size:
            token = int(ids[unknown[0]])
            raise InvalidArgument(
                f"the tokenizer makes token {token} of {tokenizer.text_of(token)!r}, which the model does not have"
                f" (0 .. {self._info.vocab_size - 1}): it was added without resizing the embedding"
            )
        return ids

    def _need_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise InvalidArgument("this engine has no tokenizer; give token ids instead of text")
        return self._tokenizer

    def _check_ids(self, ids: Sequence[Any] | NDArray[Any]) -> NDArray[np.int32]:
        if isinstance(ids, np.ndarray):
            if ids.dtype.kind not in "iu":
                raise InvalidArgument(f"token ids must be integers, got dtype {ids.dtype}")
            outside = np.flatnonzero((ids < 0) | (ids >= self._info.vocab_size))
            if outside.size:
                self._refuse(int(outside[0]), int(ids[outside[0]]))
            return np.ascontiguousarray(ids, dtype=np.int32)
        items = plain_items("token ids", ids)
        return np.array([self._check_id(index, value) for index, value in enumerate(items)], np.int32)

    def _check_id(self, index: int, value: Any) -> int:
        try:
            if isinstance(value, (bool, np.bool_)):
                raise TypeError
            number = operator.index(value)
        except Exception:  # an object of the caller's may raise anything
            raise InvalidArgument(f"token ids must be integers, got {named(value)} at position {index}") from None
        if not 0 <= number < self._info.vocab_size:
            self._refuse(index, number)
        return number

    def _refuse(self, index: int, value: int) -> None:
        raise InvalidArgument(
            f"token id {named(value)} at position {index} is outside the vocabulary (0 .. {self._info.vocab_size - 1})"
        )


def _array(values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except Exception as error:  # such as a tensor on a GPU
        raise InvalidArgument(f"the prompt cannot be read as an array: {type(error).__name__}: {error}") from None


def _mapping_hint(prompt: Mapping[Any, Any]) -> str:
    try:
        has_ids = "input_ids" in prompt
    except Exception:  # a mapping of the caller's
        has_ids = False
    return "; give its 'input_ids'" if has_ids else "; a conversation is a list, also of one message"


def _is_pair(value: Any) -> bool:
    """Whether a value looks like a message that is written as (role, content), which gets an error of its own."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)
