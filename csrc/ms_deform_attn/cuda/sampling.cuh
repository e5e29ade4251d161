// What forward and backward kernels share.
//
// One (image, head, query) is worked on by a group of kGroup lanes, each with kVector channels: at 32 channels a head
// that is 4 lanes with 8 channels, and a warp does 8 queries. A block holds neighbouring queries of one head, whose
// samples overlap, so that the corners' rows are found in L1. What a sample needs besides channels (softmax, position,
// corners) each lane works out for one sample of its group's next kGroup, and shuffles hand it to the others.
//
// All lanes of a warp stay to the end and meet at every shuffle with the full mask, which then is a single instruction:
// a group beyond the last query does the last query's work without reading or writing any channel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "kernels.h"

namespace hdetr_d2::cuda {

constexpr int kThreads = 256;

template <class T>
struct AccumulationOf {
  using type = float;
};
template <>
struct AccumulationOf<double> {
  using type = double;
};
template <class T>
using Accumulation = typename AccumulationOf<T>::type;

// Blocks a multiprocessor shall hold, which bounds the registers: 80 a thread, and 128 in double.
template <class T>
constexpr int kBlocksOfProcessor = sizeof(T) == 8 ? 2 : 3;

constexpr unsigned kAllLanes = 0xffffffffu;

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T element[N];
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T narrow(Accumulation<T> x) {
  return x;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Channels as they are loaded. Half types come in pairs in a word where a lane has several: a word is widened with two
// instructions, two numbers with three or four.
template <class T, int kVector>
struct WordOf {
  using type = std::conditional_t<sizeof(T) == 2 && kVector % 2 == 0, uint32_t, T>;
};
template <class T, int kVector>
using Word = typename WordOf<T, kVector>::type;

template <class T>
__device__ __forceinline__ void widen_word(T word, Accumulation<T>* to) {
  to[0] = widen(word);
}
template <class T>
__device__ __forceinline__ std::enable_if_t<std::is_same_v<T, __nv_bfloat16>> widen_word(uint32_t word, float* to) {
  to[0] = __uint_as_float(word << 16);
  to[1] = __uint_as_float(word & 0xffff0000u);
}
template <class T>
__device__ __forceinline__ std::enable_if_t<std::is_same_v<T, __half>> widen_word(uint32_t word, float* to) {
  const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&word));
  to[0] = pair.x;
  to[1] = pair.y;
}

// The kVector channels of a lane lie in packs of kOfPack, and the packs of a group's lanes side by side: what one
// instruction reads of a row is without gaps.
template <class T, int kGroup, int kVector, int kOfPack>
struct Channels {
  static_assert(kVector % kOfPack == 0);
  using W = Word<T, kVector>;
  static constexpr int kNumbers = sizeof(W) / sizeof(T), kWords = kVector / kNumbers, kPacks = kVector / kOfPack;
  using Row = Pack<W, kOfPack / kNumbers>;

  Row pack[kPacks];

  // `row` is the address of the lane's first channel, kOfPack channels after that of the lane before.
  __device__ __forceinline__ void read(const T* row) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) pack[k] = *reinterpret_cast<const Row*>(row + k * kGroup * kOfPack);
  }

  static __device__ __forceinline__ void write(T* row, const Accumulation<T> (&numbers)[kVector]) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      Pack<T, kOfPack> narrowed;
#pragma unroll
      for (int i = 0; i < kOfPack; ++i) narrowed.element[i] = narrow<T>(numbers[k * kOfPack + i]);
      *reinterpret_cast<Pack<T, kOfPack>*>(row + k * kGroup * kOfPack) = narrowed;
    }
  }

  __device__ __forceinline__ void widen_to(Accumulation<T> (&to)[kVector]) const {
#pragma unroll
    for (int k = 0; k < kWords; ++k)
      widen_word<T>(pack[k / (kWords / kPacks)].element[k % (kWords / kPacks)], to + k * kNumbers);
  }
};

__device__ __forceinline__ float exponential(float x) { return __expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// Reads a 2-vector of A at index i of an array of 2-vectors.
template <class A>
__device__ __forceinline__ Pack<A, 2> load_pair(const A* array, int64_t i) {
  return *reinterpret_cast<const Pack<A, 2>*>(array + 2 * i);
}

// Which lanes work together, and on what.
template <int kGroup>
struct Place {
  int lane;     // in the group
  int64_t row;  // image * queries + query
  int64_t image;
  int head, query;
  bool inside;  // the last block of a head may have too many groups, which are at the last query then

  __device__ explicit Place(const Inputs& in) {
    constexpr int queries_of_block = kThreads / kGroup;
    const int blocks_of_head = (in.queries + queries_of_block - 1) / queries_of_block;
    const int image_and_head = int(blockIdx.x) / blocks_of_head;
    lane = threadIdx.x % kGroup;
    image = image_and_head / in.heads;
    head = image_and_head % in.heads;
    query = int(blockIdx.x) % blocks_of_head * queries_of_block + int(threadIdx.x) / kGroup;
    inside = query < in.queries;
    query = inside ? query : in.queries - 1;
    row = image * in.queries + query;
  }
};

template <int kGroup>
int64_t number_of_blocks(const Inputs& in) {
  constexpr int queries_of_block = kThreads / kGroup;
  return in.batch * in.heads * ((in.queries + queries_of_block - 1) / queries_of_block);
}

template <int kGroup, class A>
__device__ __forceinline__ A sum_of_group(A x) {
#pragma unroll
  for (int distance = kGroup / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// A level's size and first token. A level read from the device that does not fit into the tokens counts as empty: the
// host could only refuse it by waiting for the device.
struct Level {
  int height, width, start;
};

struct LevelWalk {
  int next = 0;

  __device__ __forceinline__ Level at(const Inputs& in, int level) {
    Level found{0, 0, next};
    if (in.shapes.on_device) {
      const int64_t height = in.shapes.on_device[2 * level], width = in.shapes.on_device[2 * level + 1];
      const bool fits =
          height > 0 && width > 0 && height <= in.tokens && width <= in.tokens && next + height * width <= in.tokens;
      if (fits) found = Level{int(height), int(width), next};
    } else {
      found = Level{in.shapes.height[level], in.shapes.width[level], next};
    }
    next += found.height * found.width;
    return found;
  }
};

// Cells are the squares between neighbouring pixels' centres, with those half outside: see number_of_cells.
__device__ __forceinline__ int cells_of_head(const Inputs& in) { return 2 * (in.tokens + in.levels); }

__device__ __forceinline__ int first_cell(const Level& level, int index) { return 2 * (level.start + index); }

// Position in a tensor to pixel: position * scale + base, for the plain form and, from a reference point, both fused
// ones.
template <class A, bool kFused>
struct PixelMap {
  A scale_x, scale_y, base_x, base_y;

  __device__ __forceinline__ PixelMap(const Inputs& in, const Level& level, int64_t row, int index) {
    const A width = A(level.width), height = A(level.height);
    if (!kFused) {
      scale_x = width;
      scale_y = height;
      base_x = base_y = A(-0.5);
      return;
    }
    const A* reference = static_cast<const A*>(in.reference) + (row * in.levels + index) * in.reference_width;
    base_x = reference[0] * width - A(0.5);
    base_y = reference[1] * height - A(0.5);
    const bool is_box = in.reference_width == 4;
    scale_x = is_box ? reference[2] * width * (A(0.5) / A(in.points)) : A(1);
    scale_y = is_box ? reference[3] * height * (A(0.5) / A(in.points)) : A(1);
  }
};

// The four corners (y0,x0), (y0,x1), (y1,x0), (y1,x1) of a pixel position. A position that is NaN or far outside is
// moved to a place outside (comparisons with NaN are false), so that no conversion to integer overflows.
template <class A>
struct Corners {
  int x, y;         // of the first corner, from -2 on
  unsigned inside;  // bit by corner
  A right, lower;   // fractions

  __device__ __forceinline__ Corners(const Level& level, A at_x, A at_y) {
    at_x = at_x > A(-2) ? at_x : A(-2);
    at_y = at_y > A(-2) ? at_y : A(-2);
    at_x = at_x < A(level.width + 1) ? at_x : A(level.width + 1);
    at_y = at_y < A(level.height + 1) ? at_y : A(level.height + 1);
    const A x_floor = floor(at_x), y_floor = floor(at_y);
    x = int(x_floor);
    y = int(y_floor);
    right = at_x - x_floor;
    lower = at_y - y_floor;
    const unsigned columns = unsigned(x >= 0 && x < level.width) | unsigned(x >= -1 && x < level.width - 1) << 1;
    inside = (y >= 0 && y < level.height ? columns : 0u) | (y >= -1 && y < level.height - 1 ? columns << 2 : 0u);
  }

  // Of the first corner; only where a corner is inside does its own token exist.
  __device__ __forceinline__ int token(const Level& level) const { return level.start + y * level.width + x; }
};

template <class A>
__device__ __forceinline__ A bilinear(int corner, A right, A lower) {
  return (corner % 2 ? right : A(1) - right) * (corner / 2 ? lower : A(1) - lower);
}

// From the first corner's element to another's.
__device__ __forceinline__ int step_to(int corner, int stride, int row) {
  return (corner % 2 ? stride : 0) + (corner / 2 ? row : 0);
}

// Softmax of one (query, head) as weight = exp(logit - largest) * scale; identity in the plain form.
template <class A, bool kFused>
struct Attention {
  A largest, scale;

  // `first` is the index of the query's first sample, here and in all arrays over samples.
  template <int kGroup>
  __device__ __forceinline__ void prepare(const Inputs& in, const Place<kGroup>& place, int64_t first) {
    if (!kFused) return;
    const A* numbers = static_cast<const A*>(in.attention) + first;
    const int count = in.levels * in.points;
    largest = numbers[0];
#pragma unroll 4
    for (int i = place.lane; i < count; i += kGroup) largest = numbers[i] > largest ? numbers[i] : largest;
#pragma unroll
    for (int distance = kGroup / 2; distance > 0; distance /= 2) {
      const A other = __shfl_xor_sync(kAllLanes, largest, distance);
      largest = other > largest ? other : largest;
    }
    A sum = 0;
#pragma unroll 4
    for (int i = place.lane; i < count; i += kGroup) sum += exponential(numbers[i] - largest);
    scale = A(1) / sum_of_group<kGroup>(sum);
  }

  __device__ __forceinline__ A weight(const Inputs& in, int64_t sample) const {
    const A number = static_cast<const A*>(in.attention)[sample];
    return kFused ? exponential(number - largest) * scale : number;
  }
};

// Head widths with kernels of their own; every other width, and double, goes one channel a lane with 32 lanes a query.
template <class Launch>
void choose_kernel(const Inputs& in, Type type, const Launch& launch) {
#define HDETR_D2_LAUNCH(T, group, vector, exact)                             \
  (in.reference_width ? launch.template run<T, group, vector, exact, true>() \
                      : launch.template run<T, group, vector, exact, false>())
#define HDETR_D2_WIDTHS(T)              \
  switch (in.width) {                   \
    case 16:                            \
      HDETR_D2_LAUNCH(T, 2, 8, true);   \
      break;                            \
    case 32:                            \
      HDETR_D2_LAUNCH(T, 4, 8, true);   \
      break;                            \
    case 64:                            \
      HDETR_D2_LAUNCH(T, 8, 8, true);   \
      break;                            \
    default:                            \
      HDETR_D2_LAUNCH(T, 32, 1, false); \
  }
  switch (type) {
    case Type::kDouble:
      HDETR_D2_LAUNCH(double, 32, 1, false);
      break;
    case Type::kHalf:
      HDETR_D2_WIDTHS(__half);
      break;
    case Type::kBFloat16:
      HDETR_D2_WIDTHS(__nv_bfloat16);
      break;
    case Type::kFloat:
      HDETR_D2_WIDTHS(float);
  }
#undef HDETR_D2_WIDTHS
#undef HDETR_D2_LAUNCH
}

}  // namespace hdetr_d2::cuda
