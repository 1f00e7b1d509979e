"""The measures, one a file. Each has `run(bench) -> list[Row]` and says what it counts."""
