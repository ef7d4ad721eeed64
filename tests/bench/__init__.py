"""Benchmarks: check, then time. Each case states its goal; nothing here fails because it is slow."""
