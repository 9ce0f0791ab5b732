"""What we claim about speed and cost, runnable: ``make bench``."""
