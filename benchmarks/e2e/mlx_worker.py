"""A third side of the comparison: mlx-vlm on the CPU, in a process and an environment of its own.

    python mlx_worker.py WORKLOAD.json   ->   one JSON line: per-prompt times and steps, peak RSS

That environment has `mlx[cpu]` and `mlx-vlm` and nothing of ours. Token ids in, token ids out, as on the other sides:
its generator insists on a tokenizer and gets a stand-in that does nothing. Whole canvases, entropy-bound acceptance.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import tempfile
import time
from pathlib import Path

import mlx.core as mx
from mlx_vlm.utils import load_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from e2e import workload

diffusion = importlib.import_module("mlx_vlm.generate.diffusion")  # the package has a function of the name `generate`


class NoText:
    """In the place of a tokenizer and of what turns tokens into text."""

    last_segment = ""

    def __init__(self, stop_ids: set[int]):
        self.stopping_criteria = _Stops(stop_ids)

    def add_token(self, *args: object, **options: object) -> None:
        """Nothing."""

    def finalize(self) -> None:
        """Nothing."""

    def decode(self, *args: object, **options: object) -> str:
        return ""


class _Stops:
    def __init__(self, stop_ids: set[int]):
        self._stop_ids = stop_ids

    def add_eos_token_ids(self, ids: object) -> None:
        """They are known."""

    def __call__(self, token: int) -> bool:
        return int(token) in self._stop_ids


def load(checkpoint: Path, dtype: str) -> object:
    """The model from a copy whose config.json is spelled as the released one is."""
    config = json.loads((checkpoint / "config.json").read_text())
    text = config["text_config"]
    full = next(iter(text.pop("per_layer_config").values()))
    text["global_head_dim"], text["num_global_key_value_heads"] = full["head_dim"], full["num_key_value_heads"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        for name in ("model.safetensors", "generation_config.json"):
            (Path(folder) / name).symlink_to(checkpoint / name)
        model = load_model(Path(folder))
    model.set_dtype(getattr(mx, dtype))
    mx.eval(model.parameters())
    return model


def main() -> None:
    work = workload.load(Path(sys.argv[1]))
    mx.set_default_device(mx.cpu)
    model = load(Path(work["checkpoint"]), work["mlx_dtype"])
    text = NoText(set(work["stop_ids"]))
    diffusion.make_streaming_detokenizer = lambda processor: text
    rows = []
    for number, ids in enumerate(work["warmup"] + work["prompts"]):
        mx.random.seed(number)
        start = time.perf_counter()
        for result in diffusion.stream_diffusion_generate(
            model, text, text, mx.array([ids]), None, None, max_tokens=work["max_new_tokens"],
            skip_special_token_ids=set(), temperature=0.8, max_denoising_steps=work["max_denoising_steps"],
            diffusion_full_canvas=True, diffusion_sampler="entropy-bound",
        ):  # fmt: skip
            last = result
        total = time.perf_counter() - start
        steps = last.diffusion_denoising_steps
        rows.append({
            "total_ms": 1e3 * total, "steps": steps, "canvases": last.diffusion_canvas_tokens // work["canvas_len"],
            "tokens": last.generation_tokens, "ms_per_step": 1e3 * total / steps,
        })  # fmt: skip
    versions = {package: importlib.metadata.version(package) for package in ("mlx", "mlx-vlm")}
    done = {"rows": rows[len(work["warmup"]):], "peak_rss_bytes": workload.peak_rss_bytes(), "versions": versions}
    print(json.dumps(done))


if __name__ == "__main__":
    main()
