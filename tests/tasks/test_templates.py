"""Chat templates: where they come from, what they may not do."""

from __future__ import annotations

import hashlib
import json

import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.tasks import sandbox
from ownlm.tasks.problems import BadRow
from ownlm.tasks.templates import BUILT_IN, ChatTemplate, find_template
from tests.tasks.files import turns
from tests.tasks.models import TEMPLATES, model_folder

ASKED = turns("Who?", "The fox.")


def found(folder, given=None):
    return find_template(Tokenizer.load(folder), folder, given)


def test_a_model_without_a_template_is_refused_and_told_what_to_type(corpus, tmp_path):
    folder = model_folder(tmp_path / "model", corpus, None)
    with pytest.raises(Refused, match="has no chat template") as refusal:
        found(folder)
    assert "--chat-template chatml" in refusal.value.do
    assert found(folder, "chatml").text(ASKED) == (
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nThe fox.<|im_end|>\n"
    )
    assert found(folder, "alpaca").text([{"role": "system", "content": "Be short."}, *ASKED]) == (
        "Be short.\n\n### Instruction:\nWho?\n\n### Response:\nThe fox.<|endoftext|>\n\n"
    )
    with pytest.raises(UsageError, match='Did you mean "chatml"'):
        found(folder, "chatlm")


def test_a_file_wins_over_the_folder_and_the_folders_file_over_its_configuration(corpus, tmp_path):
    folder = model_folder(tmp_path / "model", corpus, "from the configuration")
    assert found(folder).text(ASKED) == "from the configuration"
    (folder / "chat_template.jinja").write_text("from the file")
    assert found(folder).text(ASKED) == "from the file"
    (tmp_path / "mine.jinja").write_text("given {{ messages | length }} 春")
    given = found(folder, str(tmp_path / "mine.jinja"))
    assert given.text(ASKED) == "given 2 春"
    assert given.sha256 == hashlib.sha256("given {{ messages | length }} 春".encode()).hexdigest()


def test_of_several_templates_the_default_one(corpus, tmp_path):
    folder = model_folder(tmp_path / "model", corpus, None)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "the default"}]
    file.write_text(json.dumps(config | {"chat_template": several}))
    assert found(folder).text(ASKED) == "the default"
    file.write_text(json.dumps(config | {"chat_template": several[:1]}))
    with pytest.raises(Refused, match="none is called default: tool_use"):
        found(folder)


def test_chatml_needs_its_tokens(tmp_path, corpus):
    folder = model_folder(tmp_path / "model", corpus, None)
    text = (folder / "tokenizer.json").read_text().replace("<|im_start|>", "<|other|>")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(Refused, match=r"has no <\|im_start\|>"):
        found(folder, "chatml")


def test_what_is_no_template_is_refused_with_its_line(tmp_path):
    with pytest.raises(Refused, match=r"mine.jinja:2: not a Jinja template"):
        ChatTemplate("{{ messages }}\n{% for %}", "mine.jinja", {})
    with pytest.raises(Refused, match="longer than"):
        ChatTemplate("x" * (sandbox.MAX_SOURCE + 1), "mine.jinja", {})


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999999999) %}{% endfor %}",
        "{% set r = range(2000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
        "{{ 'x'.center(3) }}",
        "{{ 'x'.zfill(3) }}",
        "{{ 'x' | center(3) }}",
        "{% set ns = namespace(s='xxxxxxxxxx') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='xxxxxxxxxx') %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=['x']) %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
        "{{ 'x' * 999999999 }}",
        "{{ 10 ** 999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'x'.center(999999999) }}",
        "{{ 'x' | center(999999999) }}",
        "{{ 'x' | indent(999999999) }}",
        "{% set s = 'x,' * 3 %}",
        "{% set s = ('x' | list | tojson(indent=99)) %}",
        "{% set ns = namespace(s='xxxxxxxxxx') %}{% for a in range(9) %}{% set ns.s = ns.s.replace('x', ns.s) %}{% endfor %}",
        "{{ messages.__class__.__mro__ }}{{ ''.__class__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% include '/etc/passwd' %}",
        "{{ [1, 2, 3] | random }}",
        "{{ lipsum() }}",
        "{{ strftime_now('%d %b %Y') }}",
        "{% set x = messages.append(1) %}",
    ],
)
def test_a_template_that_does_too_much_or_reaches_out_is_refused(source, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_STEPS", 20_000)
    with pytest.raises((Refused, BadRow)):
        ChatTemplate(source, "hostile", {}).text(ASKED)


def test_a_template_says_no_itself():
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", "strict.jinja", {})
    with pytest.raises(BadRow, match="refuses") as bad:
        template.text(ASKED)
    assert bad.value.detail == "roles must alternate"


def test_what_templates_of_models_use_works():
    source = (
        "{%- set ns = namespace(n=0) -%}{%- for m in messages if m.role != 'system' -%}{%- if loop.index0 > 5 %}{% break %}{% endif -%}"
        "{%- set ns.n = ns.n + 1 -%}{{ ns.n ~ m['content'].replace('?', '!') | trim }}{{ {'a': '春'} | tojson }}{%- endfor -%}"
        "{{ messages[-1].content.split(' ') | join('+') }}{{ 'x' if tools is none }}{{ messages[::-1][0].role }}"
        "{% set word %}{{ 'ab' }}{{ 'cd' }}{% endset %}{{ word | upper }}{% if strftime_now is defined %}clock{% endif %}"
    )
    text = ChatTemplate(source, "x", {}).text(ASKED)
    assert text == '1Who!{"a": "春"}2The fox.{"a": "春"}The+fox.xassistantABCD'


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_gives_the_same_text_twice_and_a_longer_one_with_the_prompt(name):
    template = ChatTemplate(TEMPLATES[name], name, {"bos_token": "<s>", "eos_token": "</s>"})
    assert template.text(ASKED[:1]) == template.text(ASKED[:1])
    asked = template.text(ASKED[:1], add_generation_prompt=True)
    assert asked.startswith(template.text(ASKED[:1]))


def test_the_built_in_templates_have_no_form_for_tools():
    for name, source in BUILT_IN.items():
        with pytest.raises(BadRow, match="refuses"):
            ChatTemplate(source, name, {}).text([*ASKED, {"role": "tool", "content": "x"}])
