"""Problems: all are counted, the first ones of each kind are kept."""

from landmark_triplets_tfds.commands.verify.findings import CONTENT, FILE, NUM_KEPT, Findings, Problem
from tests.support.prepared_builds import problems_of, shards_of, verified, write_records


def test_counts_stay_bounded_and_complete(copy):
    """All problems are counted, and the first ones of each kind are kept."""
    write_records(shards_of(copy)[0], [b"nothing"] * 300)
    verification = verified(copy)
    assert verification.findings.counts[CONTENT] == 300
    assert len(problems_of(verification, CONTENT)) == NUM_KEPT


def test_what_is_taken_over():
    everything = Findings()
    for file in ("first", "second"):
        findings = Findings()
        for record in range(60):
            findings.add(CONTENT, "is wrong", file=file, record=record)
        findings.add(FILE, "is missing", file=file)
        findings.notes.append(f"a note on {file}")
        everything.take_over(findings)
    assert (everything.num_problems, everything.counts) == (122, {CONTENT: 120, FILE: 2})
    assert [(p.file, p.record) for p in everything.by_kind[CONTENT]][59:61] == [("first", 59), ("second", 0)]
    assert len(everything.by_kind[CONTENT]) == NUM_KEPT
    assert list(everything.by_kind) == [FILE, CONTENT]
    assert everything.notes == ["a note on first", "a note on second"]


def test_problems_as_text():
    assert str(Problem(FILE, "is wrong")) == "is wrong"
    assert str(Problem(FILE, "is wrong", file="a", record=1234, key="b")) == "a, record 1,234, key b: is wrong"
