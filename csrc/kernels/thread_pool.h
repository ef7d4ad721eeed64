// Threads that share the work of a kernel: torch's, if torch is loaded, else a pool of our own that sleeps
// when there is nothing to do.
#pragma once

#include <cstdint>
#include <functional>

namespace pysim {

inline constexpr int kMaxThreads = 256;

/// Throws std::invalid_argument("where: ...") unless threads is 1..kMaxThreads.
void check_threads(int threads, const char* where);

/// Runs task(0) .. task(count - 1), each once, on at most `threads` threads of which the caller is one, and
/// returns when all are done. Tasks must not call this. If one throws, those not yet begun are left out and
/// the first exception comes out here. Calls from several threads may come at once. After a fork the child
/// starts threads of its own.
void run_parallel(int threads, std::int64_t count, const std::function<void(std::int64_t)>& task);

}  // namespace pysim
