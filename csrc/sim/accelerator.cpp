namespace pysim {
int sim_placeholder() { return 0; }
}  // namespace pysim
