// Runs CUDA kernels on the CPU, one thread a lane, for tests on machines without a GPU: thread indices, warp shuffles
// (which wait for the lanes of their mask, so a wrong mask hangs) and atomics. Blocks run one after another.
#pragma once

#include <sched.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

namespace emulator {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

struct Index {
  unsigned x;
};

// Lets `count` threads pass together, again and again.
class Barrier {
 public:
  void wait(int count) {
    const int round = round_.load();
    if (arrived_.fetch_add(1) + 1 == count) {
      arrived_ = 0;
      round_.fetch_add(1);
      return;
    }
    while (round_.load() == round) sched_yield();
  }

 private:
  std::atomic<int> arrived_{0}, round_{0};
};

struct Block {
  Barrier barriers[kThreads];  // of the group of lanes whose first thread has this index
  double exchanged[kThreads];
};

inline thread_local Index block_index, thread_index;
inline Block* block;

inline Barrier& barrier_of(unsigned mask) {
  return block->barriers[thread_index.x / kWarp * kWarp + unsigned(__builtin_ctz(mask))];
}

// What <<<blocks, 256, 0, stream>>> does.
template <class Kernel>
void launch(unsigned blocks, const Kernel& kernel) {
  for (unsigned index = 0; index < blocks; ++index) {
    Block current;
    block = &current;
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < kThreads; ++thread)
      threads.emplace_back([&kernel, index, thread] {
        block_index.x = index;
        thread_index.x = thread;
        kernel();
      });
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace emulator

#define blockIdx emulator::block_index
#define threadIdx emulator::thread_index

using std::exp;
using std::floor;

inline float __expf(float x) { return std::exp(x); }

template <class A>
A __shfl_xor_sync(unsigned mask, A x, int distance) {
  const unsigned thread = threadIdx.x, warp = thread / emulator::kWarp * emulator::kWarp;
  const int lanes = __builtin_popcount(mask);
  emulator::block->exchanged[thread] = double(x);
  emulator::barrier_of(mask).wait(lanes);
  const A received = A(emulator::block->exchanged[warp + ((thread % emulator::kWarp) ^ unsigned(distance))]);
  emulator::barrier_of(mask).wait(lanes);
  return received;
}

inline void __syncwarp(unsigned mask) { emulator::barrier_of(mask).wait(__builtin_popcount(mask)); }

template <class A>
void atomicAdd(A* to, A x) {
  std::atomic_ref<A>(*to).fetch_add(x);
}

struct alignas(16) float4 {
  float x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline void atomicAdd(float4* to, float4 x) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) std::abort();  // as the GPU would
  float* numbers = reinterpret_cast<float*>(to);
  atomicAdd(numbers, x.x);
  atomicAdd(numbers + 1, x.y);
  atomicAdd(numbers + 2, x.z);
  atomicAdd(numbers + 3, x.w);
}
