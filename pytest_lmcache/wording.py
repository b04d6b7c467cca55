"""Numbers as messages, summaries and tables write them."""

from __future__ import annotations

from decimal import Decimal

TEN_CENTS = 0.1
TEN, KILO = 10, 1000
MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


def counted(count: int, noun: str) -> str:
    """A number with its noun, which gets an ``s`` unless the number is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def dollars(usd: float) -> str:
    """An amount in USD to the cent, or to its first two digits if it is less than ten cents."""
    return f"${usd:,.2f}" if usd >= TEN_CENTS else f"${Decimal(f'{usd:.2g}'):f}"


def price(usd: float, unpriced: int) -> str:
    """An amount for a table; a plus if the price of some answers is not known, a dash if that of none is."""
    if not usd:
        return "-" if unpriced else dollars(0)
    return dollars(usd) + "+" * bool(unpriced)


def size(number: int) -> str:
    """A number of bytes: ``512 B``, ``4.1 kB``, ``12 MB``."""
    if number < KILO:
        return f"{number} B"
    units = {"GB": KILO**3, "MB": KILO**2, "kB": KILO}
    unit = next((unit for unit, amount in units.items() if number >= amount), "kB")
    amount = number / units[unit]
    return f"{amount:.1f} {unit}" if round(amount, 1) < TEN else f"{amount:,.0f} {unit}"


def age(seconds: float) -> str:
    """A time that has passed, in its largest unit: ``40 s``, ``5 min``, ``3 h``, ``12 days``, ``1.5 years``."""
    if seconds < MINUTE:
        return f"{max(seconds, 0):.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < DAY:
        return f"{seconds / HOUR:.0f} h"
    if seconds < YEAR:
        return counted(round(seconds / DAY), "day")
    return f"{seconds / YEAR:.1f} years"
