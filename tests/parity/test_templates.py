"""Chat templates against transformers: the same text, or an error on both sides, for hundreds of generated cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
import transformers.utils.chat_template_utils as oracle_module
from templates import FROZEN_TIME, TemplateCase, template_cases
from transformers import AutoTokenizer

import dgrt.messages
import dgrt.plain
from dgrt import DgrtError
from dgrt.messages import ChatTemplate, TemplateInput
from dgrt.tokenizer import Tokenizer

COUNT, SEED = 600, 17
MARK = "CONTINUE"  # left in the text by transformers where a template repeats a message; refused here


@pytest.fixture(scope="module")
def oracle(tokenizer_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    found = Tokenizer.from_folder(tokenizer_folder, ["tokenizer.json", "tokenizer_config.json"])
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def frozen_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    clock = SimpleNamespace(now=lambda: datetime.fromisoformat(FROZEN_TIME))
    monkeypatch.setattr(oracle_module, "datetime", clock)
    monkeypatch.setattr(dgrt.messages, "datetime", clock)
    yield


def render_ours(tokenizer: Tokenizer, case: TemplateCase) -> str:
    given = TemplateInput(tools=case.tools, continued=case.continued, variables=case.variables)
    return ChatTemplate(case.source, tokenizer).render(case.messages, given)


def render_theirs(oracle: Any, case: TemplateCase) -> str:
    text: str = oracle.apply_chat_template(
        case.messages, tools=case.tools, chat_template=case.source, tokenize=False,
        add_generation_prompt=case.add_generation_prompt, continue_final_message=case.continued or False,
        **case.variables,
    )  # fmt: skip
    return text


def outcome(render: Any, *arguments: Any) -> str | None:
    try:
        return str(render(*arguments))
    except Exception:  # whatever transformers raises
        return None


def test_generated_templates_render_as_transformers_renders_them(tokenizer: Tokenizer, oracle: Any) -> None:
    rendered = refused = 0
    for number, case in enumerate(template_cases(SEED, COUNT)):
        expected = outcome(render_theirs, oracle, case)
        if expected is None or MARK in expected:
            with pytest.raises(DgrtError):
                render_ours(tokenizer, case)
            refused += 1
        else:
            assert render_ours(tokenizer, case) == expected, (number, case)
            rendered += 1
    assert rendered > COUNT // 2 and refused > COUNT // 20  # the generator makes both kinds


@dataclasses.dataclass
class Turn:
    role: str
    content: str
    name: str | None = None


class Model(pydantic.BaseModel):
    role: str
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


def test_objects_of_sdks_render_as_their_dicts(tokenizer: Tokenizer, oracle: Any) -> None:
    source = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}"
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    objects = [Turn("user", "Hi"), Model(role="assistant", tool_calls=[call]), Model(role="tool", content="ok")]
    dicts = [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "ok"},
    ]  # fmt: skip
    text = ChatTemplate(source, tokenizer).render(objects)  # type: ignore[arg-type]
    assert text == oracle.apply_chat_template(dicts, chat_template=source, tokenize=False)


def test_variables_may_be_rich_objects(tokenizer: Tokenizer, oracle: Any) -> None:
    source = "{{ x | tojson }} {{ y }}"
    variables = {"x": {"a": (1, 2.5), "b": Turn("user", "Hi")}, "y": Model(role="user")}
    given = TemplateInput(variables=dgrt.plain.plain_data("template_arguments", variables))
    messages = [{"role": "user", "content": "Hi"}]
    expected = oracle.apply_chat_template(messages, chat_template=source, tokenize=False, **variables)
    assert ChatTemplate(source, tokenizer).render(messages, given) == expected
