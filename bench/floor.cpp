#include "floor.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "floor.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // compiles what follows once per instruction set
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/activation.hpp"
#include "simd/simd-inl.hpp"

#ifndef EQUINORM_BENCH_FLOOR_TYPES
#define EQUINORM_BENCH_FLOOR_TYPES
namespace equinorm::bench {

/// A visit of `bytes` at `offset` of some tensors; absent ones are null and come last.
struct Visit {
  const std::uint8_t* in[3];
  std::uint8_t* out[2];
  std::size_t ahead = 0;  ///< bytes fetched ahead; 0: none
  bool second = false;    ///< into the second cache
  bool far = false;       ///< the beginnings of pages are fetched too
  bool stream = false;
  bool claim = false;     ///< what is written is claimed, page by page
  bool by_fours = false;  ///< four vectors are read before one is written
};
constexpr std::size_t kFarBytes = 32 << 10;

}  // namespace equinorm::bench
#endif

HWY_BEFORE_NAMESPACE();
namespace equinorm::bench {
namespace HWY_NAMESPACE {
namespace {
using namespace equinorm::HWY_NAMESPACE;

/// kVectors are read before one is written. v by value: a store of bytes may not be thought to change it.
template <std::size_t kIn, std::size_t kOut, bool kStream, std::size_t kVectors>
std::uint8_t Pass(Visit v, std::size_t offset, std::size_t bytes) {
  constexpr hn::ScalableTag<std::uint8_t> d;
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  auto all = hn::Zero(d);
  std::size_t i = offset, page = offset;
  for (; i + kVectors * kLanes <= offset + bytes; i += kVectors * kLanes) {
    if (v.far && i >= page) {
      for (std::size_t k = 0; k < kIn; ++k) {
        hwy::Prefetch(v.in[k] + page + kFarBytes);
        hwy::Prefetch(v.in[k] + page + kFarBytes + kLineBytes);
      }
      page += kPageBytes;
    }
    hn::Vec<decltype(d)> values[kVectors];
    Unroll<kVectors>([&](auto n) EQUINORM_INLINE {
      values[n] = hn::Zero(d);
      for (std::size_t k = 0; k < kIn; ++k) {
        const std::uint8_t* in = v.in[k] + i + n * kLanes;
        if (v.second) {
          FetchFar(in + v.ahead);
        } else if (v.ahead != 0) {
          hwy::Prefetch(in + v.ahead);
        }
        values[n] = hn::Or(values[n], hn::LoadU(d, in));
      }
      if constexpr (kOut == 0) all = hn::Or(all, values[n]);
    });
    for (std::size_t n = 0; n < (kOut > 0 ? kVectors : 0); ++n) {
      for (std::size_t k = 0; k < kOut; ++k) {
        std::uint8_t* out = v.out[k] + i + n * kLanes;
        if constexpr (kStream) {
          hn::Stream(values[n], d, out);
        } else {
          hn::StoreU(values[n], d, out);
        }
      }
    }
  }
  for (; i < offset + bytes; ++i) {
    for (std::size_t k = 0; k < kOut; ++k) v.out[k][i] = v.in[0][i];
  }
  return hn::GetLane(all);
}

template <std::size_t kIn, std::size_t kOut>
std::uint8_t PassOf(const Visit& v, std::size_t offset, std::size_t bytes) {
  if (v.stream) return Pass<kIn, kOut, true, 1>(v, offset, bytes);
  return v.by_fours ? Pass<kIn, kOut, false, 4>(v, offset, bytes) : Pass<kIn, kOut, false, 1>(v, offset, bytes);
}

template <std::size_t kIn>
std::uint8_t PassFrom(const Visit& v, std::size_t offset, std::size_t bytes) {
  if (v.out[0] == nullptr) return Pass<kIn, 0, false, 1>(v, offset, bytes);
  return v.out[1] == nullptr ? PassOf<kIn, 1>(v, offset, bytes) : PassOf<kIn, 2>(v, offset, bytes);
}

std::uint8_t PassAny(const Visit& v, std::size_t offset, std::size_t bytes) {
  if (v.in[1] == nullptr) return PassFrom<1>(v, offset, bytes);
  return v.in[2] == nullptr ? PassFrom<2>(v, offset, bytes) : PassFrom<3>(v, offset, bytes);
}

std::uint8_t Run(const Visit& v, std::size_t offset, std::size_t bytes) {
  if (!v.claim) return PassAny(v, offset, bytes);
  std::uint8_t all = 0;
  for (std::size_t end = offset + bytes; offset < end; offset += kPageBytes) {
    const std::size_t count = std::min(kPageBytes, end - offset);
    if (v.in[1] != nullptr) ReadLines(v.in[1] + offset, count);
    ClaimLines(v.out[0] + offset, count);
    all = static_cast<std::uint8_t>(all | PassAny(v, offset, count));
  }
  return all;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace equinorm::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace equinorm::bench {
namespace {

HWY_EXPORT(Run);

/// `units` of `runs` pieces each, of `run` elements (the last of a unit may be shorter), which lie `stride` apart;
/// units lie `spacing` apart.
struct Order {
  std::size_t units, runs, run, stride, spacing;
};

Order order_of(const Problem& p, std::size_t element_bytes) {
  constexpr std::size_t kPieceBytes = 1 << 20, kRowsBytes = 32 << 10;
  const std::size_t all = p.elements(), plane = p.h * p.w, sample = p.c * plane;
  const auto pieces = [&](std::size_t bytes) {
    const std::size_t piece = std::min(bytes / element_bytes, all);
    return std::pair{(all + piece - 1) / piece, piece};
  };
  if (p.by_rows()) {
    const auto [count, piece] = pieces(kRowsBytes);
    return {count, 1, piece, 0, piece};
  }
  if (p.op == Op::batch_norm && (!p.planes() || p.pass == Pass::infer)) {
    const auto [count, piece] = pieces(kPieceBytes);
    return {1, count, piece, piece, all};
  }
  if (p.op == Op::batch_norm) {
    const std::size_t together = std::clamp<std::size_t>(kPageBytes / (plane * element_bytes), 1, p.c);
    return {(p.c + together - 1) / together, p.n, together * plane, sample, together * plane};
  }
  if (!p.planes()) return {p.n, 1, sample, 0, sample};
  const std::size_t groups = p.op == Op::instance_norm ? p.c : p.groups;
  return {p.n * groups, 1, sample / groups, 0, sample / groups};
}

}  // namespace

template <class T>
std::function<void()> floor(const Problem& p, const Tensors<T>& t, Fetch fetch) {
  const auto in = [](const T* tensor) { return reinterpret_cast<const std::uint8_t*>(tensor); };
  const auto out = [](T* tensor) { return reinterpret_cast<std::uint8_t*>(tensor); };
  const Order order = order_of(p, sizeof(T));
  const bool second = fetch == Fetch::second;
  const std::size_t ahead = bytes_ahead(fetch), ahead_of_apply = claims(fetch) ? 0 : ahead;
  Visit reduce{}, apply{};
  if (p.pass == Pass::backward) {
    const T* x = p.by_rows() && p.add ? t.sum : t.x;
    const bool over_residual = !p.by_rows() && p.add && p.activation != Activation::none;
    const T* gate = !over_residual ? nullptr : has_slope_of_sign(p.activation) ? t.y : t.residual;
    reduce = {{in(x), in(t.dy), in(gate)}, {}, ahead, second};
    apply = {{in(x), in(t.dy), in(gate)}, {out(t.dx), out(t.dresidual)}, ahead_of_apply, second};
  } else {
    reduce = {{in(t.x)}, {}, ahead, second};
    apply = {{in(t.x), in(t.residual)}, {out(t.y), out(t.sum)}, ahead_of_apply, second};
  }
  // The gradient of a residual behind a relu is written with the sums, and read instead of dy and y: as ours, see
  // Backward::gate_first.
  const bool gate_first =
      p.pass == Pass::backward && p.op == Op::batch_norm && !p.planes() && p.add && p.activation == Activation::relu;
  if (gate_first) {
    reduce.out[0] = out(t.dresidual);
    apply = {{in(t.x), in(t.dresidual)}, {out(t.dx)}, ahead_of_apply, second};
  }
  reduce.far = fetches_far(fetch);
  apply.claim = claims(fetch);
  apply.by_fours = fetch == Fetch::far_claim;
  const bool once = p.by_rows() || (p.op == Op::batch_norm && p.pass == Pass::infer);  // a row stays where it is
  const auto whole_lines = [](std::size_t count) { return count * sizeof(T) % 64 == 0; };
  apply.stream = p.elements() * sizeof(T) >= p.least_streamed() && whole_lines(order.run) &&
                 whole_lines(order.stride) && whole_lines(order.spacing);
  reduce.stream = gate_first && apply.stream;
  if (ahead != 0 && apply.stream && order.units > 1) apply.ahead = order.spacing * sizeof(T);  // what is read next
  return [=, elements = p.elements()] {
    std::uint8_t seen = 0;
    const auto visit = [&](const Visit& v, std::size_t unit, std::size_t i) {
      const std::size_t begin = unit * order.spacing + i * order.stride;
      // The last of some units of channels ends with the sample, the last piece of a tensor with that.
      const std::size_t end = order.runs > 1 && order.stride > order.run ? (i + 1) * order.stride : elements;
      const std::size_t bytes = std::min(order.run, end - begin) * sizeof(T);
      seen = static_cast<std::uint8_t>(seen | HWY_DYNAMIC_DISPATCH(Run)(v, begin * sizeof(T), bytes));
    };
    for (std::size_t unit = 0; unit < order.units; ++unit) {
      for (std::size_t i = 0; !once && i < order.runs; ++i) visit(reduce, unit, i);
      for (std::size_t i = order.runs; i-- > 0;) visit(apply, unit, i);
    }
    const volatile std::uint8_t sink = seen;  // so that what is read cannot be left out
    static_cast<void>(sink);
  };
}

template std::function<void()> floor(const Problem&, const Tensors<float>&, Fetch);
template std::function<void()> floor(const Problem&, const Tensors<double>&, Fetch);
template std::function<void()> floor(const Problem&, const Tensors<bfloat16>&, Fetch);
template std::function<void()> floor(const Problem&, const Tensors<float16>&, Fetch);

}  // namespace equinorm::bench
#endif
