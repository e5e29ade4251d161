// Runs CUDA kernels on the CPU, for tests on machines without a GPU: thread indices, warp shuffles and atomics. A lane
// is a fibre, and warps run one after another on one core.
//
// It is stricter than a GPU, on which the following are undefined and may seem to work: lanes that meet must be at the
// same operation with the same mask, each must be in its mask, all of its mask must come, and what is read must come
// from a lane of the mask. A kernel that does otherwise is stopped, and launch() leaves the reason in `violation`.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>

namespace emulator {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 128 * 1024;

struct Index {
  unsigned x;
};
inline Index block_index, thread_index;
inline char violation[256];  // empty if none

struct Lane {
  enum { kRuns, kWaits, kLeft } state;
  bool started;
  ucontext_t context;  // where it starts; from then on it is left and entered by jumps, which need no system call
  jmp_buf point;
  // What a waiting lane is at, and for a shuffle what it gives and from which lane it takes.
  const char* operation;
  unsigned mask, source;
  uint64_t given, taken;  // the bits of a number
  alignas(64) char stack[kStack];
};
inline Lane lanes[kWarp];
inline jmp_buf scheduler;
inline std::function<void()> kernel_body;

inline void to_scheduler(Lane& lane) {
  if (_setjmp(lane.point) == 0) _longjmp(scheduler, 1);
}

inline void enter(Lane& lane) {
  if (_setjmp(scheduler) != 0) return;
  if (lane.started) _longjmp(lane.point, 1);
  lane.started = true;
  setcontext(&lane.context);
}

inline void run_lane() {
  kernel_body();
  Lane& lane = lanes[thread_index.x % kWarp];
  lane.state = Lane::kLeft;
  to_scheduler(lane);
}

// Waits for the lanes of the mask; returns what the source lane gave.
inline uint64_t meet(const char* operation, unsigned mask, unsigned source, uint64_t given) {
  Lane& lane = lanes[thread_index.x % kWarp];
  lane.state = Lane::kWaits;
  lane.operation = operation;
  lane.mask = mask;
  lane.source = source;
  lane.given = given;
  to_scheduler(lane);
  return lane.taken;
}

inline void report(unsigned lane, const char* what) {
  std::snprintf(violation, sizeof violation, "block %u, thread %u, %s with mask %08x: %s", block_index.x,
                thread_index.x / kWarp * kWarp + lane, lanes[lane].operation, lanes[lane].mask, what);
}

// Lets the lanes that wait with this one go on if all are there. False if not all are, or after a violation.
inline bool release(unsigned first) {
  const Lane& one = lanes[first];
  if (!(one.mask >> first & 1u)) return report(first, "the lane is not in its own mask"), false;
  bool complete = true;
  for (unsigned i = 0; i < kWarp; ++i) {
    if (!(one.mask >> i & 1u)) continue;
    if (lanes[i].state == Lane::kLeft) return report(first, "a lane of the mask has left the kernel"), false;
    if (lanes[i].state == Lane::kRuns) complete = false;
    if (lanes[i].state == Lane::kWaits && lanes[i].mask != one.mask)
      return report(first, "a lane of the mask waits with another mask"), false;
    if (lanes[i].state == Lane::kWaits && std::strcmp(lanes[i].operation, one.operation) != 0)
      return report(first, "a lane of the mask is at another operation"), false;
    if (lanes[i].state == Lane::kWaits && !(one.mask >> lanes[i].source & 1u))
      return report(i, "it reads from a lane that is not in the mask"), false;
  }
  if (!complete) return false;
  const unsigned mask = one.mask;
  for (unsigned i = 0; i < kWarp; ++i)
    if (mask >> i & 1u) lanes[i].taken = lanes[lanes[i].source].given;
  for (unsigned i = 0; i < kWarp; ++i)
    if (mask >> i & 1u) lanes[i].state = Lane::kRuns;
  return true;
}

inline void run_warp(unsigned first_thread) {
  for (Lane& lane : lanes) {
    lane.state = Lane::kRuns;
    lane.started = false;
    getcontext(&lane.context);
    lane.context.uc_stack.ss_sp = lane.stack;
    lane.context.uc_stack.ss_size = kStack;
    lane.context.uc_link = nullptr;
    makecontext(&lane.context, run_lane, 0);
  }
  for (bool goes_on = true; goes_on && !violation[0];) {
    goes_on = false;
    for (unsigned i = 0; i < kWarp; ++i) {
      if (lanes[i].state != Lane::kRuns) continue;
      thread_index.x = first_thread + i;
      enter(lanes[i]);
      goes_on = true;
    }
    for (unsigned i = 0; i < kWarp && !violation[0]; ++i)
      if (lanes[i].state == Lane::kWaits && release(i)) goes_on = true;
  }
}

template <class A>
A shuffle(const char* operation, unsigned mask, unsigned source, A x) {
  static_assert(sizeof(A) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  bits = meet(operation, mask, source, bits);
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// What <<<blocks, threads, 0, stream>>> does. Nothing runs after a violation, until it is taken back.
template <class Kernel>
void launch(unsigned blocks, unsigned threads, const Kernel& kernel) {
  kernel_body = kernel;
  for (block_index.x = 0; block_index.x < blocks; ++block_index.x)
    for (unsigned thread = 0; thread < threads && !violation[0]; thread += kWarp) run_warp(thread);
}

}  // namespace emulator

#define blockIdx emulator::block_index
#define threadIdx emulator::thread_index

using std::exp;
using std::floor;

inline float __expf(float x) { return std::exp(x); }

// Rounded each by itself: what compiles this is told not to fuse (-ffp-contract=off).
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }

inline float __uint_as_float(unsigned x) {
  float number;
  std::memcpy(&number, &x, sizeof number);
  return number;
}

template <class A>
A __shfl_xor_sync(unsigned mask, A x, int distance) {
  const unsigned source = (threadIdx.x % emulator::kWarp) ^ unsigned(distance);
  return emulator::shuffle("__shfl_xor_sync", mask, source, x);
}

template <class A>
A __shfl_sync(unsigned mask, A x, int source, int width) {
  const unsigned segment = threadIdx.x % emulator::kWarp / unsigned(width) * unsigned(width);
  return emulator::shuffle("__shfl_sync", mask, segment + unsigned(source) % unsigned(width), x);
}

inline void __syncwarp(unsigned mask) { emulator::meet("__syncwarp", mask, threadIdx.x % emulator::kWarp, 0); }

template <class A>
void atomicAdd(A* to, A x) {
  *to += x;
}

struct alignas(16) float4 {
  float x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline void atomicAdd(float4* to, float4 x) {
  to->x += x.x;
  to->y += x.y;
  to->z += x.z;
  to->w += x.w;
}
