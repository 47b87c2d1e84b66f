"""Turns whatever a caller gives as a prompt into checked token ids.

Text becomes a user turn of the engine's chat template, message lists are rendered by it, ids are taken as they are.
Called by `Runtime`; the native side checks again what needs the session (room in the context).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgrt.errors import InvalidArgument
from dgrt.info import EngineInfo
from dgrt.messages import ChatTemplate, Message
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

    def encode(self, prompt: Prompt, *, raw: bool = False) -> NDArray[np.int32]:
        """Returns the ids of a prompt, [n] int32.

        Args:
            prompt: Text, messages (`{"role", "content"}` dicts), or token ids.
            raw: Take text as it is; only a bos token is put in front where the model has one and the text has none.

        Raises:
            InvalidArgument: For an empty prompt, an id outside the vocabulary, text without a tokenizer, or `raw` with
                anything but text.
        """
        if isinstance(prompt, str):
            return self._encode_text(prompt, raw)
        if isinstance(prompt, (bytes, bytearray, Mapping)) or not isinstance(prompt, (Sequence, np.ndarray)):
            raise InvalidArgument(
                f"a prompt is a string, a list of messages or a sequence of token ids, got {type(prompt).__name__}"
            )
        if len(prompt) == 0:
            raise InvalidArgument("the prompt is empty")
        if raw:
            raise InvalidArgument(
                "raw=True is for plain text; messages always go through the chat template, token ids never do"
            )
        if isinstance(prompt[0], Mapping):
            return self._encode_messages(prompt)  # type: ignore[arg-type]
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
            return [int(token) for token in self._check_ids(draft)]
        return [*self._need_tokenizer().encode(draft), *self._turn_end(stop_ids)]

    def _turn_end(self, stop_ids: Sequence[int]) -> list[int]:
        """The stop id that the chat template ends a turn with; without one, the first."""
        if self._chat is None:
            return list(stop_ids[:1])
        turns = self._encode_messages([{"role": "user", "content": "x"}])
        return [int(token) for token in turns if token in stop_ids][-1:] or list(stop_ids[:1])

    def _encode_text(self, text: str, raw: bool) -> NDArray[np.int32]:
        if not text:
            raise InvalidArgument("the prompt is empty")
        if not raw and self._chat is not None:
            return self._encode_messages([{"role": "user", "content": text}])
        ids = self._need_tokenizer().encode(text)
        bos = self._info.bos_token_id
        if bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        return np.asarray(ids, np.int32)

    def _encode_messages(self, messages: Sequence[Message]) -> NDArray[np.int32]:
        tokenizer = self._need_tokenizer()
        if self._chat is None:
            raise InvalidArgument("this engine has no chat template; give plain text or token ids instead of messages")
        return np.asarray(tokenizer.encode(self._chat.render(messages)), np.int32)

    def _need_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise InvalidArgument("this engine has no tokenizer; give token ids instead of text")
        return self._tokenizer

    def _check_ids(self, ids: Sequence[Any] | NDArray[Any]) -> NDArray[np.int32]:
        if isinstance(ids, np.ndarray):
            if ids.ndim != 1:
                raise InvalidArgument(f"token ids must have one dimension, got shape {list(ids.shape)}")
            if ids.dtype.kind not in "iu":
                raise InvalidArgument(f"token ids must be integers, got dtype {ids.dtype}")
            outside = np.flatnonzero((ids < 0) | (ids >= self._info.vocab_size))
            if outside.size:
                self._refuse(int(outside[0]), int(ids[outside[0]]))
            return np.ascontiguousarray(ids, dtype=np.int32)
        checked = np.empty(len(ids), np.int32)
        for index, value in enumerate(ids):
            checked[index] = self._check_id(index, value)
        return checked

    def _check_id(self, index: int, value: Any) -> int:
        if isinstance(value, (bool, np.bool_)):
            raise InvalidArgument(f"token ids must be integers, got {value!r} at position {index}")
        try:
            number = operator.index(value)
        except TypeError:
            raise InvalidArgument(f"token ids must be integers, got {value!r} at position {index}") from None
        if not 0 <= number < self._info.vocab_size:
            self._refuse(index, number)
        return number

    def _refuse(self, index: int, value: int) -> None:
        raise InvalidArgument(
            f"token id {value} at position {index} is outside the vocabulary (0 .. {self._info.vocab_size - 1})"
        )
