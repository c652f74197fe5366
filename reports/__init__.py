"""Reports from result files: tables, figures and verdicts; nothing is recomputed here."""
