"""Dates, times and numbers in English and Chinese: every translation is exactly right, and can be checked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from ownlm.tasks.examples.functions import number_of

FIRST, DAYS = date(1900, 1, 1), 73_000  # to 2099
DIGITS = "零一二三四五六七八九"
SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = (
    ("Monday", "一"), ("Tuesday", "二"), ("Wednesday", "三"), ("Thursday", "四"), ("Friday", "五"),
    ("Saturday", "六"), ("Sunday", "日"),
)  # fmt: skip

# {d}: a date, {w}: its weekday, {t}: a time, {n}: a number. The Chinese order differs from the English one.
SENTENCES = (
    ("{d}", "{d}"),
    ("{n}", "{n}"),
    ("{w}, {d}", "{d}，{w}"),
    ("It is {t} on {w}.", "现在是{w}{t}。"),
    ("The letter of {d} has {n} pages.", "{d}的信有{n}页。"),
    ("Room {n} opens at {t} on {w}.", "{n}号房间{w}{t}开门。"),
    ("She was born on {d} at {t}.", "她出生于{d}{t}。"),
    ("On {d} there were {n} people.", "{d}有{n}人。"),
    ("The train leaves at {t} on {d}.", "火车{d}{t}出发。"),
    ("Add {n} to the list before {w}.", "{w}之前把{n}加到列表里。"),
)


def pairs() -> Iterator[dict[str, str]]:
    """Rows {"en", "zh"} without end, in an order that depends on nothing."""
    number = 0
    while True:
        english, chinese = SENTENCES[number % len(SENTENCES)]
        draw = number_of(f"dates and numbers {number}")
        day = FIRST + timedelta(days=draw % DAYS)
        minute = (draw // DAYS) % 288 * 5
        size = 10 ** (1 + draw % 7)
        amount = 2 + number_of(f"amount {number}") % size
        weekday = WEEKDAYS[day.weekday()]
        yield {
            "en": english.format(
                d=english_date(day), w=weekday[0], t=english_time(minute), n=english_number(amount)
            ),
            "zh": chinese.format(
                d=chinese_date(day), w=f"星期{weekday[1]}", t=chinese_time(minute), n=chinese_number(amount)
            ),
        }
        number += 1


def english_date(day: date) -> str:
    """date(2014, 3, 3) → "March 3, 2014"."""
    return f"{MONTHS[day.month - 1]} {day.day}, {day.year}"


def chinese_date(day: date) -> str:
    """date(2014, 3, 3) → "2014年3月3日"."""
    return f"{day.year}年{day.month}月{day.day}日"


def english_time(minute: int) -> str:
    """A minute of the day, 0 to 1439 → "12:05 a.m."."""
    hour = minute // 60
    return f"{(hour - 1) % 12 + 1}:{minute % 60:02} {'a.m.' if hour < 12 else 'p.m.'}"


def chinese_time(minute: int) -> str:
    """A minute of the day, 0 to 1439 → "凌晨零点五分"; the part of the day follows from the hour."""
    hour, rest = divmod(minute, 60)
    part = next(
        name
        for last, name in ((5, "凌晨"), (11, "上午"), (12, "中午"), (17, "下午"), (23, "晚上"))
        if hour <= last
    )
    shown = hour if hour <= 12 else hour - 12
    if rest == 0:
        return f"{part}{_hour(shown)}点整"
    return f"{part}{_hour(shown)}点{'零' if rest < 10 else ''}{chinese_number(rest)}分"


def _hour(hour: int) -> str:
    return "两" if hour == 2 else chinese_number(hour)


def english_number(number: int) -> str:
    """A number below a thousand million in words: 3205 → "three thousand two hundred and five"."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        return TENS[number // 10] + (f"-{SMALL[number % 10]}" if number % 10 else "")
    if number < 1000:
        tens = f" and {english_number(number % 100)}" if number % 100 else ""
        return f"{SMALL[number // 100]} hundred{tens}"
    unit, name = (1_000_000, "million") if number >= 1_000_000 else (1000, "thousand")
    rest = number % unit
    joined = f"{' and' if rest < 100 else ''} {english_number(rest)}" if rest else ""
    return f"{english_number(number // unit)} {name}{joined}"


def chinese_number(number: int) -> str:
    """A number below a hundred million in characters: 3205 → "三千二百零五", 12 → "十二"."""
    if number >= 10_000:
        rest = number % 10_000
        gap = "零" if rest and rest < 1000 else ""
        return f"{chinese_number(number // 10_000)}万{gap}{_thousands(rest) if rest else ''}"
    text = _thousands(number)
    return text.removeprefix("一") if 10 <= number < 20 else text


def _thousands(number: int) -> str:
    """0 to 9999, with the 一 before 十 that stands inside larger numbers."""
    if number < 10:
        return DIGITS[number]
    text, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // unit % 10
        if digit:
            text += ("零" if gap and text else "") + DIGITS[digit] + name
        gap = not digit
    return text
