// Lets a long computation be ended from outside: it polls, and what the poll throws ends it.
#pragma once

#include <chrono>

namespace pysim {

namespace interrupt_detail {

struct Watch {
  void (*poll)() = nullptr;
  int calls_left = 0;
  std::chrono::steady_clock::time_point due{};
};

inline thread_local Watch watch;

inline void poll_if_due() {
  constexpr int calls_between_looks = 256;
  watch.calls_left = calls_between_looks;
  const auto now = std::chrono::steady_clock::now();
  if (now < watch.due) return;
  watch.due = now + std::chrono::milliseconds(50);
  watch.poll();
}

}  // namespace interrupt_detail

/// While it lives, poll_interrupt() of this thread calls `poll` every 50 ms or so.
class Interruptible {
 public:
  explicit Interruptible(void (*poll)()) : before_(interrupt_detail::watch) {
    interrupt_detail::watch = {poll, 0, {}};
  }
  ~Interruptible() { interrupt_detail::watch = before_; }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  interrupt_detail::Watch before_;
};

/// To be called in every loop that may run long, where an exception does no harm. Costs next to nothing.
inline void poll_interrupt() {
  using interrupt_detail::watch;
  if (watch.poll == nullptr || --watch.calls_left > 0) return;
  interrupt_detail::poll_if_due();
}

/// As poll_interrupt(), for a loop that itself knows how long its turns take: always looks at the clock.
inline void poll_interrupt_now() {
  if (interrupt_detail::watch.poll != nullptr) interrupt_detail::poll_if_due();
}

}  // namespace pysim
