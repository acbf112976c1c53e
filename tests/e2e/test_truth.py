"""Who compares spans with the truth tells right from wrong, none and missing: otherwise its zeros say nothing."""

from __future__ import annotations

import msgspec
import pytest
from propagation.run import Result
from propagation.truth import CLIENT, SERVER, Line, Link, Verdict, judge

IDS = [f"{number:016x}" for number in range(1, 24)]
FRONT = [Line("served", key, f"/front/{key}") for key in IDS]
FRONT += [Line("called", key, f"/call/{key}.0", worker=1 + int(key, 16) % 3) for key in IDS]
BACK = [Line("served", key, f"/call/{key}.0") for key in IDS]


def right() -> list[Link]:
    """Return spans as they should be: three of each request, in a trace of its own."""
    links = []
    for key in IDS:
        trace = f"{key}{'0' * 16}"
        links += [
            Link(SERVER, f"/front/{key}", trace, f"a{key[1:]}", "", "front"),
            Link(CLIENT, f"/call/{key}.0", trace, f"b{key[1:]}", f"a{key[1:]}", "front"),
            Link(SERVER, f"/call/{key}.0", trace, f"c{key[1:]}", f"b{key[1:]}", "back"),
        ]
    return links


FRONT_OF_7, CALL_OF_7, BACK_OF_7, CALL_OF_8 = 21, 22, 23, 25


def changed(index: int, **values: str) -> list[Link]:
    """Return the right spans with one of them changed."""
    links = right()
    links[index] = links[index]._replace(**values)
    return links


def figures(verdict: Verdict) -> str:
    """Return right / none / wrong of the three kinds of span."""
    return f"{verdict.front}, {verdict.client}, {verdict.back}"


def failures(verdict: Verdict, scenario: str = "context") -> list[str]:
    """Return what breaks a scenario's limits."""
    return Result(scenario, len(IDS), 16, 1.0, {}, verdict).failures()


def test_all_right() -> None:
    """Nothing to complain about."""
    verdict = judge(FRONT, BACK, right())
    assert figures(verdict) == "23 / 0 / 0, 23 / 0 / 0, 23 / 0 / 0"
    assert failures(verdict) == []


OTHER = right()[CALL_OF_8]
WRONG = {
    "another request's parent": (CALL_OF_7, {"parent_span_id": OTHER.parent_span_id, "trace_id": OTHER.trace_id}, 1),
    "the right parent in another trace": (CALL_OF_7, {"trace_id": "f" * 32}, 1),
    "another parent in the right trace": (CALL_OF_7, {"parent_span_id": OTHER.parent_span_id}, 1),
    "a parent that nobody has": (CALL_OF_7, {"parent_span_id": "f" * 16, "trace_id": "f" * 32}, 1),
    "no parent, but another request's trace": (CALL_OF_7, {"parent_span_id": "", "trace_id": OTHER.trace_id}, 1),
    "the back under another call": (BACK_OF_7, {"parent_span_id": OTHER.span_id, "trace_id": OTHER.trace_id}, 2),
    "the back under the request instead of the call": (BACK_OF_7, {"parent_span_id": right()[FRONT_OF_7].span_id}, 2),
    "a parent where there is none": (FRONT_OF_7, {"parent_span_id": OTHER.span_id}, 0),
    "two requests in one trace": (FRONT_OF_7, {"trace_id": right()[0].trace_id}, 0),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_ones_are_found(case: str) -> None:
    """Each counts as wrong where it is wrong, and breaks the limits of every scenario."""
    index, values, kind = WRONG[case]
    verdict = judge(FRONT, BACK, changed(index, **values))
    judged = (verdict.front, verdict.client, verdict.back)[kind]
    assert judged.wrong == 1
    assert IDS[7] in judged.examples[0]
    assert any("wrong" in sentence for sentence in failures(verdict))
    assert any("wrong" in sentence for sentence in failures(verdict, "background-pool"))


def test_strangers_in_one_trace_are_wrong() -> None:
    """Two calls without a parent must not share a trace either."""
    links = right()
    for index in (CALL_OF_7, CALL_OF_8):
        links[index] = links[index]._replace(parent_span_id="", trace_id="f" * 32)
    assert (judge(FRONT, BACK, links).client.none, judge(FRONT, BACK, links).client.wrong) == (1, 1)


def test_none_is_not_wrong() -> None:
    """A call with a trace of its own: too few are right, where right is expected."""
    links = changed(CALL_OF_7, parent_span_id="", trace_id="f" * 32)
    links[BACK_OF_7] = links[BACK_OF_7]._replace(trace_id="f" * 32)
    verdict = judge(FRONT, BACK, links)
    assert figures(verdict) == "23 / 0 / 0, 22 / 1 / 0, 23 / 0 / 0"
    assert failures(verdict) == ["22 of 23 spans of calls are right (22 / 1 / 0)"]
    assert failures(verdict, "background-pool") == []


@pytest.mark.parametrize(("lost", "missing"), [(FRONT_OF_7, 2), (CALL_OF_7, 2), (BACK_OF_7, 1)])
def test_missing_ones_are_found(lost: int, missing: int) -> None:
    """A span that didn't arrive, and the one whose parent it would be, can't be called right."""
    links = right()
    del links[lost]
    verdict = judge(FRONT, BACK, links)
    assert verdict.front.missing + verdict.client.missing + verdict.back.missing == missing
    assert any("missing" in sentence for sentence in failures(verdict, "background-pool"))


def test_extra_ones_are_found() -> None:
    """A second span of one call, and a span of no request."""
    links = [*right(), right()[CALL_OF_7]._replace(span_id="d" * 16), right()[0]._replace(path="/health")]
    assert judge(FRONT, BACK, links).extra == 2
    assert any("beyond" in sentence for sentence in failures(judge(FRONT, BACK, links)))


def test_one_wrong_adoption_a_worker() -> None:
    """It is accepted of a pool that requests start, a second of the same worker is not."""
    links = right()
    for index in (CALL_OF_7, CALL_OF_8):
        links[index] = links[index]._replace(parent_span_id=links[0].span_id, trace_id=links[0].trace_id)
        links[index + 1] = links[index + 1]._replace(trace_id=links[0].trace_id)
    verdict = judge(FRONT, BACK, links)
    assert verdict.client.wrong == 2
    assert failures(verdict, "background-lazy-pool") == []
    one_worker = [msgspec.structs.replace(line, worker=1) for line in FRONT]
    (sentence,) = failures(judge(one_worker, BACK, links), "background-lazy-pool")
    assert sentence.startswith("2 calls of worker 1 are wrong")
    no_pool = [msgspec.structs.replace(line, worker=0) for line in FRONT]
    (sentence,) = failures(judge(no_pool, BACK, links), "background-lazy-pool")
    assert sentence.startswith("2 calls of goroutines of no pool are wrong")


def test_the_context_that_a_client_sends() -> None:
    """The front's spans belong to it, and the others follow."""
    links = [link._replace(trace_id=link.path[-18 if link.path.endswith(".0") else -16 :][:16] * 2) for link in right()]
    for index in range(0, len(links), 3):
        links[index] = links[index]._replace(parent_span_id=IDS[index // 3])
    assert failures(judge(FRONT, BACK, links, traceparent=True)) == []
    assert judge(FRONT, BACK, right(), traceparent=True).front.right == 0
