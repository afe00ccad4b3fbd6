// The column family: kernels over one block [rows, columns], coefficients per column.
#if defined(EQUINORM_KERNELS_COLUMNS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_KERNELS_COLUMNS_INL_HPP
#undef EQUINORM_KERNELS_COLUMNS_INL_HPP
#else
#define EQUINORM_KERNELS_COLUMNS_INL_HPP
#endif

#include "kernels/elementwise-inl.hpp"
#include "reduce/columns-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

/// Calls body(rows, r, d, column) for tiles of kTile rows, then single ones. Four rows at a time share the coefficients
/// of a column, which come from L1; a tensor that comes from memory is read along its rows alone, as memory wants it.
template <class T, std::size_t kTile, class Body>
HWY_INLINE void ForEachTile(const Block& block, const Body& body) {
  std::size_t r = 0;
  for (; r + kTile <= block.rows; r += kTile) {
    ForEachStrip<1>(Tag<T>(), block.columns,
                    [&](auto d, auto, std::size_t c) HWY_ATTR { body(Constant<kTile>(), r, d, c); });
  }
  for (; r < block.rows; ++r) {
    ForEachStrip<1>(Tag<T>(), block.columns,
                    [&](auto d, auto, std::size_t c) HWY_ATTR { body(Constant<1>(), r, d, c); });
  }
}

template <class T>
void ColumnMoments(const T* x, const Block& block, std::size_t count, double* mean, double* m2) {
  AccumulateColumnMoments(x, block.rows, block.stride, block.columns, count, mean, m2);
}

template <class T>
void NormalizeColumns(const Forward<T>& tensors, const Block& block, const Coefficients<T>& coefficients) {
  WithForward(tensors, [&](auto gate, auto residual, auto stream) HWY_ATTR {
    const Forward<T> t = tensors;  // in registers: a store may not be thought to change it
    const Coefficients<T> k = coefficients;
    ForEachTile<T, stream ? 1 : 4>(block, [&](auto rows, std::size_t r, auto d, std::size_t c) HWY_ATTR {
      const Normalizer<decltype(d)> normalizer(PerColumn(), d, k, c);
      for (std::size_t i = 0; i < rows; ++i) {
        const std::size_t at = (r + i) * block.stride + c;
        PrefetchAhead(t.x + at);
        NormalizeVector<gate, residual, stream>(d, t, at, hn::Lanes(d), normalizer);
      }
    });
  });
}

template <class T>
void ColumnDots(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients, double* sum,
                double* dot) {
  WithGate(tensors, [&](auto gate, auto output) HWY_ATTR {
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    const auto gradient = [&](auto d, std::size_t at, std::size_t column, auto difference) HWY_ATTR {
      return WidenedGradient<gate, output>(PerColumn(), d, t, at, difference, k, column);
    };
    AccumulateColumnDots(t.x, t.dy, block.rows, block.stride, block.columns, k.mean, gradient, sum, dot);
  });
}

template <class T>
void GradientColumns(const Backward<T>& tensors, const Block& block, const Coefficients<T>& coefficients) {
  WithBackward(tensors, [&](auto gate, auto output, auto residual, auto stream) HWY_ATTR {
    const Backward<T> t = tensors;
    const Coefficients<T> k = coefficients;
    ForEachTile<T, stream ? 1 : 4>(block, [&](auto rows, std::size_t r, auto d, std::size_t c) HWY_ATTR {
      const Differentiator<decltype(d)> differentiator(PerColumn(), d, k, c);
      for (std::size_t i = 0; i < rows; ++i) {
        const std::size_t at = (r + i) * block.stride + c;
        PrefetchAhead(t.x + at);
        PrefetchAhead(t.dy + at);
        GradientVector<gate, output, residual, stream>(d, t, at, hn::Lanes(d), differentiator);
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
