namespace pysim {
int placeholder() { return 0; }
}  // namespace pysim
