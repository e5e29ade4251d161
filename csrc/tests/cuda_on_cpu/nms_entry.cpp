// What tests/ops/test_nms_cuda_on_cpu.py calls: the launchers of suppression, from plain numbers and pointers.
#include "kernels.h"

using namespace hdetr_d2::nms::cuda;

// Returns null, or what the emulator found wrong. `words` has (images, number_of_words(count), count) numbers.
extern "C" const char* run_nms(int64_t images, int64_t count, const float* boxes, float threshold, uint64_t* words,
                               bool* kept) {
  emulator::violation[0] = 0;
  const Inputs in{images, count, boxes, threshold};
  launch_compare(in, words, nullptr);
  launch_resolve(in, words, kept, nullptr);
  return emulator::violation[0] ? emulator::violation : nullptr;
}
