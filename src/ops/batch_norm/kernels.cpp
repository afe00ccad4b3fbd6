#include "ops/batch_norm/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/batch_norm/kernels.cpp"
#include <hwy/foreach_target.h>  // compiles what follows once per instruction set
#include <hwy/highway.h>

#include "reduce/columns-inl.hpp"
#include "reduce/segments-inl.hpp"
#include "simd/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {
namespace {

using batch_norm::BackwardTensors;
using batch_norm::Block;
using batch_norm::Coefficients;
using batch_norm::ForwardTensors;
using batch_norm::Mask;
using batch_norm::PlaneBlock;

static_assert(batch_norm::kMaxPlaneChannels <= kMaxChannels);

template <auto value>
using Static = std::integral_constant<decltype(value), value>;

/// Calls f with a compile-time true or false.
template <class F>
HWY_INLINE void WithBool(bool value, const F& f) {
  if (value) {
    f(Static<true>());
  } else {
    f(Static<false>());
  }
}

template <class F>
HWY_INLINE void WithMask(Mask mask, const F& f) {
  switch (mask) {
    case Mask::none:
      return f(Static<Mask::none>());
    case Mask::input:
      return f(Static<Mask::input>());
    case Mask::output:
      return f(Static<Mask::output>());
  }
}

// --- One vector. `count` is Lanes(d) for a whole vector; fewer are loaded and stored alone. ---

template <class D>
HWY_INLINE hn::Vec<D> LoadCount(D d, const float* p, std::size_t count) {
  return count == hn::Lanes(d) ? hn::LoadU(d, p) : LoadFirst(d, p, count);
}

template <bool kStream, class D>
HWY_INLINE void StoreCount(hn::Vec<D> v, D d, float* p, std::size_t count) {
  if (count != hn::Lanes(d)) {
    StoreFirst(v, d, p, count);
  } else if constexpr (kStream && hn::MaxLanes(D()) == hn::MaxLanes(F32())) {
    hn::Stream(v, d, p);
  } else {
    hn::StoreU(v, d, p);
  }
}

/// max(v, 0), and NaN for NaN.
template <class D>
HWY_INLINE hn::Vec<D> Relu(D d, hn::Vec<D> v) {
  return hn::IfThenZeroElse(hn::Lt(v, hn::Zero(d)), v);
}

/// A channel's coefficients in registers; scale and shift may stay unread.
template <class D>
struct Normalizer {
  hn::Vec<D> mean_hi, mean_lo, scale, shift;

  HWY_INLINE hn::Vec<D> Center(hn::Vec<D> x) const { return hn::Sub(hn::Sub(x, mean_hi), mean_lo); }
  HWY_INLINE hn::Vec<D> Affine(hn::Vec<D> difference) const { return hn::Add(hn::Mul(difference, scale), shift); }
};

template <bool kRelu, bool kResidual, bool kStream, class D>
HWY_INLINE void NormalizeVector(D d, const ForwardTensors& t, std::size_t at, std::size_t count,
                                const Normalizer<D>& normalizer) {
  auto y = normalizer.Affine(normalizer.Center(LoadCount(d, t.x + at, count)));
  if constexpr (kResidual) y = hn::Add(y, LoadCount(d, t.residual + at, count));
  if constexpr (kRelu) y = Relu(d, y);
  StoreCount<kStream>(y, d, t.y + at, count);
}

/// dy where the activation let its input pass, x − mean = difference. The input is computed again, to the same bits as
/// in forward.
template <Mask kMask, class D>
HWY_INLINE hn::Vec<D> MaskedGradient(D d, const BackwardTensors& t, std::size_t at, std::size_t count,
                                     hn::Vec<D> difference, const Normalizer<D>& normalizer) {
  const auto dy = LoadCount(d, t.dy + at, count);
  if constexpr (kMask == Mask::input) {
    return hn::IfThenZeroElse(hn::Le(normalizer.Affine(difference), hn::Zero(d)), dy);
  } else if constexpr (kMask == Mask::output) {
    return hn::IfThenZeroElse(hn::Le(LoadCount(d, t.y + at, count), hn::Zero(d)), dy);
  } else {
    return dy;
  }
}

template <class D>
struct Differentiator {
  Normalizer<D> normalizer;
  hn::Vec<D> g_hi, g_lo, slope;
};

template <Mask kMask, bool kResidual, bool kStream, class D>
HWY_INLINE void GradientVector(D d, const BackwardTensors& t, std::size_t at, std::size_t count,
                               const Differentiator<D>& c) {
  const auto difference = c.normalizer.Center(LoadCount(d, t.x + at, count));
  const auto g = MaskedGradient<kMask>(d, t, at, count, difference, c.normalizer);
  if constexpr (kResidual) StoreCount<false>(g, d, t.dresidual + at, count);
  const auto centered = hn::Sub(hn::Sub(g, c.g_hi), c.g_lo);
  const auto dx = hn::Mul(hn::Sub(centered, hn::Mul(difference, c.slope)), c.normalizer.scale);
  StoreCount<kStream>(dx, d, t.dx + at, count);
}

/// Coefficients of the columns from c on, or of channel c for all lanes.
struct PerColumn {
  template <class D>
  static HWY_INLINE hn::Vec<D> Get(D d, const float* p, std::size_t c) {
    return hn::LoadU(d, p + c);
  }
};
struct PerChannel {
  template <class D>
  static HWY_INLINE hn::Vec<D> Get(D d, const float* p, std::size_t c) {
    return hn::Set(d, p[c]);
  }
};

template <class Get, class D>
HWY_INLINE Normalizer<D> GetNormalizer(D d, const Coefficients& k, std::size_t c) {
  return {Get::Get(d, k.mean_hi, c), Get::Get(d, k.mean_lo, c), Get::Get(d, k.scale, c), Get::Get(d, k.shift, c)};
}

template <class Get, class D>
HWY_INLINE Differentiator<D> GetDifferentiator(D d, const Coefficients& k, std::size_t c) {
  return {GetNormalizer<Get>(d, k, c), Get::Get(d, k.g_hi, c), Get::Get(d, k.g_lo, c), Get::Get(d, k.slope, c)};
}

/// A whole vector of MaskedGradient, widened; difference is x − mean_hi.
template <class Get, Mask kMask, class D>
HWY_INLINE Widened<D> WidenedGradient(D d, const BackwardTensors& t, std::size_t at, hn::Vec<D> difference,
                                      const Coefficients& k, std::size_t c) {
  if constexpr (kMask == Mask::none) {
    return Widened<D>(t.dy + at);
  } else {
    const auto normalizer = GetNormalizer<Get>(d, k, c);
    return Widened<D>(
        MaskedGradient<kMask>(d, t, at, hn::Lanes(d), hn::Sub(difference, normalizer.mean_lo), normalizer));
  }
}

// --- Columns. ---

/// Calls body(rows, r, d, column) for tiles of kTile rows, then single ones. Four rows at a time share the coefficients
/// of a column, which come from L1; a tensor that comes from memory is read along its rows alone, as memory wants it.
template <std::size_t kTile, class Body>
HWY_INLINE void ForEachTile(const Block& block, const Body& body) {
  std::size_t r = 0;
  for (; r + kTile <= block.rows; r += kTile) {
    ForEachStrip<1>(F32(), block.columns,
                    [&](auto d, auto, std::size_t c) HWY_ATTR { body(Constant<kTile>(), r, d, c); });
  }
  for (; r < block.rows; ++r) {
    ForEachStrip<1>(F32(), block.columns, [&](auto d, auto, std::size_t c) HWY_ATTR { body(Constant<1>(), r, d, c); });
  }
}

void ColumnMoments(const float* x, const Block& block, std::size_t count, double* mean, double* m2) {
  AccumulateColumnMoments(x, block.rows, block.stride, block.columns, count, mean, m2);
}

void NormalizeColumns(const ForwardTensors& tensors, const Block& block, const Coefficients& coefficients) {
  WithBool(tensors.relu, [&](auto relu) HWY_ATTR {
    WithBool(tensors.residual != nullptr, [&](auto residual) HWY_ATTR {
      WithBool(tensors.stream, [&](auto stream) HWY_ATTR {
        const ForwardTensors t = tensors;  // in registers: a store may not be thought to change it
        const Coefficients k = coefficients;
        ForEachTile<stream ? 1 : 4>(block, [&](auto rows, std::size_t r, auto d, std::size_t c) HWY_ATTR {
          const auto normalizer = GetNormalizer<PerColumn>(d, k, c);
          for (std::size_t i = 0; i < rows; ++i) {
            const std::size_t at = (r + i) * block.stride + c;
            hwy::Prefetch(t.x + at + kPrefetchFloats);
            NormalizeVector<relu, residual, stream>(d, t, at, hn::Lanes(d), normalizer);
          }
        });
      });
    });
  });
}

void ColumnDots(const BackwardTensors& tensors, const Block& block, const Coefficients& coefficients, double* sum,
                double* dot) {
  WithMask(tensors.mask, [&](auto mask) HWY_ATTR {
    const BackwardTensors t = tensors;
    const Coefficients k = coefficients;
    const auto gradient = [&](auto d, std::size_t at, std::size_t column, auto difference)
                              HWY_ATTR { return WidenedGradient<PerColumn, mask>(d, t, at, difference, k, column); };
    AccumulateColumnDots(t.x, t.dy, block.rows, block.stride, block.columns, k.mean_hi, gradient, sum, dot);
  });
}

void GradientColumns(const BackwardTensors& tensors, const Block& block, const Coefficients& coefficients) {
  WithMask(tensors.mask, [&](auto mask) HWY_ATTR {
    WithBool(tensors.dresidual != nullptr, [&](auto residual) HWY_ATTR {
      WithBool(tensors.stream, [&](auto stream) HWY_ATTR {
        const BackwardTensors t = tensors;
        const Coefficients k = coefficients;
        ForEachTile<stream ? 1 : 4>(block, [&](auto rows, std::size_t r, auto d, std::size_t c) HWY_ATTR {
          const auto differentiator = GetDifferentiator<PerColumn>(d, k, c);
          for (std::size_t i = 0; i < rows; ++i) {
            const std::size_t at = (r + i) * block.stride + c;
            hwy::Prefetch(t.x + at + kPrefetchFloats);
            hwy::Prefetch(t.dy + at + kPrefetchFloats);
            GradientVector<mask, residual, stream>(d, t, at, hn::Lanes(d), differentiator);
          }
        });
      });
    });
  });
}

// --- Segments. ---

/// Calls body(offset, count) for the vectors of a plane that begins at `begin`.
template <class D, class Body>
HWY_INLINE void ForEachVector(D d, std::size_t begin, std::size_t length, const Body& body) {
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= length; i += lanes) body(begin + i, lanes);
  if (i < length) body(begin + i, length - i);
}

void PlaneMomentsOf(const float* x, const PlaneBlock& b, Moments* out) {
  PlaneMoments(x, {b.samples, b.stride, b.channels, b.length}, out);
}

void NormalizePlanes(const ForwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients) {
  WithBool(tensors.relu, [&](auto relu) HWY_ATTR {
    WithBool(tensors.residual != nullptr, [&](auto residual) HWY_ATTR {
      WithBool(tensors.stream, [&](auto stream) HWY_ATTR {
        constexpr F32 d;
        const ForwardTensors t = tensors;
        const Coefficients k = coefficients;
        const auto [samples, stride, channels, length] = block;
        for (std::size_t s = 0; s < samples; ++s) {
          for (std::size_t c = 0; c < channels; ++c) {
            const auto normalizer = GetNormalizer<PerChannel>(d, k, c);
            ForEachVector(d, s * stride + c * length, length, [&](std::size_t at, std::size_t count) HWY_ATTR {
              NormalizeVector<relu, residual, stream>(d, t, at, count, normalizer);
            });
          }
        }
      });
    });
  });
}

void PlaneDotSums(const BackwardTensors& tensors, const PlaneBlock& b, const Coefficients& coefficients, double* sum,
                  double* dot) {
  WithMask(tensors.mask, [&](auto mask) HWY_ATTR {
    const BackwardTensors t = tensors;
    const Coefficients k = coefficients;
    const std::size_t ahead = SegmentPrefetch(b.length);
    const auto gradient = [&](std::size_t at, std::size_t c, auto difference) HWY_ATTR {
      hwy::Prefetch(t.dy + at + ahead);
      return WidenedGradient<PerChannel, mask>(F32(), t, at, difference, k, c);
    };
    const auto last = [&](std::size_t at, std::size_t c, std::size_t count, auto difference) HWY_ATTR {
      const auto normalizer = GetNormalizer<PerChannel>(F32(), k, c);
      return MaskedGradient<mask>(F32(), t, at, count, hn::Sub(difference, normalizer.mean_lo), normalizer);
    };
    PlaneDots(t.x, {b.samples, b.stride, b.channels, b.length}, k.mean_hi, gradient, last, sum, dot);
  });
}

void GradientPlanes(const BackwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients) {
  WithMask(tensors.mask, [&](auto mask) HWY_ATTR {
    WithBool(tensors.dresidual != nullptr, [&](auto residual) HWY_ATTR {
      WithBool(tensors.stream, [&](auto stream) HWY_ATTR {
        constexpr F32 d;
        const BackwardTensors t = tensors;
        const Coefficients k = coefficients;
        const auto [samples, stride, channels, length] = block;
        for (std::size_t s = 0; s < samples; ++s) {
          for (std::size_t c = 0; c < channels; ++c) {
            const auto differentiator = GetDifferentiator<PerChannel>(d, k, c);
            ForEachVector(d, s * stride + c * length, length, [&](std::size_t at, std::size_t count) HWY_ATTR {
              GradientVector<mask, residual, stream>(d, t, at, count, differentiator);
            });
          }
        }
      });
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace equinorm {
HWY_EXPORT(ColumnMoments);
HWY_EXPORT(MergeColumnMoments);
HWY_EXPORT(NormalizeColumns);
HWY_EXPORT(ColumnDots);
HWY_EXPORT(GradientColumns);
HWY_EXPORT(PlaneMomentsOf);
HWY_EXPORT(NormalizePlanes);
HWY_EXPORT(PlaneDotSums);
HWY_EXPORT(GradientPlanes);

namespace batch_norm {

void column_moments(const float* x, const Block& block, std::size_t count, double* mean, double* m2) {
  HWY_DYNAMIC_DISPATCH(ColumnMoments)(x, block, count, mean, m2);
}
void merge_column_moments(std::size_t columns, std::size_t count, double* mean, double* m2, std::size_t other_count,
                          const double* other_mean, const double* other_m2) {
  HWY_DYNAMIC_DISPATCH(MergeColumnMoments)(columns, count, mean, m2, other_count, other_mean, other_m2);
}
void normalize_columns(const ForwardTensors& tensors, const Block& block, const Coefficients& coefficients) {
  HWY_DYNAMIC_DISPATCH(NormalizeColumns)(tensors, block, coefficients);
}
void column_dots(const BackwardTensors& tensors, const Block& block, const Coefficients& coefficients, double* sum,
                 double* dot) {
  HWY_DYNAMIC_DISPATCH(ColumnDots)(tensors, block, coefficients, sum, dot);
}
void gradient_columns(const BackwardTensors& tensors, const Block& block, const Coefficients& coefficients) {
  HWY_DYNAMIC_DISPATCH(GradientColumns)(tensors, block, coefficients);
}
void plane_moments(const float* x, const PlaneBlock& block, Moments* moments) {
  HWY_DYNAMIC_DISPATCH(PlaneMomentsOf)(x, block, moments);
}
void normalize_planes(const ForwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients) {
  HWY_DYNAMIC_DISPATCH(NormalizePlanes)(tensors, block, coefficients);
}
void plane_dots(const BackwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients, double* sum,
                double* dot) {
  HWY_DYNAMIC_DISPATCH(PlaneDotSums)(tensors, block, coefficients, sum, dot);
}
void gradient_planes(const BackwardTensors& tensors, const PlaneBlock& block, const Coefficients& coefficients) {
  HWY_DYNAMIC_DISPATCH(GradientPlanes)(tensors, block, coefficients);
}

}  // namespace batch_norm
}  // namespace equinorm
#endif
