// The table of one element type in one instruction set.
#if defined(EQUINORM_KERNELS_TABLE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef EQUINORM_KERNELS_TABLE_INL_HPP
#undef EQUINORM_KERNELS_TABLE_INL_HPP
#else
#define EQUINORM_KERNELS_TABLE_INL_HPP
#endif

#include "kernels/columns-inl.hpp"
#include "kernels/planes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {

template <class T>
const kernels::Kernels<T>* TableOf() {
  static constexpr kernels::Kernels<T> table{ColumnMoments<T>, NormalizeColumns<T>, ColumnDots<T>,   GradientColumns<T>,
                                             PlaneMoments<T>,  NormalizePlanes<T>,  PlaneDotSums<T>, GradientPlanes<T>};
  return &table;
}

}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#endif
