// What the CUDA kernels of suppression take. No PyTorch header, as in ms_deform_attn/cuda.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace hdetr_d2::nms::cuda {

constexpr int kThreads = 256;
constexpr int64_t kOfWord = 64;  // candidates that one word tells of

struct Inputs {
  int64_t images, count;
  const void* boxes;  // float (images, count, 4) XYXY, aligned to 16 bytes, best first
  float threshold;
};

inline int64_t number_of_words(int64_t count) { return (count + kOfWord - 1) / kOfWord; }

// Bit k of word w of a box is set if the box overlaps candidate 64 w + k, which comes after it, by more than the
// threshold. A word's boxes lie side by side: `words` is (images, number_of_words, count). Words of earlier candidates
// alone, of which no bit can be set, are not written.
void launch_compare(const Inputs& in, uint64_t* words, cudaStream_t stream);

// Goes through the candidates of each image in their order; `kept` (images, count).
void launch_resolve(const Inputs& in, const uint64_t* words, bool* kept, cudaStream_t stream);

}  // namespace hdetr_d2::nms::cuda
