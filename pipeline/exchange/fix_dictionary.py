"""FIX dictionary: which fields a client's message may have, must have, and what words are allowed in them.

`check` says what is wrong with a message before anybody looks at what it asks for; prices, quantities and ids are
checked later, as those of the other protocols are. Source: section 15 of the protocol sheet, the venue's order entry
schema and its errors document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shrivenq.pipeline.exchange.requests import WRONG_WORDS

if TYPE_CHECKING:
    from shrivenq.pipeline.exchange.errors import ApiError
    from shrivenq.pipeline.exchange.fix_wire import Message

LOGON, LOGOUT, HEARTBEAT, TEST, REJECT, NEWS = "A", "5", "0", "1", "3", "B"
ORDER, CANCEL, REPLACE, AMEND, CANCEL_ALL, LIMITS = "D", "F", "XCN", "XAK", "q", "XLQ"

# SessionRejectReason
REQUIRED, NOT_DEFINED, UNDEFINED, INCORRECT, BAD_FORMAT, SIGNATURE, ACCURACY = 1, 2, 3, 5, 6, 8, 10
TWICE, OUT_OF_ORDER, OTHER = 13, 14, 99
REASONS = {
    -1021: ACCURACY, -1022: SIGNATURE, -1100: BAD_FORMAT, -1102: REQUIRED, -1105: BAD_FORMAT, -1108: BAD_FORMAT,
    -1111: BAD_FORMAT, -1115: INCORRECT, -1116: INCORRECT, -1117: INCORRECT, -1121: INCORRECT, -1130: INCORRECT,
    -1134: INCORRECT, -1145: INCORRECT, -1169: UNDEFINED, -1170: NOT_DEFINED, -1171: TWICE, -1172: OUT_OF_ORDER,
    -1178: INCORRECT, -1179: INCORRECT,
}  # fmt: skip
"""By error code."""

HEADER = frozenset({34, 49, 52, 56})
RECV_WINDOW = 25000
FRAME = frozenset({8, 9, 35, 10})
TERMS = frozenset({
    11, 18, 38, 40, 44, 54, 55, 59, 111, 152, 847, 7940, 1100, 1101, 1102, 1107, 1109, 25001, 25009,
    211, 835, 836, 1094,
})  # fmt: skip
"""What describes an order: the last line is of pegged ones, which are refused by a word of their own."""


class Form(NamedTuple):
    """What one kind of message is made of, without its header."""

    required: frozenset[int]
    optional: frozenset[int] = frozenset()


FORMS = {
    LOGON: Form(frozenset({95, 96, 98, 108, 141, 553, 25035}), frozenset({25036, 9406})),
    LOGOUT: Form(frozenset(), frozenset({58})),
    HEARTBEAT: Form(frozenset(), frozenset({112})),
    TEST: Form(frozenset({112})),
    REJECT: Form(frozenset(), frozenset({45, 58, 371, 372, 373, 25016})),
    ORDER: Form(frozenset({11, 40, 54, 55}), TERMS),
    CANCEL: Form(frozenset({11, 55}), frozenset({37, 41, 25002})),
    REPLACE: Form(frozenset({11, 40, 54, 55, 25033}), TERMS | {37, 41, 25002, 25034, 25038}),
    AMEND: Form(frozenset({11, 38, 55}), frozenset({37, 41})),
    CANCEL_ALL: Form(frozenset({11, 55, 530})),
    LIMITS: Form(frozenset({6136})),
}
KNOWN = frozenset().union(*(form.required | form.optional for form in FORMS.values()))

WORDS = {
    18: "6", 40: "1234P", 54: "12", 59: "134", 98: "0", 530: "1", 1100: "4", 1101: "1", 1107: "2", 1109: "UD",
    9406: "YN", 141: "YN", 25001: "123456", 25002: "12", 25033: "12", 25035: "12", 25036: "12", 25038: "12",
}  # fmt: skip
"""Fields that are one character, and which may be in them."""
NAMES = {40: "type", 54: "side", 59: "timeInForce", 25002: "cancelRestrictions"}


class RefusedError(Exception):
    """A message is answered with a Reject; `ends` tells whether the session is over too."""

    def __init__(self, code: int, text: str, tag: int = 0, *, ends: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.tag = tag
        """The field that is wrong, 0 for none."""
        self.ends = ends

    @property
    def reason(self) -> int:
        """Give the SessionRejectReason."""
        return REASONS.get(self.code, OTHER)


def refused(error: ApiError, tag: int = 0, *, ends: bool = False) -> RefusedError:
    """Say in FIX what was refused in the words of the other protocols."""
    return RefusedError(error.code, error.msg, tag, ends=ends)


def check(message: Message) -> None:
    """Check that a message is made of what its kind is made of. Raises RefusedError."""
    form = FORMS.get(message.kind)
    if form is None:
        raise RefusedError(-1020, "This operation is not supported.", 35)
    seen: set[int] = set()
    body = False
    for tag, value in message.fields:
        header = tag in HEADER or tag == RECV_WINDOW
        if tag in seen or tag in FRAME:
            raise RefusedError(-1171, f"Tag '{tag}' appears more than once.", tag)
        if not header and tag not in form.required and tag not in form.optional:
            if tag not in KNOWN:
                raise RefusedError(-1169, "Invalid tag number.", tag)
            raise RefusedError(-1170, f"Tag '{tag}' not defined for this message type.", tag)
        if header and body:
            raise RefusedError(-1172, f"Tag '{tag}' specified out of required order.", tag)
        if not value:
            raise RefusedError(-1105, f"Parameter '{tag}' was empty.", tag)
        seen.add(tag)
        body = body or not header
    if missing := (HEADER | form.required) - seen:
        raise RefusedError(-1102, f"Required tag '{min(missing)}' missing.", min(missing))
    _check_words(message)


def _check_words(message: Message) -> None:
    """Check fields of one character."""
    for tag, value in message.fields:
        if tag in WORDS and (len(value) != 1 or value not in WORDS[tag]):
            wrong = WRONG_WORDS.get(NAMES.get(tag, ""))
            if wrong is not None:
                raise RefusedError(*wrong, tag)
            raise RefusedError(-1130, f"Data sent for parameter '{tag}' is not valid.", tag)
