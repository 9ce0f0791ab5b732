"""Bytes in, text out: client, journal, budget, circuit breaker, sandbox; private."""
