"""Runtime: a loaded engine package. Holds the native handle, converts arguments, documents; no algorithm.

The refinement loop, sampling and KV memory are native (`csrc/runtime`). One `Runtime` serves any number of threads.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from dgrt import errors
from dgrt.chat import Chat
from dgrt.errors import Cancelled, InvalidArgument, NotCopied, native_module
from dgrt.info import EngineInfo, MemoryPlan, PrefixStats, engine_folder, native_path, path_text
from dgrt.messages import ChatTemplate, Message
from dgrt.native_options import native_options
from dgrt.native_thread import on_native_thread
from dgrt.options import GenerateKeywords, GenerateOptions, make_options, reject_unknown
from dgrt.ort import find_ort_library
from dgrt.plain import MAX_INT32, MAX_INT64, checked_flag, checked_integer, plain_messages, plain_text
from dgrt.prompt import Prompt, PromptEncoder
from dgrt.result import Event, GenerateResult, ServingStats
from dgrt.serving import GenerateFuture, Scheduler, event_stream
from dgrt.stream import EventStream, Generation
from dgrt.tokenizer import Tokenizer
from dgrt.translate import Prepared

if TYPE_CHECKING:
    from dgrt import _native

MAX_RUNNING, MAX_QUEUED = 1024, 2**20
_OPTIONS = (
    "threads", "ort_library", "verify_weights", "memory_limit", "kv_limit", "prefix_cache", "max_running",
    "max_queued",
)  # fmt: skip


class Runtime(NotCopied):
    """A loaded engine package. Any thread.

    After `close` requests raise `Cancelled`, also those that were running; `encode`, `info`, `threads` and the other
    facts stay.

    Args:
        path: Folder that `dgrt export` wrote.
        threads: CPU threads for engine and kernels. None: as many CPUs as the process may use, by its affinity mask or
            by the CPU quota of its container (cgroup), whichever is less. Never changes a result.
        ort_library: Path of the ONNX Runtime library. None: `DGRT_ORT_LIBRARY`, then the installed wheel, then the
            system.
        verify_weights: Hash the weight files whole (reads them once), not samples of them.
        memory_limit: Bytes that one session's KV and workspace may take. None: no limit.
        kv_limit: Bytes that the KV memory of all requests and the prefix cache may take together; `submit` starts
            requests accordingly, and cached prefixes that nobody uses go first. None: no limit.
        prefix_cache: Bytes of KV rows of prompts that are kept for later prompts with the same beginning; 0: none.
            None: what a prompt of the whole context takes, at most 1 GiB. Never changes a result.
        max_running: Submitted requests that run at once; each holds KV memory.
        max_queued: Submitted requests that wait beyond those; one more is refused with `QueueFull`.

    Raises:
        InvalidArgument: If the path is not an engine or an argument is out of range.
        ContractMismatch: If the package is damaged or of another format version.
        Unsupported: If ONNX Runtime or the native extension is missing.
        KeyboardInterrupt: On Ctrl-C, at once; files that are being hashed are read to their end in the background.

    Example:
        >>> with dgrt.Runtime("engine", threads=2) as rt:
        ...     print(rt.generate("json\\nname=Ana Silva; age=34; active=yes", max_new_tokens=96).text)
        {"name":"Ana Silva","age":34,"active":true}
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        ort_library: str | os.PathLike[str] | None = None,
        verify_weights: bool = False,
        memory_limit: int | None = None,
        kv_limit: int | None = None,
        prefix_cache: int | None = None,
        max_running: int = 8,
        max_queued: int = 256,
        **unknown: Any,
    ) -> None:
        reject_unknown("option", unknown, _OPTIONS)
        folder = engine_folder(path)
        load = partial(
            native_module().Runtime,
            native_path("path", str(folder)),
            threads=_positive("threads", threads, MAX_INT32),
            ort_library=find_ort_library()
            if ort_library is None
            else native_path("ort_library", path_text("ort_library", ort_library)),
            verify_weights=checked_flag("verify_weights", verify_weights),
            memory_limit_bytes=_positive("memory_limit", memory_limit, MAX_INT64),
            kv_limit_bytes=_positive("kv_limit", kv_limit, MAX_INT64),
            prefix_cache_bytes=checked_integer("prefix_cache", prefix_cache, 0, MAX_INT64)
            if prefix_cache is not None
            else -1,
        )
        self._max_running = checked_integer("max_running", max_running, 1, MAX_RUNNING)
        self._max_queued = checked_integer("max_queued", max_queued, 0, MAX_QUEUED)
        self._lock = threading.Lock()  # of what `close` ends: the next three
        self._opened_scheduler: Scheduler | None = None  # by the first request that is submitted
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._native: _native.Runtime | None = on_native_thread(load)
        self._description: str = self._native.description
        self._threads: int = self._native.threads
        self._path = folder
        self._info = EngineInfo.from_json(self._native.manifest_json)
        files, read = self._info.files, self._native.read_file  # of the folder that was loaded, checked; nothing else
        self._tokenizer = Tokenizer.from_folder(folder, files, read)
        tokenizer = self._tokenizer
        self._chat_template = (
            ChatTemplate.from_folder(folder, files, tokenizer, read) if tokenizer is not None else None
        )
        self._encoder = PromptEncoder(self._info, tokenizer, self._chat_template)

    def generate(
        self, prompt: Prompt, options: GenerateOptions | None = None, **keywords: Unpack[GenerateKeywords]
    ) -> GenerateResult:
        """Generates until a stop id, `max_new_tokens` or the end of the context.

        Args:
            prompt: Text (a user turn of the chat template, unless `raw`), a list of messages (dicts, dataclasses or
                pydantic models with "role" and "content"), or token ids. A last message of the assistant is a turn like
                others, unless `continue_final_message`.
            options: Options to start from.
            **keywords: Fields of `GenerateOptions`; they override `options`.

        Returns:
            Text, tokens, finish reason, statistics, and the trace if asked for.

        Raises:
            InvalidArgument: For an unknown option, a value out of range, or a prompt that cannot be right.
            Unsupported: For what this engine cannot do, such as a drafter that it does not have, or images.
            OutOfMemory: If `memory_limit` or the machine does not allow the session.
            Cancelled: If the runtime is closed, before or meanwhile.
            KeyboardInterrupt: On Ctrl-C, after the generation has been cancelled.

        Example:
            >>> result = rt.generate("json\\ncolour=red", max_new_tokens=96, seed=1)
            >>> result.text, result.finish_reason
            ('{"colour":"red"}', 'stop')
        """
        with self._start(prompt, make_options(options, keywords), want_drafts=False) as events:
            for event in events:
                if event.result is not None:
                    return event.result
        raise errors.InternalError("the generation ended without a result")

    def stream(
        self,
        prompt: Prompt,
        options: GenerateOptions | None = None,
        *,
        drafts: bool = True,
        **keywords: Unpack[GenerateKeywords],
    ) -> EventStream:
        """Generates like `generate`, but returns an iterator of events: every draft, every commit, then "done".

        Nothing runs before the first event is asked for. Arguments are checked at once.

        Args:
            prompt: As for `generate`.
            options: As for `generate`.
            drafts: Whether to report every denoise step; False leaves only "commit" and "done".
            **keywords: As for `generate`.

        Returns:
            An `EventStream`; closing it cancels the generation.

        Raises:
            InvalidArgument: As for `generate`.
            Unsupported: As for `generate`.

        Example:
            >>> events = rt.stream("json\\ncolour=red", max_new_tokens=96)
            >>> "".join(event.text for event in events if event.kind == "commit")
            '{"colour":"red"}'
        """
        return self._start(prompt, make_options(options, keywords), want_drafts=drafts)

    def chat(
        self,
        options: GenerateOptions | None = None,
        *,
        system: str | None = None,
        messages: Sequence[Message] = (),
        **keywords: Unpack[GenerateKeywords],
    ) -> Chat:
        """Returns a conversation: each turn prefills its own message only, for what came before is in KV memory.

        That memory is held between turns, until `Chat.close`, and counts towards `kv_limit`. Turns start at once, as
        `generate` does.

        Args:
            options: Options of every turn, as for `generate`; `max_new_tokens` and `deadline_s` are per turn.
            system: A system message to begin with.
            messages: Messages to begin with, such as those of an earlier chat.
            **keywords: As for `generate`.

        Raises:
            InvalidArgument: For options that `generate` would refuse, `raw`, `continue_final_message`, or an engine
                without a chat template.

        Example:
            >>> with rt.chat(max_new_tokens=96) as chat:
            ...     reply = chat.send("json\\ncolour=red").text
            >>> chat.messages[-1]
            {'role': 'assistant', 'content': '{"colour":"red"}'}
        """
        resolved = make_options(options, keywords).resolved(self._info.generation)
        if resolved.raw:
            raise InvalidArgument("raw=True is for plain text; a chat always goes through the chat template")
        if resolved.draft is not None:
            raise InvalidArgument("a draft is of one answer: give it to generate, not to a chat")
        if resolved.continue_final_message:
            raise InvalidArgument("continue_final_message is of one answer: give it to generate, not to a chat")
        tokenizer, template = self._tokenizer, self._chat_template
        if tokenizer is None or template is None:
            missing = "tokenizer" if tokenizer is None else "chat template"
            raise InvalidArgument(f"a chat needs a {missing}, this engine has none")
        native = native_options(self._handle(), resolved, self._encoder)
        first = [] if system is None else [{"role": "system", "content": plain_text("system", system)}]
        turns = [*first, *plain_messages(messages)]

        def open_session() -> _native.Session:
            session: _native.Session = native_module().Session(self._handle(), native)
            return session

        return Chat(open_session, self._run, self._encoder, tokenizer, template, resolved, turns)

    def submit(
        self, prompt: Prompt, options: GenerateOptions | None = None, **keywords: Unpack[GenerateKeywords]
    ) -> GenerateFuture:
        """Queues a request and returns at once, when its prompt has been tokenized (`generate_async` does not wait).

        At most `max_running` requests run at once, in order of arrival and as their KV memory allows; they share the
        threads pass by pass. A request's tokens are those that it would have alone.

        Args:
            prompt: As for `generate`.
            options: As for `generate`.
            **keywords: As for `generate`.

        Returns:
            A `concurrent.futures.Future` of the result. It raises `Cancelled` if the runtime is closed first.

        Raises:
            InvalidArgument: As for `generate`; everything that can be checked before the request runs is.
            Cancelled: If the runtime is closed.
            QueueFull: If `max_queued` requests wait already.
            OutOfMemory: If the request could never run within `kv_limit`.

        Example:
            >>> futures = [rt.submit(f"json\\nname=Ana; age={age}", max_new_tokens=96) for age in (34, 35)]
            >>> [future.result().text for future in futures]
            ['{"name":"Ana","age":34}', '{"name":"Ana","age":35}']
        """
        prepared, native = self._request(prompt, make_options(options, keywords), want_drafts=False)
        return self._scheduler().submit(prepared, native)

    async def generate_async(
        self, prompt: Prompt, options: GenerateOptions | None = None, **keywords: Unpack[GenerateKeywords]
    ) -> GenerateResult:
        """Submits a request and awaits its result. A task that is cancelled cancels its request.

        Rendering and tokenizing run on another thread, so the event loop goes on whatever the length of the prompt.

        Args:
            prompt: As for `generate`.
            options: As for `generate`.
            **keywords: As for `generate`.

        Raises:
            DgrtError: As for `submit` and `generate`.

        Example:
            >>> import asyncio
            >>> asyncio.run(rt.generate_async("json\\ncolour=red", max_new_tokens=96)).text
            '{"colour":"red"}'
        """
        checked = make_options(options, keywords)
        prepared, native = await asyncio.to_thread(self._request, prompt, checked, want_drafts=False)
        return await asyncio.wrap_future(self._scheduler().submit(prepared, native))

    def stream_async(
        self,
        prompt: Prompt,
        options: GenerateOptions | None = None,
        *,
        drafts: bool = True,
        **keywords: Unpack[GenerateKeywords],
    ) -> AsyncIterator[Event]:
        """Submits a request when first iterated and yields its events; the asynchronous `stream`.

        Options are checked at once, the prompt is when the iteration begins, on another thread.

        Args:
            prompt: As for `generate`.
            options: As for `generate`.
            drafts: As for `stream`.
            **keywords: As for `generate`.

        Raises:
            DgrtError: As for `submit` and `generate`.

        Example:
            >>> import asyncio
            >>> async def texts(prompt):
            ...     return [event.text async for event in rt.stream_async(prompt, drafts=False) if event.text]
            >>> asyncio.run(texts("json\\ncolour=red"))
            ['{"colour":"red"}']
        """
        checked, want_drafts = make_options(options, keywords), checked_flag("drafts", drafts)

        async def begin() -> tuple[Scheduler, Prepared, _native.Options]:
            prepared, native = await asyncio.to_thread(self._request, prompt, checked, want_drafts=want_drafts)
            return self._scheduler(), prepared, native

        return event_stream(begin)

    def serving_stats(self) -> ServingStats:
        """Returns the counters of queue and lanes.

        Example:
            >>> rt.serving_stats().queued
            0
        """
        return self._scheduler().stats()

    def encode(
        self, prompt: Prompt, options: GenerateOptions | None = None, **keywords: Unpack[GenerateKeywords]
    ) -> NDArray[np.int32]:
        """Returns the token ids that `generate` would feed for this prompt, [n] int32.

        Args:
            prompt: As for `generate`.
            options: As for `generate`; only those count that shape the prompt, such as `raw` and `tools`.
            **keywords: As for `generate`.

        Raises:
            InvalidArgument: As for `generate`.

        Example:
            >>> rt.encode([{"role": "user", "content": "Hi"}]).tolist() == rt.encode("Hi").tolist()
            True
        """
        return self._encode(prompt, make_options(options, keywords))

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The engine's tokenizer; None if the package has none."""
        return self._tokenizer

    @property
    def info(self) -> EngineInfo:
        """Facts of the engine, from its manifest."""
        return self._info

    @property
    def path(self) -> Path:
        """The engine's folder."""
        return self._path

    @property
    def defaults(self) -> GenerateOptions:
        """The options of a generation that sets none, the engine's sampler defaults filled in."""
        return GenerateOptions().resolved(self._info.generation)

    @property
    def description(self) -> str:
        """What executes the graphs, such as "ONNX Runtime 1.32.0, CPU, portable fp32"."""
        return self._description

    @property
    def threads(self) -> int:
        """CPU threads in use."""
        return self._threads

    def memory(self) -> MemoryPlan:
        """Returns the bytes this engine needs: weights, KV of one session at full context, workspace.

        Example:
            >>> rt.memory().total_bytes > rt.memory().weight_bytes
            True
        """
        return MemoryPlan(**self._handle().memory())

    def prefix_stats(self) -> PrefixStats:
        """Returns what the prefix cache has done so far, and the KV memory in use now.

        Example:
            >>> rt.prefix_stats().hits <= rt.prefix_stats().lookups
            True
        """
        return PrefixStats(**self._handle().prefix_stats())

    def clear_prefixes(self) -> None:
        """Forgets all cached prefixes; running generations keep what they use."""
        self._handle().clear_prefixes()

    def save_prefixes(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes all cached prefixes to a file, which appears whole or not at all. It holds what was prompted.

        A symbolic link stays one; mode and owner of a file that is replaced are kept, a new one is its user's alone.

        Args:
            path: The file: none yet, an empty one, or one that this method wrote.
            overwrite: Whether another kind of regular file may be replaced. A device, pipe or folder never is.

        Raises:
            InvalidArgument: If the path cannot or must not be written.
            DeviceError: If there is no room for it.
            Unsupported: If the cache is off.

        Example:
            >>> rt.save_prefixes("prefixes.kv")  # doctest: +SKIP
        """
        where = native_path("path", path_text("path", path))
        on_native_thread(partial(self._handle().save_prefixes, where, checked_flag("overwrite", overwrite)))

    def load_prefixes(self, path: str | os.PathLike[str]) -> int:
        """Adds the prefixes of a file that `save_prefixes` wrote, as far as there is room; nothing that is held goes.

        Returns:
            Chunks of 512 tokens that were added.

        Raises:
            ContractMismatch: If the file is damaged, or of another engine, machine or version; nothing changes then.
            InvalidArgument: If the path cannot be read.
            Unsupported: If the cache is off.

        Example:
            >>> rt.load_prefixes("prefixes.kv")  # doctest: +SKIP
        """
        return on_native_thread(partial(self._handle().load_prefixes, native_path("path", path_text("path", path))))

    def close(self) -> None:
        """Lets go of the engine and cancels what runs: whoever waits for it gets `Cancelled`.

        Closing twice is harmless.
        """
        with self._lock:
            self._native = None
            scheduler, self._opened_scheduler = self._opened_scheduler, None
            streams = list(self._streams)
        for stream in streams:
            stream.abort()
        if scheduler is not None:
            scheduler.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._native is None else self._description
        return f"<dgrt.Runtime {str(self._path)!r}: {state}>"

    def _handle(self) -> _native.Runtime:
        if self._native is None:
            raise Cancelled("the runtime is closed")
        return self._native

    def _start(self, prompt: Prompt, options: GenerateOptions, *, want_drafts: bool) -> EventStream:
        prepared, native = self._request(prompt, options, want_drafts=checked_flag("drafts", want_drafts))
        session = native_module().Session(self._handle(), native)
        return self._run(Generation(session=session, **vars(prepared)))

    def _run(self, generation: Generation) -> EventStream:
        """Makes the stream of a generation, which `close` will end."""
        with self._lock:
            self._handle()
            stream = EventStream(generation)
            self._streams.add(stream)
        return stream

    def _request(
        self, prompt: Prompt, options: GenerateOptions, *, want_drafts: bool
    ) -> tuple[Prepared, _native.Options]:
        """Renders, tokenizes and checks all that can be checked before a request runs."""
        self._handle()
        resolved = options.resolved(self._info.generation)
        prepared = Prepared(
            prompt=self._encode(prompt, resolved), options=resolved, tokenizer=self._tokenizer, want_drafts=want_drafts
        )
        return prepared, native_options(self._handle(), resolved, self._encoder)

    def _encode(self, prompt: Prompt, options: GenerateOptions) -> NDArray[np.int32]:
        return self._encoder.encode(prompt, raw=options.raw, given=options.template_input)

    def _scheduler(self) -> Scheduler:
        with self._lock:
            if self._opened_scheduler is None:
                self._opened_scheduler = Scheduler(self._handle(), self._max_running, self._max_queued)
            return self._opened_scheduler


def _positive(name: str, value: int | None, high: int) -> int:
    """Returns the value for the native side, where 0 means "not set"."""
    return 0 if value is None else checked_integer(name, value, 1, high)
