"""Fuzzes the readers that are written in Python: `python tests/fuzz/python_readers.py READER [libFuzzer options]`.

A reader may take an input or refuse it with an error of ours. Any other exception is a finding. Atheris follows the
coverage of Python code; the C++ readers have programs of their own in this folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import atheris
import seeds
from dgrt_export import checkpoint, config
from dgrt_export.errors import ExportError

from dgrt.errors import DgrtError
from dgrt.info import EngineInfo
from dgrt.messages import ChatTemplate
from dgrt.tokenizer import Tokenizer

SMALL_TOKENIZER = json.dumps(seeds.tokenizer()).encode()
FOLDER = Path(tempfile.mkdtemp(prefix="dgrt-fuzz-"))


def safetensors(data: bytes) -> None:
    """A safetensors file: its header, as the exporter reads it."""
    path = FOLDER / "model.safetensors"
    path.write_bytes(data)
    checkpoint.read_header(path)


def model_config(data: bytes) -> None:
    """A config.json."""
    path = FOLDER / "config.json"
    path.write_bytes(data)
    config.parse_config(config.read_json(path))


def manifest(data: bytes) -> None:
    """A manifest.json, as the Python side describes it."""
    EngineInfo.from_json(data.decode("utf-8", "replace"))


def tokenizer(data: bytes) -> None:
    """A tokenizer.json, and a text behind a zero byte."""
    document, _, text = data.partition(b"\0")
    reader = Tokenizer.from_folder(FOLDER, {"tokenizer.json"}, read=lambda _: document)
    assert reader is not None
    reader.decode(reader.encode(text.decode("utf-8", "replace")))


def chat_template(data: bytes) -> None:
    """A chat template, rendered with a short conversation."""
    source = data.partition(b"\0")[0].decode("utf-8", "replace")
    small = Tokenizer.from_folder(FOLDER, {"tokenizer.json"}, read=lambda _: SMALL_TOKENIZER)
    assert small is not None
    ChatTemplate(source, small).render([{"role": "user", "content": "Hi"}])


READERS: dict[str, Callable[[bytes], None]] = {
    read.__name__: read for read in (safetensors, model_config, manifest, tokenizer, chat_template)
}


OTHERS: tuple[Any, ...] = (None, -1, 0, 1, 1e308, 2**63, "", "x", True, [], {})


def mutate_json(data: bytes, max_size: int, seed: int) -> bytes:
    """Changes one value of a JSON document: bytes changed at random rarely leave one."""
    random = Random(seed)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or random.random() < 0.3:
        mutated: bytes = atheris.Mutate(data, max_size)
        return mutated
    parent: Any = document
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            break
        key = random.choice(keys)
        if isinstance(parent[key], dict | list) and random.random() < 0.8:
            parent = parent[key]
            continue
        parent[key] = random.choice((*OTHERS, parent[random.choice(keys)]))
        break
    return json.dumps(document).encode()[:max_size]


def main() -> None:
    """Runs one reader under Atheris."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        raise SystemExit(f"expected a reader, one of {', '.join(READERS)}")
    read = READERS[sys.argv.pop(1)]

    def one_input(data: bytes) -> None:
        try:
            read(data)
        except (ExportError, DgrtError):
            return

    atheris.instrument_all()  # not instrument_imports: an editable install loads modules in a way of its own
    takes_json = read in (model_config, manifest)
    atheris.Setup(sys.argv, one_input, **({"custom_mutator": mutate_json} if takes_json else {}))
    atheris.Fuzz()


if __name__ == "__main__":
    os.chdir(FOLDER)
    main()
