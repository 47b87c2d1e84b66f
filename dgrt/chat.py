"""Chat: a conversation whose KV rows stay from turn to turn, so that a turn prefills its own message and nothing else.

The native session does it (`Session::Extend`); this file keeps the messages, and finds what of a turn's text is new.
Made by `Runtime.chat`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dgrt.errors import InternalError, InvalidArgument, NotCopied
from dgrt.messages import ChatTemplate, Message
from dgrt.options import GenerateOptions
from dgrt.plain import checked_flag, plain_message, plain_text
from dgrt.prompt import PromptEncoder
from dgrt.result import GenerateResult
from dgrt.stream import EventStream, Generation, one_user
from dgrt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from dgrt._native import Session


class Chat(NotCopied):
    """A conversation with one engine. One thread at a time, a second one is refused; any number of chats side by side.

    A turn that fails, is cancelled, or whose stream is left early is not part of the conversation: `messages` is as
    before it, and the next turn prefills anew what the prefix cache does not have. So does a turn after which the chat
    template tells the history differently (templates of thinking models drop thoughts). `stats.prefix_tokens` of a
    result says how much was there.

    Rows of earlier replies come from the passes that wrote them, not from one prefill of the whole text: tokens can
    differ from `Runtime.generate` with the same messages where rounding decides.

    Example:
        >>> with rt.chat(max_new_tokens=96) as chat:
        ...     first = chat.send("json\\ncolour=red")
        ...     second = chat.send("json\\ncolour=blue")  # mini has learned no second turn: its text is empty
        >>> first.text, second.stats.prefix_tokens > 0, len(chat.messages)
        ('{"colour":"red"}', True, 4)
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        run: Callable[[Generation], EventStream],
        encoder: PromptEncoder,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        options: GenerateOptions,
        messages: Sequence[Message],
    ) -> None:
        self._open_session = open_session
        self._run = run
        self._encoder = encoder
        self._use = threading.Lock()
        self._tokenizer = tokenizer
        self._template = template
        self._options = options
        self._messages = [dict(message) for message in messages]
        self._session: Session | None = None  # between two turns, with the conversation in its KV memory
        self._text = ""  # what that is: everything but a stop id at the end
        self._tokens = np.empty(0, np.int32)  # the same, stop id included
        self._stream: EventStream | None = None

    @property
    def messages(self) -> list[Message]:
        """The conversation so far, replies with role "assistant"; a copy."""
        return [deepcopy(message) for message in self._messages]

    def send(self, message: str | Message) -> GenerateResult:
        """Adds a message and returns the reply.

        Args:
            message: A user's text, or a message with another role, as for `Runtime.generate`.

        Raises:
            DgrtError: As for `Runtime.generate`; the conversation is as before.
            KeyboardInterrupt: On Ctrl-C, after the reply has been cancelled.
        """
        with one_user(self._use, "chat"), self._begin(message, drafts=False) as events:
            for event in events:
                if event.result is not None:
                    return event.result
        raise InternalError("the turn ended without a result")

    def stream(self, message: str | Message, *, drafts: bool = True) -> EventStream:
        """Adds a message and returns the reply as a stream of events, as `Runtime.stream` does.

        An earlier stream of this chat that has not ended is closed. The turn becomes part of the conversation with
        its "done" event.
        """
        with one_user(self._use, "chat"):
            return self._begin(message, drafts=checked_flag("drafts", drafts))

    def _begin(self, message: str | Message, *, drafts: bool) -> EventStream:
        if isinstance(message, str):
            if not message:
                raise InvalidArgument("the message is empty")
            message = {"role": "user", "content": plain_text("the message", message)}
        turn = plain_message("the message", message)
        if self._stream is not None:
            self._stream.close()
        messages = [*self._messages, turn]
        text = self._template.render(messages, self._options.template_input)
        new_tokens = self._continuation(text)
        if new_tokens is None:
            prompt = self._encoder.encode_rendered(text)
        else:
            prompt = np.concatenate([self._tokens, new_tokens])
        session, self._session = self._session, None  # until the turn has gone well
        if session is None or new_tokens is None:
            session, new_tokens = self._open_session(), None

        def keep(result: GenerateResult) -> None:
            if result.finish_reason != "cancelled":
                self._keep(session, text, result)
                self._messages = [*map(dict, messages), {"role": "assistant", "content": result.text}]

        self._stream = self._run(
            Generation(
                prompt=prompt, options=self._options, tokenizer=self._tokenizer, want_drafts=drafts,
                session=session, new_tokens=new_tokens, on_result=keep,
            )
        )  # fmt: skip
        return self._stream

    def close(self) -> None:
        """Cancels a running turn and frees the KV memory; `messages` stays, and another turn would prefill it anew."""
        with one_user(self._use, "chat"):
            if self._stream is not None:
                self._stream.close()
            self._session = None

    def __enter__(self) -> Chat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, session: Session, text: str, result: GenerateResult) -> None:
        reply = result.tokens[:-1] if result.finish_reason == "stop" else result.tokens
        self._session = session
        self._text = text + self._tokenizer.decode(reply, skip_special_tokens=False)
        self._tokens = np.concatenate([result.prompt_tokens, result.tokens])

    def _continuation(self, text: str) -> NDArray[np.int32] | None:
        """Returns what `text` adds to the tokens of the session; None if it does not begin with them."""
        if self._session is None or not text.startswith(self._text):
            return None
        ids = self._encoder.encode_rendered(text[len(self._text) :])
        if self._session.finish_reason == "stop":  # the model closed its turn; so does the template
            if not ids.size or ids[0] != self._tokens[-1]:
                return None
            ids = ids[1:]
        return ids if ids.size else None

