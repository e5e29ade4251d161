// Suppression in two launches, whatever the number of images and candidates: all pairs are compared at once, one bit
// each, and a warp an image then goes through the bits. Sizes follow from those of the arguments; nothing is read on
// the host.
#include "kernels.h"

namespace hdetr_d2::nms::cuda {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

struct alignas(16) Box {
  float x1, y1, x2, y2;
};

// What std::min and std::max do, with NaN too: fminf and fmaxf would pass over it.
__device__ __forceinline__ float lower(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float higher(float a, float b) { return a < b ? b : a; }

__device__ __forceinline__ float area_of(const Box& box) {
  return __fmul_rn(higher(__fsub_rn(box.x2, box.x1), 0.0f), higher(__fsub_rn(box.y2, box.y1), 0.0f));
}

// The CPU kernel's operations in their order, each of them rounded, so that both decide alike. 0 / 0 is not larger than
// anything, and neither is what has NaN in it.
__device__ __forceinline__ bool overlap(const Box& better, float its_area, const Box& box, float threshold) {
  const float width = higher(__fsub_rn(lower(box.x2, better.x2), higher(box.x1, better.x1)), 0.0f);
  const float height = higher(__fsub_rn(lower(box.y2, better.y2), higher(box.y1, better.y1)), 0.0f);
  const float shared = __fmul_rn(width, height);
  return __fdiv_rn(shared, __fsub_rn(__fadd_rn(its_area, area_of(box)), shared)) > threshold;
}

// A thread makes one word. Those of a warp have neighbouring boxes and read the same candidates.
__global__ void __launch_bounds__(kThreads)
    compare_kernel(const Inputs in, int64_t num_words, uint64_t* __restrict__ words) {
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t padded = num_words * kOfWord;
  const int64_t i = thread % padded, word = thread / padded % num_words, image = thread / padded / num_words;
  const int64_t first = word * kOfWord;
  const int64_t end = first + kOfWord < in.count ? first + kOfWord : in.count;
  if (image >= in.images || i >= end) return;
  const Box* boxes = static_cast<const Box*>(in.boxes) + image * in.count;
  const Box better = boxes[i];
  const float its_area = area_of(better);
  uint64_t bits = 0;
  for (int64_t j = first; j < end; ++j)
    if (j > i && overlap(better, its_area, boxes[j], in.threshold)) bits |= uint64_t(1) << (j - first);
  words[(image * num_words + word) * in.count + i] = bits;
}

__device__ __forceinline__ uint64_t joined(uint64_t bits) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) bits |= __shfl_xor_sync(kAllLanes, bits, distance);
  return bits;
}

// One warp an image, one word after another: of its 64 candidates, who is struck out by those of earlier words that are
// kept, which the lanes share, and then who of themselves by whom, one by one. A lane reads only what it has written.
__global__ void __launch_bounds__(kWarp)
    resolve_kernel(const Inputs in, int64_t num_words, const uint64_t* __restrict__ words, bool* kept) {
  const int lane = int(threadIdx.x);
  words += int64_t(blockIdx.x) * num_words * in.count;
  kept += int64_t(blockIdx.x) * in.count;
  for (int64_t word = 0; word < num_words; ++word, words += in.count) {
    const int64_t first = word * kOfWord;
    uint64_t gone = 0;
#pragma unroll 8
    for (int64_t i = lane; i < first; i += kWarp) gone |= words[i] & -uint64_t(kept[i]);  // no load waits for another
    gone = joined(gone);
    uint64_t own[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t i = first + half * kWarp + lane;
      own[half] = i < in.count ? words[i] : uint64_t(0);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
      for (int k = 0; k < kWarp; ++k) {
        const uint64_t strikes = __shfl_sync(kAllLanes, own[half], k, kWarp);
        if (!(gone >> (half * kWarp + k) & 1u)) gone |= strikes;
      }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t i = first + half * kWarp + lane;
      if (i < in.count) kept[i] = !(gone >> (half * kWarp + lane) & 1u);
    }
  }
}

}  // namespace

void launch_compare(const Inputs& in, uint64_t* words, cudaStream_t stream) {
  const int64_t num_words = number_of_words(in.count);
  const int64_t blocks = (in.images * num_words * num_words * kOfWord + kThreads - 1) / kThreads;
  compare_kernel<<<unsigned(blocks), kThreads, 0, stream>>>(in, num_words, words);
}

void launch_resolve(const Inputs& in, const uint64_t* words, bool* kept, cudaStream_t stream) {
  resolve_kernel<<<unsigned(in.images), kWarp, 0, stream>>>(in, number_of_words(in.count), words, kept);
}

}  // namespace hdetr_d2::nms::cuda
