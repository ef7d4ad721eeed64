#include "kernels/thread_pool.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
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

class ThreadPool {
 public:
  void run(int threads, std::int64_t count, const std::function<void(std::int64_t)>& task) {
    const std::lock_guard turn(turn_);
    const int helpers = threads - 1;
    bool asleep = false;
    {
      const std::lock_guard lock(mutex_);
      while (static_cast<int>(workers_.size()) < helpers) {
        const std::uint64_t seen = generation_.load(std::memory_order_relaxed);
        workers_.emplace_back([this, seen] { work(seen); });
      }
      task_ = &task;
      count_ = count;
      places_ = helpers;
      next_.store(0, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
      asleep = asleep_ > 0;
    }
    if (asleep) wake_.notify_all();
    drain(task);
    // Nothing is left to hand out. Workers that have not come by now need not: whoever calls never waits for
    // the scheduler to wake a thread that would find nothing to do.
    {
      const std::lock_guard lock(mutex_);
      task_ = nullptr;
    }
    for (int look = 0; helping_.load(std::memory_order_acquire) != 0; ++look) {
      if (look < kLooks) {
        pause_between_looks();
      } else {
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return helping_.load(std::memory_order_acquire) == 0; });
      }
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void drain(const std::function<void(std::int64_t)>& task) {
    for (;;) {
      const std::int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= count_) return;
      try {
        task(i);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        next_.store(count_, std::memory_order_relaxed);
      }
    }
  }

  void work(std::uint64_t seen) {
    for (;;) {
      for (int look = 0; look < kLooks && generation_.load(std::memory_order_acquire) == seen; ++look)
        pause_between_looks();
      const std::function<void(std::int64_t)>* task = nullptr;
      {
        std::unique_lock lock(mutex_);
        ++asleep_;
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        --asleep_;
        seen = generation_.load(std::memory_order_relaxed);
        if (task_ == nullptr || places_ == 0) continue;
        --places_;
        helping_.fetch_add(1, std::memory_order_relaxed);
        task = task_;
      }
      drain(*task);
      if (helping_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::mutex turn_;   // One job at a time.
  std::mutex mutex_;  // Guards what is not atomic below.
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> workers_;
  const std::function<void(std::int64_t)>* task_ = nullptr;  // Null while no job takes helpers.
  std::int64_t count_ = 0;                                   // Written only while nobody helps.
  int places_ = 0;                                           // Helpers that the job still takes.
  int asleep_ = 0;
  std::exception_ptr error_;  // The job's first.
  std::atomic<std::int64_t> next_{0};
  std::atomic<int> helping_{0};
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
  process_pool().run(threads, count, task);
}

}  // namespace pysim
