"""Facts of an engine package, from its manifest, and the memory plan. Data only; `Runtime` and `dgrt inspect` use it.

The package format is specified in `export/README.md`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgrt.errors import ContractMismatch, InvalidArgument

_HUB_ID = re.compile(r"[A-Za-z0-9][\w-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes a runtime needs.

    Attributes:
        weight_bytes: Weight files of the package.
        kv_bytes_full_context: KV rows of one session that uses the whole context.
        workspace_bytes: Hidden states, soft embeddings and head scratch of one session.
        kv_bytes_per_token: KV rows of the full layers, for each token of a sequence.
        kv_window_bytes: KV rows of the sliding layers: the W - 1 tokens that a longer sequence keeps between passes.

    Example:
        >>> MemoryPlan(weight_bytes=4, kv_bytes_full_context=2, workspace_bytes=1).total_bytes
        7
    """

    weight_bytes: int
    kv_bytes_full_context: int
    workspace_bytes: int
    kv_bytes_per_token: int = 0
    kv_window_bytes: int = 0

    @property
    def session_bytes(self) -> int:
        """KV and workspace of one session at full context: what `memory_limit` bounds."""
        return self.kv_bytes_full_context + self.workspace_bytes

    @property
    def total_bytes(self) -> int:
        """Weights plus one session at full context."""
        return self.weight_bytes + self.session_bytes


@dataclass(frozen=True, kw_only=True)
class PrefixStats:
    """What the prefix cache of a runtime has done (zero while it is off), and the KV memory that all sessions use.

    Attributes:
        lookups: Prompts it was asked for.
        hits: Of them, those that found a prefix.
        prompt_tokens: Tokens of all these prompts.
        hit_tokens: Of them, those that were not prefilled.
        stored_chunks: Chunks of 512 tokens stored, also by `load_prefixes`.
        evicted_chunks: Chunks dropped.
        evicted_windows: Rows of sliding layers dropped from chunks that stayed.
        num_chunks: Chunks now.
        bytes: Their bytes.
        limit_bytes: Most bytes it may hold.
        kv_sequence_bytes: KV bytes that sessions have to themselves now.
        kv_prefix_bytes: KV bytes of prefixes now, cached or in use by sessions, each counted once.
        kv_peak_bytes: Most of both together so far.
        kv_limit_bytes: `kv_limit` of the runtime; 0: none.
    """

    lookups: int
    hits: int
    prompt_tokens: int
    hit_tokens: int
    stored_chunks: int
    evicted_chunks: int
    evicted_windows: int
    num_chunks: int
    bytes: int
    limit_bytes: int
    kv_sequence_bytes: int
    kv_prefix_bytes: int
    kv_peak_bytes: int
    kv_limit_bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One decoder layer: its attention type ("sliding" or "full"), head size and number of KV heads."""

    type: str
    head_dim: int
    num_kv_heads: int


@dataclass(frozen=True, kw_only=True)
class DrafterInfo:
    """The drafter of a package, which proposes the tokens behind a text.

    Attributes:
        name: Name of its checkpoint.
        kv_layers: Layers of the model whose KV rows it looks into.
        block_len: Most tokens that it was trained to propose at once.
    """

    name: str
    kv_layers: tuple[int, ...]
    block_len: int


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What the manifest says about an engine.

    Attributes:
        name: Name of the source checkpoint.
        architecture: Class of the source model in transformers.
        profile: "portable" or "fused".
        precision: How weights are stored: "fp32", "bf16", "int8" or "int4".
        dgrt_version: Version that exported the package.
        contract_version: Version of the package format.
        vocab_size: V.
        hidden_size: D.
        canvas_len: L, tokens per canvas.
        context_len: Most positions, prompt and output together.
        sliding_window: W; a query of a sliding layer sees W - 1 previous tokens and itself.
        num_heads: Query heads.
        num_experts: Experts per layer.
        top_k_experts: Experts per token.
        bos_token_id: Token that starts a sequence; None if the model has none.
        pad_token_id: Padding token; None if the model has none.
        layers: The layers in order.
        drafter: The drafter of the package; None if it has none.
        generation: Sampler defaults and stop ids of `generation_config.json`.
        tools: Versions of the tools that exported the package.
        vision: "none", or "skipped" if the checkpoint has a vision tower that the package leaves out.
        parity: Result of the exporter's check against the reference; empty if there is none.
        files: Bytes of each file of the package.
        weight_files: Names of the files that hold weights.
        manifest: The whole manifest.
    """

    name: str
    architecture: str
    profile: str
    precision: str
    dgrt_version: str
    contract_version: int
    vocab_size: int
    hidden_size: int
    canvas_len: int
    context_len: int
    sliding_window: int
    num_heads: int
    num_experts: int
    top_k_experts: int
    bos_token_id: int | None
    pad_token_id: int | None
    layers: tuple[LayerInfo, ...]
    drafter: DrafterInfo | None
    generation: Mapping[str, Any]
    tools: Mapping[str, str]
    vision: str
    parity: Mapping[str, Any]
    files: Mapping[str, int]
    weight_files: tuple[str, ...]
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, text: str) -> EngineInfo:
        """Reads a manifest.

        Args:
            text: Content of `manifest.json`.

        Raises:
            ContractMismatch: If it is not JSON, a key is missing, or a value is of another kind.

        Example:
            >>> EngineInfo.from_json(Path("engine/manifest.json").read_text()).canvas_len
            96
        """
        try:
            return _from_manifest(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ContractMismatch(f"manifest.json is not JSON: {error}") from None
        except KeyError as error:
            raise ContractMismatch(f"manifest.json has no key {error}") from None
        except (TypeError, AttributeError) as error:
            raise ContractMismatch(f"manifest.json: expected what 'dgrt export' writes, found: {error}") from None


def path_text(name: str, value: Any) -> str:
    """Returns a path as text.

    Raises:
        InvalidArgument: If it is neither a string nor a path, or is not text.

    Example:
        >>> path_text("path", Path("engines/mini"))
        'engines/mini'
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InvalidArgument(f"{name} must be a string or a path, got {type(value).__name__}")
    try:
        text = os.fspath(value)
    except Exception as error:  # a path of the caller's
        raise InvalidArgument(f"{name} cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(text, str):
        raise InvalidArgument(f"{name} must be a string or a path, got {type(text).__name__}")
    if "\0" in text:
        raise InvalidArgument(f"{name} has a NUL character at position {text.index(chr(0))}")
    native_path(name, text)
    return text


def native_path(name: str, text: str) -> str:
    """Returns a path for native code, which takes UTF-8 whatever the locale is.

    Raises:
        InvalidArgument: If the path is not UTF-8.

    Example:
        >>> native_path("path", "engines/mini")
        'engines/mini'
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise InvalidArgument(f"{name} is not UTF-8: {text!a}") from None


def engine_folder(path: str | os.PathLike[str]) -> Path:
    """Returns the path of an engine package, or says what stands there instead.

    Raises:
        InvalidArgument: If there is no folder, or it holds a checkpoint.

    Example:
        >>> engine_folder("no/such/engine")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        dgrt.errors.InvalidArgument: no engine at 'no/such/engine': no such folder
    """
    text = path_text("path", path)
    if not text:
        raise InvalidArgument("path is empty: give the folder of an engine, as 'dgrt export' wrote it")
    folder = Path(text)
    try:
        found = "" if stat.S_ISDIR(folder.stat().st_mode) else "not a folder"
    except (FileNotFoundError, NotADirectoryError):
        found = "no such folder"
    except OSError as error:  # no permission, a name that is too long, links that lead to themselves
        found = error.strerror or type(error).__name__
    if found:
        hint = "; it looks like the name of a model on a hub: dgrt runs engines, which 'dgrt export' makes of its files"
        raise InvalidArgument(f"no engine at {text!r}: {found}{hint if _HUB_ID.fullmatch(text) else ''}")
    if not os.path.lexists(folder / "manifest.json") and (folder / "config.json").is_file():
        raise InvalidArgument(
            f"{text!r} is a checkpoint, not an engine; make one with: dgrt export {shlex.quote(text)} -o ENGINE"
        )
    return folder


def _from_manifest(manifest: Mapping[str, Any]) -> EngineInfo:
    source, model = _object(manifest, "source"), _object(manifest, "model")
    return EngineInfo(
        name=source["name"],
        architecture=source["architecture"],
        profile=manifest["profile"],
        precision=manifest["precision"],
        dgrt_version=manifest["dgrt_version"],
        contract_version=manifest["contract_version"],
        vocab_size=model["vocab_size"],
        hidden_size=model["hidden_size"],
        canvas_len=model["canvas_len"],
        context_len=model["context_len"],
        sliding_window=model["sliding_window"],
        num_heads=model["num_heads"],
        num_experts=model["num_experts"],
        top_k_experts=model["top_k_experts"],
        bos_token_id=_token(model.get("bos_token_id")),
        pad_token_id=_token(model.get("pad_token_id")),
        layers=tuple(
            LayerInfo(type=one["type"], head_dim=one["head_dim"], num_kv_heads=one["num_kv_heads"])
            for one in model["layers"]
        ),
        drafter=_drafter(manifest),
        generation=_object(manifest, "generation"),
        tools=_object(manifest, "tools", optional=True),
        vision=source.get("vision", "none"),
        parity=_object(manifest, "parity", optional=True),
        files={name: entry["bytes"] for name, entry in _object(manifest, "files").items()},
        weight_files=tuple(manifest["weight_files"]),
        manifest=manifest,
    )


def _drafter(manifest: Mapping[str, Any]) -> DrafterInfo | None:
    if manifest.get("drafter") is None:
        return None
    facts = _object(manifest, "drafter")
    return DrafterInfo(name=facts["name"], kv_layers=tuple(facts["kv_layers"]), block_len=facts["block_len"])


def _object(manifest: Mapping[str, Any], key: str, *, optional: bool = False) -> Mapping[str, Any]:
    value = manifest[key] if not optional or manifest.get(key) is not None else {}
    if not isinstance(value, dict):
        raise ContractMismatch(f"manifest.json: {key}: expected an object, found {json.dumps(value)[:80]}")
    return value


def _token(value: int | None) -> int | None:
    return None if value is None or value < 0 else value
