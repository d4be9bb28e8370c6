// The threads of a model: kernels ask for them through a pointer in their library, led to `launch`.
#ifndef INFC_TVM_POOL_H
#define INFC_TVM_POOL_H

#include <tvm/ffi/c_api.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace infc {

constexpr int kMaxThreads = 256;

struct Group {  // TVMParallelGroupEnv
  void* sync;
  std::int32_t tasks;
};
using Task = int (*)(int task, Group* group, void* data);
using Launch = int (*)(Task task, void* data, int tasks);

// Threads that take a share each of what a kernel computes; the caller takes the first.
class Pool {
 public:
  explicit Pool(int threads) {
    if (threads <= 0) threads = static_cast<int>(std::thread::hardware_concurrency());
    threads_ = std::clamp(threads, 1, kMaxThreads);
    try {
      for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { serve(i); });
    } catch (...) {
      stop();
      throw;
    }
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { stop(); }

  int launch(Task task, void* data) {
    task_ = task;
    data_ = data;
    failed_ = nullptr;
    bad_ = false;
    left_.store(threads_ - 1, std::memory_order_release);
    begin();
    const int status = share(0);
    for (unsigned spins = 0; left_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins > kSpins) std::this_thread::yield();
    }
    if (status != 0) {
      if (failed_ != nullptr) TVMFFIObjectDecRef(failed_);
      return status;
    }
    if (!bad_) return 0;
    if (failed_ != nullptr) TVMFFIErrorSetRaised(failed_);
    if (failed_ != nullptr) TVMFFIObjectDecRef(failed_);
    return -1;
  }

  int threads() const { return threads_; }

 private:
  static constexpr unsigned kSpins = 4096;  // kernels follow each other faster than that

  int share(int number) {
    Group group{nullptr, threads_};
    return task_(number, &group, data_);
  }

  void begin() {
    const std::lock_guard<std::mutex> lock(mutex_);
    generation_.fetch_add(1, std::memory_order_acq_rel);
    if (waiting_ > 0) wake_.notify_all();
  }

  void serve(int number) {
    unsigned seen = 0;
    for (;;) {
      for (unsigned i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) {
      }
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        ++waiting_;
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        --waiting_;
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      if (share(number) != 0) keep_error();
      left_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  // An error is kept by the thread that met it: the first one goes to the caller.
  void keep_error() {
    TVMFFIObjectHandle error = nullptr;
    TVMFFIErrorMoveFromRaised(&error);
    const std::lock_guard<std::mutex> lock(mutex_);
    bad_ = true;
    if (failed_ == nullptr) {
      failed_ = error;
    } else if (error != nullptr) {
      TVMFFIObjectDecRef(error);
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    begin();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  int threads_ = 1;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> generation_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> left_{0};
  int waiting_ = 0;
  Task task_ = nullptr;
  void* data_ = nullptr;
  bool bad_ = false;
  TVMFFIObjectHandle failed_ = nullptr;
};

inline thread_local Pool* current = nullptr;  // of the model that this thread runs

inline int launch(Task task, void* data, int) {
  if (current != nullptr && current->threads() > 1) return current->launch(task, data);
  Group group{nullptr, 1};
  return task(0, &group, data);
}

class Running {
 public:
  explicit Running(Pool& pool) : before_(current) { current = &pool; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() { current = before_; }

 private:
  Pool* before_;
};

}  // namespace infc

#endif
