"""Which folder is the checkpoint, and which of its files hold the weights: decided as transformers decides it.

A single model.safetensors wins over an index, however old or new each is. What is passed over is told in a note.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .config import read_json
from .errors import InvalidCheckpoint, Unsupported, mismatch, plain, quote
from .foreign import HEAD_BYTES, MERGE, has_file, refuse_foreign_content, refuse_modelopt

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_CONFIG_FILE = "config.json"
_MODELOPT_FILE = "hf_quant_config.json"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_PICKLES = (".bin", ".bin.index.json", ".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(
    r"(?:hf://|(?:https?://)?(?:huggingface|hf)\.co/)?([\w-][\w.-]*/[\w-][\w.-]*?)"
    r"(?:/|@[\w./-]+|/(?:tree|blob|resolve)/.*)?(?:\?.*)?"
)
# Shards of a training run on several machines. transformers takes them before anything else.
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_TRAINING_SHARDS = re.compile(r"global_step\d+$|pytorch_model_fsdp_\d|.*\.distcp$|(mp|zero_pp)_rank_")
_RESAVE = "save it with save_pretrained, as safetensors"


@dataclass(frozen=True)
class WeightFiles:
    """The files of a checkpoint's weights, and what was passed over on the way to them."""

    paths: tuple[Path, ...]
    weight_map: Mapping[str, str]  # tensor name -> file name, as the index says; empty without an index
    notes: tuple[str, ...]


def find_checkpoint(given: str | Path) -> Path:
    """The absolute path of a checkpoint folder, whose text files are seen to be what their names say.

    Raises:
        InvalidCheckpoint, Unsupported: not a folder, not a checkpoint, or one that dgrt does not read.
    """
    folder = Path(given).absolute()
    try:
        is_folder = folder.is_dir()
    except OSError as error:
        raise InvalidCheckpoint(mismatch(f"checkpoint {quote(str(given))}", "a folder", error.strerror)) from None
    if not is_folder:
        raise _not_a_folder(str(given), folder)
    _refuse_adapters(folder)
    if not has_file(folder / _CONFIG_FILE):
        raise _no_config(folder)
    for pattern in ("*.json", "*.jinja", "additional_chat_templates/*.jinja"):
        for path in sorted(folder.glob(pattern)):
            if path.name != INDEX_FILE and os.path.isfile(path):
                refuse_foreign_content(path, _head(path))
    if has_file(folder / _MODELOPT_FILE):
        refuse_modelopt(read_json(folder / _MODELOPT_FILE), _MODELOPT_FILE)
    return folder


def weight_files(folder: Path) -> WeightFiles:
    """The files that transformers would load from the folder.

    Raises:
        InvalidCheckpoint: no weights, or an index that names files that are not there.
        Unsupported: weights in another form.
    """
    _refuse_adapters(folder)
    names = _names(folder)
    if distributed := [name for name in names if _DISTRIBUTED.fullmatch(name)]:
        found = f"shards of a distributed run ({distributed[0]})"
        raise Unsupported(mismatch(f"{folder}", SINGLE_FILE, found, _RESAVE))
    weight_map: dict[str, str] = {}
    if os.path.isfile(folder / SINGLE_FILE):
        paths = [folder / SINGLE_FILE]
    elif os.path.isfile(folder / INDEX_FILE):
        paths, weight_map = _indexed(folder)
    else:
        raise _no_weights(folder, names)
    taken = {path.name for path in paths} | ({INDEX_FILE} if weight_map else set())
    ignored = [name for name in names if name not in taken and (name.endswith(".safetensors") or name == INDEX_FILE)]
    notes = []
    if ignored:
        what = paths[0].name if not weight_map else f"the {len(paths)} files of {INDEX_FILE}"
        more = f" and {len(ignored) - 1} more are ignored" if len(ignored) > 1 else " is ignored"
        first = INDEX_FILE if INDEX_FILE in ignored else plain(ignored[0])
        notes.append(f"the weights are those of {what}, as in transformers; {first}{more}")
    return WeightFiles(tuple(paths), weight_map, tuple(notes))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InvalidCheckpoint(mismatch(f"{folder}", "a readable folder", error.strerror)) from None


def _head(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read, which is told by whoever needs it."""
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


def _not_a_folder(given: str, path: Path) -> InvalidCheckpoint | Unsupported:
    if path.exists():
        if path.is_file():
            refuse_foreign_content(path, _head(path))
        remedy = f"give the folder that holds {path.name} and {_CONFIG_FILE}"
        return InvalidCheckpoint(mismatch(f"checkpoint {given}", "a folder", "a file", remedy))
    remedy = ""
    if hub_id := _HUB_ID.fullmatch(given):
        local = hub_id[1].split("/")[1]
        download = f"`hf download {hub_id[1]} --local-dir {local}`"
        remedy = f"if this is a hub id: dgrt does not download; run {download} and give the folder {local}"
    elif given.startswith("~"):
        remedy = "a shell replaces ~, dgrt does not: write the path out"
    return InvalidCheckpoint(mismatch(f"checkpoint {given}", "a folder", "none", remedy))


def _no_config(folder: Path) -> InvalidCheckpoint | Unsupported:
    names = _names(folder)
    if gguf := [name for name in names if name.endswith(".gguf")]:
        refuse_foreign_content(folder / gguf[0], b"GGUF")
    inner = sorted(path.parent for pattern in ("*", "snapshots/*") for path in folder.glob(f"{pattern}/{_CONFIG_FILE}"))
    main = folder / "refs" / "main"  # of a hub cache: which snapshot is the newest
    if main.is_file() and (newest := folder / "snapshots" / _head(main).decode(errors="replace").strip()) in inner:
        inner = [newest]
    remedy = f"give its folder {inner[0].relative_to(folder)}, which has one" if inner else ""
    return InvalidCheckpoint(mismatch(f"{folder}", f"a file {_CONFIG_FILE}", "none", remedy))


def _refuse_adapters(folder: Path) -> None:
    for name in _ADAPTER_FILES:
        if os.path.lexists(folder / name):
            base = any((folder / file).exists() for file in (SINGLE_FILE, INDEX_FILE))
            found = f"an adapter beside it ({name})" if base else f"an adapter alone ({name})"
            raise Unsupported(mismatch(f"{folder}", "a whole model", found, MERGE))


def _no_weights(folder: Path, names: list[str]) -> InvalidCheckpoint | Unsupported:
    expected = f"{SINGLE_FILE} or {INDEX_FILE}"
    for name in (SINGLE_FILE, INDEX_FILE):
        has_file(folder / name)  # tells what has the name and is no file
    if gguf := [name for name in names if name.endswith(".gguf")]:
        refuse_foreign_content(folder / gguf[0], b"GGUF")
    if shards := [name for name in names if _TRAINING_SHARDS.match(name)]:
        remedy = "gather them first: `zero_to_fp32.py` of DeepSpeed, `accelerate merge-weights` for FSDP"
        return Unsupported(mismatch(f"{folder}", expected, f"shards of a training run ({plain(shards[0])})", remedy))
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        remedy = f"pickle can run code and is not read: {_RESAVE}"
        return Unsupported(mismatch(f"{folder}", expected, f"a pickle of PyTorch ({pickles[0]})", remedy))
    if others := [name for name in names if name.endswith(".safetensors") or name.endswith(".safetensors.index.json")]:
        found = f"neither, but {plain(others[0])}"
        return InvalidCheckpoint(mismatch(f"{folder}", expected, found, "rename it, if it is the whole model"))
    return InvalidCheckpoint(mismatch(f"{folder}", expected, "neither"))


def _indexed(folder: Path) -> tuple[list[Path], dict[str, str]]:
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise InvalidCheckpoint(mismatch(f"{INDEX_FILE} weight_map", "tensor names to file names", quote(weight_map)))
    checked: set[str] = set()
    for name, file in weight_map.items():
        if file in checked:
            continue
        where = f"{INDEX_FILE} file of {plain(name)}"
        if Path(file).name != file or not file.endswith(".safetensors") or not file.isprintable() or "\\" in file:
            remedy = "a package has one folder: move the file beside the index, or rename it"
            raise InvalidCheckpoint(mismatch(where, "a plain *.safetensors name", quote(file), remedy))
        if not has_file(folder / file):
            remedy = "download it, or save the model again"
            raise InvalidCheckpoint(mismatch(where, f"{file} in {folder}", "no such file", remedy))
        checked.add(file)
    return [folder / file for file in sorted(checked)], weight_map
