"""The experiment behind experiments/ablate_schedule.py."""
