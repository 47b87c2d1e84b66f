"""Recognises what is not a plain checkpoint of this model, by its first bytes, its config or its tensor names.

Each function says what the thing is and what to do. Nobody is helped by the number of a damaged header when the file is
a web page.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import InvalidCheckpoint, Unsupported, mismatch, plain, quote

HEAD_BYTES = 512  # of a file, enough for `refuse_foreign_content`
MERGE = "merge it first: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(FOLDER)"
_RESAVE = "save the model with save_pretrained of DiffusionGemmaForBlockDiffusion"
_UNQUANTISED = "export the original bf16 checkpoint; --precision int8 or int4 quantises"


def has_file(path: Path) -> bool:
    """Whether there is a file of this name; nothing of the name is fine.

    Raises:
        InvalidCheckpoint: what has the name is no file, so it is not what was meant: a folder, a FIFO (reading one
            would wait for ever), a link to nothing, or what this user may not see.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return False
        found = f"a link to {path.readlink()}, which is not there"
    except OSError as error:
        found = f"{error.strerror}"
    else:
        if stat.S_ISREG(mode):
            return True
        found = "a folder" if stat.S_ISDIR(mode) else "a FIFO, a socket or a device"
    raise InvalidCheckpoint(mismatch(f"{path}", "a file", found))


def refuse_foreign_content(path: Path, head: bytes) -> None:
    """Refuses what commonly lies under the name of a checkpoint's file and is not that file.

    Args:
        path: the file, for the message.
        head: the first bytes of a file whose content is not what it should be, or is text.

    Raises:
        InvalidCheckpoint: a Git LFS pointer or a web page.
        Unsupported: GGUF, or a pickle of PyTorch.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        remedy = "run `git lfs pull` in its folder"
        raise InvalidCheckpoint(mismatch(f"{path}", "the file itself", "a Git LFS pointer to it", remedy))
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        remedy = "the download failed (signed in? licence accepted?): download it again"
        raise InvalidCheckpoint(mismatch(f"{path}", "the file itself", "an HTML page", remedy))
    if head.startswith(b"GGUF"):
        raise Unsupported(mismatch(f"{path}", "safetensors", "GGUF of llama.cpp", _UNQUANTISED))
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        remedy = "pickle can run code and is not read: " + _RESAVE
        raise Unsupported(mismatch(f"{path}", "safetensors", "a pickle of PyTorch", remedy))


def quantised(where: str, scheme: str) -> Unsupported:
    """The one refusal of quantised checkpoints."""
    return Unsupported(mismatch(where, "an unquantised checkpoint", f"one that is quantised ({scheme})", _UNQUANTISED))


def refuse_quantised_config(raw: Mapping[str, Any], where: str) -> None:
    """Refuses a config (or the text part of one) that describes quantised weights; an empty description is none."""
    for key in ("quantization_config", "compression_config", "quantization"):
        if facts := raw.get(key):
            scheme = f"MLX, {_details(facts)}" if key == "quantization" else _details(facts)
            raise quantised(f"{where} {key}", scheme)


def _details(facts: object) -> str:
    """Scheme and format in a few words."""
    if not isinstance(facts, dict):
        return quote(facts)
    words = []
    for key in ("quant_method", "quant_algo", "format", "fmt", "bnb_4bit_quant_type", "checkpoint_format", "mode"):
        if isinstance(value := facts.get(key), str) and value not in words:
            words.append(value)
    words += [str(method) for method in ("load_in_4bit", "load_in_8bit") if facts.get(method) is True]
    words += [f"{facts[key]} bits" for key in ("bits", "w_bit") if isinstance(facts.get(key), int)]
    if isinstance(quant_type := facts.get("quant_type"), dict):  # torchao: {"default": {"_type": ...}}
        words += [str(part["_type"]) for part in quant_type.values() if isinstance(part, dict) and "_type" in part]
    return ", ".join(word[:40] for word in words) if words else quote(facts)


def refuse_modelopt(raw: Mapping[str, Any], file: str) -> None:
    """Refuses by the content of hf_quant_config.json, which ModelOpt writes beside config.json."""
    facts = raw.get("quantization")
    if isinstance(facts, dict) and facts.get("quant_algo"):
        raise quantised(file, f"ModelOpt, {str(facts['quant_algo'])[:40]}")


# The end of a tensor name, or its dtype, gives a scheme away. First match wins.
_TENSOR_SCHEMES = (
    (r"\.weight_packed$|\.weight_global_scale$", "compressed-tensors"),
    (r"\.(bitmask|row_offsets)$", "compressed-tensors, sparse"),
    (r"(weight|_proj)_scale_2$", "ModelOpt NVFP4"),
    (r"weight_scale_inv$", "FP8 in blocks"),
    (r"\.(absmax|nested_absmax|quant_map|nested_quant_map|SCB)$|\.quant_state\.", "bitsandbytes"),
    (r"\.W_q$", "HQQ"),
    (r"weight\._(data|scale|shift)$", "quanto"),
    (r"\.weight_scales$", "EETQ"),
    (r"\.codebooks$", "AQLM"),
    (r"\.Qidxs", "QuIP#"),
    (r"\.centroids\.", "VPTQ"),
    (r"\.(q_invperm|q_scale_max)$", "EXL2"),
    (r"\.trellis$", "EXL3"),
    (r"quantizer\._amax$|\.pre_quant_scale$", "ModelOpt"),
    (r"_fake_quant\.|\.activation_post_process", "training that imitates quantisation"),
    (r"\.g_idx$", "GPTQ"),
    (r"\.(qweight|qzeros)$", "AWQ or GPTQ"),
    (r"\.biases$", "MLX"),
    (r"[:_](qdata|tensor_impl)$|_weight_(qdata|scale)$", "torchao"),
    (r"_(blocks|scales)$", "MXFP4"),
    (r"(weight|_proj)_scale$|\.(input|activation|output)_scale$|\.[qkv]_scale$", "FP8 or integers with scales"),
    (r"\.scales$", "MLX or AWQ"),
)
_QUANTISED_DTYPES = re.compile("F8_|F4|F6_|I4|U4|I8|U8|I16|U16|I32|U32")


def is_quantised_dtype(dtype: str) -> bool:
    """Whether a weight of this dtype is one of a quantised checkpoint."""
    return _QUANTISED_DTYPES.match(dtype) is not None


def scheme_of_tensors(names: Iterable[str]) -> tuple[str, str] | None:
    """The first tensor by order of names that only a quantised checkpoint has, and the scheme; None without one."""
    ordered = sorted(names)
    for pattern, scheme in _TENSOR_SCHEMES:
        if (name := next((name for name in ordered if re.search(pattern, name)), None)) is not None:
            return name, scheme
    return None


_UNKNOWN_TENSORS = (
    (r"(^|[._])(lora_|ia3_|vera_|oft_)|\.base_layer\.|modules_to_save\.|original_module\.",
     "a tensor of an adapter that is not merged", MERGE),
    (r"(^|[._])(ema|averaged|shadow)([._]|$)", "an average of training (EMA)",
     f"choose the weights to use, and {_RESAVE}"),
    (r"(^|[._])(exp_avg|exp_avg_sq|momentum|momentum_buffer|optimizer|optim|lr_scheduler|master|grad|step)([._]|$)",
     "state of an optimizer", f"it does not belong to a model: {_RESAVE}"),
    (r"(^|[._])inv_freq$", "a rotary buffer, which transformers computes from config.json and does not save",
     f"it may not be what config.json says: {_RESAVE}"),
    (r"experts\.\d+\.", "an expert by itself; this model has all of a layer in experts.gate_up_proj and "
     "experts.down_proj", f"fuse them: {_RESAVE}"),
    (r"\._extra_state$|\.fp8_meta", "state of Transformer Engine", f"train or convert without it: {_RESAVE}"),
    (r"\.parametrizations\.|weight_(orig|mask|g|v)$", "a weight that is computed from others (pruning, weight norm)",
     f"make it permanent (torch.nn.utils), and {_RESAVE}"),
    (r"\.bias$", "a bias, which this model does not have", _RESAVE),
    (r"(^|\.)(value_head|v_head|score|classifier|reward)", "a head of another task", f"remove it: {_RESAVE}"),
)  # fmt: skip


def describe_unknown_tensor(name: str) -> tuple[str, str]:
    """What a tensor that the model does not have probably is, and the remedy."""
    for pattern, kind, remedy in _UNKNOWN_TENSORS:
        if re.search(pattern, name):
            return kind, remedy
    return "a tensor that the model does not have", f"ignoring it might change the result: {_RESAVE}"


_WRAPPERS = (
    ("base_model.model.", f"a PEFT wrapper: {MERGE}"),
    ("_orig_mod.", "torch.compile wrapped the model: save model._orig_mod"),
    ("_fsdp_wrapped_module.", "FSDP wrapped the model: save its full state dict"),
    ("_checkpoint_wrapped_module.", "activation checkpointing wrapped the layers: save their state dict without it"),
    ("module.", "a parallel wrapper: save model.module"),
)


def foreign_prefix(expected: Iterable[str], found: Iterable[str]) -> str | None:
    """The message for tensors that are all there under other prefixes; None where it is not that.

    Args:
        expected: names of the model that the checkpoint does not have.
        found: names of the checkpoint that the model does not have.
    """
    by_end: dict[str, str] = {}
    for name in sorted(found):
        by_end.setdefault(".".join(name.split(".")[-2:]), name)
    for wanted in expected:
        parts = wanted.split(".")
        if (key := ".".join(parts[-2:])) not in by_end:
            continue
        name = by_end[key]
        others, same = name.split("."), 2
        while same < min(len(parts), len(others)) and parts[-same - 1] == others[-same - 1]:
            same += 1
        tail = ".".join(parts[-same:])
        prefixes = [text.removesuffix(tail) for text in (wanted, name)]
        remedy = next((remedy for wrapper, remedy in _WRAPPERS if wrapper in prefixes[1]), _RESAVE)
        expected_text = f"the prefix {quote(prefixes[0])} ({wanted})"
        return mismatch("tensor names", expected_text, f"{quote(prefixes[1])} ({plain(name)})", remedy)
    return None
