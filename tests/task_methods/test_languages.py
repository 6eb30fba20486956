"""Languages by code and name, and what multilingual models call them."""

from __future__ import annotations

import pytest

from ownlm.console.errors import UsageError
from ownlm.task_methods.languages import _codes, language_code, language_name, language_token
from ownlm.tasks.shapes import LANGUAGES


def test_the_table_is_that_of_iso_639_1():
    codes = _codes()
    assert len(codes) == 184 and all(len(two) == 2 and len(three) == 3 for two, (three, _) in codes.items())
    assert len({three for three, _ in codes.values()}) == 184 and set(LANGUAGES) <= set(codes)
    # What training calls a language is what it is called here.
    assert all(language_name(two) == name for two, name in LANGUAGES.items())


@pytest.mark.parametrize(
    ("given", "code", "name"),
    [
        ("de", "de", "German"), ("DEU", "de", "German"), ("German", "de", "German"), ("pt-BR", "pt-BR", "Portuguese"),
        ("zh_CN", "zh-CN", "Chinese"), ("deu_Latn", "de-Latn", "German"), ("arb_Arab", "ar-Arab", "Arabic"),
        ("sq", "sq", "Albanian"), (" en ", "en", "English"), ("scottish gaelic", "gd", "Scottish Gaelic"),
    ],
)  # fmt: skip
def test_codes_and_names(given, code, name):
    assert language_code(given, "--to") == code
    assert language_name(code) == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("jp", 'Did you mean "ja" (Japanese)?'),
        ("germn", 'Did you mean "German"?'),
        ("xq", "xh (Xhosa)"),
        ("", "there is no language"),
    ],
)
def test_a_language_that_does_not_exist(given, message):
    with pytest.raises(UsageError) as refused:
        language_code(given, "--to")
    assert message in str(refused.value) and refused.value.where == "--to"


@pytest.mark.parametrize(
    ("code", "tokens", "token"),
    [
        ("de", ["deu_Latn", "fra_Latn"], "deu_Latn"),
        ("de", ["de_DE", "en_XX"], "de_DE"),
        ("de", ["__de__"], "__de__"),
        ("de", [">>deu<<", ">>fra<<"], ">>deu<<"),
        ("ar", ["arb_Arab", "ary_Arab"], "arb_Arab"),
        ("zh", ["zho_Hant", "zho_Hans"], "zho_Hans"),
        ("zh-TW", ["zho_Hant", "zho_Hans"], "zho_Hant"),
        ("pt-BR", [">>pt<<", ">>pt_br<<"], ">>pt_br<<"),
        ("fr", ["deu_Latn", "<s>"], None),
    ],
)  # fmt: skip
def test_what_models_call_a_language(code, tokens, token):
    assert language_token(code, tokens) == token
