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

// One sample: adds to grad_value and returns, in every lane of the group, the gradients of weight and pixel position.
// They have a closed form in the dot products <grad_output, corner>, so three sums over the group are all the lanes
// exchange.
template <class T, int kGroup, int kVector, bool kExact, class A>
__device__ __forceinline__ void differentiate_sample(const Level& level, const Corners<A>& corners, A weight,
                                                     const T* image, A* grad_image, const T* grad_output,
                                                     const A (&kept)[kVector], int width, int stride,
                                                     const Place<kGroup>& place, A& grad_weight, A& grad_x, A& grad_y) {
  using Channels = Pack<T, kVector>;
  A dot[4] = {};
  for (int channel = place.lane * kVector; channel < width; channel += kGroup * kVector) {
    A grad[kVector];
#pragma unroll
    for (int k = 0; k < kVector; ++k) grad[k] = kExact ? kept[k] : widen(grad_output[channel + k]);
    Channels read[4];
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      read[corner] = Channels{};
      if (corners.inside[corner])
        read[corner] =
            *reinterpret_cast<const Channels*>(image + int64_t(corners.token_of(corner, level)) * stride + channel);
    }
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const A factor = weight * corners.bilinear(corner);
      A added[kVector];
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        dot[corner] += grad[k] * widen(read[corner].element[k]);
        added[k] = factor * grad[k];
      }
      if (corners.inside[corner])
        add_atomically<kVector>(grad_image + int64_t(corners.token_of(corner, level)) * stride + channel, added);
    }
  }
  const A right = corners.right, lower = corners.lower, left = A(1) - right, upper = A(1) - lower;
  grad_weight = sum_of_group<kGroup>(
      upper * (left * dot[0] + right * dot[1]) + lower * (left * dot[2] + right * dot[3]), place.mask);
  grad_x = weight * sum_of_group<kGroup>(upper * (dot[1] - dot[0]) + lower * (dot[3] - dot[2]), place.mask);
  grad_y = weight * sum_of_group<kGroup>(left * (dot[2] - dot[0]) + right * (dot[3] - dot[1]), place.mask);
}

template <class T, int kGroup, int kVector, bool kExact, bool kFused>
__global__ void __launch_bounds__(kThreads, kBlocksOfProcessor<T>)
    backward_kernel(const Inputs in, const Gradients out) {
  using A = Accumulation<T>;
  const Place<kGroup> place(in);
  if (!place.inside) return;  // whole groups leave, and shuffles stay within a group
  Attention<A, kFused> attention;
  attention.prepare(in, place);
  const int64_t row_and_head = place.row * in.heads + place.head, at = row_and_head * in.levels * in.points;
  const A* positions = static_cast<const A*>(in.positions) + 2 * at;
  A* grad_positions = static_cast<A*>(out.positions) + 2 * at;
  A* grad_attention = static_cast<A*>(out.attention) + at;
  const int stride = in.heads * in.width;
  const int64_t first = place.image * in.tokens * stride + place.head * in.width;
  const T* image = static_cast<const T*>(in.value) + first;
  A* grad_image = static_cast<A*>(out.value) + first;
  const T* grad_output = static_cast<const T*>(out.output) + row_and_head * in.width;
  const int width = kExact ? kGroup * kVector : in.width;
  A kept[kVector] = {};
  if (kExact) {
    const Pack<T, kVector> read = *reinterpret_cast<const Pack<T, kVector>*>(grad_output + place.lane * kVector);
#pragma unroll
    for (int k = 0; k < kVector; ++k) kept[k] = widen(read.element[k]);
  }
  A mean = 0;  // of the weights' gradients, under the weights
  LevelWalk walk;
  for (int l = 0; l < in.levels; ++l) {
    const Level level = walk.at(in, l);
    const PixelMap<A> map(in, level, place.row, l);
    A box[4] = {};  // gradient of the reference point, in pixels
    for (int point = 0; point < in.points; ++point) {
      const int i = l * in.points + point;
      const Pack<A, 2> position = load_pair(positions, i);
      const A weight = attention.weight(i);
      const Corners<A> corners(level, position.element[0] * map.scale_x + map.base_x,
                               position.element[1] * map.scale_y + map.base_y);
      A grad_weight, grad_x, grad_y;
      differentiate_sample<T, kGroup, kVector, kExact, A>(level, corners, weight, image, grad_image, grad_output, kept,
                                                          width, stride, place, grad_weight, grad_x, grad_y);
      if (kFused) {
        mean += weight * grad_weight;
        box[0] += grad_x;
        box[1] += grad_y;
        box[2] += grad_x * position.element[0];
        box[3] += grad_y * position.element[1];
      }
      if (place.lane == 0) {
        *reinterpret_cast<Pack<A, 2>*>(grad_positions + 2 * i) =
            Pack<A, 2>{{grad_x * map.scale_x, grad_y * map.scale_y}};
        grad_attention[i] = grad_weight;
      }
    }
    if (kFused && out.reference && place.lane == 0) {
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
  if (!kFused) return;
  __syncwarp(place.mask);  // lane 0's grad_attention is read by its group
  for (int i = place.lane; i < in.levels * in.points; i += kGroup)
    grad_attention[i] = attention.weight(i) * (grad_attention[i] - mean);
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
