// What forward and backward kernels share.
//
// One (image, head, query) is worked on by a group of kGroup lanes, each with kVector neighbouring channels loaded 16
// bytes at a time: a warp does 4 queries in float and 8 in half at 32 channels a head. A block holds neighbouring
// queries of one head, whose samples overlap, so that the corners' rows are found in L1.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

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

// Blocks a multiprocessor shall hold, which bounds the registers: 64 a thread, and 80 for the 8 channels a lane of half
// types.
template <class T>
constexpr int kBlocksOfProcessor = sizeof(T) == 4 ? 4 : 3;

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
  int lane;       // in the group
  unsigned mask;  // of the group's lanes in the warp
  int64_t row;    // image * queries + query
  int64_t image;
  int head, query;
  bool inside;  // the last block of a head may have too many groups

  __device__ explicit Place(const Inputs& in) {
    constexpr int queries_of_block = kThreads / kGroup;
    const int blocks_of_head = (in.queries + queries_of_block - 1) / queries_of_block;
    const int64_t image_and_head = blockIdx.x / blocks_of_head;
    lane = threadIdx.x % kGroup;
    mask = kGroup == 32 ? 0xffffffffu : ((1u << (kGroup % 32)) - 1u) << (threadIdx.x % 32 / kGroup * kGroup);
    image = image_and_head / in.heads;
    head = int(image_and_head % in.heads);
    query = int(blockIdx.x % blocks_of_head) * queries_of_block + threadIdx.x / kGroup;
    inside = query < in.queries;
    row = image * in.queries + query;
  }
};

template <int kGroup>
int64_t number_of_blocks(const Inputs& in) {
  constexpr int queries_of_block = kThreads / kGroup;
  return in.batch * in.heads * ((in.queries + queries_of_block - 1) / queries_of_block);
}

template <int kGroup, class A>
__device__ __forceinline__ A sum_of_group(A x, unsigned mask) {
#pragma unroll
  for (int distance = kGroup / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(mask, x, distance);
  return x;
}

// A level's size and first token. A level read from the device that does not fit into the tokens counts as empty: the
// host could only refuse it by waiting for the device.
struct Level {
  int height, width, start;
};

struct LevelWalk {
  int64_t next = 0;

  __device__ __forceinline__ Level at(const Inputs& in, int level) {
    int64_t height, width;
    if (in.shapes.on_device) {
      height = in.shapes.on_device[2 * level];
      width = in.shapes.on_device[2 * level + 1];
      const bool fits =
          height > 0 && width > 0 && height <= in.tokens && width <= in.tokens && next + height * width <= in.tokens;
      height = fits ? height : 0;
      width = fits ? width : 0;
    } else {
      height = in.shapes.height[level];
      width = in.shapes.width[level];
    }
    const Level found{int(height), int(width), int(next)};
    next += height * width;
    return found;
  }
};

// Position in a tensor to pixel: position * scale + base, for the plain form and, from a reference point, both fused
// ones.
template <class A>
struct PixelMap {
  A scale_x, scale_y, base_x, base_y;

  __device__ __forceinline__ PixelMap(const Inputs& in, const Level& level, int64_t row, int index) {
    const A width = A(level.width), height = A(level.height);
    if (in.reference_width == 0) {
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
  int token;  // of the first corner; only meaningful where the corner is inside
  bool inside[4];
  A right, lower;  // fractions

  __device__ __forceinline__ Corners(const Level& level, A x, A y) {
    x = x > A(-2) ? x : A(-2);
    y = y > A(-2) ? y : A(-2);
    x = x < A(level.width + 1) ? x : A(level.width + 1);
    y = y < A(level.height + 1) ? y : A(level.height + 1);
    const A x_floor = floor(x), y_floor = floor(y);
    const int x0 = int(x_floor), y0 = int(y_floor);
    right = x - x_floor;
    lower = y - y_floor;
    const bool left_inside = x0 >= 0 && x0 < level.width, right_inside = x0 >= -1 && x0 < level.width - 1;
    const bool upper_inside = y0 >= 0 && y0 < level.height, lower_inside = y0 >= -1 && y0 < level.height - 1;
    inside[0] = upper_inside && left_inside;
    inside[1] = upper_inside && right_inside;
    inside[2] = lower_inside && left_inside;
    inside[3] = lower_inside && right_inside;
    token = level.start + y0 * level.width + x0;
  }

  // With the level's width: the token of a corner.
  __device__ __forceinline__ int token_of(int corner, const Level& level) const {
    return token + (corner % 2) + (corner / 2) * level.width;
  }

  __device__ __forceinline__ A bilinear(int corner) const {
    return (corner % 2 ? right : A(1) - right) * (corner / 2 ? lower : A(1) - lower);
  }
};

// Softmax of one (query, head) as weight = exp(logit - largest) * scale; identity in the plain form.
template <class A, bool kFused>
struct Attention {
  const A* numbers;
  A largest, scale;

  template <int kGroup>
  __device__ __forceinline__ void prepare(const Inputs& in, const Place<kGroup>& place) {
    const int count = in.levels * in.points;
    numbers = static_cast<const A*>(in.attention) + (place.row * in.heads + place.head) * count;
    if (!kFused) return;
    largest = numbers[0];
    for (int i = place.lane; i < count; i += kGroup) largest = numbers[i] > largest ? numbers[i] : largest;
#pragma unroll
    for (int distance = kGroup / 2; distance > 0; distance /= 2) {
      const A other = __shfl_xor_sync(place.mask, largest, distance);
      largest = other > largest ? other : largest;
    }
    A sum = 0;
    for (int i = place.lane; i < count; i += kGroup) sum += exponential(numbers[i] - largest);
    scale = A(1) / sum_of_group<kGroup>(sum, place.mask);
  }

  __device__ __forceinline__ A weight(int i) const {
    return kFused ? exponential(numbers[i] - largest) * scale : numbers[i];
  }
};

// Head widths with kernels of their own; every other width, and double, goes one channel a lane with 32 lanes a query.
template <class Launch>
void choose_kernel(const Inputs& in, Type type, const Launch& launch) {
#define HDETR_D2_LAUNCH(T, group, vector, exact)                             \
  (in.reference_width ? launch.template run<T, group, vector, exact, true>() \
                      : launch.template run<T, group, vector, exact, false>())
#define HDETR_D2_HALF_WIDTHS(T)         \
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
      HDETR_D2_HALF_WIDTHS(__half);
      break;
    case Type::kBFloat16:
      HDETR_D2_HALF_WIDTHS(__nv_bfloat16);
      break;
    case Type::kFloat:
      switch (in.width) {
        case 16:
          HDETR_D2_LAUNCH(float, 4, 4, true);
          break;
        case 32:
          HDETR_D2_LAUNCH(float, 8, 4, true);
          break;
        case 64:
          HDETR_D2_LAUNCH(float, 16, 4, true);
          break;
        default:
          HDETR_D2_LAUNCH(float, 32, 1, false);
      }
  }
#undef HDETR_D2_HALF_WIDTHS
#undef HDETR_D2_LAUNCH
}

}  // namespace hdetr_d2::cuda
