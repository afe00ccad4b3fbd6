#include "plain.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plain.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // compiles what follows once per instruction set
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numeric>
#include <vector>

#include "core/elements.hpp"
#include "simd/simd-inl.hpp"

#ifndef EQUINORM_BENCH_PLAIN_TYPES
#define EQUINORM_BENCH_PLAIN_TYPES
namespace equinorm::bench {

inline constexpr double kEpsilon = 1e-5;
/// From this size on writing around the caches is faster, here as in our kernels.
inline constexpr std::size_t kStreamBytes = 8 << 20;
inline constexpr std::size_t kPageBytes = 4096, kFirstCacheBytes = 32 << 10;
/// Planes smaller than a few lines are taken as columns, so many of them together: whole lines of floats.
inline constexpr std::size_t kSmallPlane = 64, kFlatPlanes = 16;
template <class T>
struct Data {
  const T *x, *dy, *gate, *residual;
  T *out, *dresidual;
  std::size_t ahead;  ///< elements fetched ahead; 0: none
  bool stream;        ///< write around the caches
};

/// out = a·x + b forward, a·g + (b·x + c) backward.
template <class T>
struct Coefficients {
  Parameter<T>*a, *b, *c;
};

template <class T>
struct RowData : Data<T> {
  T* sum;  ///< forward: x + residual, written first
  const Parameter<T>*gamma, *beta, *mean, *variance;
  Parameter<T>*dgamma, *dbeta;
  std::size_t features;
  bool centered;
};

/// The passes over memory of one kind of problem.
template <class T>
struct PlainKernels {
  /// Add Σv and Σ v·x, v = x forward, g backward.
  void (*sum_line)(Data<T> t, std::size_t begin, std::size_t length, Parameter<T>* sum, Parameter<T>* product);
  void (*sum_columns)(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                      Parameter<T>* sum, Parameter<T>* product);
  void (*apply_line)(Data<T> t, std::size_t begin, std::size_t length, Parameter<T> a, Parameter<T> b, Parameter<T> c);
  void (*apply_columns)(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                        Coefficients<T> k);
  void (*run_rows)(RowData<T> t, std::size_t rows);  ///< or nullptr
};

}  // namespace equinorm::bench
#endif

HWY_BEFORE_NAMESPACE();
namespace equinorm::bench {
namespace HWY_NAMESPACE {
namespace {
using namespace equinorm::HWY_NAMESPACE;

/// Rows, or lines of a matrix, that go side by side and share what is loaded for a column.
constexpr std::size_t kAside = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

template <class T>
using One = hn::CappedTag<Parameter<T>, 1>;

/// What a pass is compiled for. Gated: behind a relu, whose backward goes by the sign of y. Add: forward reads a
/// residual, backward writes its gradient.
template <bool kBackward_, bool kGated_, bool kAdd_>
struct Kind {
  static constexpr bool kBackward = kBackward_, kGated = kGated_, kAdd = kAdd_;
};

template <class K, class T>
HWY_INLINE void Fetch(const Data<T>& t, std::size_t at) {
  if (t.ahead == 0) return;
  hwy::Prefetch(t.x + at + t.ahead);
  if constexpr (K::kBackward) hwy::Prefetch(t.dy + at + t.ahead);
}

/// Backward: what the gate lets through.
template <class K, class D, class T>
HWY_INLINE hn::Vec<D> Gradient(D d, const Data<T>& t, std::size_t at) {
  const auto dy = LoadElements(d, t.dy + at);
  if constexpr (K::kGated) {
    return hn::IfThenElseZero(hn::Gt(LoadElements(d, t.gate + at), hn::Zero(d)), dy);
  } else {
    return dy;
  }
}

/// Σv and Σ v·x of one vector more, v = x forward, g backward.
template <class K, class D, class T>
HWY_INLINE void Sum(D d, const Data<T>& t, std::size_t at, hn::Vec<D>& sum, hn::Vec<D>& product) {
  Fetch<K>(t, at);
  const auto x = LoadElements(d, t.x + at);
  if constexpr (K::kBackward) {
    const auto g = Gradient<K>(d, t, at);
    sum = hn::Add(sum, g);
    product = hn::MulAdd(g, x, product);
  } else {
    sum = hn::Add(sum, x);
    product = hn::MulAdd(x, x, product);
  }
}

template <std::size_t n, class D, class T>
HWY_INLINE void Store(const hn::Vec<D> (&values)[n], bool stream, D d, T* out) {
  const auto store = [&](auto streamed) EQUINORM_INLINE {
    if constexpr (n == 2) {
      StorePair<streamed>(values[0], values[1], d, out);
    } else {
      StoreElements<streamed>(values[0], d, out);
    }
  };
  if (stream) [[unlikely]] {
    store(std::true_type());
  } else {
    store(std::false_type());
  }
}

template <class K, class D, class T>
HWY_INLINE hn::Vec<D> Apply(D d, const Data<T>& t, std::size_t at, hn::Vec<D> a, hn::Vec<D> b,
                            [[maybe_unused]] hn::Vec<D> c) {
  if (t.stream) Fetch<K>(t, at);
  const auto x = LoadElements(d, t.x + at);
  if constexpr (K::kBackward) {
    const auto g = Gradient<K>(d, t, at);
    if constexpr (K::kAdd) Store({g}, t.stream, d, t.dresidual + at);
    return hn::MulAdd(a, g, hn::MulAdd(b, x, c));
  } else {
    auto z = hn::MulAdd(a, x, b);
    if constexpr (K::kAdd) z = hn::Add(z, LoadElements(d, t.residual + at));
    if constexpr (K::kGated) z = hn::Max(z, hn::Zero(d));
    return z;
  }
}

// --- One line of a channel ------------------------------------------------------------------------------------------

template <class K, class T>
HWY_NOINLINE void SumLine(Data<T> t, std::size_t begin, std::size_t length, Parameter<T>* sum, Parameter<T>* product) {
  constexpr Tag<T> d;
  constexpr std::size_t kLanes = hn::MaxLanes(d), kVectors = 4;
  hn::Vec<Tag<T>> sums[kVectors], products[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) sums[v] = products[v] = hn::Zero(d);
  std::size_t i = begin;
  for (; i + kVectors * kLanes <= begin + length; i += kVectors * kLanes) {
    Unroll<kVectors>([&](auto v) EQUINORM_INLINE { Sum<K>(d, t, i + v * kLanes, sums[v], products[v]); });
  }
  for (; i + kLanes <= begin + length; i += kLanes) Sum<K>(d, t, i, sums[0], products[0]);
  constexpr One<T> one;
  auto last_sum = hn::Zero(one), last_product = hn::Zero(one);
  for (; i < begin + length; ++i) Sum<K>(one, t, i, last_sum, last_product);
  const auto total = [&](const auto& all) EQUINORM_INLINE {
    return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(all[0], all[1]), hn::Add(all[2], all[3]))));
  };
  *sum += total(sums) + hn::GetLane(last_sum);
  *product += total(products) + hn::GetLane(last_product);
}

template <class K, class T>
HWY_NOINLINE void ApplyLine(Data<T> t, std::size_t begin, std::size_t length, Parameter<T> a, Parameter<T> b,
                            Parameter<T> c) {
  ForEachStrip<2>(Tag<T>(), length, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
    hn::Vec<decltype(d)> values[vectors.value];
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      const std::size_t at = begin + i + v * hn::MaxLanes(d);
      values[v] = Apply<K>(d, t, at, hn::Set(d, a), hn::Set(d, b), hn::Set(d, c));
    });
    Store(values, t.stream, d, t.out + begin + i);
  });
}

// --- A matrix with coefficients for each column ---------------------------------------------------------------------

/// Strip by strip down blocks of rows that stay in the first cache; sums in registers meanwhile.
template <class K, class T>
HWY_NOINLINE void SumColumns(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                             Parameter<T>* sum, Parameter<T>* product) {
  constexpr std::size_t kStrip = HWY_TARGET <= HWY_AVX3 ? 8 : 2;
  const std::size_t few = std::max<std::size_t>(kFirstCacheBytes / (columns * sizeof(T)), 8);
  const std::size_t block = columns <= kStrip * hn::MaxLanes(Tag<T>()) ? rows : few;
  for (std::size_t r = 0; r < rows; r += block) {
    const std::size_t end = std::min(r + block, rows);
    ForEachStrip<kStrip>(Tag<T>(), columns, [&](auto d, auto vectors, std::size_t column) EQUINORM_INLINE {
      constexpr std::size_t kLanes = hn::MaxLanes(d);
      hn::Vec<decltype(d)> sums[vectors.value], products[vectors.value];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        sums[v] = hn::LoadU(d, sum + column + v * kLanes);
        products[v] = hn::LoadU(d, product + column + v * kLanes);
      });
      for (std::size_t i = r; i < end; ++i) {
        Unroll<vectors>([&](auto v) EQUINORM_INLINE {
          Sum<K>(d, t, begin + i * stride + column + v * kLanes, sums[v], products[v]);
        });
      }
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        hn::StoreU(sums[v], d, sum + column + v * kLanes);
        hn::StoreU(products[v], d, product + column + v * kLanes);
      });
    });
  }
}

template <class K, std::size_t kRows, class T>
HWY_INLINE void ApplyRows(const Data<T>& t, std::size_t begin, std::size_t stride, std::size_t columns,
                          const Coefficients<T>& k) {
  ForEachStrip<2>(Tag<T>(), columns, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
    constexpr std::size_t kLanes = hn::MaxLanes(d);
    hn::Vec<decltype(d)> a[vectors.value], b[vectors.value], c[vectors.value];
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      a[v] = hn::LoadU(d, k.a + i + v * kLanes);
      b[v] = hn::LoadU(d, k.b + i + v * kLanes);
      c[v] = K::kBackward ? hn::LoadU(d, k.c + i + v * kLanes) : hn::Zero(d);
    });
    Unroll<kRows>([&](auto r) EQUINORM_INLINE {
      const std::size_t at = begin + r * stride + i;
      hn::Vec<decltype(d)> values[vectors.value];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE { values[v] = Apply<K>(d, t, at + v * kLanes, a[v], b[v], c[v]); });
      Store(values, t.stream, d, t.out + at);
    });
  });
}

template <class K, class T>
HWY_NOINLINE void ApplyColumns(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                               Coefficients<T> k) {
  std::size_t r = 0;
  for (; r + kAside <= rows; r += kAside) ApplyRows<K, kAside>(t, begin + r * stride, stride, columns, k);
  for (; r < rows; ++r) ApplyRows<K, 1>(t, begin + r * stride, stride, columns, k);
}

// --- Rows that are normalized by themselves -------------------------------------------------------------------------

/// What kRows rows are normalized with: x̂ = x·inverse + offset, dx = h·inverse + (x·b + c).
template <class T, std::size_t kRows>
struct RowCoefficients {
  HWY_INLINE void Set(std::size_t r, double mean, double variance) {
    const double scale = 1 / std::sqrt(variance + kEpsilon);
    inverse[r] = static_cast<Parameter<T>>(scale);
    offset[r] = static_cast<Parameter<T>>(-mean * scale);
  }
  Parameter<T> inverse[kRows], offset[kRows], b[kRows], c[kRows];
};

/// kRows rows side by side: sums, then y = x̂·γ + β.
template <class K, std::size_t kRows, class T>
HWY_INLINE void NormalizeRows(const RowData<T>& t, std::size_t row) {
  const std::size_t m = t.features, begin = row * m;
  Data<T> read = t;
  if constexpr (K::kAdd) {
    ForEachStrip<2>(Tag<T>(), kRows * m, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
      hn::Vec<decltype(d)> values[vectors.value];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        const std::size_t at = begin + i + v * hn::MaxLanes(d);
        values[v] = hn::Add(LoadElements(d, t.x + at), LoadElements(d, t.residual + at));
      });
      Store(values, false, d, t.sum + begin + i);
    });
    read.x = t.sum;
  }
  RowCoefficients<T, kRows> k;
  Parameter<T> sums[kRows] = {}, squares[kRows] = {};
  for (std::size_t r = 0; r < kRows; ++r) {
    SumLine<Kind<false, false, false>>(read, begin + r * m, m, &sums[r], &squares[r]);
  }
  for (std::size_t r = 0; r < kRows; ++r) {
    const auto count = static_cast<double>(m);
    const double mean = t.centered ? sums[r] / count : 0;
    k.Set(r, mean, squares[r] / count - mean * mean);
  }
  ForEachStrip<2>(Tag<T>(), m, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
    constexpr std::size_t kLanes = hn::MaxLanes(d);
    hn::Vec<decltype(d)> gamma[vectors.value], beta[vectors.value];
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      gamma[v] = hn::LoadU(d, t.gamma + i + v * kLanes);
      beta[v] = hn::LoadU(d, t.beta + i + v * kLanes);
    });
    Unroll<kRows>([&](auto r) EQUINORM_INLINE {
      const std::size_t at = begin + r * m + i;
      hn::Vec<decltype(d)> values[vectors.value];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        if (t.stream) Fetch<K>(read, at + v * kLanes);
        const auto x = LoadElements(d, read.x + at + v * kLanes);
        values[v] = hn::MulAdd(hn::MulAdd(x, hn::Set(d, k.inverse[r]), hn::Set(d, k.offset[r])), gamma[v], beta[v]);
      });
      Store(values, t.stream, d, t.out + at);
    });
  });
}

/// kRows rows side by side: Σh and Σ h·x, then dx, and their part of dγ and dβ.
template <class K, std::size_t kRows, class T>
HWY_INLINE void DifferentiateRows(const RowData<T>& t, std::size_t row) {
  const std::size_t m = t.features, begin = row * m;
  Parameter<T> sums[kRows] = {}, products[kRows] = {};
  const auto sum = [&](auto d, std::size_t from, std::size_t to) EQUINORM_INLINE {
    hn::Vec<decltype(d)> sum_of[kRows], product_of[kRows];
    Unroll<kRows>([&](auto r) EQUINORM_INLINE { sum_of[r] = product_of[r] = hn::Zero(d); });
    for (std::size_t i = from; i < to; i += hn::MaxLanes(d)) {
      const auto gamma = hn::LoadU(d, t.gamma + i);
      Unroll<kRows>([&](auto r) EQUINORM_INLINE {
        const std::size_t at = begin + r * m + i;
        Fetch<K>(t, at);
        const auto h = hn::Mul(Gradient<K>(d, t, at), gamma);
        sum_of[r] = hn::Add(sum_of[r], h);
        product_of[r] = hn::MulAdd(h, LoadElements(d, t.x + at), product_of[r]);
      });
    }
    Unroll<kRows>([&](auto r) EQUINORM_INLINE {
      sums[r] += hn::GetLane(hn::SumOfLanes(d, sum_of[r]));
      products[r] += hn::GetLane(hn::SumOfLanes(d, product_of[r]));
    });
  };
  const std::size_t whole = m / hn::MaxLanes(Tag<T>()) * hn::MaxLanes(Tag<T>());
  sum(Tag<T>(), 0, whole);
  if (whole < m) sum(One<T>(), whole, m);
  RowCoefficients<T, kRows> k;
  for (std::size_t r = 0; r < kRows; ++r) {
    const auto count = static_cast<double>(m);
    const double mean = t.centered ? t.mean[row + r] : 0;
    k.Set(r, mean, t.variance[row + r]);
    const double scale = k.inverse[r], slope = -scale * scale * scale * (products[r] - mean * sums[r]) / count;
    k.b[r] = static_cast<Parameter<T>>(slope);
    k.c[r] = static_cast<Parameter<T>>(-slope * mean - (t.centered ? scale * sums[r] / count : 0));
  }
  ForEachStrip<2>(Tag<T>(), m, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
    constexpr std::size_t kLanes = hn::MaxLanes(d);
    hn::Vec<decltype(d)> gamma[vectors.value], dgamma[vectors.value], dbeta[vectors.value];
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      gamma[v] = hn::LoadU(d, t.gamma + i + v * kLanes);
      dgamma[v] = hn::LoadU(d, t.dgamma + i + v * kLanes);
      dbeta[v] = hn::LoadU(d, t.dbeta + i + v * kLanes);
    });
    Unroll<kRows>([&](auto r) EQUINORM_INLINE {
      const auto inverse = hn::Set(d, k.inverse[r]), offset = hn::Set(d, k.offset[r]);
      const std::size_t at = begin + r * m + i;
      hn::Vec<decltype(d)> values[vectors.value];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        if (t.stream) Fetch<K>(t, at + v * kLanes);
        const auto x = LoadElements(d, t.x + at + v * kLanes), g = Gradient<K>(d, t, at + v * kLanes);
        values[v] = hn::MulAdd(hn::Mul(g, gamma[v]), inverse, hn::MulAdd(x, hn::Set(d, k.b[r]), hn::Set(d, k.c[r])));
        dgamma[v] = hn::MulAdd(g, hn::MulAdd(x, inverse, offset), dgamma[v]);
        dbeta[v] = hn::Add(dbeta[v], g);
      });
      Store(values, t.stream, d, t.out + at);
    });
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      hn::StoreU(dgamma[v], d, t.dgamma + i + v * kLanes);
      hn::StoreU(dbeta[v], d, t.dbeta + i + v * kLanes);
    });
  });
}

template <class K, class T>
HWY_NOINLINE void RunRows(RowData<T> t, std::size_t rows) {
  if constexpr (K::kBackward) {
    std::fill_n(t.dgamma, t.features, Parameter<T>{0});
    std::fill_n(t.dbeta, t.features, Parameter<T>{0});
  }
  std::size_t r = 0;
  for (; r + kAside <= rows; r += kAside) {
    if constexpr (K::kBackward) {
      DifferentiateRows<K, kAside>(t, r);
    } else {
      NormalizeRows<K, kAside>(t, r);
    }
  }
  for (; r < rows; ++r) {
    if constexpr (K::kBackward) {
      DifferentiateRows<K, 1>(t, r);
    } else {
      NormalizeRows<K, 1>(t, r);
    }
  }
}

// --- The kinds that are compiled -------------------------------------------------------------------------------------

template <class T, bool kBackward, bool kGated, bool kAdd>
PlainKernels<T> Kernels() {
  using K = Kind<kBackward, kGated, kAdd>;
  PlainKernels<T> kernels{SumLine<K, T>, SumColumns<K, T>, ApplyLine<K, T>, ApplyColumns<K, T>, nullptr};
  if constexpr (!kGated && !(kBackward && kAdd)) kernels.run_rows = RunRows<K, T>;
  return kernels;
}

/// Compiles all kinds for f32, those without gate and residual for the others; nothing for processors without fused
/// multiply-adds, which are not worth the time.
template <class T>
PlainKernels<T> Choose([[maybe_unused]] bool backward, [[maybe_unused]] bool gated, [[maybe_unused]] bool add) {
  if constexpr (HWY_TARGET != HWY_SSE4) {
    if constexpr (std::is_same_v<T, float>) {
      if (backward && gated && add) return Kernels<T, true, true, true>();
      if (backward && gated) return Kernels<T, true, true, false>();
      if (backward && add) return Kernels<T, true, false, true>();
      if (gated && add) return Kernels<T, false, true, true>();
      if (gated) return Kernels<T, false, true, false>();
      if (add) return Kernels<T, false, false, true>();
    }
    if (!gated && !add) return backward ? Kernels<T, true, false, false>() : Kernels<T, false, false, false>();
  }
  return {};
}

PlainKernels<float> ChooseFloat(bool backward, bool gated, bool add) {
  return Choose<float>(backward, gated, add);
}
PlainKernels<bfloat16> ChooseBFloat16(bool backward, bool gated, bool add) {
  return Choose<bfloat16>(backward, gated, add);
}
PlainKernels<float16> ChooseFloat16(bool backward, bool gated, bool add) {
  return Choose<float16>(backward, gated, add);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace equinorm::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace equinorm::bench {
namespace {

HWY_EXPORT(ChooseFloat);
HWY_EXPORT(ChooseBFloat16);
HWY_EXPORT(ChooseFloat16);

template <class T>
PlainKernels<T> choose([[maybe_unused]] bool backward, [[maybe_unused]] bool gated, [[maybe_unused]] bool add) {
  if constexpr (std::is_same_v<T, float>) return HWY_DYNAMIC_DISPATCH(ChooseFloat)(backward, gated, add);
  if constexpr (std::is_same_v<T, bfloat16>) return HWY_DYNAMIC_DISPATCH(ChooseBFloat16)(backward, gated, add);
  if constexpr (std::is_same_v<T, float16>) return HWY_DYNAMIC_DISPATCH(ChooseFloat16)(backward, gated, add);
  return {};
}

// --- Units of channels ----------------------------------------------------------------------------------------------

/// Channels that lie in memory as columns (each value of a row another channel's, `fold` rows of them in one), as
/// planes taken as columns (each column a place in a plane), or as lines.
enum class Place { columns, flat_planes, lines };

template <class T>
class Channels {
 public:
  using P = Parameter<T>;

  Channels(const Problem& p, const Tensors<T>& t, const PlainKernels<T>& kernels)
      : p_(p), t_(t), kernels_(kernels), backward_(p.pass == Pass::backward) {
    const std::size_t plane = p.h * p.w;
    const bool first = p.layout == Layout::channels_first && !p.matrix();
    group_ = p.op == Op::group_norm ? p.c / p.groups : 1;
    batch_ = p.op == Op::batch_norm;
    if (!first) {
      place_ = Place::columns;
      channels_ = p.c;
      rows_ = batch_ ? p.n * plane : plane;
      constexpr std::size_t kWide = 64, kLine = 16;
      const std::size_t whole = p.c < kWide ? kWide : kLine;
      const std::size_t fold = whole / std::gcd(p.c, whole);
      width_ = (rows_ < fold ? 1 : fold) * p.c;
    } else if (batch_ && plane < kSmallPlane) {
      place_ = Place::flat_planes;
      channels_ = std::min<std::size_t>(kFlatPlanes, p.c);
      width_ = channels_ * plane;
    } else {
      place_ = Place::lines;
      channels_ = batch_ ? std::clamp<std::size_t>(kPageBytes / (plane * sizeof(T)), 1, p.c) : group_;
      width_ = channels_;
    }
    for (auto* v : {&sum_, &product_}) v->resize(width_);
    for (auto* v : {&a_, &b_, &c_}) v->resize(std::max(width_, p.c));
  }

  void run(const Data<T>& data) {
    if (backward_) {
      std::fill_n(t_.dgamma, p_.c, P{0});
      std::fill_n(t_.dbeta, p_.c, P{0});
    }
    const std::size_t plane = p_.h * p_.w, sample = p_.c * plane;
    if (batch_ && p_.pass == Pass::infer) return infer(data, plane, sample);
    if (place_ == Place::columns) {
      const std::size_t units = batch_ ? 1 : p_.n;
      for (std::size_t unit = 0; unit < units; ++unit) {
        begin_unit();
        const std::size_t begin = unit * rows_ * p_.c;
        each_piece(begin, false, [&](std::size_t at, std::size_t rows, std::size_t columns) {
          kernels_.sum_columns(data, at, rows, width_, columns, sum_.data(), product_.data());
        });
        for (std::size_t i = p_.c; i < width_; ++i) {  // what was folded
          sum_[i % p_.c] += sum_[i];
          product_[i % p_.c] += product_[i];
        }
        finish(unit, 0, channels_, static_cast<double>(rows_));
        for (std::size_t i = p_.c; i < width_; ++i) take_coefficients(i, i % p_.c);
        each_piece(begin, true, [&](std::size_t at, std::size_t rows, std::size_t columns) {
          kernels_.apply_columns(data, at, rows, width_, columns, coefficients());
        });
      }
      return;
    }
    for (std::size_t n = 0; n < (batch_ ? 1 : p_.n); ++n) {
      for (std::size_t c = 0; c < p_.c; c += channels_) {
        const std::size_t count = std::min(channels_, p_.c - c), begin = n * sample + c * plane;
        const std::size_t samples = batch_ ? p_.n : 1;
        begin_unit();
        if (place_ == Place::flat_planes) {
          kernels_.sum_columns(data, begin, samples, sample, count * plane, sum_.data(), product_.data());
          for (std::size_t i = 0; i < count; ++i) {
            sum_[i] = std::accumulate(&sum_[i * plane], &sum_[i * plane] + plane, P{0});
            product_[i] = std::accumulate(&product_[i * plane], &product_[i * plane] + plane, P{0});
          }
        } else {
          for (std::size_t s = 0; s < samples; ++s) {
            for (std::size_t i = 0; i < count; ++i) {
              kernels_.sum_line(data, begin + s * sample + i * plane, plane, &sum_[i], &product_[i]);
            }
          }
        }
        finish(n, c, count, static_cast<double>(samples * plane));
        if (place_ == Place::flat_planes) {
          for (std::size_t i = count * plane; i-- > 0;) take_coefficients(i, i / plane);
          kernels_.apply_columns(data, begin, samples, sample, count * plane, coefficients());
          continue;
        }
        for (std::size_t s = samples; s-- > 0;) {
          for (std::size_t i = 0; i < count; ++i) {
            kernels_.apply_line(data, begin + s * sample + i * plane, plane, a_[i], b_[i], c_[i]);
          }
        }
      }
    }
  }

 private:
  /// Along memory, but for small planes.
  void infer(const Data<T>& data, std::size_t plane, std::size_t sample) {
    const auto take = [&](std::size_t to, std::size_t c) {
      a_[to] = t_.gamma[c] / std::sqrt(t_.variance[c] + static_cast<P>(kEpsilon));
      b_[to] = t_.beta[c] - t_.mean[c] * a_[to];
    };
    if (place_ == Place::flat_planes) {
      for (std::size_t c = 0; c < p_.c; c += channels_) {
        const std::size_t count = std::min(channels_, p_.c - c);
        for (std::size_t i = 0; i < count; ++i) take(i, c + i);
        for (std::size_t i = count * plane; i-- > 0;) take_coefficients(i, i / plane);
        kernels_.apply_columns(data, c * plane, p_.n, sample, count * plane, coefficients());
      }
      return;
    }
    for (std::size_t c = 0; c < p_.c; ++c) take(c, c);
    if (place_ == Place::columns) {
      for (std::size_t i = p_.c; i < width_; ++i) take_coefficients(i, i % p_.c);
      each_piece(0, false, [&](std::size_t at, std::size_t rows, std::size_t columns) {
        kernels_.apply_columns(data, at, rows, width_, columns, coefficients());
      });
      return;
    }
    for (std::size_t n = 0; n < p_.n; ++n) {
      for (std::size_t c = 0; c < p_.c; ++c) kernels_.apply_line(data, n * sample + c * plane, plane, a_[c], b_[c], 0);
    }
  }

  void begin_unit() {
    std::fill(sum_.begin(), sum_.end(), P{0});
    std::fill(product_.begin(), product_.end(), P{0});
  }
  Coefficients<T> coefficients() { return {a_.data(), b_.data(), c_.data()}; }
  void take_coefficients(std::size_t to, std::size_t from) {
    a_[to] = a_[from];
    b_[to] = b_[from];
    c_[to] = c_[from];
  }

  /// Calls body(first element, rows, columns) for the pieces of a matrix of folded rows, and what is left of it.
  template <class Body>
  void each_piece(std::size_t begin, bool backwards, const Body& body) const {
    constexpr std::size_t kPieceBytes = 1 << 20;
    const std::size_t all = rows_ * p_.c, rows = all / width_;
    const std::size_t piece = std::max<std::size_t>(kPieceBytes / (width_ * sizeof(T)), 1);
    const std::size_t pieces = (rows + piece - 1) / piece;
    const auto rest = [&] {
      if (all % width_ != 0) body(begin + rows * width_, 1, all % width_);
    };
    if (backwards) rest();
    for (std::size_t k = 0; k < pieces; ++k) {
      const std::size_t r = (backwards ? pieces - 1 - k : k) * piece;
      body(begin + r * width_, std::min(piece, rows - r), width_);
    }
    if (!backwards) rest();
  }

  /// Coefficients of the channels c … c + count − 1 of a unit with sums over `values` each.
  void finish(std::size_t n, std::size_t c, std::size_t count, double values) {
    for (std::size_t g = 0; g < count; g += group_) {
      const double m = values * static_cast<double>(group_);
      double sum = 0, product = 0;
      if (backward_) {
        const std::size_t at = batch_ ? c + g : (n * p_.c + c + g) / group_;
        const double mean = t_.mean[at], inverse = 1 / std::sqrt(t_.variance[at] + kEpsilon);
        for (std::size_t i = g; i < g + group_; ++i) {
          const double dot = (product_[i] - mean * sum_[i]) * inverse;
          t_.dgamma[c + i] += static_cast<P>(dot);
          t_.dbeta[c + i] += sum_[i];
          sum += t_.gamma[c + i] * sum_[i];
          product += t_.gamma[c + i] * dot;
        }
        const double slope = -inverse * inverse * product / m;
        for (std::size_t i = g; i < g + group_; ++i) {
          a_[i] = static_cast<P>(t_.gamma[c + i] * inverse);
          b_[i] = static_cast<P>(slope);
          c_[i] = static_cast<P>(-slope * mean - inverse * sum / m);
        }
      } else {
        for (std::size_t i = g; i < g + group_; ++i) sum += sum_[i], product += product_[i];
        const double mean = sum / m, inverse = 1 / std::sqrt(product / m - mean * mean + kEpsilon);
        for (std::size_t i = g; i < g + group_; ++i) {
          a_[i] = static_cast<P>(t_.gamma[c + i] * inverse);
          b_[i] = static_cast<P>(t_.beta[c + i] - mean * inverse * t_.gamma[c + i]);
        }
      }
    }
  }

  Problem p_;
  Tensors<T> t_;
  PlainKernels<T> kernels_;
  bool backward_;
  Place place_;
  bool batch_;            ///< statistics over the batch, not of each sample
  std::size_t group_;     ///< channels that share statistics
  std::size_t channels_;  ///< of a unit
  std::size_t rows_ = 1;  ///< columns: of a unit, before folding
  std::size_t width_;     ///< columns: of a folded row
  std::vector<P> sum_, product_, a_, b_, c_;
};

}  // namespace

template <class T>
std::function<void()> plain(const Problem& p, const Tensors<T>& t, bool fetch_ahead) {
  const bool backward = p.pass == Pass::backward, gated = p.activation == Activation::relu;
  if (p.activation != Activation::none && !gated) return nullptr;
  const auto kernels = choose<T>(backward, gated, p.add && !(backward && p.by_rows()));
  const std::size_t plane = p.h * p.w;
  const bool by_channels = p.layout == Layout::channels_first && !p.matrix() && !p.by_rows();
  const bool flat = by_channels && p.op == Op::batch_norm && plane < kSmallPlane;
  const std::size_t whole = !by_channels ? p.c : flat ? kFlatPlanes * plane : plane;
  const bool stream = p.elements() * sizeof(T) >= kStreamBytes && whole * sizeof(T) % 64 == 0;
  const Data<T> data{
      t.x, t.dy, t.y, t.residual, backward ? t.dx : t.y, t.dresidual, fetch_ahead ? kPageBytes / sizeof(T) : 0, stream};
  if (p.by_rows()) {
    if (kernels.run_rows == nullptr) return nullptr;
    RowData<T> rows{data, t.sum, t.gamma, t.beta, t.mean, t.variance, t.dgamma, t.dbeta, p.c, p.op == Op::layer_norm};
    if (backward && p.add) rows.x = t.sum;
    return [=] { kernels.run_rows(rows, p.n); };
  }
  if (kernels.sum_line == nullptr) return nullptr;
  const auto channels = std::make_shared<Channels<T>>(p, t, kernels);
  return [=] { channels->run(data); };
}

template std::function<void()> plain(const Problem&, const Tensors<float>&, bool);
template std::function<void()> plain(const Problem&, const Tensors<double>&, bool);
template std::function<void()> plain(const Problem&, const Tensors<bfloat16>&, bool);
template std::function<void()> plain(const Problem&, const Tensors<float16>&, bool);

}  // namespace equinorm::bench
#endif
