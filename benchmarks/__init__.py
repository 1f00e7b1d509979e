"""What Rejoin costs, always beside a baseline in the same run: `make bench`, docs/BENCHMARKS.md."""
