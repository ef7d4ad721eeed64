#include "kernels/thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"

namespace pysim {
namespace {

// How long a thread looks for what it waits for before it goes to sleep: longer than the gap between two
// layers of a network, shorter than anyone could call idle.
constexpr int kLooks = 64;
constexpr int kPausesPerLook = 16;

/// Waits a moment between two looks. Yields, because the thread that is waited for may be on the same core.
inline void pause_between_looks() {
  for (int i = 0; i < kPausesPerLook; ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  std::this_thread::yield();
}

/// A job: tasks that threads take one after the other. No exception leaves the thread that meets it.
struct SharedTasks {
  const std::function<void(std::int64_t)>& task;
  std::int64_t count;
  std::atomic<std::int64_t> next{0};
  std::mutex mutex{};
  std::exception_ptr error{};

  void drain() {
    for (;;) {
      const std::int64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      try {
        task(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
  }
};

/// A job is open from the moment it is posted until the caller finds no task left. Workers that come in
/// between join it; those that come later do not, and nobody waits for them: on a busy machine a worker may
/// take milliseconds to get a core.
class ThreadPool {
 public:
  void run(int threads, SharedTasks& tasks) {
    const std::lock_guard turn(turn_);
    const int helpers = threads - 1;
    int asleep = 0;
    {
      const std::lock_guard lock(mutex_);
      while (static_cast<int>(workers_.size()) < helpers) {
        workers_.emplace_back([this, seen = generation_.load(std::memory_order_relaxed)] { work(seen); });
      }
      tasks_ = &tasks;
      places_ = helpers;
      generation_.fetch_add(1, std::memory_order_release);
      asleep = asleep_;
    }
    for (int i = 0; i < std::min(asleep, helpers); ++i) wake_.notify_one();
    tasks.drain();
    {
      const std::lock_guard lock(mutex_);
      places_ = 0;
    }
    for (int look = 0; look < kLooks && busy_.load(std::memory_order_acquire) != 0; ++look)
      pause_between_looks();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_.load(std::memory_order_relaxed) == 0; });
  }

 private:
  void work(std::uint64_t seen) {
    for (;;) {
      for (int look = 0; look < kLooks && generation_.load(std::memory_order_acquire) == seen; ++look)
        pause_between_looks();
      SharedTasks* tasks = nullptr;
      {
        std::unique_lock lock(mutex_);
        ++asleep_;
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        --asleep_;
        seen = generation_.load(std::memory_order_relaxed);
        if (places_ == 0) continue;
        --places_;
        busy_.fetch_add(1, std::memory_order_relaxed);
        tasks = tasks_;
      }
      tasks->drain();
      const std::lock_guard lock(mutex_);
      if (busy_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
    }
  }

  std::mutex turn_;  // One job at a time.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> workers_;
  SharedTasks* tasks_ = nullptr;
  int places_ = 0;  // Workers that may still join the job.
  int asleep_ = 0;
  std::atomic<int> busy_{0};  // Workers that have joined and not yet left.
  std::atomic<std::uint64_t> generation_{0};
};

struct PoolOfProcess {
  pid_t pid = getpid();
  ThreadPool pool;
};

// A forked child inherits the pool's memory but none of its threads, and perhaps a locked mutex: it abandons
// the pool and makes its own. The last one is left to the end of the process, when its threads may still be
// asleep.
ThreadPool& process_pool() {
  static std::atomic<PoolOfProcess*> current{nullptr};
  PoolOfProcess* found = current.load(std::memory_order_acquire);
  if (found != nullptr && found->pid == getpid()) return found->pool;
  auto fresh = std::make_unique<PoolOfProcess>();
  if (current.compare_exchange_strong(found, fresh.get(), std::memory_order_acq_rel))
    return fresh.release()->pool;
  return found->pool;
}

}  // namespace

void check_threads(int threads, const char* where) {
  require(threads >= 1 && threads <= kMaxThreads, where, "1 to " + std::to_string(kMaxThreads) + " threads",
          std::to_string(threads));
}

void run_parallel(int threads, std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (threads <= 1 || count <= 1) {
    for (std::int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  SharedTasks tasks{.task = task, .count = count};
  process_pool().run(threads, tasks);
  if (tasks.error) std::rethrow_exception(tasks.error);
}

}  // namespace pysim
