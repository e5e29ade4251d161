// Runs the CPU kernels of every instruction set of this machine over random and hostile inputs, to be built with
// -fsanitize=address,undefined (tools/sanitize.sh). Every array has exactly the size the kernels are told, so that a
// read or write beyond any of them ends the program.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "../ms_deform_attn/cpu/kernels.h"

namespace {

using namespace hdetr_d2::cpu;

constexpr size_t kBytes[kNumTypes] = {4, 8, 2, 2};

std::mt19937 random_bits(0);

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_bits); }

// Exactly `bytes` bytes, 64-byte aligned at their end so that the first byte beyond is guarded, or at their beginning.
std::vector<char> bytes_of(int64_t count, size_t size) { return std::vector<char>(size_t(count) * size); }

template <class A>
void fill(std::vector<char>& array, A scale, int hostile_percent) {
  std::normal_distribution<double> normal;
  const A hostile[] = {std::numeric_limits<A>::quiet_NaN(),
                       std::numeric_limits<A>::infinity(),
                       -std::numeric_limits<A>::infinity(),
                       A(1e30),
                       A(-1e30),
                       std::numeric_limits<A>::max(),
                       std::numeric_limits<A>::denorm_min(),
                       A(0),
                       A(1),
                       A(-0.0)};
  for (size_t at = 0; at + sizeof(A) <= array.size(); at += sizeof(A)) {
    const A number = between(0, 99) < hostile_percent ? hostile[between(0, 9)] : A(normal(random_bits)) * scale;
    std::memcpy(array.data() + at, &number, sizeof(A));
  }
}

void fill_storage(std::vector<char>& array, int type) {
  if (type == kFloat) return fill<float>(array, 1, 0);
  if (type == kDouble) return fill<double>(array, 1, 0);
  for (char& byte : array) byte = char(between(0, 255));  // every bit pattern of a half type, infinities and NaN too
}

struct Arrays {
  std::vector<int64_t> shapes;
  std::vector<char> value, positions, attention, reference, output, grad_value, grad_positions, grad_attention,
      grad_reference, scratch;
};

template <class A>
void run(const Kernels& kernels, int type, int hostile_percent) {
  Inputs in{};
  in.batch = between(1, 2), in.heads = between(1, 4), in.width = between(1, 70), in.queries = between(1, 40);
  in.levels = between(1, 4), in.points = between(1, 9);
  in.reference_width = between(0, 2) * 2;
  Arrays a;
  for (int64_t level = 0; level < in.levels; ++level) {
    const int64_t height = between(level == 0, 6), width = between(1, 9);
    a.shapes.insert(a.shapes.end(), {height, width});
    in.tokens += height * width;
  }
  const int64_t samples = in.batch * in.queries * in.heads * in.levels * in.points;
  const int64_t row = in.heads * in.width, boxes = in.batch * in.queries * in.levels * in.reference_width;
  const bool of_value = between(0, 3), of_positions = between(0, 2), of_attention = between(0, 2);
  const bool of_reference = in.reference_width && between(0, 1);
  const bool packed = between(0, 1) && of_value && (of_positions || of_attention || of_reference);
  const int64_t splits = between(1, 3);
  a.value = bytes_of(in.batch * in.tokens * row, kBytes[type]);
  a.output = bytes_of(in.batch * in.queries * row, kBytes[type]);
  a.positions = bytes_of(samples * 2, sizeof(A)), a.attention = bytes_of(samples, sizeof(A));
  a.reference = bytes_of(boxes, sizeof(A));
  a.grad_value = bytes_of(splits * in.batch * in.tokens * row, sizeof(A));
  a.grad_positions = bytes_of(samples * 2, sizeof(A)), a.grad_attention = bytes_of(samples, sizeof(A));
  a.grad_reference = bytes_of(boxes * in.heads, sizeof(A));
  fill_storage(a.value, type);
  fill<A>(a.positions, in.reference_width ? A(3) : A(1), hostile_percent);
  fill<A>(a.attention, A(2), hostile_percent);
  fill<A>(a.reference, A(1), hostile_percent);
  in.shapes = a.shapes.data();
  in.value = a.value.data(), in.positions = a.positions.data(), in.attention = a.attention.data();
  in.reference = in.reference_width ? a.reference.data() : nullptr;

  const size_t bytes = size_t(scratch_bytes(in, packed));
  a.scratch.resize(bytes);
  void* scratch = a.scratch.data();
  size_t space = bytes;
  std::align(64, 1, scratch, space);
  kernels.forward[type](in, a.output.data(), scratch, 0, in.batch * in.queries);
  const Gradients grad{a.output.data(),
                       of_value ? a.grad_value.data() : nullptr,
                       of_positions ? a.grad_positions.data() : nullptr,
                       of_attention ? a.grad_attention.data() : nullptr,
                       of_reference ? a.grad_reference.data() : nullptr,
                       splits,
                       packed};
  for (int64_t task = 0; task < in.batch * in.heads * splits; ++task) kernels.backward[type](in, grad, scratch, task);
}

void run_all(const char* name, const Kernels& kernels, int rounds) {
  for (int round = 0; round < rounds; ++round)
    for (int type = 0; type < kNumTypes; ++type)
      type == kDouble ? run<double>(kernels, type, round % 3 * 20) : run<float>(kernels, type, round % 3 * 20);
  std::printf("%s: %d problems, nothing found\n", name, rounds * kNumTypes);
}

}  // namespace

int main() {
  constexpr int rounds = 150;
  run_all("portable", kernels_default, rounds);
#ifdef HDETR_D2_HAS_X86_KERNELS
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) run_all("AVX2", kernels_avx2, rounds);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    run_all("AVX-512", kernels_avx512, rounds);
#endif
}
