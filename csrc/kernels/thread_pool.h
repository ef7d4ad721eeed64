// Threads that wait for kernels to share. One pool for the process; it sleeps when there is nothing to do.
#pragma once

#include <cstdint>
#include <functional>

namespace pysim {

inline constexpr int kMaxThreads = 256;

/// Runs task(0) .. task(count - 1), each once, on at most `threads` threads of which the caller is one, and
/// returns when all are done. Tasks must not throw and must not call this. Calls from several threads take
/// turns. After a fork the child starts its own threads.
void run_parallel(int threads, std::int64_t count, const std::function<void(std::int64_t)>& task);

}  // namespace pysim
