"""Token ids of the byte-level vocabulary and the chat layout of prompts.

The special ids are Gemma's where they fit into 384 ids; byte b has id 128 + b.
Standard library only.
"""
PAD, EOS, BOS, UNK, MASK = 0, 1, 2, 3, 4
TOOL_RESPONSE, TURN, TURN_END = 50, 105, 106
BYTE_OFFSET = 128
VOCAB_SIZE = 384

SPECIAL = {
    PAD: "<pad>", EOS: "<eos>", BOS: "<bos>", UNK: "<unk>", MASK: "<mask>",
    46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>", TOOL_RESPONSE: "<|tool_response>",
    51: "<tool_response|>", 52: '<|"|>', 98: "<|think|>", 100: "<|channel>", 101: "<channel|>",
    TURN: "<|turn>", TURN_END: "<turn|>", 120: "<|image>", 121: "<|image|>", 122: "<image|>",
}


def encode_bytes(text: str) -> list[int]:
    return [BYTE_OFFSET + b for b in text.encode()]


def encode_prompt(content: str) -> list[int]:
    """Ids of one user turn followed by the opening of the model turn."""
    opening, closing = encode_bytes("user\n"), encode_bytes("\n")
    return [BOS, TURN, *opening, *encode_bytes(content), TURN_END, *closing, TURN, *encode_bytes("model\n")]


def decode_answer(ids: list[int]) -> str:
    """Text up to the first stop id; other special ids are dropped."""
    out = bytearray()
    for i in ids:
        if i in (EOS, TURN_END, TOOL_RESPONSE):
            break
        if i >= BYTE_OFFSET:
            out.append(i - BYTE_OFFSET)
    return out.decode(errors="replace")
