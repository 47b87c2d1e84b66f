"""Weight files that change under an engine: every change is an error that names the file, every non-change loads.

Weights often are the checkpoint's own files (hard links), so whoever saves a checkpoint again writes into the engine.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest

import dgrt
from dgrt import _native

Change = Callable[[Path, random.Random], None]
_FICLONE = 0x40049409
NUM_CASES = 260


def rewrite(path: Path, content: bytes) -> None:
    """Through the file that is there, as `cp` and `rsync --inplace` do."""
    with path.open("r+b") as stream:
        stream.write(content)
        stream.truncate()


def splice(path: Path, offset: int, content: bytes) -> None:
    old = path.read_bytes()
    assert old[offset : offset + len(content)] != content
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)


def flip_a_bit(path: Path, rng: random.Random) -> None:
    offset = rng.randrange(path.stat().st_size)
    splice(path, offset, bytes([path.read_bytes()[offset] ^ 1 << rng.randrange(8)]))


def write_a_run(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    offset = rng.randrange(size - 8)
    splice(path, offset, rng.randbytes(rng.randrange(8, min(5000, size - offset) + 1)))


def other_weights(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    values = np.roll(np.frombuffer(content, np.uint8, offset=start), rng.randrange(1, 5000))
    rewrite(path, content[:start] + values.tobytes())


def other_header(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    letters = [i for i in range(8, 8 + int.from_bytes(content[:8], "little")) if content[i : i + 1].isalpha()]
    offset = rng.choice(letters)
    splice(path, offset, content[offset : offset + 1].swapcase())


def swapped_blocks(path: Path, rng: random.Random) -> None:
    content, size = path.read_bytes(), rng.choice((64, 512, 4096))
    first, second = sorted(rng.sample(range(0, len(content) - size, size), 2))
    a, b = content[first : first + size], content[second : second + size]
    assert a != b
    rewrite(path, content[:first] + b + content[first + size : second] + a + content[second + size :])


def truncated(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def extended(path: Path, rng: random.Random) -> None:
    with path.open("ab") as stream:
        stream.write(bytes(rng.randrange(1, 5000)))


def emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def zeroed(path: Path, rng: random.Random) -> None:
    rewrite(path, bytes(path.stat().st_size))


def saved_again(path: Path, rng: random.Random) -> None:
    """A new file with other content takes the name."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 0x80
    other = path.with_name("new")
    other.write_bytes(content)
    other.rename(path)


def removed(path: Path, rng: random.Random) -> None:
    path.unlink()


def made_a_link(path: Path, rng: random.Random) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


CHANGES: list[Change] = [
    flip_a_bit, write_a_run, other_weights, other_header, swapped_blocks, truncated, extended, emptied, zeroed,
    saved_again, removed, made_a_link,
]  # fmt: skip


def touched(path: Path, rng: random.Random) -> None:
    os.utime(path, (rng.randrange(2**31), rng.randrange(2**31)))


def written_as_it_is(path: Path, rng: random.Random) -> None:
    rewrite(path, path.read_bytes())


def copied(path: Path, rng: random.Random) -> None:
    shutil.copyfile(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def linked(path: Path, rng: random.Random) -> None:
    os.link(path, path.parent.parent / "another name")


def reflinked(path: Path, rng: random.Random) -> None:
    other = path.with_name("copy")
    with path.open("rb") as reader, other.open("wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:  # a file system without reflinks
            shutil.copyfileobj(reader, writer)
    other.rename(path)


def made_read_only(path: Path, rng: random.Random) -> None:
    path.chmod(0o444)


def moved(path: Path, rng: random.Random) -> None:
    """The whole package, by copy and with new times."""
    folder = path.parent
    shutil.copytree(folder, folder.with_name("moved"), copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    folder.with_name("moved").rename(folder)


NO_CHANGES: list[Change] = [touched, written_as_it_is, copied, linked, reflinked, made_read_only, moved]


@pytest.fixture(scope="module")
def sources(engines: Callable[..., Path]) -> list[Path]:
    """One weight file; three; one and a drafter's."""
    return [engines("plain"), engines("bf16_sharded"), engines("plain", drafter="fp32")]


def test_every_change_is_an_error_that_names_the_file_and_no_other_is(
    sources: list[Path], tmp_path: Path, ort_library: str
) -> None:
    rng = random.Random(17)
    for case in range(NUM_CASES):
        is_changed = case % 3 < 2  # loading takes longer than refusing
        change = rng.choice(CHANGES if is_changed else NO_CHANGES)
        place = tmp_path / str(case)
        folder = place / "engine"
        shutil.copytree(rng.choice(sources), folder)
        name = rng.choice(json.loads((folder / "manifest.json").read_text())["weight_files"])
        change(folder / name, rng)
        if not is_changed:
            _native.Runtime(str(folder), threads=1, ort_library=ort_library)
        else:
            with pytest.raises(dgrt.ContractMismatch) as caught:
                _native.Runtime(str(folder), threads=1, ort_library=ort_library)
            text = str(caught.value)
            assert text.startswith(f"{folder / name}: expected ") and "found" in text and "\n" not in text, change
            if change not in (removed, made_a_link):
                assert " UTC); copy the package again or export the checkpoint again" in text, change
        shutil.rmtree(place)


def test_saving_the_checkpoint_again_is_noticed_and_a_copy_does_not_care(
    checkpoints: Callable[[str], Path], tmp_path: Path, ort_library: str
) -> None:
    """Trainers that save into the same file, under a running process too."""
    from dgrt_export import export

    source = models.copy_checkpoint(checkpoints("plain"), tmp_path / "checkpoint")
    assert export(source, tmp_path / "linked", profile="portable").weights == "linked"
    assert export(source, tmp_path / "own", profile="portable", copy=True).weights in ("copied", "reflinked")
    weights = source / "model.safetensors"
    assert weights.samefile(tmp_path / "linked" / weights.name)
    assert not weights.samefile(tmp_path / "own" / weights.name)

    with dgrt.Runtime(tmp_path / "linked", threads=1) as running, dgrt.Runtime(tmp_path / "own", threads=1) as own:
        before = own.generate([2, 3], max_new_tokens=32, seed=1).tokens.tolist()
        assert running.generate([2, 3], max_new_tokens=32, seed=1).tokens.tolist() == before
        other_weights(weights, random.Random(1))
        said = r"model.safetensors: expected the bytes that were exported, found others \(last written .* UTC\); "
        hint = "export .* shared by hard link .2 names, such as the checkpoint's.: something wrote into it; `dgrt "
        for attempt in (lambda: running.generate([2, 3]), lambda: dgrt.Runtime(tmp_path / "linked")):
            with pytest.raises(dgrt.ContractMismatch, match=said + ".*" + hint):
                attempt()
        assert own.generate([2, 3], max_new_tokens=32, seed=1).tokens.tolist() == before
        weights.write_bytes(b"")
        with pytest.raises(dgrt.ContractMismatch, match="model.safetensors: expected .* bytes, found 0"):
            running.generate([2, 3])
