"""Every rule that turns numbers into a verdict on a claim of the paper; pages hold none.

The claims, tolerances and words come from `reports/paper_values.toml`, written before the runs. A
verdict is one of five: reproduced, trend reproduced, not reproduced, not comparable (why), not run
(why). One seed, or a limit that a rule names, never earns more than "trend reproduced".
"""

from reports.verdicts.verdict import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    TREND,
    Verdict,
)

__all__ = ["NOT_COMPARABLE", "NOT_REPRODUCED", "NOT_RUN", "REPRODUCED", "TREND", "Verdict"]
