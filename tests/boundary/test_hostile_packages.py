"""Engine packages from a hostile or unlucky world: a named error with expected and found, never a crash or a hang.

Each test damages a copy of a good package. Damage that a plain edit of the manifest would hide is re-signed (size and
hash brought up to date), so that the deeper check is what answers.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boundary import c_api
from dgrt_export.manifest import sample_of

import dgrt
from dgrt import _native


class Package:
    """A damaged copy in the making."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(source, folder, copy_function=os.link)  # files are replaced below, never written through
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / name).write_bytes(content)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def sign(self, name: str) -> None:
        content = self.read(name)
        self.manifest["files"][name] = {
            "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
            "sample": sample_of(io.BytesIO(content), len(content)),
        }  # fmt: skip

    def save(self) -> Path:
        self.write("manifest.json", json.dumps(self.manifest).encode())
        return self.folder


@pytest.fixture
def package(plain_engine: Path, tmp_path: Path) -> Package:
    return Package(plain_engine, tmp_path / "package")


@pytest.fixture
def refused(ort_library: str) -> Callable[..., str]:
    """Opens a package through both faces, expects the same error from both, returns its text."""

    def check(folder: Path, error: type[Exception] = dgrt.ContractMismatch, **options: Any) -> str:
        with pytest.raises(error) as caught:
            _native.Runtime(str(folder), threads=1, ort_library=ort_library, **options)
        with pytest.raises(c_api.Failure) as foreign:
            c_api.Runtime(folder, threads=1, ort_library=ort_library.encode(), **options)
        assert foreign.value.text == str(caught.value)
        assert foreign.value.status == {
            dgrt.ContractMismatch: "DGRT_CONTRACT_MISMATCH", dgrt.InvalidArgument: "DGRT_INVALID_ARGUMENT",
        }[error]  # fmt: skip
        return str(caught.value)

    return check


def test_the_untouched_copy_opens(package: Package, ort_library: str) -> None:
    _native.Runtime(str(package.save()), threads=1, ort_library=ort_library, verify_weights=True)


NO_OBJECTS = [b"", b"{", b"null", b"[1, 2]", b"\x00" * 100, b"\xff\xfe{}", b'{"format": "dgrt-engine"']


@pytest.mark.parametrize("text", NO_OBJECTS)
def test_a_manifest_that_is_not_a_json_object(package: Package, refused: Callable[..., str], text: bytes) -> None:
    package.write("manifest.json", text)
    message = refused(package.folder)
    assert "manifest.json" in message and "expected" in message and "found" in message


def test_a_manifest_nested_a_million_levels_deep(package: Package, refused: Callable[..., str]) -> None:
    package.write("manifest.json", b"[" * 10**6 + b"]" * 10**6)
    assert "64 levels" in refused(package.folder)


def test_a_folder_in_place_of_the_manifest_is_not_taken_for_a_checkpoint(package: Package) -> None:
    (package.folder / "manifest.json").unlink()
    (package.folder / "manifest.json").mkdir()
    assert (package.folder / "config.json").is_file()
    with pytest.raises(dgrt.DgrtError, match="manifest.json"):
        dgrt.Runtime(package.folder)


def test_no_manifest_and_no_folder(package: Package, refused: Callable[..., str]) -> None:
    (package.folder / "manifest.json").unlink()
    assert "no manifest.json" in refused(package.folder, dgrt.InvalidArgument)
    assert "No such file" in refused(package.folder / "nowhere", dgrt.InvalidArgument)


@pytest.mark.parametrize("version", [0, 1, 999])
def test_another_contract_version(package: Package, refused: Callable[..., str], version: int) -> None:
    current = package.manifest["contract_version"]
    package.manifest["contract_version"] = version
    assert f"contract_version: expected {current}, found {version}" in refused(package.save())


@pytest.mark.parametrize(
    "name", ["prefill.onnx", "score.onnx", "packed.onnx", "check.onnx", "model.safetensors", "tokenizer.json"]
)
def test_missing_truncated_longer_and_changed_files(package: Package, refused: Callable[..., str], name: str) -> None:
    content, folder = package.read(name), package.save()
    size = len(content)
    (folder / name).unlink()
    assert f"{name}: expected a file of {size} bytes, found none" in refused(folder)
    package.write(name, content[:-1])
    assert f"{name}: expected {size} bytes, found {size - 1}" in refused(folder)
    package.write(name, content + b"\0")
    assert f"{name}: expected {size} bytes, found {size + 1}" in refused(folder)
    package.write(name, content[:-1] + bytes([content[-1] ^ 1]))
    said = "the bytes that were exported" if name == "model.safetensors" else "SHA-256: expected"
    assert f"{name}: " in refused(folder) and said in refused(folder)
    assert "copy the package again or export the checkpoint again" in refused(folder)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "sub/x.onnx", "..", "x\\y", "x\x00y", ""])
def test_names_that_leave_the_folder(package: Package, refused: Callable[..., str], name: str) -> None:
    (package.folder.parent / "outside.onnx").write_bytes(package.read("prefill.onnx"))
    package.manifest["files"][name] = package.manifest["files"]["prefill.onnx"]
    package.manifest["graphs"]["prefill"]["file"] = name
    assert "expected the name of a file directly in the package folder" in refused(package.save())
    del package.manifest["files"][name]
    assert "graphs.prefill.file: expected a name that `files` lists" in refused(package.save())


@pytest.mark.parametrize("name", ["prefill.onnx", "model.safetensors"])
def test_symbolic_links_that_leave_the_folder(package: Package, refused: Callable[..., str], name: str) -> None:
    outside = package.folder.parent / "outside"
    outside.write_bytes(package.read(name))
    (package.folder / name).unlink()
    (package.folder / name).symlink_to(outside)
    message = refused(package.save())
    assert f"{name}: expected a file of " in message and f"found a symbolic link to {outside}; copy" in message
    (package.folder / name).unlink()
    (package.folder / name).symlink_to(name)  # a loop
    assert f"{name}: expected a file" in refused(package.folder)


def test_hard_links_are_fine(package: Package, ort_library: str) -> None:
    outside = package.folder.parent / "outside"
    os.link(package.folder / "model.safetensors", outside)
    _native.Runtime(str(package.save()), threads=1, ort_library=ort_library)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_files_that_are_no_files(package: Package, refused: Callable[..., str], kind: str) -> None:
    path = package.folder / "tokenizer.json"
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert "tokenizer.json: expected a regular file" in refused(package.save())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", 2**62), ("vocab_size", 2**64), ("vocab_size", -1), ("vocab_size", 0), ("vocab_size", 1e9),
        ("vocab_size", "301"), ("hidden_size", 2**31), ("canvas_len", 2**40), ("canvas_len", 0), ("context_len", 2**63),
        ("context_len", 1), ("sliding_window", 0), ("num_heads", 3), ("final_logit_softcap", -1),
        ("final_logit_softcap", 1e39), ("pad_token_id", 301), ("layers", []),
        ("layers", [{"type": "full", "head_dim": 16, "num_kv_heads": 2}] * 5000),
    ],
)  # fmt: skip
def test_absurd_model_facts(package: Package, refused: Callable[..., str], key: str, value: Any) -> None:
    package.manifest["model"][key] = value
    message = refused(package.save())
    assert "manifest.json: model." in message and "expected" in message and "found" in message


def test_every_number_of_the_manifest_may_be_garbage(package: Package, ort_library: str) -> None:
    """Whatever a number becomes, the answer is an error of ours or a runtime that works."""

    def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if isinstance(value, dict):
            return [p for key, item in value.items() for p in numbers(item, (*path, key))]
        if isinstance(value, list):
            return [p for index, item in enumerate(value) for p in numbers(item, (*path, index))]
        return [path] if isinstance(value, (int, float)) else []

    good = json.dumps(package.manifest)
    opened = 0
    for path in numbers(package.manifest):
        for garbage in (-1, 0, 2**31, 2**63 - 1, 2**64 - 1, 1e308, -0.5, "7", None):
            package.manifest = json.loads(good)
            parent = package.manifest
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = garbage
            try:
                _native.Runtime(str(package.save()), threads=1, ort_library=ort_library)
                opened += 1
            except (dgrt.ContractMismatch, dgrt.Unsupported) as error:
                assert "expected" in str(error) or "ONNX Runtime" in str(error), error
    assert opened > 0


@pytest.mark.parametrize("change", ["offset", "offset_huge", "bytes", "dtype", "file"])
def test_an_embedding_outside_its_file(package: Package, refused: Callable[..., str], change: str) -> None:
    embedding = package.manifest["embedding"]
    size = package.manifest["files"][embedding["file"]]["bytes"]
    if change == "offset":
        embedding["offset"] = size - embedding["bytes"] + 1
    elif change == "offset_huge":
        embedding["offset"] = 2**63 - 1
    elif change == "bytes":
        embedding["bytes"] -= 4
    elif change == "dtype":
        embedding["dtype"] = "bfloat16"
    else:
        embedding["file"] = "config.json"
    message = refused(package.save())
    assert "embedding" in message and "expected" in message and "found" in message


def test_facts_that_the_graphs_do_not_have(package: Package, refused: Callable[..., str]) -> None:
    for key in ("canvas_len", "sliding_window"):
        package.manifest["model"][key] += 1
    assert "denoise.onnx: input canvas: expected int64 [1, 33], found int64 [1, 32]" in refused(package.save())


def test_a_layer_more_and_a_layer_wider_than_the_graphs(package: Package, refused: Callable[..., str]) -> None:
    layers = package.manifest["model"]["layers"]
    layers[0]["head_dim"] *= 2
    message = refused(package.save())
    assert "prefill.onnx: input past_k.0: expected float32 [1, ?, 64], found float32 [1, ?, 32]" in message
    layers[0]["head_dim"] //= 2
    layers.append(layers[0])
    assert "prefill.onnx: input past_k.2: expected float32 [1, ?, 32], found none" in refused(package.save())
    del layers[1:]
    message = refused(package.save())
    assert "prefill.onnx: inputs: expected 4 as the contract names them, found also past_k.1" in message


def test_graphs_in_the_wrong_place(package: Package, refused: Callable[..., str]) -> None:
    package.manifest["graphs"] |= {"prefill": {"file": "denoise.onnx"}, "denoise": {"file": "prefill.onnx"}}
    assert "denoise.onnx: input" in refused(package.save())


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08" * 1000])
def test_a_graph_that_onnx_runtime_refuses(package: Package, refused: Callable[..., str], content: bytes) -> None:
    package.write("denoise.onnx", content)
    package.sign("denoise.onnx")
    message = refused(package.save())
    assert "denoise.onnx" in message


def rewrite_graph(package: Package, name: str, change: Callable[[Any], None]) -> None:
    import onnx

    model = onnx.load(package.folder / name, load_external_data=False)
    change(model)
    package.write(name, model.SerializeToString())
    package.sign(name)


def rename_output(package: Package, graph: str, index: int) -> None:
    """Gives an output of the graph another name; what it holds stays."""
    import onnx

    def change(model: Any) -> None:
        output = model.graph.output[index]
        model.graph.node.append(onnx.helper.make_node("Identity", [output.name], ["states"]))
        output.name = "states"

    rewrite_graph(package, graph, change)


@pytest.mark.parametrize(
    ("operator", "attributes", "name", "element", "shape", "found"),
    [
        ("Identity", {}, "hidden_states", "FLOAT", (1, 32, 64), "none"),
        ("Cast", {"to": 10}, "hidden", "FLOAT16", (1, 32, 64), "float16 [1, 32, 64]"),
        ("Transpose", {"perm": [0, 2, 1]}, "hidden", "FLOAT", (1, 64, 32), "float32 [1, 64, 32]"),
    ],
    ids=["name", "type", "shape"],
)
def test_a_graph_with_another_output(
    package: Package, refused: Callable[..., str], operator: str, attributes: Any, name: str, element: str,
    shape: tuple[int, ...], found: str,
) -> None:  # fmt: skip
    import onnx

    def change(model: Any) -> None:
        for node in model.graph.node:
            node.output[:] = ["inner" if one == "hidden" else one for one in node.output]
        model.graph.node.append(onnx.helper.make_node(operator, ["inner"], [name], **attributes))
        dtype = onnx.TensorProto.DataType.Value(element)
        model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(name, dtype, shape))

    rewrite_graph(package, "denoise.onnx", change)
    assert f"denoise.onnx: output hidden: expected float32 [1, 32, 64], found {found}" in refused(package.save())


def test_a_tampered_packed_graph_is_found_when_it_is_first_needed(package: Package, ort_library: str) -> None:
    """It is opened by the first packed pass; its canvas is not committed, and the plain loop does without it."""
    rename_output(package, "packed.onnx", 1)
    runtime = _native.Runtime(str(package.save()), threads=1, ort_library=ort_library)
    long = {"max_new_tokens": 200, "max_denoising_steps": 3, "stop_ids": []}
    ahead = _native.Session(runtime, _native.Options(runtime, pipeline=2, **long))
    ahead.prefill(np.array([2, 3], np.int32))
    for _ in range(2):
        with pytest.raises(dgrt.ContractMismatch, match="packed.onnx: output next_hidden: expected.*found none"):
            ahead.next_canvas()
        assert (ahead.tokens.size, ahead.kv_len) == (0, 2)
    plain = _native.Session(runtime, _native.Options(runtime, pipeline=1, **long))
    plain.prefill(np.array([2, 3], np.int32))
    assert plain.next_canvas().size


def test_a_tampered_checking_graph_is_found_when_it_is_first_needed(package: Package, ort_library: str) -> None:
    rename_output(package, "check.onnx", 0)
    runtime = _native.Runtime(str(package.save()), threads=1, ort_library=ort_library)
    drafted = {"max_new_tokens": 4, "guarantee": 2, "draft": list(range(4, 36)), "verify_always": True}
    packed = _native.Session(runtime, _native.Options(runtime, verify_packing=2, **drafted))
    packed.prefill(np.array([2, 3], np.int32))
    with pytest.raises(dgrt.ContractMismatch, match="check.onnx: output canvas_hidden: expected float32.*found none"):
        packed.next_canvas()
    assert (packed.tokens.size, packed.kv_len) == (0, 2)
    alone = _native.Session(runtime, _native.Options(runtime, verify_packing=1, **drafted))
    alone.prefill(np.array([2, 3], np.int32))
    assert alone.next_canvas().size


def test_a_tampered_score_graph_is_found_when_it_is_first_needed(package: Package, ort_library: str) -> None:
    """It is opened by the first causal pass, not with the package; refinement does without it."""
    rename_output(package, "score.onnx", 0)
    runtime = _native.Runtime(str(package.save()), threads=1, ort_library=ort_library)
    for _ in range(2):
        causal = _native.Session(runtime, _native.Options(runtime, max_new_tokens=4, guarantee=1))
        causal.prefill(np.array([2, 3], np.int32))
        with pytest.raises(dgrt.ContractMismatch, match="score.onnx: output hidden: expected float32.*found none"):
            causal.next_canvas()
        assert (causal.tokens.size, causal.kv_len) == (0, 1)
    exact = _native.Session(runtime, _native.Options(runtime, max_new_tokens=4, max_denoising_steps=2))
    exact.prefill(np.array([2, 3], np.int32))
    assert exact.next_canvas().size == 4


def test_a_tampered_drafter_graph_is_found_when_it_is_first_needed(
    engines: Callable[..., Path], tmp_path: Path, ort_library: str
) -> None:
    """A drafter that fails is done without; but a graph that is not the contract's is an error like any other."""
    package = Package(engines("plain", drafter="fp32"), tmp_path / "package")
    rename_output(package, "drafter.onnx", 0)
    runtime = _native.Runtime(str(package.save()), threads=1, ort_library=ort_library)
    for guarantee in (1, 2):
        for _ in range(2):
            drafted = _native.Session(runtime, _native.Options(runtime, guarantee=guarantee, drafter=2))
            drafted.prefill(np.array([2, 3], np.int32))
            with pytest.raises(dgrt.ContractMismatch, match="drafter.onnx: output hidden: expected .*found none"):
                drafted.next_canvas()
            assert drafted.tokens.size == 0
    plain = _native.Session(runtime, _native.Options(runtime, guarantee=1, drafter=1, max_new_tokens=4))
    plain.prefill(np.array([2, 3], np.int32))
    assert plain.next_canvas().size


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("kv_layers", [0], "drafter.kv_layers[0]: expected a full layer"),
        ("kv_layers", [1, 1], "drafter.kv_layers[1]: expected a layer behind the one before"),
        ("kv_layers", [2**40], "drafter.kv_layers[0]: expected an integer from 0 to 1"),
        ("kv_layers", [], "drafter.kv_layers: expected at least one layer"),
        ("block_len", 33, "drafter.block_len: expected an integer from 1 to 32, found 33"),
        ("block_len", -1, "drafter.block_len: expected an integer from 1 to 32, found -1"),
    ],
)
def test_absurd_facts_of_a_drafter(
    engines: Callable[..., Path], tmp_path: Path, refused: Callable[..., str], key: str, value: Any, says: str
) -> None:
    package = Package(engines("plain", drafter="fp32"), tmp_path / "package")
    package.manifest["drafter"][key] = value
    assert says in refused(package.save())


@pytest.mark.parametrize("location", ["../outside.safetensors", "/etc/passwd", "missing.safetensors"])
def test_weights_that_a_graph_looks_for_elsewhere(package: Package, refused: Callable[..., str], location: str) -> None:
    (package.folder.parent / "outside.safetensors").write_bytes(package.read("model.safetensors"))

    def redirect(model: Any) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location

    rewrite_graph(package, "denoise.onnx", redirect)
    assert "denoise.onnx" in refused(package.save())


def test_weights_beyond_the_end_of_their_file(package: Package, refused: Callable[..., str]) -> None:
    def shift(model: Any) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "offset":
                    entry.value = str(int(entry.value) + 10**7)

    rewrite_graph(package, "denoise.onnx", shift)
    assert "denoise.onnx" in refused(package.save())


def test_a_library_that_is_not_onnx_runtime(plain_engine: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, dgrt; dgrt.Runtime(sys.argv[1], ort_library=sys.argv[2])"
    fake = tmp_path / "libonnxruntime.so"
    fake.write_bytes(b"not a library")
    answers = {str(fake): "Tried:", "/nonexistent/x.so": "DGRT_ORT_LIBRARY", "libc.so.6": "OrtGetApiBase"}
    for library, part in answers.items():
        command = [sys.executable, "-c", code, str(plain_engine), library]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1 and "dgrt.Unsupported" in result.stderr and part in result.stderr


def test_weights_that_are_not_numbers_give_an_error_and_no_tokens(package: Package, ort_library: str) -> None:
    """An exporter refuses them; this package says that it was exported so."""
    weights = bytearray(package.read("model.safetensors"))
    start = 8 + int.from_bytes(weights[:8], "little")
    weights[start:] = b"\xff" * (len(weights) - start)  # NaN everywhere
    package.write("model.safetensors", bytes(weights))
    package.sign("model.safetensors")
    runtime = _native.Runtime(str(package.save()), threads=1, ort_library=ort_library)
    session = _native.Session(runtime, _native.Options(runtime, max_denoising_steps=3, max_new_tokens=32))
    session.prefill(np.array([2, 3], np.int32))
    with pytest.raises(dgrt.DeviceError, match="not finite"):
        session.next_canvas()
    assert (session.tokens.size, session.kv_len) == (0, 2)
