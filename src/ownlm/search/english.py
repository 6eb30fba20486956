"""English words as terms: words of grammar are left out, endings of number and tense are taken off."""

from __future__ import annotations

import re
from functools import cache

# Words of grammar; questions consist of them largely, and they say nothing about where the answer is.
COMMON = frozenset(
    """a an the and or but nor as if than then so of in on at to for from by with into onto out up down over under about
    after before is are was were be been being am do does did done doing has have had having can could will would shall
    should may might must it its he him his she her hers they them their theirs we us our ours you your yours i me my
    mine this that these those here there who whom whose which what when where why how not no s t""".split()  # noqa: SIM905
)
# Questions ask "what did she say", texts answer "she said".
_IRREGULAR = """
    arise arose arisen; become became; begin began begun; bend bent; bite bit bitten; bleed bled; blow blew blown;
    break broke broken; bring brought; build built; burn burnt; buy bought; catch caught; choose chose chosen;
    come came; creep crept; deal dealt; dig dug; draw drew drawn; drink drank drunk; drive drove driven; dwell dwelt;
    eat ate eaten; fall fell fallen; feed fed; feel felt; fight fought; find found; flee fled; fly flew flown;
    forget forgot forgotten; forgive forgave forgiven; freeze froze frozen; get got gotten; give gave given;
    go went gone; grow grew grown; hang hung; hear heard; hide hid hidden; hold held; keep kept; kneel knelt;
    know knew known; lay laid; lead led; leap leapt; learn learnt; leave left; lend lent; lose lost; make made;
    mean meant; meet met; pay paid; ride rode ridden; ring rang rung; rise rose risen; run ran; say said; see saw seen;
    seek sought; sell sold; send sent; shake shook shaken; shine shone; shoot shot; show shown; shrink shrank shrunk;
    sing sang sung; sink sank sunk; sit sat; slay slew slain; sleep slept; speak spoke spoken; spend spent; spin spun;
    spring sprang sprung; stand stood; steal stole stolen; stick stuck; sting stung; strike struck; sow sown;
    swear swore sworn; sweep swept; swim swam swum; swing swung; take took taken; teach taught; tear tore torn;
    tell told; think thought; throw threw thrown; understand understood; wake woke woken; wear wore worn;
    weave wove woven; weep wept; win won; write wrote written
"""


def stem(word: str) -> str:
    """A lower-case word without the endings of number and tense, irregular verbs in their base form.

    Lighter than Porter's algorithm: derivations ("-ness", "-ation") stay, so that fewer different words fall together.
    A word of another language loses little by it.
    """
    word = _without_plural(_base_forms().get(word, word))
    for ending in ("ing", "ed", "ly"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 2 and re.search("[aeiouy]", rest):
            doubled = len(rest) > 3 and rest[-1] == rest[-2] and rest[-1] not in "lsz"
            word = rest[:-1] if doubled else rest
            break
    if len(word) > 2 and word[-1] == "e":
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 2 and word[-1] == "y" else word


def _without_plural(word: str) -> str:
    if len(word) <= 3 or word[-1] != "s":
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "hes")):
        return word[:-2]
    return word if word[-2] in "su" else word[:-1]


@cache
def _base_forms() -> dict[str, str]:
    verbs = [forms.split() for forms in _IRREGULAR.split(";")]
    return {form: base for base, *forms in verbs for form in forms}
