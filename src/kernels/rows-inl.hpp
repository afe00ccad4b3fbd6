// The row family: layer norm (kCentered) and RMS norm. Rows go in blocks that stay in the first caches: all that is
// done with a block is done before the next one, which is meanwhile fetched. Short ones go one by one in backward.
#if defined(EQUINORM_KERNELS_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_KERNELS_ROWS_INL_HPP
#undef EQUINORM_KERNELS_ROWS_INL_HPP
#else
#define EQUINORM_KERNELS_ROWS_INL_HPP
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <new>
#include <type_traits>

#include "core/activation.hpp"
#include "core/elements.hpp"
#include "kernels/elementwise-inl.hpp"
#include "kernels/kernels.hpp"
#include "reduce/rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

using kernels::RowBackward;
using kernels::RowForward;
using kernels::RowNorm;
using kernels::Rows;

inline constexpr std::size_t kMaxBlockRows = kSumsTogether * kTogether;

/// Rows of a block of backward: few enough to stay in the second cache, many enough that a strip's sums are seldom
/// stored.
template <class T>
HWY_INLINE std::size_t BlockRows(std::size_t features) {
  return std::clamp<std::size_t>((96 << 10) / (features * sizeof(T)), kTogether, kMaxBlockRows) / kTogether * kTogether;
}

/// Vectors that a pass along a row takes at a time: all are read before one is written (see NormalizeVectors; of layer
/// norm eight took up to 8 % less than four, measured).
inline constexpr std::size_t kRowVectors = 8;

/// γ or β of a row; where it is absent kRowVectors vectors of a constant stand for all of it.
template <class P>
class RowParameter {
 public:
  HWY_INLINE RowParameter(const P* parameter, const P* constant)
      : base_(parameter == nullptr ? constant : parameter), mask_(parameter == nullptr ? 0 : ~std::size_t{0}) {}
  HWY_INLINE bool present() const { return mask_ != 0; }
  /// The element i, and those up to the end of kRowVectors vectors. kPresent: it is known to be there.
  template <bool kPresent = false>
  HWY_INLINE const P* at(std::size_t i) const {
    return base_ + (kPresent ? i : i & mask_);
  }

 private:
  const P* base_;
  std::size_t mask_;
};

template <class P>
struct alignas(64) Constants {
  constexpr explicit Constants(P value) {
    for (P& v : values) v = value;
  }
  P values[kRowVectors * 64 / sizeof(P)];
};
template <class P>
inline constexpr Constants<P> kOnes{1};
template <class P>
inline constexpr Constants<P> kZeros{0};

template <class T>
struct RowAffine {
  HWY_INLINE explicit RowAffine(const RowNorm<T>& n)
      : gamma(n.gamma, kOnes<Parameter<T>>.values), beta(n.beta, kZeros<Parameter<T>>.values) {}

  RowParameter<Parameter<T>> gamma, beta;
};

/// The statistics of a row as the elementwise passes take them: x̂ = (x − mean)·inverse + rest, where rest is for what
/// mean lacks to the double.
template <class T>
struct RowCoefficients {
  using P = Parameter<T>;

  /// In place: a copy of what has just been written in parts would wait for all of it.
  HWY_INLINE void Set(double mean_, double variance, double epsilon) {
    mean64 = mean_;
    inverse64 = 1.0 / std::sqrt(variance + epsilon);
    mean = static_cast<P>(mean64);
    inverse = static_cast<P>(inverse64);
    rest = static_cast<P>((static_cast<double>(mean) - mean64) * inverse64);  // finite where y is
    // Differences of two floats so large overflow, and an inverse so small is denormal. NaN needs no care.
    careful = !std::is_same_v<T, double> && variance > 0x1p200 && std::isfinite(variance);
  }
  HWY_INLINE double mean_rest() const {
    const double difference = mean64 - static_cast<double>(mean);
    return std::isfinite(difference) ? difference : 0;
  }

  double mean64, inverse64;
  P mean, inverse, rest;
  P mean_h, mean_hx;  ///< of backward: mean(h), mean(h·x̂)
  bool careful;
};

template <bool kCentered, class D>
struct RowNormalizer {
  template <class T>
  HWY_INLINE RowNormalizer(D d, const RowCoefficients<T>& k)
      : mean(hn::Set(d, k.mean)), inverse(hn::Set(d, k.inverse)), rest(hn::Set(d, k.rest)) {}

  HWY_INLINE hn::Vec<D> operator()(hn::Vec<D> x) const {
    if constexpr (kCentered) {
      return MulAdd(D(), hn::Sub(x, mean), inverse, rest);
    } else {
      return hn::Mul(x, inverse);
    }
  }
  /// Without what the mean lacks: sums of many make up for that at their end.
  HWY_INLINE hn::Vec<D> Rough(hn::Vec<D> x) const { return hn::Mul(kCentered ? hn::Sub(x, mean) : x, inverse); }

  hn::Vec<D> mean, inverse, rest;
};

/// What makes dx of x̂ and h.
template <bool kCentered, class D>
struct RowDifferentiator : RowNormalizer<kCentered, D> {
  template <class T>
  HWY_INLINE RowDifferentiator(D d, const RowCoefficients<T>& k)
      : RowNormalizer<kCentered, D>(d, k), mean_h(hn::Set(d, k.mean_h)), mean_hx(hn::Set(d, k.mean_hx)) {}

  HWY_INLINE hn::Vec<D> Gradient(hn::Vec<D> x_hat, hn::Vec<D> h) const {
    return hn::Mul(NegMulAdd(D(), x_hat, mean_hx, kCentered ? hn::Sub(h, mean_h) : h), this->inverse);
  }

  hn::Vec<D> mean_h, mean_hx;
};

/// Writes value(index, offset, count) for the vectors of a row: each begins at index + offset and has `count` elements,
/// the lanes or at the end fewer. Vectors that share their index share the arithmetic of addresses. kShort: half as
/// many at a time, which is far less code, where much is done with each or where it is rare.
template <bool kStream, bool kShort = false, class D, class T, class Value>
HWY_INLINE void WriteRow(D d, T* y, std::size_t features, const Value& value) {
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  std::size_t i = 0;
  const auto write = [&](auto vectors) EQUINORM_INLINE {
    for (; i + vectors * kLanes <= features; i += vectors * kLanes) {
      hn::Vec<D> values[vectors];
      Unroll<vectors>([&](auto v) EQUINORM_INLINE { values[v] = value(i, v * kLanes, kLanes); });
      StoreVectors<kStream>(values, d, y + i);
    }
  };
  if constexpr (!kShort) write(Constant<kRowVectors>());
  write(Constant<kRowVectors / 2>());
  for (; i < features; i += kLanes) {
    const std::size_t count = std::min(features - i, kLanes);
    StoreCount<kStream>(value(i, 0, count), d, y + i, count);
  }
}

/// Of a pass along memory, what it will read is fetched into the first cache, or if there is much of it, the second.
template <bool kMuch, class T>
HWY_INLINE void FetchAhead(const T* p) {
  if constexpr (kMuch) {
    FetchFar(p + kFarAhead<T>);
  } else {
    hwy::Prefetch(p + kAhead<T>);
  }
}

/// Claims what WriteRow will write at y + offset soon, once a line.
template <class T>
HWY_INLINE void ClaimAhead(T* y, std::size_t offset) {
  if (offset * sizeof(T) % kLineBytes == 0) ClaimLine(y + offset + kClaimAhead<T>);
}

/// sum = x + residual, rounded to T. Three rows side by side are more than memory foresees.
template <bool kMuch, class T>
HWY_INLINE void AddRow(const T* x, const T* residual, T* sum, std::size_t features) {
  constexpr Tag<T> d;
  WriteRow<false>(d, sum, features, [&](std::size_t index, std::size_t offset, std::size_t count) EQUINORM_INLINE {
    const std::size_t i = index + offset;
    FetchAhead<kMuch>(x + i);
    FetchAhead<kMuch>(residual + i);
    return hn::Add(LoadCount(d, x + i, count), LoadCount(d, residual + i, count));
  });
}

/// y of the vectors of a row. kUsual: of layer norm γ and β are present, of RMS norm γ alone, and a vector less is
/// loaded (measured: up to 12 % less time).
template <bool kCentered, bool kGate, bool kUsual, class T>
struct RowOutput {
  HWY_INLINE RowOutput(const RowForward<T>& n, const RowCoefficients<T>& k, const RowAffine<T>& affine_, const T* x_)
      : normalize(Tag<T>(), k), affine(affine_), activation(n.activation), x(x_) {}

  /// That of the vector at i + offset; see WriteRow.
  HWY_INLINE hn::Vec<Tag<T>> operator()(std::size_t i, std::size_t offset, std::size_t count) const {
    constexpr Tag<T> d;
    const auto x_hat = normalize(LoadCount(d, x + i + offset, count));
    auto beta = hn::Zero(d);
    if constexpr (kCentered || !kUsual) beta = LoadCount(d, affine.beta.template at<kUsual>(i) + offset, count);
    const auto z = MulAdd(d, x_hat, LoadCount(d, affine.gamma.template at<kUsual>(i) + offset, count), beta);
    if constexpr (kGate) {
      return Activate(d, activation, z);
    } else {
      return z;
    }
  }

  RowNormalizer<kCentered, Tag<T>> normalize;
  const RowAffine<T>& affine;
  Activation activation;
  const T* x;
};

/// Rows longer than this (bytes) go one by one: two of them and their y would crowd the first cache.
inline constexpr std::size_t kLongRow = 6 << 10;
/// The longest row (bytes) beside which the first cache holds γ.
inline constexpr std::size_t kMostBesideGamma = 16 << 10;

/// y of a row. Where there is much of it, next, the row that will take this one's place, is fetched, if long or of
/// halves into the second cache: memory would wait else for the statistics of these rows. Then y goes around the
/// caches, too.
template <bool kCentered, bool kGate, bool kUsual, bool kStream, class T>
HWY_INLINE void NormalizeRow(const RowForward<T>& n, const RowCoefficients<T>& k, const RowAffine<T>& affine,
                             const T* x, T* y, const T* next) {
  const RowOutput<kCentered, kGate, kUsual, T> output(n, k, affine, x);
  const auto write = [&](const auto& fetch) EQUINORM_INLINE {
    WriteRow<kStream, kGate>(Tag<T>(), y, n.features,
                             [&](std::size_t i, std::size_t offset, std::size_t count) EQUINORM_INLINE {
                               fetch(i, offset);
                               return output(i, offset, count);
                             });
  };
  if constexpr (!kStream) {
    write([=](std::size_t i, std::size_t offset) EQUINORM_INLINE { ClaimAhead(y + i, offset); });
  } else if (sizeof(T) == 2 || (!kGate && n.features * sizeof(T) > kLongRow)) {
    write([=](std::size_t i, std::size_t offset) EQUINORM_INLINE { FetchFar(next + i + offset); });
  } else {
    write([=](std::size_t i, std::size_t offset) EQUINORM_INLINE { hwy::Prefetch(next + i + offset); });
  }
}

/// By values: what a call might look at would have to stay in memory, where the coefficients of the next row are waited
/// for.
template <class T>
HWY_NOINLINE void CarefulNormalizeRow(RowForward<T> n, RowCoefficients<T> k, RowAffine<T> affine, const T* x, T* y) {
  for (std::size_t i = 0; i < n.features; ++i) {
    const double x_hat = (to_double(x[i]) - k.mean64) * k.inverse64;
    const double z = x_hat * to_double(*affine.gamma.at(i)) + to_double(*affine.beta.at(i));
    y[i] = to_element<T>(activate(n.activation, z));
  }
}

/// What the sums of row r, s, end in: its statistics and coefficients.
template <bool kCentered, class T>
HWY_INLINE void EndRow(const RowForward<T>& n, std::size_t r, const T* s, const RowSums& sums, Parameter<T> shift,
                       double inverse_features, RowCoefficients<T>& k) {
  RowMean found{0, 0};
  if constexpr (kCentered) {
    found = RowMoments(sums, s, n.features, inverse_features, shift);
  } else {
    found.variance = RowMeanSquare(sums, s, n.features, inverse_features);
  }
  k.Set(found.mean, found.variance, n.epsilon);
  if (n.mean != nullptr) n.mean[r] = found.mean;
  if (n.variance != nullptr) n.variance[r] = found.variance;
}

/// What is known of a run of rows when it is compiled: of the usual ones, which have neither residual nor activation,
/// but γ and β (of RMS norm γ alone), whether y goes around the caches, and if not, whether it is written beside sums.
/// Of others all is asked for row by row, which in the caches takes up to 7 % longer (measured): fewer rows are under
/// way at once.
enum class Run { cached, beside, streamed, other };

/// Whether y of a row is written beside the sums of the next, a piece at a time. (Measured in the caches, of floats
/// with AVX-512: from these lengths on 17 % less to 2 more, perhaps because reads of one and writes of the other are
/// under way together. Layer norm of 600 took 4 to 7 % more, RMS norm of 300 12 to 15, of 768 in bfloat16 5 to 8; and
/// 768 by single vectors instead of pieces 11 to 27.)
template <bool kCentered, class T>
HWY_INLINE bool WritesBeside(std::size_t features) {
  constexpr std::size_t kLeast = (kCentered ? 3 : 2) * kPieceOfRow;
  return kMasks && std::is_same_v<T, float> && features >= kLeast && features * sizeof(T) <= kLongRow;
}

/// The sums of a row, a piece at a time, behind each of which a piece of the row before is written to y.
template <bool kCentered, class T, class Output>
HWY_INLINE RowSums SumsBesideOutput(const T* row, std::size_t features, Parameter<T> shift, const Output& output,
                                    T* y) {
  constexpr Tag<T> d;
  RowAdder<kCentered, T> sums;
  for (std::size_t begin = 0; begin < features; begin += kPieceOfRow) {
    const std::size_t length = std::min(features - begin, kPieceOfRow);
    sums.Add(length, shift, [=, piece = row + begin](std::size_t i, std::size_t count) EQUINORM_INLINE {
      return LoadCount(d, piece + i, count);
    });
    WriteRow<false>(d, y + begin, length, [&](std::size_t i, std::size_t offset, std::size_t count) EQUINORM_INLINE {
      ClaimAhead(y + begin + i, offset);
      return output(begin + i, offset, count);
    });
  }
  return sums.End();
}

/// Forward, the rows first … last − 1, at least one. What the sums of a row end in (lanes added one to another, a root,
/// a quotient) is waited for step by step; so y of the row before is written between these sums and their end, or
/// beside these sums, and the end comes about while the sums of the next row are taken. Behind the row that is written,
/// the next to be read is the `ahead`-th; 0: none, and γ is fetched meanwhile. (n and affine by values, in registers: a
/// store may not be thought to change them.)
template <bool kCentered, Run kRun, class T>
HWY_INLINE void NormalizeRun(const RowForward<T> n, const RowAffine<T> affine, std::size_t first, std::size_t last,
                             std::size_t ahead) {
  constexpr bool kUsual = kRun != Run::other;
  const bool added = !kUsual && n.residual.data != nullptr;
  const bool much = kUsual ? kRun == Run::streamed : n.stream;
  const Rows<const T> s = added ? Rows<const T>{n.sum.data, n.sum.stride} : n.x;
  const double inverse_features = 1.0 / static_cast<double>(n.features);
  /// Makes the row that is normalized, and what its differences are taken from.
  const auto prepare = [&](std::size_t r) EQUINORM_INLINE {
    if (added) {
      WithCase<false>(much, [&](auto stream) EQUINORM_INLINE {
        AddRow<stream>(n.x.at(r), n.residual.at(r), n.sum.at(r), n.features);
      });
    }
    return kCentered ? RowShift(s.row(r), n.features) : Parameter<T>{0};
  };
  const auto sums_of = [&](const T* row, Parameter<T> shift) EQUINORM_INLINE {
    const auto take = [&](const auto& fetch) EQUINORM_INLINE {
      return SumsOfRow<kCentered, T>(n.features, shift, [=](std::size_t i, std::size_t count) EQUINORM_INLINE {
        fetch(row + i);
        return LoadCount(Tag<T>(), row + i, count);
      });
    };
    if (kByCase && much && !added) return take([](const T* p) EQUINORM_INLINE { FetchAhead<true>(p); });
    if (!kCentered) return take([](const T*) EQUINORM_INLINE {});  // little is done: a fetch would take as long
    if (kUsual && ahead == 0 && n.features * sizeof(T) <= kMostBesideGamma) {
      return take([=, gamma = n.gamma](const T* p) EQUINORM_INLINE { hwy::Prefetch(gamma + (p - row)); });
    }
    const std::size_t ahead_of_sums = added ? 0 : kAhead<T>;  // what follows has not been added yet
    return take([=](const T* p) EQUINORM_INLINE { hwy::Prefetch(p + ahead_of_sums); });
  };
  RowCoefficients<T> k{};
  const auto write = [&](std::size_t r) EQUINORM_INLINE {
    const T *row = s.row(r), *next = n.x.row(r + ahead);
    T* y = n.y.row(r);
    if (k.careful) [[unlikely]] {
      CarefulNormalizeRow(n, k, affine, row, y);
    } else if constexpr (kUsual) {
      NormalizeRow<kCentered, false, true, kRun == Run::streamed>(n, k, affine, row, y, next);
    } else {
      WithCase<true>(n.activation != Activation::none, [&](auto gate) EQUINORM_INLINE {
        WithCase<false>(n.stream, [&](auto stream) EQUINORM_INLINE {
          NormalizeRow<kCentered, gate, false, stream>(n, k, affine, row, y, next);
        });
      });
    }
  };
  Parameter<T> next_shift = prepare(first);
  for (std::size_t r = first;; ++r) {
    const T* row = s.row(r);
    const Parameter<T> shift = next_shift;
    const bool beside = kRun == Run::beside && first < r && r < last && !k.careful;
    RowSums sums{hn::Zero(F64()), hn::Zero(F64())};
    if (r < last) {
      if (r + 1 < last) next_shift = prepare(r + 1);
      if (beside) {
        const RowOutput<kCentered, false, true, T> output(n, k, affine, s.row(r - 1));
        sums = SumsBesideOutput<kCentered>(row, n.features, shift, output, n.y.row(r - 1));
      } else {
        sums = sums_of(row, shift);
      }
    }
    if (r > first && !beside) write(r - 1);
    if (r == last) return;
    EndRow<kCentered>(n, r, row, sums, shift, inverse_features, k);
  }
}

/// The same of rows that are x + residual, kept aside. Memory has four tensors to serve, and does so best (measured)
/// where all are asked for all the time, evenly: s of a row is made and written, with y of the row before the last, a
/// piece at a time, which is summed before the next. So the end of the sums between comes about meanwhile, too.
template <bool kCentered, bool kGate, class T>
HWY_NOINLINE void NormalizeAside(const RowForward<T>& n, RowAffine<T> affine, std::size_t first, std::size_t last) {
  using D = Tag<T>;
  constexpr D d;
  constexpr std::size_t kLag = 2, kLanes = hn::MaxLanes(d);
  constexpr std::size_t kMost = kernels::kMostAside / sizeof(T);
  static_assert(SampledLength(kMost) <= kPieceOfRow);
  alignas(64) T room[kLag + 1][kMost];
  T *made = room[0], *ended = room[1], *written = room[2];
  RowCoefficients<T> coefficients[kLag]{};
  const double inverse_features = 1.0 / static_cast<double>(n.features);
  for (std::size_t r = first; r < last + kLag; ++r) {
    RowCoefficients<T>& k = coefficients[r % kLag];  // of the row that is written, then of this one
    const RowOutput<kCentered, kGate, false, T> output(n, k, affine, written);
    T* y = r < first + kLag ? nullptr : n.y.at(r - kLag);
    if (y != nullptr && (k.careful || r >= last)) {
      if (k.careful) {
        CarefulNormalizeRow(n, k, affine, written, y);
      } else {
        WriteRow<true, true>(d, y, n.features, output);
      }
      y = nullptr;
    }
    if (r < last) {
      const T *x = n.x.at(r), *residual = n.residual.at(r);
      T* sum = n.sum.at(r);
      const auto take = [&](auto vectors, std::size_t i, std::size_t count) EQUINORM_INLINE {
        hn::Vec<D> values[vectors];
        Unroll<vectors>([&](auto v) EQUINORM_INLINE {
          const std::size_t at = i + v * kLanes;
          FetchAhead<true>(x + at);
          FetchAhead<true>(residual + at);
          values[v] = hn::Add(LoadCount(d, x + at, count), LoadCount(d, residual + at, count));
        });
        StoreVectors<false>(values, d, made + i, count);
        if (sum != nullptr) StoreVectors<true>(values, d, sum + i, count);
        if (y == nullptr) return;
        Unroll<vectors>([&](auto v) EQUINORM_INLINE { values[v] = output(i, v * kLanes, count); });
        StoreVectors<true>(values, d, y + i, count);
      };
      RowAdder<kCentered, T> sums;
      Parameter<T> shift = 0;
      for (std::size_t begin = 0; begin < n.features; begin += kPieceOfRow) {
        const std::size_t end = std::min(begin + kPieceOfRow, n.features);
        std::size_t i = begin;
        for (; i + 2 * kLanes <= end; i += 2 * kLanes) take(Constant<2>(), i, kLanes);
        for (; i < end; i += kLanes) take(Constant<1>(), i, std::min(end - i, kLanes));
        if (kCentered && begin == 0) shift = RowShift(made, n.features);
        sums.Add(end - begin, shift, [=, piece = made + begin](std::size_t at, std::size_t count) EQUINORM_INLINE {
          return LoadCount(d, piece + at, count);
        });
      }
      EndRow<kCentered>(n, r, made, sums.End(), shift, inverse_features, k);
    }
    std::swap(written, ended);
    std::swap(ended, made);
  }
}

/// n stays where it is: a copy of what has just been written in parts would wait for all of it (of one row of 16
/// features a tenth of the time).
template <bool kCentered, class T>
void NormalizeRows(const RowForward<T>& n, std::size_t begin, std::size_t end) {
  const RowAffine<T> affine(n);
  if (n.aside) {
    return WithCase<true>(n.activation != Activation::none,
                          [&](auto gate) HWY_ATTR { NormalizeAside<kCentered, gate>(n, affine, begin, end); });
  }
  const auto normalize = [&](auto run_case) HWY_ATTR {
    const bool alone = n.features * sizeof(T) > kLongRow;
    const std::size_t run = alone ? 1 : end - begin, next = alone ? 1 : 2, ahead = end - begin == 1 ? 0 : next;
    for (std::size_t first = begin; first < end; first += run) {
      NormalizeRun<kCentered, run_case>(n, affine, first, std::min(first + run, end), ahead);
    }
  };
  if constexpr (kByCase) {
    if (n.residual.data == nullptr && n.activation == Activation::none && affine.gamma.present() &&
        affine.beta.present() == kCentered) {
      if (n.stream) return normalize(Static<Run::streamed>());
      if (WritesBeside<kCentered, T>(n.features)) return normalize(Static<Run::beside>());
      return normalize(Static<Run::cached>());
    }
  }
  normalize(Static<Run::other>());
}

/// g and h = g·γ of the `count` elements from i on.
template <bool kGate, class D, class T>
struct RowGradient {
  HWY_INLINE RowGradient(D d, const RowBackward<T>& n, const T* dy, std::size_t count, hn::Vec<D> x_hat,
                         hn::Vec<D> gamma, const Parameter<T>* beta) {
    g = LoadCount(d, dy, count);
    if constexpr (kGate) {
      const auto z = MulAdd(d, x_hat, gamma, LoadCount(d, beta, count));
      g = ActivationGradient(d, n.activation, g, z);
    }
    h = hn::Mul(g, gamma);
  }
  hn::Vec<D> g, h;
};

/// The means of h and of h·x̂ over a row, from their sums.
template <bool kCentered, class T>
HWY_INLINE void EndSums(const RowBackward<T>& n, const LanePairs<Tag<T>>& sums, RowCoefficients<T>& k) {
  const double sum = kCentered ? Total(sums.first) : 0.0, m = static_cast<double>(n.features);
  k.mean_h = static_cast<Parameter<T>>(sum / m);
  k.mean_hx = static_cast<Parameter<T>>((Total(sums.second) - sum * k.mean_rest() * k.inverse64) / m);
  // Eight gradients that a float holds each may not fit together.
  k.careful = !std::is_same_v<T, double> && !(std::isfinite(k.mean_h) && std::isfinite(k.mean_hx));
}

/// The means of h and of h·x̂ over a row. Memory is read along rows here, as it fetches ahead by itself, and with kMuch
/// is fetched; GradientBlock, which goes down columns, will find it in the caches. With kMuch, too, that fetches the
/// next block meanwhile, and dx goes around the caches. Behind an activation g is left in dx, if leaves_g.
template <bool kCentered, bool kGate, bool kMuch, class T>
HWY_NOINLINE void SumRow(const RowBackward<T>& n, std::size_t r, RowCoefficients<T>& k, bool leaves_g = false) {
  using D = Tag<T>;
  constexpr D d;
  const RowAffine<T> affine(n);
  const RowNormalizer<kCentered, D> normalize(d, k);
  const T *x = n.x.at(r), *dy = n.dy.at(r);
  LanePairs<D> sums;
  const auto pair = [&](std::size_t i, std::size_t count) EQUINORM_INLINE {
    const auto value = LoadCount(d, x + i, count);
    const RowGradient<kGate, D, T> gradient(d, n, dy + i, count, normalize(value),
                                            LoadCount(d, affine.gamma.at(i), count), affine.beta.at(i));
    if (kGate && leaves_g) StoreCount<false>(gradient.g, d, n.dx.at(r) + i, count);
    return Pair<D>{kCentered ? gradient.h : hn::Zero(d), gradient.h, normalize.Rough(value)};
  };
  AddPairs(
      d, n.features,
      [&](std::size_t i) EQUINORM_INLINE {
        if constexpr (kMuch) {
          FetchAhead<true>(x + i);
          FetchAhead<true>(dy + i);
        }
        return pair(i, hn::MaxLanes(d));
      },
      pair, sums);
  EndSums<kCentered>(n, sums, k);
}

/// dx of `count` columns from `column` on, of the rows first … last − 1, whose coefficients are k[0] …, and their sums
/// over these rows, which stay in registers: of kTogether rows, and of all such sums, in float, as a widening costs
/// more than the rest. Careful rows are left out.
template <bool kCentered, bool kGate, bool kMuch, std::size_t kVectors, class T>
HWY_INLINE void GradientStrip(const RowBackward<T>& n, const RowAffine<T>& affine, const RowCoefficients<T>* k,
                              std::size_t first, std::size_t last, std::size_t column, std::size_t count,
                              double* dgamma, double* dbeta) {
  using D = Tag<T>;
  using Wide = Widened<D>;
  using D64 = typename Wide::Wide;
  constexpr D d;
  constexpr D64 d64;
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  const Rows<const T> xs = n.x, dys = n.dy, dsums = n.dsum;
  const Rows<T> dxs = n.dx;
  hn::Vec<D> gamma[kVectors];
  Pairs<D, kVectors> sums;
  Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
    gamma[v] = LoadCount(d, affine.gamma.at(column + v * kLanes), std::min(count, kLanes));
  });
  for (std::size_t begin = first; begin < last; begin += kTogether) {
    Pairs<D, kVectors> pairs;
    for (std::size_t r = begin; r < std::min(begin + kTogether, last); ++r) {
      const RowCoefficients<T>& row = k[r - first];
      if (row.careful) [[unlikely]]
        continue;
      const RowDifferentiator<kCentered, D> normalize(d, row);
      const T *x = xs.data + r * xs.stride + column, *dy = dys.data + r * dys.stride + column, *dsum = dsums.at(r);
      T* dx = dxs.data + r * dxs.stride + column;
      if constexpr (kMuch) {  // the same columns of the next block, whose sums will be read along rows
        Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
          FetchFar(x + (last - first) * xs.stride + v * kLanes);
          FetchFar(dy + (last - first) * dys.stride + v * kLanes);
          if (dsum != nullptr) FetchFar(dsum + (last - first) * dsums.stride + column + v * kLanes);
        });
      }
      hn::Vec<D> values[kVectors];
      Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
        const std::size_t i = v * kLanes, lanes = std::min(count, kLanes);
        const auto x_hat = normalize(LoadCount(d, x + i, lanes));
        const RowGradient<kGate, D, T> gradient(d, n, dy + i, lanes, x_hat, gamma[v], affine.beta.at(column + i));
        auto value = normalize.Gradient(x_hat, gradient.h);
        // Unlikely or not: their code may lie elsewhere, so that the common case runs straight on.
        if (dsum != nullptr) [[unlikely]]
          value = hn::Add(value, LoadCount(d, dsum + column + i, lanes));
        values[v] = value;
        const auto store = [&](auto streamed) EQUINORM_INLINE {
          if constexpr (kVectors == 1) {
            StoreCount<streamed>(value, d, dx, lanes);
          } else if constexpr (v % 2 == 1) {
            StorePair<streamed>(values[v - 1], value, d, dx + (v - 1) * kLanes);
          }
        };
        if constexpr (kGate) {
          WithBool(n.stream, store);
        } else {
          store(Static<kMuch>());
        }
        pairs.Add(v, {gradient.g, gradient.g, x_hat});
      });
    }
    sums.Add(pairs);
  }
  if (dgamma == nullptr) return;
  Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
    const Wide g(sums.first[v]), dot(sums.second[v]);
    Unroll<Wide::kParts>([&](auto part) EQUINORM_INLINE {
      constexpr std::size_t kOffset = v * kLanes + part * Wide::kLanes;
      if (kOffset >= count) return;
      const std::size_t lanes = std::min(count - kOffset, Wide::kLanes);
      const auto add = [&](hn::Vec<D64> value, double* to) EQUINORM_INLINE {
        StoreCount<false>(hn::Add(LoadCount(d64, to, lanes), value), d64, to, lanes);
      };
      if (dbeta != nullptr) add(g.parts[part], dbeta + column + kOffset);
      add(dot.parts[part], dgamma + column + kOffset);
    });
  });
}

/// Whether dx is made down strips of columns, of so many vectors: their sums fill the registers of AVX-512. Where there
/// are fewer, strips would be a vector wide, and it is made along rows instead (measured with AVX2: of layer norm a
/// half of the time in the caches, and where memory is the limit a fifth to a tenth).
inline constexpr bool kDownStrips = HWY_TARGET <= HWY_AVX3;
inline constexpr std::size_t kRowStrip = 4;

/// The rows first … last − 1, whose coefficients are k[0] …, but careful ones.
template <bool kCentered, bool kGate, bool kMuch, class T>
HWY_NOINLINE void GradientBlock(const RowBackward<T>& n, const RowCoefficients<T>* k, std::size_t first,
                                std::size_t last, double* dgamma, double* dbeta) {
  constexpr std::size_t kLanes = hn::MaxLanes(Tag<T>());
  const RowAffine<T> affine(n);
  std::size_t column = 0;
  for (; column + kRowStrip * kLanes <= n.features; column += kRowStrip * kLanes) {
    GradientStrip<kCentered, kGate, kMuch, kRowStrip>(n, affine, k, first, last, column, kRowStrip * kLanes, dgamma,
                                                      dbeta);
  }
  for (; column < n.features; column += kLanes) {
    GradientStrip<kCentered, kGate, kMuch, 1>(n, affine, k, first, last, column, std::min(n.features - column, kLanes),
                                              dgamma, dbeta);
  }
}

/// A row element by element in double.
template <bool kCentered, class T>
void CarefulGradientRow(const RowBackward<T>& n, const RowCoefficients<T>& k, std::size_t r, double* dgamma,
                        double* dbeta) {
  const RowAffine<T> affine(n);
  const T *x = n.x.at(r), *dy = n.dy.at(r), *dsum = n.dsum.at(r);
  T* dx = n.dx.at(r);
  const auto x_hat = [&](std::size_t i) { return (to_double(x[i]) - k.mean64) * k.inverse64; };
  const auto gradient = [&](std::size_t i) {
    const double z = x_hat(i) * to_double(*affine.gamma.at(i)) + to_double(*affine.beta.at(i));
    return to_double(dy[i]) * activation_slope(n.activation, z);
  };
  double mean_h = 0, mean_hx = 0;
  for (std::size_t i = 0; i < n.features; ++i) {
    const double h = gradient(i) * to_double(*affine.gamma.at(i)) / static_cast<double>(n.features);
    if (kCentered) mean_h += h;
    mean_hx += h * x_hat(i);
  }
  for (std::size_t i = 0; i < n.features; ++i) {
    const double g = gradient(i), normalized = x_hat(i), h = g * to_double(*affine.gamma.at(i));
    if (dgamma != nullptr) dgamma[i] += g * normalized;
    if (dbeta != nullptr) dbeta[i] += g;
    const double value = (h - mean_h - normalized * mean_hx) * k.inverse64;
    dx[i] = to_element<T>(value + (dsum == nullptr ? 0.0 : to_double(dsum[i])));
  }
}

/// Sets the coefficients of row r; false if it has to be gone through carefully, whatever its sums.
template <bool kCentered, class T>
HWY_INLINE bool BeginRow(const RowBackward<T>& n, std::size_t r, RowCoefficients<T>& k) {
  k.Set(kCentered ? n.mean[r] : 0.0, n.variance[r], n.epsilon);
  return !k.careful;
}

/// Columns of a panel, whose sums stay in the first cache.
template <class P>
inline constexpr std::size_t kRowPanel = (4 << 10) / sizeof(P);

/// Sums over rows of the columns of a panel, as floats: by vectors Σ g·x̂ and Σ g, side by side, as few streams of
/// memory are fast. Of the last rows, up to kTogether, and of those of the block before them.
template <class P>
struct PanelSums {
  HWY_ALIGN P rows[2 * kRowPanel<P>];
  HWY_ALIGN P block[2 * kRowPanel<P>];
};

/// dx of the columns column … end − 1 of row r, whose part of Σ g·x̂, and of Σ g if kBoth, is added to `sums`. With
/// kMuch the same columns of row `next` are fetched meanwhile. (Rows side by side, which share the sums, took as long
/// in the caches, and up to three times as long where memory is the limit.)
template <bool kGate, bool kMuch, bool kBoth, bool kCentered, class T>
HWY_INLINE void GradientAlong(const RowBackward<T>& n, const RowAffine<T>& affine,
                              const RowDifferentiator<kCentered, Tag<T>>& normalize, std::size_t r, std::size_t next,
                              std::size_t column, std::size_t end, Parameter<T>* HWY_RESTRICT sums) {
  using D = Tag<T>;
  constexpr D d;
  constexpr std::size_t kLanes = hn::MaxLanes(d), kLine = kLineBytes / sizeof(T);
  const T *x = n.x.at(r), *dy = n.dy.at(r), *dsum = n.dsum.at(r), *next_x = n.x.at(next), *next_dy = n.dy.at(next);
  T* dx = n.dx.at(r);
  const bool stream = n.stream;
  std::size_t i = column;
  const auto take = [&](auto vectors, std::size_t count) EQUINORM_INLINE {
    hn::Vec<D> values[vectors];
    Unroll<vectors>([&](auto v) EQUINORM_INLINE {
      const std::size_t at = i + v * kLanes;
      if constexpr (kMuch && v * kLanes % kLine == 0) {
        FetchFar(next_x + at);
        FetchFar(next_dy + at);
      }
      const auto x_hat = normalize(LoadCount(d, x + at, count));
      const RowGradient<kGate, D, T> gradient(d, n, dy + at, count, x_hat, LoadCount(d, affine.gamma.at(at), count),
                                              affine.beta.at(at));
      values[v] = normalize.Gradient(x_hat, gradient.h);
      if (dsum != nullptr) [[unlikely]]
        values[v] = hn::Add(values[v], LoadCount(d, dsum + at, count));
      Parameter<T>*dots = sums + 2 * (at - column), *gradients = dots + kLanes;
      hn::StoreU(MulAdd(d, gradient.g, x_hat, hn::LoadU(d, dots)), d, dots);
      if constexpr (kBoth) hn::StoreU(hn::Add(hn::LoadU(d, gradients), gradient.g), d, gradients);
    });
    const auto store = [&](auto streamed) EQUINORM_INLINE { StoreVectors<streamed>(values, d, dx + i, count); };
    if constexpr (kGate) {
      WithBool(stream, store);
    } else {
      store(Static<kMuch>());
    }
  };
  constexpr std::size_t kVectors = kGate ? 2 : 4;  // at a time: behind an activation more would be much code
  for (; i + kVectors * kLanes <= end; i += kVectors * kLanes) take(Constant<kVectors>(), kLanes);
  for (; i < end; i += kLanes) take(Constant<1>(), std::min(end - i, kLanes));
}

/// Ends the sums of some rows of the panel of columns column … end − 1, and with `last` those of the block: they go to
/// dgamma and dbeta (nullptr: not wanted).
template <class T>
HWY_NOINLINE void EndPanelRows(PanelSums<Parameter<T>>& sums, bool last, std::size_t column, std::size_t end,
                               double* dgamma, double* dbeta) {
  constexpr Tag<T> d;
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  for (std::size_t i = column; i < end; i += kLanes) {
    const auto take = [&](std::size_t at, double* to) EQUINORM_INLINE {
      Parameter<T>*rows = sums.rows + at, *block = sums.block + at;
      const auto sum = hn::Add(hn::LoadU(d, block), hn::LoadU(d, rows));
      hn::StoreU(hn::Zero(d), d, rows);
      hn::StoreU(last ? hn::Zero(d) : sum, d, block);
      if (last && to != nullptr) AddWidened(d, sum, to + i, std::min(end - i, kLanes));
    };
    take(2 * (i - column), dgamma);
    take(2 * (i - column) + kLanes, dbeta);
  }
}

/// The rows first … last − 1 along panels of columns. Each is begun by begin_row(r, k[r − first]): if one panel holds
/// it just before it is gone along again, in the first cache.
template <bool kCentered, bool kGate, bool kMuch, class T, class Begin>
HWY_NOINLINE void GradientPanels(const RowBackward<T>& n, RowCoefficients<T>* k, std::size_t first, std::size_t last,
                                 double* dgamma, double* dbeta, const Begin& begin_row) {
  constexpr std::size_t kColumns = kRowPanel<Parameter<T>>;
  const RowAffine<T> affine(n);
  PanelSums<Parameter<T>> sums = {};
  const bool single = n.features <= kColumns;
  const std::size_t ahead = single ? 2 : last - first;  // of the row that is fetched
  for (std::size_t r = first; !single && r < last; ++r) begin_row(r, k[r - first]);
  const auto go = [&](auto both) HWY_ATTR {
    for (std::size_t column = 0; column < n.features; column += kColumns) {
      const std::size_t end = std::min(column + kColumns, n.features);
      for (std::size_t r = first; r < last; ++r) {
        RowCoefficients<T>& row = k[r - first];
        if (single) begin_row(r, row);
        if (!row.careful) [[likely]] {
          const RowDifferentiator<kCentered, Tag<T>> normalize(Tag<T>(), row);
          GradientAlong<kGate, kMuch, both>(n, affine, normalize, r, r + ahead, column, end, sums.rows);
        }
        const bool ends = r + 1 == last;
        if (ends || (r + 1 - first) % kTogether == 0) EndPanelRows<T>(sums, ends, column, end, dgamma, dbeta);
      }
    }
  };
  if constexpr (kCentered || kGate) {
    go(Static<true>());
  } else {
    WithBool(dbeta != nullptr, go);  // of RMS norm β is rare
  }
}

/// The longest rows that go one by one are of a page: two of them, dx and the columns' sums have to fit in the first
/// cache with room to spare (measured: of 1280 floats layer norm took 8 % less, RMS norm 2 more, of 1536 2 less and 7).
template <class P>
inline constexpr std::size_t kMostOneByOne = kPageBytes / sizeof(P);

/// Sums over rows of columns, as floats: by vectors Σ g·x̂ and Σ g, side by side, as few streams of memory are fast.
template <class P>
using ColumnSums = P[2 * kMostOneByOne<P>];

/// One row after the other: dx of row `w` and its part of the sums (what is in `from`, plus that, goes to `to`), and at
/// once, vector by vector, the sums of row `r`, whose coefficients are k_r. The first keeps arithmetic busy, the second
/// memory. (Measured: of RMS norm 10 to 40 % less time than by blocks, of layer norm, whose sums are twice as many, up
/// to 25 % less and at 512 features, where tensors begin 64 or 128 bytes apart in their pages, up to 13 % more. With
/// more rows at a time registers run out.)
template <bool kCentered, bool kMuch, class T>
HWY_NOINLINE void GradientOfRow(const RowBackward<T>& n, std::size_t w, const RowCoefficients<T>& k_w, std::size_t r,
                                RowCoefficients<T>& k_r, const Parameter<T>* from, Parameter<T>* to) {
  using D = Tag<T>;
  constexpr D d;
  constexpr std::size_t kLanes = hn::MaxLanes(d), kVectors = LaneSums<D>::kVectors;
  const RowDifferentiator<kCentered, D> normalize_w(d, k_w);
  const RowNormalizer<kCentered, D> normalize_r(d, k_r);
  const std::size_t features = n.features;
  const Parameter<T>* gamma = n.gamma;
  const T *x_w = n.x.at(w), *dy_w = n.dy.at(w), *dsum = n.dsum.at(w), *x_r = n.x.at(r), *dy_r = n.dy.at(r);
  T* dx = n.dx.at(w);
  LanePairs<D> sums;
  for (std::size_t i = 0; i < features;) {
    const std::size_t end = std::min(features, i + kTogether * kSegmentLanes);
    Pairs<D, kVectors> pairs;
    for (; i < end; i += kSegmentLanes) {
      hn::Vec<D> values[kVectors];
      Unroll<kVectors>([&](auto v) EQUINORM_INLINE {
        const std::size_t at = i + v * kLanes;
        const auto weights = hn::LoadU(d, gamma + at);
        if constexpr (kMuch) {
          FetchFar(x_r + at + kFarAhead<T>);
          FetchFar(dy_r + at + kFarAhead<T>);
        } else {
          ClaimAhead(dx + i, v * kLanes);
        }
        const auto h_r = hn::Mul(LoadElements(d, dy_r + at), weights);
        if constexpr (kCentered) pairs.first[v] = hn::Add(pairs.first[v], h_r);
        pairs.second[v] = MulAdd(d, h_r, normalize_r.Rough(LoadElements(d, x_r + at)), pairs.second[v]);

        const auto x_hat = normalize_w(LoadElements(d, x_w + at)), g = LoadElements(d, dy_w + at);
        auto value = normalize_w.Gradient(x_hat, hn::Mul(g, weights));
        if (dsum != nullptr) [[unlikely]]
          value = hn::Add(value, LoadElements(d, dsum + at));
        values[v] = value;
        if constexpr (!kByPairs<T>) {
          StoreElements<kMuch>(value, d, dx + at);
        } else if constexpr (v % 2 == 1) {
          StorePair<kMuch>(values[v - 1], value, d, dx + at - kLanes);
        }
        const std::size_t dots = 2 * at, gradients = dots + kLanes;
        hn::StoreU(MulAdd(d, g, x_hat, hn::LoadU(d, from + dots)), d, to + dots);
        if constexpr (kCentered) hn::StoreU(hn::Add(hn::LoadU(d, from + gradients), g), d, to + gradients);
      });
    }
    sums.Add(pairs);
  }
  EndSums<kCentered>(n, sums, k_r);
}

/// Adds `count` sums of columns, one to another and then to doubles.
template <bool kCentered, class T>
HWY_INLINE void AddColumnSums(const ColumnSums<Parameter<T>>* sums, std::size_t count, std::size_t features,
                              double* dgamma, double* dbeta) {
  using D = Tag<T>;
  using Wide = Widened<D>;
  constexpr D d;
  constexpr typename Wide::Wide d64;
  constexpr std::size_t kLanes = hn::MaxLanes(d);
  const auto add = [&](std::size_t at, double* to) EQUINORM_INLINE {
    auto sum = hn::LoadU(d, sums[0] + at);
    for (std::size_t i = 1; i < count; ++i) sum = hn::Add(sum, hn::LoadU(d, sums[i] + at));
    const Wide wide(sum);
    Unroll<Wide::kParts>([&](auto part) EQUINORM_INLINE {
      double* p = to + part * Wide::kLanes;
      hn::StoreU(hn::Add(hn::LoadU(d64, p), wide.parts[part]), d64, p);
    });
  };
  for (std::size_t column = 0; column < features; column += kLanes) {
    add(2 * column, dgamma + column);
    if constexpr (kCentered) {
      if (dbeta != nullptr) add(2 * column + kLanes, dbeta + column);
    }
  }
}

/// The rows begin … end − 1, one by one. γ is copied beside dx: where the caller has it, it may lie badly.
template <bool kCentered, bool kMuch, class T>
HWY_NOINLINE void GradientOneByOne(RowBackward<T> n, std::size_t begin, std::size_t end, double* dgamma,
                                   double* dbeta) {
  using P = Parameter<T>;
  struct BesideDx {
    P gamma[kMostOneByOne<P>];
    ColumnSums<P> sums[kSumsTogether];
  };
  alignas(kLineBytes) std::byte room[sizeof(BesideDx) + kPageBytes];
  auto& [gamma, sums] = *new (beside(n.dx.row(begin), room)) BesideDx;
  std::copy_n(n.gamma, n.features, gamma);
  n.gamma = gamma;
  HWY_ALIGN static constexpr ColumnSums<P> kNone = {};
  RowCoefficients<T> k[2], unused{};
  if (BeginRow<kCentered>(n, begin, k[0])) SumRow<kCentered, false, kMuch>(n, begin, k[0]);
  const std::size_t block = BlockRows<T>(n.features);
  for (std::size_t first = begin; first < end; first += block) {
    const std::size_t last = std::min(first + block, end);
    for (std::size_t w = first; w < last; ++w) {
      const RowCoefficients<T>& row = k[(w - begin) % 2];
      RowCoefficients<T>& next = k[(w + 1 - begin) % 2];
      const bool more = w + 1 < end && BeginRow<kCentered>(n, w + 1, next);
      P* to = sums[(w - first) / kTogether];
      const P* from = (w - first) % kTogether == 0 ? kNone : to;
      if (row.careful) {
        CarefulGradientRow<kCentered>(n, row, w, dgamma, dbeta);
        if (from != to) std::copy_n(from, 2 * n.features, to);
        if (more) SumRow<kCentered, false, kMuch>(n, w + 1, next);
      } else {
        GradientOfRow<kCentered, kMuch>(n, w, row, more ? w + 1 : w, more ? next : unused, from, to);
      }
    }
    if (dgamma != nullptr) {
      const std::size_t count = (last - first + kTogether - 1) / kTogether;
      AddColumnSums<kCentered, T>(sums, count, n.features, dgamma, dbeta);
    }
  }
}

/// Whether rows go so: where there are registers enough, and in the common case. The bits are those of blocks.
template <bool kCentered, class T>
bool GoOneByOne(const RowBackward<T>& n, const double* dbeta) {
  return n.features <= kMostOneByOne<Parameter<T>> && n.features % kSegmentLanes == 0 && n.gamma != nullptr &&
         (kCentered || dbeta == nullptr);
}

/// The rows begin … end − 1, by blocks that stay in the second cache. An activation's slope is taken once, if g is one
/// of T's values: dx holds g until it becomes dx (see Backward::gate_first).
template <bool kCentered, bool kGate, bool kMuch, class T>
HWY_NOINLINE void GradientByBlocks(const RowBackward<T>& n, std::size_t begin, std::size_t end, double* dgamma,
                                   double* dbeta) {
  const std::size_t block = BlockRows<T>(n.features);
  constexpr bool kExact = std::is_same_v<T, Parameter<T>>;
  const bool leaves_g =
      kGate && kExact && !has_slope_of_sign(n.activation) && n.dx.data != n.x.data && n.dx.data != n.dsum.data;
  RowBackward<T> rest = n;
  if (leaves_g) rest.dy = {n.dx.data, n.dx.stride}, rest.activation = Activation::none;
  RowCoefficients<T> k[kMaxBlockRows];
  const auto begin_row = [&](std::size_t r, RowCoefficients<T>& row) HWY_ATTR {
    const bool begun = BeginRow<kCentered>(n, r, row);  // else careful from the beginning: its g is left nowhere
    if (begun) SumRow<kCentered, kGate, kMuch>(n, r, row, leaves_g);
    if (row.careful) [[unlikely]]
      CarefulGradientRow<kCentered>(begun ? rest : n, row, r, dgamma, dbeta);
  };
  const auto go = [&](auto gate, const RowBackward<T>& left) HWY_ATTR {
    for (std::size_t first = begin; first < end; first += block) {
      const std::size_t last = std::min(first + block, end);
      if constexpr (kDownStrips) {
        for (std::size_t r = first; r < last; ++r) begin_row(r, k[r - first]);
        GradientBlock<kCentered, gate, kMuch>(left, k, first, last, dgamma, dbeta);
      } else {
        GradientPanels<kCentered, gate, kMuch>(left, k, first, last, dgamma, dbeta, begin_row);
      }
    }
  };
  if constexpr (kGate && kExact) {
    if (leaves_g) return go(Static<false>(), rest);
  }
  go(Static<kGate>(), n);
}

template <bool kCentered, class T>
void GradientRows(const RowBackward<T>& n, std::size_t begin, std::size_t end, double* dgamma, double* dbeta) {
  if (n.activation != Activation::none) {  // there arithmetic is the larger part
    return GradientByBlocks<kCentered, true, false>(n, begin, end, dgamma, dbeta);
  }
  WithCase<false>(n.stream, [&](auto much) HWY_ATTR {
    if constexpr (HWY_TARGET <= HWY_AVX3) {
      if (GoOneByOne<kCentered>(n, dbeta)) return GradientOneByOne<kCentered, much>(n, begin, end, dgamma, dbeta);
    }
    GradientByBlocks<kCentered, false, much>(n, begin, end, dgamma, dbeta);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
