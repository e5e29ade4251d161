#include "sampling.cuh"

namespace hdetr_d2::cuda {
namespace {

template <class T, int kGroup, int kVector, bool kExact, bool kFused>
__global__ void __launch_bounds__(kThreads, kBlocksOfProcessor<T>)
    forward_kernel(const Inputs in, T* __restrict__ output) {
  using A = Accumulation<T>;
  using Channels = Pack<T, kVector>;
  const Place<kGroup> place(in);
  if (!place.inside) return;  // whole groups leave, and shuffles stay within a group
  Attention<A, kFused> attention;
  attention.prepare(in, place);
  const int64_t at = (place.row * in.heads + place.head) * in.levels * in.points;
  const A* positions = static_cast<const A*>(in.positions) + 2 * at;
  const int stride = in.heads * in.width;
  const T* image = static_cast<const T*>(in.value) + (place.image * in.tokens) * stride + place.head * in.width;
  output += (place.row * in.heads + place.head) * in.width;
  const int width = kExact ? kGroup * kVector : in.width;
  for (int channel = place.lane * kVector; channel < width; channel += kGroup * kVector) {
    A sum[kVector] = {};
    LevelWalk walk;
    for (int l = 0; l < in.levels; ++l) {
      const Level level = walk.at(in, l);
      const PixelMap<A> map(in, level, place.row, l);
#pragma unroll 4
      for (int point = 0; point < in.points; ++point) {
        const int i = l * in.points + point;
        const Pack<A, 2> position = load_pair(positions, i);
        const A weight = attention.weight(i);
        const Corners<A> corners(level, position.element[0] * map.scale_x + map.base_x,
                                 position.element[1] * map.scale_y + map.base_y);
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
#pragma unroll
          for (int k = 0; k < kVector; ++k) sum[k] += factor * widen(read[corner].element[k]);
        }
      }
    }
    Channels result;
#pragma unroll
    for (int k = 0; k < kVector; ++k) result.element[k] = narrow<T>(sum[k]);
    *reinterpret_cast<Channels*>(output + channel) = result;
  }
}

struct Forward {
  const Inputs& in;
  void* output;
  cudaStream_t stream;

  template <class T, int kGroup, int kVector, bool kExact, bool kFused>
  void run() const {
    forward_kernel<T, kGroup, kVector, kExact, kFused>
        <<<unsigned(number_of_blocks<kGroup>(in)), kThreads, 0, stream>>>(in, static_cast<T*>(output));
  }
};

}  // namespace

void launch_forward(const Inputs& in, Type type, void* output, cudaStream_t stream) {
  choose_kernel(in, type, Forward{in, output, stream});
}

}  // namespace hdetr_d2::cuda
