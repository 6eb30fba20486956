"""Tokenizers with chat templates, made here."""

from __future__ import annotations

import json
from pathlib import Path

from ownlm.corpus.tokenizer import Tokenizer

# As published models write conversations: what they do with spaces, system texts and thoughts differs.
TEMPLATES = {
    "chatml": "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama-2": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('no ' + m['role'] + ' here') }}{% endif %}{% endfor %}",
    "thinking": "{%- for m in messages %}{%- if m.role == 'assistant' %}{%- set c = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{{- '<|im_start|>assistant\n' }}{%- if loop.last %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- c + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
    "marked": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "tools": "{% if tools %}{{ '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content }}{% for call in m.tool_calls or [] %}{{ '<call>' + call.function | tojson + '</call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "lines": "{% if messages %}\n    {% for m in messages %}\n<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n    {% endfor %}\n"
    "{% endif %}\n{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}",
    "no header": "{% for m in messages %}{{ m.role + ': ' + m.content | trim + '\n' }}{% endfor %}",
}


def model_folder(folder: Path, corpus: Path, template: str | None) -> Path:
    """A folder with the tokenizer of the small corpus and a chat template (its text, or None)."""
    Tokenizer.load(corpus).save(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"bos_token": "<|spare_0|>", "eos_token": "<|endoftext|>"}
    if template is not None:
        config["chat_template"] = template
    file.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return folder
