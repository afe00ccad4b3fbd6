#include "plain_kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plain_kernels.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // compiles what follows once per instruction set
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm::bench {
namespace HWY_NAMESPACE {
namespace {
using namespace equinorm::HWY_NAMESPACE;

/// Rows, or lines of a matrix, that go side by side and share what is loaded for a column.
constexpr std::size_t kAside = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
/// Vectors of a narrow row, whose coefficients and sums stay in registers.
constexpr std::size_t kNarrow = 4;
/// Vectors of wider ones whose sums stay there.
constexpr std::size_t kSumStrip = HWY_TARGET <= HWY_AVX3 ? 8 : 2;
/// A block of rows so large stays in the first cache.
constexpr std::size_t kFirstCacheBytes = 32 << 10;

template <class T>
using One = hn::CappedTag<Parameter<T>, 1>;

/// What a pass is compiled for: see plain_kernels.
template <bool kBackward_, bool kGated_, bool kAdd_>
struct Kind {
  static constexpr bool kBackward = kBackward_, kGated = kGated_, kAdd = kAdd_;
  static constexpr bool kFromZ = kBackward && kGated && !kAdd;  ///< whether backward computes z again
};

template <class K, class T>
HWY_INLINE void Fetch(const Data<T>& t, std::size_t at) {
  if (t.ahead == 0) return;
  if (t.second) {
    FetchFar(t.x + at + t.ahead);
    if constexpr (K::kBackward) FetchFar(t.dy + at + t.ahead);
  } else {
    hwy::Prefetch(t.x + at + t.ahead);
    if constexpr (K::kBackward) hwy::Prefetch(t.dy + at + t.ahead);
  }
}

/// Of what lies 32 KiB behind the `count` elements from `at` on, the first two lines of every page.
template <class K, class T>
HWY_INLINE void FetchPages(const Data<T>& t, std::size_t at, std::size_t count) {
  constexpr std::size_t kFar = (32 << 10) / sizeof(T), kPage = kPageBytes / sizeof(T), kLine = kLineBytes / sizeof(T);
  if (!t.far) return;
  for (std::size_t i = at + kFar; i < at + count + kFar; i += kPage) {
    for (const std::size_t line : {i, i + kLine}) {
      hwy::Prefetch(t.x + line);
      if constexpr (K::kBackward) hwy::Prefetch(t.dy + line);
    }
  }
}

/// What z is made with, of one vector.
template <class D>
struct Gate {
  hn::Vec<D> scale, shift;
};
/// Of the columns from i on, or of one channel for all lanes.
template <class K, class D, class T>
HWY_INLINE Gate<D> GateOfColumns(D d, const Coefficients<T>& k, std::size_t i) {
  if constexpr (K::kFromZ) return {hn::LoadU(d, k.scale + i), hn::LoadU(d, k.shift + i)};
  return {hn::Zero(d), hn::Zero(d)};
}
template <class K, class D, class T>
HWY_INLINE Gate<D> GateOfChannel(D d, const Coefficients<T>& k) {
  if constexpr (K::kFromZ) return {hn::Set(d, *k.scale), hn::Set(d, *k.shift)};
  return {hn::Zero(d), hn::Zero(d)};
}

/// Backward: what the gate lets through.
template <class K, class D, class T>
HWY_INLINE hn::Vec<D> Gradient(D d, const Data<T>& t, std::size_t at, [[maybe_unused]] hn::Vec<D> x,
                               [[maybe_unused]] const Gate<D>& gate) {
  const auto dy = LoadElements(d, t.dy + at);
  if constexpr (K::kFromZ) {
    return hn::IfThenElseZero(hn::Gt(hn::MulAdd(gate.scale, x, gate.shift), hn::Zero(d)), dy);
  } else if constexpr (K::kGated) {
    return hn::IfThenElseZero(hn::Gt(LoadElements(d, t.gate + at), hn::Zero(d)), dy);
  } else {
    return dy;
  }
}

template <std::size_t n, class D, class T>
HWY_INLINE void Store(const hn::Vec<D> (&values)[n], bool stream, D d, T* out) {
  const auto store = [&](auto streamed) EQUINORM_INLINE { StoreVectors<streamed>(values, d, out); };
  if (stream) [[unlikely]] {
    store(std::true_type());
  } else {
    store(std::false_type());
  }
}

/// Σv and Σ v·x of one vector more, v = x forward, g backward.
template <class K, class D, class T>
HWY_INLINE void Sum(D d, const Data<T>& t, std::size_t at, const Gate<D>& gate, hn::Vec<D>& sum, hn::Vec<D>& product) {
  Fetch<K>(t, at);
  const auto x = LoadElements(d, t.x + at);
  if constexpr (K::kBackward) {
    const auto g = Gradient<K>(d, t, at, x, gate);
    if constexpr (K::kGated && K::kAdd) {
      if (t.gate_first) Store({g}, t.stream, d, t.dresidual + at);
    }
    sum = hn::Add(sum, g);
    product = hn::MulAdd(g, x, product);
  } else {
    sum = hn::Add(sum, x);
    product = hn::MulAdd(x, x, product);
  }
}

template <class D, std::size_t n, class P>
HWY_INLINE void LoadVectors(D d, const P* from, hn::Vec<D> (&to)[n]) {
  Unroll<n>([&](auto v) EQUINORM_INLINE { to[v] = hn::LoadU(d, from + v * hn::MaxLanes(d)); });
}

template <class K, class D, class T>
HWY_INLINE hn::Vec<D> Apply(D d, const Data<T>& t, std::size_t at, hn::Vec<D> a, hn::Vec<D> b,
                            [[maybe_unused]] hn::Vec<D> c, const Gate<D>& gate) {
  if (t.stream) Fetch<K>(t, at);
  const auto x = LoadElements(d, t.x + at);
  if constexpr (K::kBackward) {
    const auto g = Gradient<K>(d, t, at, x, gate);
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
HWY_NOINLINE void SumLine(Data<T> t, std::size_t begin, std::size_t length, Coefficients<T> k, Parameter<T>* sum,
                          Parameter<T>* product) {
  constexpr Tag<T> d;
  constexpr std::size_t kLanes = hn::MaxLanes(d), kVectors = 4;
  hn::Vec<Tag<T>> sums[kVectors], products[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) sums[v] = products[v] = hn::Zero(d);
  FetchPages<K>(t, begin, length);
  const auto gate = GateOfChannel<K>(d, k);
  std::size_t i = begin;
  for (; i + kVectors * kLanes <= begin + length; i += kVectors * kLanes) {
    Unroll<kVectors>([&](auto v) EQUINORM_INLINE { Sum<K>(d, t, i + v * kLanes, gate, sums[v], products[v]); });
  }
  for (; i + kLanes <= begin + length; i += kLanes) Sum<K>(d, t, i, gate, sums[0], products[0]);
  constexpr One<T> one;
  auto last_sum = hn::Zero(one), last_product = hn::Zero(one);
  for (; i < begin + length; ++i) Sum<K>(one, t, i, GateOfChannel<K>(one, k), last_sum, last_product);
  const auto total = [&](const auto& all) EQUINORM_INLINE {
    return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(all[0], all[1]), hn::Add(all[2], all[3]))));
  };
  *sum += total(sums) + hn::GetLane(last_sum);
  *product += total(products) + hn::GetLane(last_product);
}

template <class K, class T>
HWY_NOINLINE void ApplyLine(Data<T> t, std::size_t begin, std::size_t length, Coefficients<T> k) {
  const Parameter<T> a = *k.a, b = *k.b, c = *k.c;
  ForEachStrip<2>(Tag<T>(), length, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
    hn::Vec<decltype(d)> values[vectors.value];
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      const std::size_t at = begin + i + v * hn::MaxLanes(d);
      values[v] = Apply<K>(d, t, at, hn::Set(d, a), hn::Set(d, b), hn::Set(d, c), GateOfChannel<K>(d, k));
    });
    Store(values, t.stream, d, t.out + begin + i);
  });
}

// --- A matrix with coefficients for each column ---------------------------------------------------------------------

/// Strips of what sums are taken of: a narrow row, or with AVX-512 one of 5, 3 or 7 channels folded, is a single one.
template <class D, class Strip>
HWY_INLINE void ForEachSumStrip(D d, std::size_t columns, const Strip& strip) {
  constexpr std::size_t kLanes = hn::MaxLanes(D());
  if (columns <= kNarrow * kLanes) return ForEachStrip<kNarrow>(d, columns, strip);
  if constexpr (kSumStrip == 8) {
    if (columns == 5 * kLanes) return ForEachStrip<5>(d, columns, strip);
    if (columns == 6 * kLanes) return ForEachStrip<6>(d, columns, strip);
    if (columns == 7 * kLanes) return ForEachStrip<7>(d, columns, strip);
  }
  ForEachStrip<kSumStrip>(d, columns, strip);
}

/// Strip by strip down blocks of rows that stay in the first cache; sums in registers meanwhile.
template <class K, class T>
HWY_NOINLINE void SumColumns(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                             Coefficients<T> k, Parameter<T>* sum, Parameter<T>* product) {
  const std::size_t few = std::max<std::size_t>(kFirstCacheBytes / (columns * sizeof(T)), 8);
  const std::size_t block = columns <= kSumStrip * hn::MaxLanes(Tag<T>()) && !t.far ? rows : few;
  // Long rows are fetched in the order of memory, the block behind while one is read.
  constexpr std::size_t kLine = kLineBytes / sizeof(T);
  const bool in_order = t.second && stride == columns && block < rows;
  std::size_t next = begin + block * stride;
  if (in_order) t.ahead = 0;
  for (std::size_t r = 0; r < rows; r += block) {
    const std::size_t end = std::min(r + block, rows);
    if (stride == columns) FetchPages<K>(t, begin + r * stride, (end - r) * stride);
    const auto strip = [&](auto d, auto vectors, std::size_t column) EQUINORM_INLINE {
      constexpr std::size_t kLanes = hn::MaxLanes(d);
      hn::Vec<decltype(d)> sums[vectors.value], products[vectors.value];
      LoadVectors(d, sum + column, sums);
      LoadVectors(d, product + column, products);
      for (std::size_t i = r; i < end; ++i) {
        for (const std::size_t last = next + vectors * kLanes; in_order && next < last; next += kLine) {
          FetchFar(t.x + next);
          if constexpr (K::kBackward) FetchFar(t.dy + next);
        }
        Unroll<vectors>([&](auto v) EQUINORM_INLINE {
          Sum<K>(d, t, begin + i * stride + column + v * kLanes, GateOfColumns<K>(d, k, column + v * kLanes), sums[v],
                 products[v]);
        });
      }
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        hn::StoreU(sums[v], d, sum + column + v * kLanes);
        hn::StoreU(products[v], d, product + column + v * kLanes);
      });
    };
    ForEachSumStrip(Tag<T>(), columns, strip);
  }
}

/// `rows` rows, by strips of kVectors vectors.
template <class K, std::size_t kVectors, class T>
HWY_INLINE void ApplyRows(const Data<T>& t, std::size_t begin, std::size_t rows, std::size_t stride,
                          std::size_t columns, const Coefficients<T>& k) {
  ForEachStrip<kVectors>(Tag<T>(), columns, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
    constexpr std::size_t kLanes = hn::MaxLanes(d);
    hn::Vec<decltype(d)> a[vectors.value], b[vectors.value], c[vectors.value];
    LoadVectors(d, k.a + i, a);
    LoadVectors(d, k.b + i, b);
    LoadVectors(d, k.c + i, c);
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t at = begin + r * stride + i;
      hn::Vec<decltype(d)> values[vectors.value];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        values[v] = Apply<K>(d, t, at + v * kLanes, a[v], b[v], c[v], GateOfColumns<K>(d, k, i + v * kLanes));
      });
      Store(values, t.stream, d, t.out + at);
    }
  });
}

template <class K, class T>
HWY_NOINLINE void ApplyColumns(Data<T> t, std::size_t begin, std::size_t rows, std::size_t stride, std::size_t columns,
                               Coefficients<T> k) {
  // Memory is read and written faster in its order than coefficients are loaded, if they fit the first cache.
  const bool in_order = t.stream && t.second && stride == columns && columns <= 1024;
  const bool narrow = stride == columns && columns <= kNarrow * hn::MaxLanes(Tag<T>());
  const std::size_t page = std::max<std::size_t>(kPageBytes / sizeof(T) / columns / kAside, 1) * kAside;
  const std::size_t tile = narrow ? page : in_order ? 1 : kAside;
  for (std::size_t r = 0; r < rows; r += tile) {
    if (t.claim && stride == columns && r % page == 0) {
      const std::size_t at = begin + r * stride, count = std::min(page, rows - r) * columns;
      if constexpr (K::kBackward) ReadLines(t.dy + at, count);
      if constexpr (K::kAdd && !K::kBackward) ReadLines(t.residual + at, count);
      ClaimLines(t.out + at, count);
    }
    const std::size_t count = std::min(tile, rows - r);
    if (narrow) {
      ApplyRows<K, kNarrow>(t, begin + r * stride, count, stride, columns, k);
    } else {
      ApplyRows<K, 2>(t, begin + r * stride, count, stride, columns, k);
    }
  }
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

/// Forward. y = x̂·γ + β of a row is written behind the sums of the next, so that the end of its own comes about
/// meanwhile. With a residual four tensors are under way, evenly: sums, x + residual and y of the row before the last
/// are of one loop; what is normalized is kept aside.
template <class K, bool kCentered, class T>
HWY_INLINE void NormalizeRows(const RowData<T>& t, std::size_t rows) {
  constexpr Tag<T> d;
  constexpr std::size_t kLanes = hn::MaxLanes(d), kVectors = 4, kLag = K::kAdd ? 2 : 1;
  const std::size_t m = t.features, whole = m / kLanes * kLanes;
  static_assert(!K::kAdd || kLag + 1 == kRowsAside);
  const auto aside = [&](std::size_t r) { return t.aside + r % kRowsAside * m; };
  RowCoefficients<T, kLag> k;
  for (std::size_t r = 0; r < rows + kLag; ++r) {
    const bool sums = r < rows, writes = r >= kLag;
    const std::size_t slot = r % kLag, written = writes ? r - kLag : 0;
    const T* from = K::kAdd ? aside(written) : t.x + written * m;
    const auto write = [&](auto tag, std::size_t i) EQUINORM_INLINE {
      const auto x = LoadElements(tag, from + i), inverse = hn::Set(tag, k.inverse[slot]);
      const auto gamma = hn::LoadU(tag, t.gamma + i);
      auto y = hn::Mul(hn::Mul(x, inverse), gamma);
      if constexpr (kCentered) {
        y = hn::MulAdd(hn::MulAdd(x, inverse, hn::Set(tag, k.offset[slot])), gamma, hn::LoadU(tag, t.beta + i));
      }
      Store({y}, t.stream, tag, t.out + written * m + i);
    };
    const auto sum = [&](auto tag, std::size_t i, auto& first, auto& second) EQUINORM_INLINE {
      const std::size_t at = r * m + i;
      Fetch<K>(t, at);
      auto x = LoadElements(tag, t.x + at);
      if constexpr (K::kAdd) {
        if (t.second) {
          FetchFar(t.residual + at + t.ahead);
        } else if (t.ahead != 0) {
          hwy::Prefetch(t.residual + at + t.ahead);
        }
        x = hn::Add(x, LoadElements(tag, t.residual + at));
        Store({x}, t.stream, tag, t.sum + at);
        StoreElements<false>(x, tag, aside(r) + i);
        if (writes) write(tag, i);
      }
      if constexpr (kCentered) first = hn::Add(first, x);
      second = hn::MulAdd(x, x, second);
    };
    Parameter<T> total = 0, squares = 0;
    if (sums) {
      hn::Vec<Tag<T>> first[kVectors], second[kVectors];
      for (std::size_t v = 0; v < kVectors; ++v) first[v] = second[v] = hn::Zero(d);
      std::size_t i = 0;
      for (; i + kVectors * kLanes <= whole; i += kVectors * kLanes) {
        Unroll<kVectors>([&](auto v) EQUINORM_INLINE { sum(d, i + v * kLanes, first[v], second[v]); });
      }
      for (; i < whole; i += kLanes) sum(d, i, first[0], second[0]);
      constexpr One<T> one;
      auto last = hn::Zero(one), last_square = hn::Zero(one);
      for (; i < m; ++i) sum(one, i, last, last_square);
      const auto all = [&](const auto& v) EQUINORM_INLINE {
        return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(v[0], v[1]), hn::Add(v[2], v[3]))));
      };
      if constexpr (kCentered) total = all(first) + hn::GetLane(last);
      squares = all(second) + hn::GetLane(last_square);
    }
    if (writes && (!K::kAdd || !sums)) {
      ForEachStrip<4>(d, m, [&](auto tag, auto vectors, std::size_t i) EQUINORM_INLINE {
        Unroll<vectors>([&](auto v) EQUINORM_INLINE { write(tag, i + v * hn::MaxLanes(tag)); });
      });
    }
    if (sums) {
      const auto count = static_cast<double>(m);
      const double mean = kCentered ? total / count : 0;
      k.Set(slot, mean, squares / count - mean * mean);
    }
  }
}

/// kRows rows side by side: Σh and Σ h·x, then dx, and their part of dγ and dβ.
template <class K, bool kCentered, std::size_t kRows, class T>
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
        const auto x = LoadElements(d, t.x + at), h = hn::Mul(LoadElements(d, t.dy + at), gamma);
        if constexpr (kCentered) sum_of[r] = hn::Add(sum_of[r], h);
        product_of[r] = hn::MulAdd(h, x, product_of[r]);
      });
    }
    Unroll<kRows>([&](auto r) EQUINORM_INLINE {
      if constexpr (kCentered) sums[r] += hn::GetLane(hn::SumOfLanes(d, sum_of[r]));
      products[r] += hn::GetLane(hn::SumOfLanes(d, product_of[r]));
    });
  };
  const std::size_t whole = m / hn::MaxLanes(Tag<T>()) * hn::MaxLanes(Tag<T>());
  sum(Tag<T>(), 0, whole);
  if (whole < m) sum(One<T>(), whole, m);
  RowCoefficients<T, kRows> k;
  for (std::size_t r = 0; r < kRows; ++r) {
    const auto count = static_cast<double>(m);
    const double mean = kCentered ? t.mean[row + r] : 0;
    k.Set(r, mean, t.variance[row + r]);
    const double scale = k.inverse[r], slope = -scale * scale * scale * (products[r] - mean * sums[r]) / count;
    k.b[r] = static_cast<Parameter<T>>(slope);
    k.c[r] = static_cast<Parameter<T>>(-slope * mean - (kCentered ? scale * sums[r] / count : 0));
  }
  ForEachStrip<2>(Tag<T>(), m, [&](auto d, auto vectors, std::size_t i) EQUINORM_INLINE {
    constexpr std::size_t kLanes = hn::MaxLanes(d);
    hn::Vec<decltype(d)> gamma[vectors.value], dgamma[vectors.value], dbeta[vectors.value];
    LoadVectors(d, t.gamma + i, gamma);
    LoadVectors(d, t.dgamma + i, dgamma);
    if constexpr (kCentered) LoadVectors(d, t.dbeta + i, dbeta);
    Unroll<kRows>([&](auto r) EQUINORM_INLINE {
      const auto inverse = hn::Set(d, k.inverse[r]);
      const std::size_t at = begin + r * m + i;
      hn::Vec<decltype(d)> values[vectors.value];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE {
        if (t.stream) Fetch<K>(t, at + v * kLanes);
        const auto x = LoadElements(d, t.x + at + v * kLanes), g = LoadElements(d, t.dy + at + v * kLanes);
        auto of_x = hn::Mul(x, hn::Set(d, k.b[r])), x_hat = hn::Mul(x, inverse);
        if constexpr (kCentered) {
          of_x = hn::MulAdd(x, hn::Set(d, k.b[r]), hn::Set(d, k.c[r]));
          x_hat = hn::MulAdd(x, inverse, hn::Set(d, k.offset[r]));
          dbeta[v] = hn::Add(dbeta[v], g);
        }
        values[v] = hn::MulAdd(hn::Mul(g, gamma[v]), inverse, of_x);
        dgamma[v] = hn::MulAdd(g, x_hat, dgamma[v]);
      });
      Store(values, t.stream, d, t.out + at);
    });
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      hn::StoreU(dgamma[v], d, t.dgamma + i + v * kLanes);
      if constexpr (kCentered) hn::StoreU(dbeta[v], d, t.dbeta + i + v * kLanes);
    });
  });
}

template <class K, bool kCentered, class T>
HWY_NOINLINE void RunRowsOf(RowData<T> t, std::size_t rows) {
  if constexpr (K::kBackward) {
    std::fill_n(t.dgamma, t.features, Parameter<T>{0});
    if constexpr (kCentered) std::fill_n(t.dbeta, t.features, Parameter<T>{0});
    std::size_t r = 0;
    for (; r + kAside <= rows; r += kAside) DifferentiateRows<K, kCentered, kAside>(t, r);
    for (; r < rows; ++r) DifferentiateRows<K, kCentered, 1>(t, r);
  } else {
    NormalizeRows<K, kCentered>(t, rows);
  }
}
template <class K, class T>
void RunRows(RowData<T> t, std::size_t rows) {
  if (t.centered) return RunRowsOf<K, true>(t, rows);
  RunRowsOf<K, false>(t, rows);
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

}  // namespace

template <class T>
PlainKernels<T> plain_kernels([[maybe_unused]] bool backward, [[maybe_unused]] bool gated, [[maybe_unused]] bool add) {
  if constexpr (std::is_same_v<T, float>) return HWY_DYNAMIC_DISPATCH(ChooseFloat)(backward, gated, add);
  if constexpr (std::is_same_v<T, bfloat16>) return HWY_DYNAMIC_DISPATCH(ChooseBFloat16)(backward, gated, add);
  if constexpr (std::is_same_v<T, float16>) return HWY_DYNAMIC_DISPATCH(ChooseFloat16)(backward, gated, add);
  return {};
}

template PlainKernels<float> plain_kernels(bool, bool, bool);
template PlainKernels<double> plain_kernels(bool, bool, bool);
template PlainKernels<bfloat16> plain_kernels(bool, bool, bool);
template PlainKernels<float16> plain_kernels(bool, bool, bool);

}  // namespace equinorm::bench
#endif
