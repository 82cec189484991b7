"""The check of a stream's events: however bytes are split, good ones pass, the first bad one is found."""

import json

from hypothesis import given
from hypothesis import strategies as st

from arawn_llm._events import _Check

GOOD = st.dictionaries(st.text(), st.text()).map(json.dumps)


def split(content: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(content[:size])
        content = content[size:]
    return [*parts, content]


def passed(sse: bool, parts: list[bytes]) -> tuple[bytes, bool]:
    check, through = _Check(sse), b""
    for part in parts:
        end = check.find_malformed(part)
        through += part[:end]
        if end is not None:
            return through, True
    return through, False


@given(st.booleans(), st.sampled_from(["\n", "\r\n"]), st.lists(GOOD), st.lists(st.integers(1, 40)))
def test_good_events_pass_untouched(sse: bool, end: str, events: list[str], sizes: list[int]) -> None:
    lines = [f": comment{end}event: x{end}data: {each}{end}{end}" if sse else each + end for each in events]
    content = "".join([*lines, f"data: [DONE]{end}{end}" if sse else ""]).encode()
    assert passed(sse, split(content, sizes)) == (content, False)


@given(st.booleans(), st.lists(GOOD), st.lists(GOOD, min_size=1), st.lists(st.integers(1, 40)))
def test_nothing_passes_behind_a_bad_event(
    sse: bool, before: list[str], after: list[str], sizes: list[int]
) -> None:
    form = "data: {}\n\n" if sse else "{}\n"
    good = "".join(form.format(each) for each in before).encode()
    content = good + form.format('{"cut": ').encode() + "".join(form.format(each) for each in after).encode()
    through, found = passed(sse, split(content, sizes))
    assert found and through.startswith(good) and len(through) <= len(good) + len(form.format('{"cut": '))
