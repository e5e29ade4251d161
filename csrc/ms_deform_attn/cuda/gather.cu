#include "sampling.cuh"

namespace hdetr_d2::cuda {
namespace {

// Each lane writes down samples of its query: where they are, and how much they weigh.
template <class A, int kGroup, bool kFused>
__global__ void __launch_bounds__(kThreads) samples_kernel(const Inputs in, const Samples to) {
  const Place<kGroup> place(in);
  const int64_t at = (place.row * in.heads + place.head) * in.levels * in.points;
  Attention<A, kFused> attention;
  attention.prepare(in, place, at);
  if (!place.inside) return;
  LevelWalk walk;
  for (int l = 0; l < in.levels; ++l) {
    const Level level = walk.at(in, l);
    const PixelMap<A, kFused> map(in, level, place.row, l);
    const int first = (int(place.image) * in.heads + place.head) * cells_of_head(in) + first_cell(level, l);
    for (int point = place.lane; point < in.points; point += kGroup) {
      const int64_t i = at + l * in.points + point;
      const Pack<A, 2> position = load_pair(static_cast<const A*>(in.positions), i);
      const Corners<A> corners(level, position.element[0] * map.scale_x + map.base_x,
                               position.element[1] * map.scale_y + map.base_y);
      const A weight = attention.weight(in, i);
      Pack<A, 4> factors;
#pragma unroll
      for (int corner = 0; corner < 4; ++corner)
        factors.element[corner] = weight * bilinear(corner, corners.right, corners.lower);
      static_cast<Pack<A, 4>*>(to.factors)[i] = factors;
      to.cells[i] = corners.inside ? first + (corners.y + 1) * (level.width + 1) + corners.x + 1
                                   : int(in.batch) * in.heads * cells_of_head(in);
    }
  }
}

template <class A, bool kFused>
void run_samples(const Inputs& in, const Samples& to, cudaStream_t stream) {
  constexpr int kGroup = 4;
  const unsigned blocks = unsigned(number_of_blocks<kGroup>(in));
  samples_kernel<A, kGroup, kFused><<<blocks, kThreads, 0, stream>>>(in, to);
}

// One (image, head, token) a group of lanes: sums what the samples of the four cells about the pixel give to it, cell
// by cell and in the order of the samples. Nothing is added atomically, so the bits are the same every time.
template <class T, int kGroup, int kVector, bool kExact>
__global__ void __launch_bounds__(kThreads, kBlocksOfProcessor<T>) gather_kernel(const Inputs in, const Ordered from) {
  using A = Accumulation<T>;
  constexpr int kOfPack = kVector == 1 ? 1 : 16 / int(sizeof(T));
  using C = Channels<T, kGroup, kVector, kOfPack>;
  constexpr int tokens_of_block = kThreads / kGroup;
  const int blocks_of_head = (in.tokens + tokens_of_block - 1) / tokens_of_block;
  const int image_and_head = int(blockIdx.x) / blocks_of_head, lane = threadIdx.x % kGroup;
  const int token = int(blockIdx.x) % blocks_of_head * tokens_of_block + int(threadIdx.x) / kGroup;
  if (token >= in.tokens) return;
  Level level{0, 0, 0};
  int cell = image_and_head * cells_of_head(in);
  LevelWalk walk;
  int index = 0;
  for (int l = 0; l < in.levels; ++l) {
    const Level next = walk.at(in, l);
    if (next.width == 0 || token < next.start) continue;
    level = next;
    index = l;
  }
  // Levels on the device may leave tokens over
  const bool is_pixel = token - level.start < level.height * level.width;
  if (is_pixel) {
    const int y = (token - level.start) / level.width, x = (token - level.start) % level.width;
    cell += first_cell(level, index) + y * (level.width + 1) + x;  // of which the pixel is the last corner
  }
  const int width = kExact ? kGroup * kVector : in.width, samples_of_head = in.levels * in.points;
  const A* factors = static_cast<const A*>(from.factors);
  T* value = static_cast<T*>(from.value) +
             ((image_and_head / in.heads * int64_t(in.tokens) + token) * in.heads + image_and_head % in.heads) * width;
  for (int channel = lane * kOfPack; channel < width; channel += kGroup * kVector) {
    const T* output = static_cast<const T*>(from.output) + channel;
    A sum[kVector] = {};
    for (int corner = 3; is_pixel && corner >= 0; --corner) {
      const int at = cell + (corner % 2 ? 0 : 1) + (corner / 2 ? 0 : level.width + 1);
      const int end = from.starts[at + 1];
#pragma unroll 4
      for (int i = from.starts[at]; i < end; ++i) {
        const int sample = int(from.order[i]);
        const A factor = factors[4 * int64_t(sample) + corner];
        C read;
        read.read(output + int64_t(sample / samples_of_head) * width);
        A numbers[kVector];
        read.widen_to(numbers);
#pragma unroll
        for (int k = 0; k < kVector; ++k) sum[k] += factor * numbers[k];
      }
    }
    C::write(value + channel, sum);
    if (kExact) break;
  }
}

struct Gather {
  const Inputs& in;
  const Ordered& from;
  cudaStream_t stream;

  template <class T, int kGroup, int kVector, bool kExact, bool kFused>
  void run() const {
    constexpr int tokens_of_block = kThreads / kGroup;
    const int64_t blocks = in.batch * in.heads * ((in.tokens + tokens_of_block - 1) / tokens_of_block);
    gather_kernel<T, kGroup, kVector, kExact><<<unsigned(blocks), kThreads, 0, stream>>>(in, from);
  }
};

}  // namespace

void launch_samples(const Inputs& in, const Samples& to, Type type, cudaStream_t stream) {
  const bool fused = in.reference_width != 0;
  if (type == Type::kDouble)
    fused ? run_samples<double, true>(in, to, stream) : run_samples<double, false>(in, to, stream);
  else
    fused ? run_samples<float, true>(in, to, stream) : run_samples<float, false>(in, to, stream);
}

void launch_gather(const Inputs& in, const Ordered& from, Type type, cudaStream_t stream) {
  choose_kernel(in, type, Gather{in, from, stream});
}

}  // namespace hdetr_d2::cuda
