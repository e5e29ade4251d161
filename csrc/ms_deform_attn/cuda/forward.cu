#include "sampling.cuh"

namespace hdetr_d2::cuda {
namespace {

// What a lane works out of a sample, for its group.
template <class A>
struct Sample {
  int element;  // of the first corner, from the image's first; only meaningful where the corner is inside
  unsigned inside;
  A factor[4];  // weight of the sample times that of the corner

  template <int kGroup>
  __device__ __forceinline__ Sample of_lane(int lane) const {
    Sample found;
    found.element = __shfl_sync(kAllLanes, element, lane, kGroup);
    found.inside = __shfl_sync(kAllLanes, inside, lane, kGroup);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner)
      found.factor[corner] = __shfl_sync(kAllLanes, factor[corner], lane, kGroup);
    return found;
  }
};

// Adds one sample to the lane's channels. `image` is the address of the lane's first channel of token 0.
template <class T, class C, int kVector, class A = Accumulation<T>>
__device__ __forceinline__ void add_sample(const Sample<A>& sample, const T* image, int stride, int row,
                                           A (&sum)[kVector]) {
  C read[4];
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    read[corner] = C{};
    if (sample.inside >> corner & 1u) read[corner].read(image + (sample.element + step_to(corner, stride, row)));
  }
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    A numbers[kVector];
    read[corner].widen_to(numbers);
#pragma unroll
    for (int k = 0; k < kVector; ++k) sum[k] += sample.factor[corner] * numbers[k];
  }
}

template <class T, int kGroup, int kVector, bool kExact, bool kFused>
__global__ void __launch_bounds__(kThreads, kBlocksOfProcessor<T>)
    forward_kernel(const Inputs in, T* __restrict__ output) {
  using A = Accumulation<T>;
  constexpr int kOfPack = kVector == 1 ? 1 : 16 / int(sizeof(T));
  using C = Channels<T, kGroup, kVector, kOfPack>;
  const Place<kGroup> place(in);
  const int64_t at = (place.row * in.heads + place.head) * in.levels * in.points;
  Attention<A, kFused> attention;
  attention.prepare(in, place, at);
  const int stride = in.heads * in.width;
  const int width = kExact ? kGroup * kVector : in.width;
  const T* value = static_cast<const T*>(in.value) + (place.image * in.tokens) * stride + place.head * in.width;
  output += (place.row * in.heads + place.head) * in.width;
  for (int first = 0; first < width; first += kGroup * kVector) {
    const int channel = first + place.lane * kOfPack;
    const bool used = place.inside && (kExact || channel < width);
    const T* image = value + channel;
    A sum[kVector] = {};
    LevelWalk walk;
    for (int l = 0; l < in.levels; ++l) {
      const Level level = walk.at(in, l);
      const PixelMap<A, kFused> map(in, level, place.row, l);
      for (int point = 0; point < in.points; point += kGroup) {
        const int count = in.points - point < kGroup ? in.points - point : kGroup;
        const int64_t i = at + l * in.points + point + (place.lane < count ? place.lane : 0);
        const Pack<A, 2> position = load_pair(static_cast<const A*>(in.positions), i);
        const A weight = attention.weight(in, i);
        const Corners<A> corners(level, position.element[0] * map.scale_x + map.base_x,
                                 position.element[1] * map.scale_y + map.base_y);
        Sample<A> own{corners.token(level) * stride, corners.inside, {}};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner)
          own.factor[corner] = weight * bilinear(corner, corners.right, corners.lower);
#pragma unroll 4
        for (int lane = 0; lane < count; ++lane) {
          Sample<A> sample = own.template of_lane<kGroup>(lane);
          sample.inside = used ? sample.inside : 0u;
          add_sample<T, C>(sample, image, stride, level.width * stride, sum);
        }
      }
    }
    if (used) C::write(output + channel, sum);
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
