"""What happens to pysim in the hands of threads, processes, Ctrl-C, large numbers and hostile files."""
