"""Says in plain words what a fit found, what it promises, and what is missing."""

from typing import Any

from edge.bundle import Bundle
from export.dataset import Dataset


def in_words(bundle: Bundle, data: Dataset, facts: dict[str, Any]) -> list[str]:
    """Return in plain words what was found, promised, missing, and what to type next."""
    manifest = bundle.manifest
    guarantee = manifest.policy.guarantee
    assert guarantee is not None
    promised = guarantee.alpha_escape or guarantee.alpha_error or 0.0
    counts = ", ".join(f"{count} {label}" for label, count in data.counts.items())
    simple = facts["simple"]
    by = simple["compared_by"].upper() if simple["compared_by"] == "auroc" else "accuracy"
    linear = simple.get("linear_model", {}).get(simple["compared_by"])
    beats = "beats" if simple["beats_simple"] else "DOES NOT BEAT"
    return [
        f"Data        {counts}; {manifest.metrics['data']['groups']} independent {data.unit}s",
        *(f"  note      {warning}" for warning in facts["warnings"]),
        f"Network     {by} {simple['network'][simple['compared_by']]} on {data.unit}s never seen; {beats} "
        f"the simple models (linear {linear}, commonest class {simple['commonest_class'][simple['compared_by']]})",
        *(
            []
            if manifest.metrics["learns_ten"]
            else ["  note      it did not learn ten examples by heart: look at the labels"]
        ),
        f"Promise     with confidence {1 - guarantee.delta:.0%} at most {promised:.1%} of what it decides alone "
        f"is wrong, each way; it decides {guarantee.coverage:.0%} alone and gives the rest to a person",
        *(f"  more      {line}" for line in manifest.metrics["advice"]),
        f"Speed       {facts['prefer']}",
        f"  profile   {facts['estimate']}",
        f"Audit       {_AUDIT[manifest.audit['passed']]}",
    ]


_AUDIT = {None: "no limits were agreed (--limits FILE)", True: "passed", False: "FAILED: see the report"}
