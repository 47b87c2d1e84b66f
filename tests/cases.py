"""The one list of sizes, seeds, counts and prompts that tests share; each with its reason.

Tolerances are in `tolerances.py`, random checkpoints in `models.py`.
"""

from __future__ import annotations

# --- noise -----------------------------------------------------------------------------------------------------------

# Every field of a key at zero, at a small value, and at its largest; all different, so that a swapped field shows.
NOISE_KEYS: list[dict[str, int]] = [
    {"seed": 0, "request": 0, "canvas": 0, "step": 0},
    {"seed": 1, "request": 2, "canvas": 3, "step": 48},
    {"seed": 2**32, "request": 0, "canvas": 0, "step": 1},  # only the high word of the seed
    {"seed": 2**64 - 1, "request": 2**24 - 1, "canvas": 2**20, "step": 1000},
    {"seed": 0x0123456789ABCDEF, "request": 77, "canvas": 5, "step": 12},
]
# Bounds: one, tiny, prime, mini's and the released vocabulary, the largest 31-bit value.
NOISE_BOUNDS = [1, 2, 111, 384, 32_003, 262_144, 2**31 - 1]
NOISE_LENGTHS = [1, 31, 96, 256]
NUM_STREAMS = 6

# Known answers of Philox4x32-10 from the authors' Random123 distribution (kat_vectors): counter, key, words.
PHILOX_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

# --- statistics ------------------------------------------------------------------------------------------------------

# With a fixed seed a test either passes always or never; six sigma makes "never" a defect and not bad luck
# (two-sided 2e-9 per comparison, and a few thousand comparisons are made).
SIGMAS = 6.0
# Enough draws that a bias of one percent of a standard deviation is several sigma.
NUM_DRAWS = 1 << 18
NUM_BINS = 256  # cells of a chi-square: over a thousand draws in each
NUM_PAIRS = 1 << 16  # draws per correlation

# --- sampler ---------------------------------------------------------------------------------------------------------

# (L, V, D): one row; sizes that are multiples of nothing; several vocabulary tiles; a tile border on both sides.
HEAD_SHAPES = [
    (1, 111, 8),
    (31, 384, 128),
    (17, 511, 24),
    (17, 512, 24),
    (17, 513, 24),
    (96, 1_537, 48),
    (256, 3_001, 64),
]
HEAD_TEMPERATURES = [0.8, 0.4083]  # first and last of the released schedule
HEAD_SPREADS = [0.01, 1.0, 8.0, 200.0]  # standard deviation of raw scores: flat, normal, sharp, into the softcap
HEAD_SOFTCAP = 30.0
# Draws for the distribution test: cells with fewer than MIN_EXPECTED expected draws are pooled.
HEAD_DRAWS = 200_000
MIN_EXPECTED = 50.0
# Probability that counts as none: all such tokens of a test's vocabulary together have less than 1e-9, the distance
# that its uniforms keep from 0 and 1.
NO_MASS = 1e-13
NUM_SHARP_ROWS = 24
ACCEPT_LENGTHS = [1, 2, 96, 256]
ACCEPT_ROUNDS = 300  # random vectors per length and scale
ACCEPT_SCALES = [1e-4, 1e-2, 1.0]  # entropies far below, around and far above the bound
ENTROPY_BOUND = 0.1

# --- parity ----------------------------------------------------------------------------------------------------------

STEP_PARITY_SEEDS = [11, 2**63 + 5]
# Tokens of a step-parity run: two canvases and a bit, so that a commit lies between them and a cut at the end.
NUM_PARITY_CANVASES = 2
# Prompts around one chunk of native prefill (kPrefillChunkTokens in csrc/runtime/plan.h), and of two chunks and a bit.
PREFILL_CHUNK = 512
CHUNKED_PROMPTS = [PREFILL_CHUNK - 1, PREFILL_CHUNK, PREFILL_CHUNK + 1, 1_100]
# Trajectory parity on mini: prompts of the training tasks, held-out seed, in batches of equal prompt length.
TRAJECTORY_TASKS = ("sudoku", "json_record", "edit")
TRAJECTORY_BATCH = 8
NUM_TRAJECTORIES = 104
MULTI_CANVAS_BATCH = 8  # long edits
MULTI_CANVAS_COUNT = 3
MULTI_CANVAS_LEAST = 6  # of the batch, so many answers must take several canvases: a model may cut one or two short
# With and without commit speculation: random models and edits of mini, all of several canvases.
PIPELINE_GENERATIONS = 2000
PIPELINE_EDITS = 40
# A trajectory may leave the oracle's where a decision is within arithmetic noise, and only there (every step of it is
# then judged). Noise is 1e-6 of a probability and a canvas of a model that has learned little makes 5,000 decisions
# that feed back into each other: 1 in 32 was seen. A trained model stops after a few clear steps.
MAX_NOISY_TRAJECTORIES = 0.05
MAX_NOISY_ROWS = 1  # of one batch

# Causal tier: prompts per task against transformers (slow: one pass per token there), and with a drafter against
# without.
CAUSAL_ORACLE_PROMPTS = 3
CAUSAL_DRAFTED_PROMPTS = 40
CAUSAL_TEMPERATURES = (0.0, 1.0)
CAUSAL_RANDOM_TOKENS = 60

# --- surfaces ---------------------------------------------------------------------------------------------------------

# A short generation, for tests about what a user types and not about what the model says: mini's canvas is cut, and
# few steps leave it unsettled.
QUICK_OPTIONS = {"max_denoising_steps": 4, "max_new_tokens": 40}
QUICK = ["--max-denoising-steps", "4", "--max-new-tokens", "40", "--threads", "1"]
# A generation that lasts for seconds (never confident, no stop ids), for tests that interrupt it.
LONG_OPTIONS = {"max_denoising_steps": 40, "confidence_threshold": 1e-30, "stop_ids": ()}
LONG = ["--max-denoising-steps", "40", "--confidence-threshold", "1e-30", "--stop-ids", "none", "--threads", "1"]
PROCESS_TIMEOUT_S = 120  # far above what any process of a test takes on a loaded machine; a hang ends here

# --- the bundled model ------------------------------------------------------------------------------------------------

# Held-out cases per task and the share that must be exact. Far above chance, which is zero, and far below the rates on
# the model card, because another rounding order may flip some answers and 40 cases have a standard error of 6 points.
# Floors follow the card: raise them with a better model.
MINI_FLOORS = {
    "sudoku_4x4": (40, 0.85),
    "sudoku_6x6": (40, 0.90),
    "sudoku_9x9": (40, 0.70),
    "json": (40, 0.90),
    "edit_short": (40, 0.75),
}

# --- text ------------------------------------------------------------------------------------------------------------

# One to four bytes per character, a joined emoji, right-to-left, combining marks, line breaks, nothing.
TEXTS = [
    "",
    "plain",
    "zwei Zeilen\nund ein Tab\t.",
    "Grüße, señor",
    "日本語のテキスト",
    "שלום עולם",
    "é vs é",
    "👩‍👩‍👧‍👦 family",
    "tail of a quote: “",
]


def prompt_lengths(window: int) -> list[int]:
    """Prompt lengths around the sliding window W: one token, one less, equal, one more, and far beyond it."""
    return [1, window - 1, window, window + 1, 4 * window]
