"""Callables that take a sample dict, and the readers and array functions behind them."""
