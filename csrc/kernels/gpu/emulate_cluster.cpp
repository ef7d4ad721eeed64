// Clusters of CTAs on the CPU: every CTA is a thread, but one runs at a time, and which one is next is drawn
// whenever one waits. Copies of the copy engine land when all CTAs wait, at once, or at any time between. A
// wait that nothing can end is an error, and so are copies that nobody waited for.
#include <algorithm>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/gpu/cluster.h"
#include "kernels/gpu/emulation.h"
#include "kernels/gpu/kernels.h"

namespace pysim::gpu {

namespace {

[[noreturn]] void fail(const std::string& text) { throw std::logic_error("GPU emulation: " + text); }

/// An mbarrier: a phase ends when as many arrivals as it was made for and as many bytes as were expected are
/// there. Bytes may come before they are expected.
struct Barrier {
  int arrivals = 0;  ///< Of each phase; 0 before it is made.
  int pending = 0;
  std::int64_t bytes = 0;
  std::int64_t phase = 0;

  void arrive() {
    if (pending == 0) fail("expected fewer arrivals in a phase, got one more");
    --pending;
    end_phase();
  }
  void end_phase() {
    if (pending == 0 && bytes == 0) {
      ++phase;
      pending = arrivals;
    }
  }
};

class ClusterCta;

/// What the CTAs of a cluster share, and whose turn it is.
class Cluster {
 public:
  Cluster(const Launches& launches, const Launch& launch, std::int64_t index);

  /// Runs body(cta, shared memory) for every CTA.
  template <class F>
  void run(F body);

  /// Returns when `ready` holds; others run before.
  void wait(int rank, const std::function<bool()>& ready);
  void synchronize(int rank);
  void multicast(std::int64_t offset, const char* from, int bytes, int barrier);
  /// A barrier of a CTA that has made it and has not ended.
  Barrier& barrier_of(int rank, int which) {
    if (ended_[static_cast<std::size_t>(rank)]) fail("expected a CTA that still runs, got one that ended");
    if (barrier(rank, which).arrivals == 0) fail("expected a barrier, got one that nobody made");
    return barrier(rank, which);
  }
  Barrier& barrier(int rank, int which) {
    return barriers_[static_cast<std::size_t>(rank * kClusterBarriers + which)];
  }
  int size() const { return static_cast<int>(ctas_.size()); }

 private:
  enum class Landing { at_once, any_time, at_last };
  struct Copy {
    int to;
    std::int64_t offset;
    const char* from;
    int bytes;
    int barrier;
  };

  bool draw(unsigned one_in) { return random_() % one_in == 0; }
  void land(std::size_t copy);
  void take_turns(std::unique_lock<std::mutex>& lock, int rank);
  void choose_next();

  std::vector<ClusterCta> ctas_;
  std::vector<Barrier> barriers_;
  std::vector<Copy> flying_;
  std::vector<std::function<bool()>> waiting_;  ///< Of each CTA; empty if it may go on.
  std::vector<bool> ended_;
  std::vector<std::int64_t> synchronized_;  ///< How often each CTA came to a barrier of the whole cluster.
  std::mt19937 random_;
  Landing landing_;
  std::mutex mutex_;
  std::condition_variable turn_;
  int running_ = 0;
  std::exception_ptr error_;
};

class ClusterCta : public HostCta {
 public:
  ClusterCta(const Launches& launches, const Launch& launch, Cluster& cluster, int rank)
      : HostCta(launches.arguments, launch.threads, launch.shared_bytes), cluster_(&cluster), rank_(rank) {}

  int rank() const { return rank_; }
  void cluster_barrier() { cluster_->synchronize(rank_); }
  void make_barrier(int which, int arrivals) {
    Barrier& barrier = cluster_->barrier(rank_, which);
    if (barrier.arrivals != 0) fail("expected a new barrier, got one that is in use");
    barrier.arrivals = barrier.pending = arrivals;
  }
  /// The phase of this parity is over: the one before it counts as over as well.
  void wait(int which, int parity) {
    Barrier& barrier = cluster_->barrier_of(rank_, which);
    cluster_->wait(rank_, [&barrier, parity] { return barrier.phase % 2 != parity; });
  }
  void wait_for_cluster(int which, int parity) { wait(which, parity); }
  void expect(int which, int bytes) {
    Barrier& barrier = cluster_->barrier_of(rank_, which);
    barrier.bytes += bytes;
    barrier.arrive();
  }
  void release(int which, int ctas) {
    if (ctas != cluster_->size()) fail("expected a release for the whole cluster, got another");
    for (int rank = 0; rank < ctas; ++rank) cluster_->barrier_of(rank, which).arrive();
  }
  template <class F>
  void first_warp(F f) {
    f([](auto each) { HostMachine::lanes(each); });
  }
  void multicast(char* to, const char* from, int bytes, int which, int ctas) {
    if (ctas != cluster_->size()) fail("expected a copy for the whole cluster, got another");
    if (bytes <= 0 || bytes % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
      fail("expected cp.async.bulk of units of 16 bytes, got others");
    check(to, 16);
    check(to + bytes - 16, 16);
    check_x(from, bytes);
    cluster_->multicast(to - shared(), from, bytes, which);
  }
  void receive(std::int64_t offset, const char* from, int bytes) {
    std::memcpy(shared() + offset, from, static_cast<std::size_t>(bytes));
  }

 private:
  Cluster* cluster_;
  int rank_;
};

Cluster::Cluster(const Launches& launches, const Launch& launch, std::int64_t index)
    : barriers_(static_cast<std::size_t>(launch.cluster * kClusterBarriers)),
      waiting_(static_cast<std::size_t>(launch.cluster)),
      ended_(static_cast<std::size_t>(launch.cluster)),
      synchronized_(static_cast<std::size_t>(launch.cluster)),
      random_(static_cast<std::uint32_t>(index)),
      landing_(static_cast<Landing>(index % 3)) {
  for (int rank = 0; rank < launch.cluster; ++rank) ctas_.emplace_back(launches, launch, *this, rank);
}

template <class F>
void Cluster::run(F body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size(); ++rank) {
    threads.emplace_back([this, rank, &body] {
      ClusterCta& cta = ctas_[static_cast<std::size_t>(rank)];
      std::unique_lock lock(mutex_);
      turn_.wait(lock, [&] { return running_ == rank || error_; });
      if (error_) return;
      lock.unlock();
      std::exception_ptr error;
      try {
        body(cta, cta.shared());
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (error && !error_) error_ = error;
      ended_[static_cast<std::size_t>(rank)] = true;
      if (!error_) choose_next();
      turn_.notify_all();
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (error_) std::rethrow_exception(error_);
  if (!flying_.empty()) fail("expected every copy to be waited for, got one that was not");
  for (const Barrier& barrier : barriers_) {
    if (barrier.bytes != 0 || barrier.pending != barrier.arrivals)
      fail("expected every phase of a barrier to end, got one that did not");
  }
}

void Cluster::land(std::size_t copy) {
  const Copy landed = flying_[copy];
  flying_[copy] = flying_.back();
  flying_.pop_back();
  ctas_[static_cast<std::size_t>(landed.to)].receive(landed.offset, landed.from, landed.bytes);
  Barrier& counted = barrier(landed.to, landed.barrier);
  counted.bytes -= landed.bytes;
  counted.end_phase();
}

/// Whoever may go on; copies land first if nobody may.
void Cluster::choose_next() {
  for (;;) {
    std::vector<int> able;
    for (int rank = 0; rank < size(); ++rank) {
      const auto i = static_cast<std::size_t>(rank);
      if (!ended_[i] && (!waiting_[i] || waiting_[i]())) able.push_back(rank);
    }
    if (!able.empty()) {
      running_ = able[random_() % able.size()];
      return;
    }
    if (std::find(ended_.begin(), ended_.end(), false) == ended_.end()) return;
    if (flying_.empty()) {
      error_ = std::make_exception_ptr(
          std::logic_error("GPU emulation: expected a wait to end, got CTAs that all wait"));
      return;
    }
    land(random_() % flying_.size());
  }
}

void Cluster::take_turns(std::unique_lock<std::mutex>& lock, int rank) {
  choose_next();
  turn_.notify_all();
  turn_.wait(lock, [&] { return running_ == rank || error_; });
  if (error_) fail("expected the cluster's other CTAs to go on, got an error in one");
}

void Cluster::wait(int rank, const std::function<bool()>& ready) {
  std::unique_lock lock(mutex_);
  while (landing_ == Landing::any_time && !flying_.empty() && draw(2)) land(random_() % flying_.size());
  waiting_[static_cast<std::size_t>(rank)] = ready;
  if (!ready() || draw(4)) take_turns(lock, rank);
  waiting_[static_cast<std::size_t>(rank)] = nullptr;
}

void Cluster::synchronize(int rank) {
  const std::int64_t round = ++synchronized_[static_cast<std::size_t>(rank)];
  wait(rank,
       [this, round] { return *std::min_element(synchronized_.begin(), synchronized_.end()) >= round; });
}

void Cluster::multicast(std::int64_t offset, const char* from, int bytes, int barrier) {
  for (int to = 0; to < size(); ++to) {
    (void)barrier_of(to, barrier);
    flying_.push_back({to, offset, from, bytes, barrier});
    if (landing_ == Landing::at_once) land(flying_.size() - 1);
  }
}

}  // namespace

void emulate_cluster(const Launches& launches, const Launch& launch, std::int64_t index) {
  const Arguments& a = launches.arguments;
  Cluster cluster(launches, launch, index);
  const bool found = with_cluster_kind(a.math, a.height, [&](auto kind) {
    using Of = decltype(kind);
    cluster.run(
        [&](ClusterCta& cta, char* shared) { cluster_body<Of::math, Of::height>(cta, a, index, shared); });
  });
  if (!found) throw std::logic_error("GPU emulation: expected a kernel for every plan, got none");
}

}  // namespace pysim::gpu
