#include "sampling.cuh"

namespace hdetr_d2::cuda {
namespace {

template <int kVector>
__device__ __forceinline__ void add_atomically(float* to, const float (&numbers)[kVector]) {
#if __CUDA_ARCH__ >= 900
  constexpr int kPacked = kVector / 4 * 4;  // this architecture adds 16 bytes at a time
#pragma unroll
  for (int k = 0; k < kPacked; k += 4)
    atomicAdd(reinterpret_cast<float4*>(to + k),
              make_float4(numbers[k], numbers[k + 1], numbers[k + 2], numbers[k + 3]));
#else
  constexpr int kPacked = 0;
#endif
#pragma unroll
  for (int k = kPacked; k < kVector; ++k) atomicAdd(to + k, numbers[k]);
}

template <int kVector>
__device__ __forceinline__ void add_atomically(double* to, const double (&numbers)[kVector]) {
#pragma unroll
  for (int k = 0; k < kVector; ++k) atomicAdd(to + k, numbers[k]);
}

// What a lane works out of a sample, for its group.
template <class A>
struct Sample {
  int element;  // of the first corner, from the image's first; only meaningful where the corner is inside
  unsigned inside;
  A right, lower, weight;

  template <int kGroup>
  __device__ __forceinline__ Sample of_lane(int lane) const {
    Sample found;
    found.element = __shfl_sync(kAllLanes, element, lane, kGroup);
    found.inside = __shfl_sync(kAllLanes, inside, lane, kGroup);
    found.right = __shfl_sync(kAllLanes, right, lane, kGroup);
    found.lower = __shfl_sync(kAllLanes, lower, lane, kGroup);
    found.weight = __shfl_sync(kAllLanes, weight, lane, kGroup);
    return found;
  }
};

// Gradients of a sample's weight and pixel position. They have a closed form in the dot products <grad_output, corner>,
// so three sums over the group are all that lanes exchange.
template <class A>
struct SampleGradient {
  A weight, x, y;

  // The part of the lane's channels, from the lane's part of the dot products.
  __device__ __forceinline__ SampleGradient(const Sample<A>& sample, const A (&dot)[4]) {
    const A right = sample.right, lower = sample.lower, left = A(1) - right, upper = A(1) - lower;
    weight = upper * (left * dot[0] + right * dot[1]) + lower * (left * dot[2] + right * dot[3]);
    x = upper * (dot[1] - dot[0]) + lower * (dot[3] - dot[2]);
    y = left * (dot[2] - dot[0]) + right * (dot[3] - dot[1]);
  }
};

// Adds the dot products <grad, corner> over the lane's channels, and to grad_value unless that is null.
template <class T, class C, int kGroup, int kVector, int kOfPack, class A = Accumulation<T>>
__device__ __forceinline__ void visit_corners(const Sample<A>& sample, const T* image, A* grad_image,
                                              const A (&grad)[kVector], int stride, int row, A (&dot)[4]) {
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    C read{};
    const bool inside = sample.inside >> corner & 1u;
    const int element = sample.element + step_to(corner, stride, row);
    if (inside) read.read(image + element);
    A numbers[kVector];
    read.widen_to(numbers);
#pragma unroll
    for (int k = 0; k < kVector; ++k) dot[corner] += grad[k] * numbers[k];
  }
  if (grad_image == nullptr) return;
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const A factor = sample.weight * bilinear(corner, sample.right, sample.lower);
    A* to = grad_image + (sample.element + step_to(corner, stride, row));
    if (!(sample.inside >> corner & 1u)) continue;
#pragma unroll
    for (int pack = 0; pack < kVector / kOfPack; ++pack) {
      A added[kOfPack];
#pragma unroll
      for (int k = 0; k < kOfPack; ++k) added[k] = factor * grad[pack * kOfPack + k];
      add_atomically<kOfPack>(to + pack * kGroup * kOfPack, added);
    }
  }
}

// Packs hold 4 channels whatever the type, for then the gradients of value that one instruction adds are without gaps.
template <class T, int kGroup, int kVector, bool kExact, bool kFused>
__global__ void __launch_bounds__(kThreads, kBlocksOfProcessor<T>)
    backward_kernel(const Inputs in, const Gradients out) {
  using A = Accumulation<T>;
  constexpr int kOfPack = kVector == 1 ? 1 : 4;
  using C = Channels<T, kGroup, kVector, kOfPack>;
  const Place<kGroup> place(in);
  const int64_t row_and_head = place.row * in.heads + place.head, at = row_and_head * in.levels * in.points;
  Attention<A, kFused> attention;
  attention.prepare(in, place, at);
  const int stride = in.heads * in.width;
  const int width = kExact ? kGroup * kVector : in.width;
  const int64_t first = place.image * in.tokens * stride + place.head * in.width + place.lane * kOfPack;
  const T* image = static_cast<const T*>(in.value) + first;
  A* grad_image = out.value ? static_cast<A*>(out.value) + first : nullptr;
  const T* grad_output = static_cast<const T*>(out.output) + row_and_head * in.width + place.lane * kOfPack;
  A grad[kVector] = {};
  if (kExact) {
    C read;
    read.read(grad_output);
    read.widen_to(grad);
  }
  A mean = 0;  // of the weights' gradients, under the weights
  LevelWalk walk;
  for (int l = 0; l < in.levels; ++l) {
    const Level level = walk.at(in, l);
    const PixelMap<A, kFused> map(in, level, place.row, l);
    A box[4] = {};  // gradient of the reference point, in pixels
    for (int point = 0; point < in.points; point += kGroup) {
      const int count = in.points - point < kGroup ? in.points - point : kGroup;
      const bool owns = place.inside && place.lane < count;
      const int64_t i = at + l * in.points + point + (place.lane < count ? place.lane : 0);
      const Pack<A, 2> position = load_pair(static_cast<const A*>(in.positions), i);
      const Corners<A> corners(level, position.element[0] * map.scale_x + map.base_x,
                               position.element[1] * map.scale_y + map.base_y);
      const Sample<A> own{corners.token(level) * stride, place.inside ? corners.inside : 0u, corners.right,
                          corners.lower, attention.weight(in, i)};
      A own_weight = 0, own_x = 0, own_y = 0;
#pragma unroll 1  // a second sample at a time has no registers
      for (int lane = 0; lane < count; ++lane) {
        const Sample<A> sample = own.template of_lane<kGroup>(lane);
        A dot[4] = {};
        if (kExact) {
          visit_corners<T, C, kGroup, kVector, kOfPack>(sample, image, grad_image, grad, stride, level.width * stride,
                                                        dot);
        } else {
          for (int channel = place.lane; channel < width; channel += kGroup) {
            grad[0] = widen(grad_output[channel - place.lane]);
            visit_corners<T, C, kGroup, kVector, kOfPack>(sample, image + (channel - place.lane),
                                                          grad_image ? grad_image + (channel - place.lane) : nullptr,
                                                          grad, stride, level.width * stride, dot);
          }
        }
        const SampleGradient<A> part(sample, dot);
        const A of_weight = sum_of_group<kGroup>(part.weight), of_x = sum_of_group<kGroup>(part.x),
                of_y = sum_of_group<kGroup>(part.y);
        own_weight = lane == place.lane ? of_weight : own_weight;
        own_x = lane == place.lane ? of_x : own_x;
        own_y = lane == place.lane ? of_y : own_y;
      }
      if (!owns) continue;
      own_x *= own.weight;
      own_y *= own.weight;
      if (kFused) {
        mean += own.weight * own_weight;
        box[0] += own_x;
        box[1] += own_y;
        box[2] += own_x * position.element[0];
        box[3] += own_y * position.element[1];
      }
      if (out.positions)
        *reinterpret_cast<Pack<A, 2>*>(static_cast<A*>(out.positions) + 2 * i) =
            Pack<A, 2>{{own_x * map.scale_x, own_y * map.scale_y}};
      if (out.attention) static_cast<A*>(out.attention)[i] = own_weight;
    }
    if (kFused && out.reference) {
#pragma unroll
      for (int k = 0; k < 4; ++k) box[k] = sum_of_group<kGroup>(box[k]);
      if (place.lane != 0 || !place.inside) continue;
      const A half = A(0.5) / A(in.points);
      A* to = static_cast<A*>(out.reference) +
              (((place.image * in.heads + place.head) * in.queries + place.query) * in.levels + l) * in.reference_width;
      to[0] = box[0] * A(level.width);
      to[1] = box[1] * A(level.height);
      if (in.reference_width == 4) {
        to[2] = box[2] * A(level.width) * half;
        to[3] = box[3] * A(level.height) * half;
      }
    }
  }
  if (!kFused || !out.attention) return;
  mean = sum_of_group<kGroup>(mean);
  if (!place.inside) return;
  for (int l = 0; l < in.levels; ++l)  // each lane reads again what it wrote itself
    for (int point = place.lane; point < in.points; point += kGroup) {
      const int64_t i = at + l * in.points + point;
      static_cast<A*>(out.attention)[i] = attention.weight(in, i) * (static_cast<A*>(out.attention)[i] - mean);
    }
}

struct Backward {
  const Inputs& in;
  const Gradients& out;
  cudaStream_t stream;

  template <class T, int kGroup, int kVector, bool kExact, bool kFused>
  void run() const {
    backward_kernel<T, kGroup, kVector, kExact, kFused>
        <<<unsigned(number_of_blocks<kGroup>(in)), kThreads, 0, stream>>>(in, out);
  }
};

}  // namespace

void launch_backward(const Inputs& in, const Gradients& grad, Type type, cudaStream_t stream) {
  choose_kernel(in, type, Backward{in, grad, stream});
}

}  // namespace hdetr_d2::cuda
