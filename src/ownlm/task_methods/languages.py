"""Languages by their ISO 639 codes or English names, and what multilingual models call them.

The table is ISO 639-1 with the terminology codes of ISO 639-2 (the Library of Congress keeps it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from ownlm.console.errors import UsageError, did_you_mean
from ownlm.tasks.shapes import LANGUAGES

_TABLE = """
aa aar Afar; ab abk Abkhazian; ae ave Avestan; af afr Afrikaans; ak aka Akan; am amh Amharic; an arg Aragonese;
ar ara Arabic; as asm Assamese; av ava Avaric; ay aym Aymara; az aze Azerbaijani; ba bak Bashkir; be bel Belarusian;
bg bul Bulgarian; bh bih Bihari; bi bis Bislama; bm bam Bambara; bn ben Bengali; bo bod Tibetan; br bre Breton;
bs bos Bosnian; ca cat Catalan; ce che Chechen; ch cha Chamorro; co cos Corsican; cr cre Cree; cs ces Czech;
cu chu Church Slavic; cv chv Chuvash; cy cym Welsh; da dan Danish; de deu German; dv div Dhivehi; dz dzo Dzongkha;
ee ewe Ewe; el ell Greek; en eng English; eo epo Esperanto; es spa Spanish; et est Estonian; eu eus Basque;
fa fas Persian; ff ful Fulah; fi fin Finnish; fj fij Fijian; fo fao Faroese; fr fra French; fy fry Western Frisian;
ga gle Irish; gd gla Scottish Gaelic; gl glg Galician; gn grn Guarani; gu guj Gujarati; gv glv Manx; ha hau Hausa;
he heb Hebrew; hi hin Hindi; ho hmo Hiri Motu; hr hrv Croatian; ht hat Haitian; hu hun Hungarian; hy hye Armenian;
hz her Herero; ia ina Interlingua; id ind Indonesian; ie ile Interlingue; ig ibo Igbo; ii iii Nuosu; ik ipk Inupiaq;
io ido Ido; is isl Icelandic; it ita Italian; iu iku Inuktitut; ja jpn Japanese; jv jav Javanese; ka kat Georgian;
kg kon Kongo; ki kik Kikuyu; kj kua Kuanyama; kk kaz Kazakh; kl kal Kalaallisut; km khm Khmer; kn kan Kannada;
ko kor Korean; kr kau Kanuri; ks kas Kashmiri; ku kur Kurdish; kv kom Komi; kw cor Cornish; ky kir Kyrgyz;
la lat Latin; lb ltz Luxembourgish; lg lug Ganda; li lim Limburgish; ln lin Lingala; lo lao Lao; lt lit Lithuanian;
lu lub Luba-Katanga; lv lav Latvian; mg mlg Malagasy; mh mah Marshallese; mi mri Maori; mk mkd Macedonian;
ml mal Malayalam; mn mon Mongolian; mr mar Marathi; ms msa Malay; mt mlt Maltese; my mya Burmese; na nau Nauru;
nb nob Norwegian Bokmål; nd nde North Ndebele; ne nep Nepali; ng ndo Ndonga; nl nld Dutch; nn nno Norwegian Nynorsk;
no nor Norwegian; nr nbl South Ndebele; nv nav Navajo; ny nya Chichewa; oc oci Occitan; oj oji Ojibwa; om orm Oromo;
or ori Odia; os oss Ossetian; pa pan Punjabi; pi pli Pali; pl pol Polish; ps pus Pashto; pt por Portuguese;
qu que Quechua; rm roh Romansh; rn run Rundi; ro ron Romanian; ru rus Russian; rw kin Kinyarwanda; sa san Sanskrit;
sc srd Sardinian; sd snd Sindhi; se sme Northern Sami; sg sag Sango; si sin Sinhala; sk slk Slovak; sl slv Slovenian;
sm smo Samoan; sn sna Shona; so som Somali; sq sqi Albanian; sr srp Serbian; ss ssw Swati; st sot Southern Sotho;
su sun Sundanese; sv swe Swedish; sw swa Swahili; ta tam Tamil; te tel Telugu; tg tgk Tajik; th tha Thai;
ti tir Tigrinya; tk tuk Turkmen; tl tgl Tagalog; tn tsn Tswana; to ton Tonga; tr tur Turkish; ts tso Tsonga;
tt tat Tatar; tw twi Twi; ty tah Tahitian; ug uig Uyghur; uk ukr Ukrainian; ur urd Urdu; uz uzb Uzbek; ve ven Venda;
vi vie Vietnamese; vo vol Volapük; wa wln Walloon; wo wol Wolof; xh xho Xhosa; yi yid Yiddish; yo yor Yoruba;
za zha Zhuang; zh zho Chinese; zu zul Zulu
"""

# What people type for a language and is none of its codes: countries, and the bibliographic codes of ISO 639-2.
_MEANT = {
    "at": "de", "br": "pt", "cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "in": "hi", "jp": "ja", "kr": "ko",
    "mx": "es", "ua": "uk", "uk-ua": "uk", "us": "en", "gb": "en", "ger": "de", "fre": "fr", "chi": "zh", "cze": "cs",
    "dut": "nl", "gre": "el", "per": "fa", "rum": "ro", "slo": "sk", "alb": "sq", "arm": "hy", "baq": "eu",
    "bur": "my", "geo": "ka", "ice": "is", "mac": "mk", "may": "ms", "tib": "bo", "wel": "cy",
}  # fmt: skip

# FLORES-200 names the member of a macrolanguage that it holds.
_FLORES = {
    "ara": "arb", "aym": "ayr", "aze": "azj", "fas": "pes", "ful": "fuv", "kau": "knc", "kon": "kon", "kur": "kmr",
    "lav": "lvs", "mlg": "plt", "mon": "khk", "msa": "zsm", "nep": "npi", "nor": "nob", "ori": "ory", "orm": "gaz",
    "pus": "pbt", "que": "quy", "sqi": "als", "srd": "srd", "swa": "swh", "uzb": "uzn", "yid": "ydd", "zho": "zho",
}  # fmt: skip


@cache
def _codes() -> dict[str, tuple[str, str]]:
    """Two letters → (three letters, English name)."""
    rows = (entry.split(maxsplit=2) for entry in " ".join(_TABLE.split()).split(";"))
    return {two: (three, name) for two, three, name in rows}


@cache
def _names() -> dict[str, str]:
    """Everything that names a language, in lower case → two letters."""
    found: dict[str, str] = {}
    for two, (three, name) in _codes().items():
        found |= {three: two, name.casefold(): two}
    return found


def language_code(given: str, where: str) -> str:
    """The code of a language, with what follows it ("zh-TW") as it was given.

    Args:
        given: a code of ISO 639 ("de", "deu", "pt-BR"), an English name, or a multilingual model's own ("deu_Latn").
        where: for the message.

    Raises:
        UsageError: no such language; the closest one is named.
    """
    word = given.strip()
    base, _, rest = word.replace("_", "-").partition("-")
    two = (
        base.lower()
        if base.lower() in _codes()
        else _names().get(base.lower()) or _names().get(word.casefold())
    )
    if two is not None:
        return f"{two}-{rest}" if rest and base.lower() in (two, _codes()[two][0]) else two
    flores = next((three for three, own in _FLORES.items() if own == base.lower()), None)
    if flores is not None:
        return f"{_names()[flores]}-{rest}" if rest else _names()[flores]
    raise UsageError(
        f'there is no language "{given}".{_closest(word)}',
        where=where,
        why="A code of ISO 639 or an English name is needed.",
        do=f"{where} de",
    )


def language_name(code: str) -> str:
    """ "de", "pt-BR" → "German", "Portuguese"; "" stays "".

    Args:
        code: from `language_code`.
    """
    base = code.partition("-")[0]
    known = _codes().get(base)
    return LANGUAGES.get(base) or (known[1] if known else code)  # first what training calls it


def _closest(word: str) -> str:
    meant = _MEANT.get(word.lower())
    if meant is not None:
        return f' Did you mean "{meant}" ({_codes()[meant][1]})?'
    names = [name for _, name in _codes().values()]
    if len(word) <= 3:
        near = [two for two in _codes() if word and two[0] == word[0].lower()]
        return f" Near it: {', '.join(f'{two} ({_codes()[two][1]})' for two in near[:8])}." if near else ""
    return did_you_mean(word.title(), names)


def language_token(code: str, tokens: Iterable[str]) -> str | None:
    """The token that names a language to a multilingual model.

    Args:
        code: from `language_code`. tokens: of the model's vocabulary.

    Returns:
        NLLB's deu_Latn, mBART's de_DE, M2M-100's __de__ or Marian's >>deu<<; None: the vocabulary has none of them.
    """
    base, _, region = code.partition("-")
    three = _codes()[base][0]
    known = set(tokens)
    wanted = [
        re.compile(rf"{_FLORES.get(three, three)}_[A-Z][a-z]{{3}}"),
        re.compile(rf"{base}_[A-Z]{{2}}"),
        re.compile(rf"__{base}__"),
        re.compile(rf">>(?:{base}|{three}|{_FLORES.get(three, three)})(?:_\w+)?<<"),
    ]
    for pattern in wanted:
        found = sorted(token for token in known if pattern.fullmatch(token))
        if found:
            return _of_region(found, base, region)
    return None


def _of_region(found: list[str], base: str, region: str) -> str:
    """The one that fits what was given after the code; of the others Latin script, simplified Chinese first."""
    script = {"tw": "hant", "hk": "hant", "cn": "hans"}.get(region.lower(), region.lower())
    for wanted in (script, "hans" if base == "zh" else "latn"):
        fits = [token for token in found if wanted and wanted in token.lower()]
        if fits:
            return fits[0]
    return found[0]
