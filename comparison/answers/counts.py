"""How the claims came out, in a sentence or two."""

from collections import Counter
from collections.abc import Sequence

from comparison.answers.claims import AS_CLAIMED, FEW_SEEDS, OPEN, OPPOSITE, UNTESTED, Claim, Outcome


def count_sentence(judged: Sequence[tuple[Claim, Outcome]]) -> str:
    """Say how many claims of the papers have results, and how they came out; then those of our own questions."""
    outcomes: dict[bool, list[Outcome]] = {False: [], True: []}
    for claim, outcome in judged:
        outcomes[claim.own].append(outcome)
    said = f"Of {len(outcomes[False])} claims of the papers, {_counts(outcomes[False], 'as claimed')}."
    if outcomes[True]:
        asked = "question" if len(outcomes[True]) == 1 else "questions"
        said += f" Of {len(outcomes[True])} {asked} of our own, {_counts(outcomes[True], 'as expected')}."
    return said


def _counts(outcomes: Sequence[Outcome], said: str) -> str:
    count = Counter(outcome.answer for outcome in outcomes)
    few = sum(outcome.word == FEW_SEEDS for outcome in outcomes)
    return (
        f"{len(outcomes) - count[UNTESTED]} have results: {count[AS_CLAIMED]} came out {said}, {count[OPPOSITE]} "
        f"opposite, {count[OPEN]} not decided" + (f" ({few} with {FEW_SEEDS})" if few else "")
    )


def held_sentence(judged: Sequence[tuple[Claim, Outcome]]) -> str:
    """Say on what kinds of numbers the claims came out as claimed; not of our own questions."""
    held = [(claim, outcome) for claim, outcome in judged if outcome.answer == AS_CLAIMED and not claim.own]
    study = sum(bool(claim.study) for claim, _ in held)
    exploratory = sum(outcome.exploratory for claim, outcome in held if not claim.study)
    parts = [
        f"{len(held) - study - exploratory} rest on the number that was named before the runs",
        f"{exploratory} on exploratory ones, such as confidence",
        *([f"{study} on the synthetic study"] if study else []),
    ]
    return f"Of the claims that came out as claimed, {', '.join(parts)}."
