// The kernels for bfloat16.
#include "kernels/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bfloat16.cpp"
#include <hwy/foreach_target.h>  // compiles what follows once per instruction set
#include <hwy/highway.h>

#include "kernels/table-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace equinorm {
namespace HWY_NAMESPACE {
namespace {
const kernels::Kernels<bfloat16>* Table() {
  return TableOf<bfloat16>();
}
}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace equinorm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace equinorm {
namespace {
HWY_EXPORT(Table);
}  // namespace

template <>
const kernels::Kernels<bfloat16>& kernels::get<bfloat16>() {
  return *HWY_DYNAMIC_DISPATCH(Table)();
}

}  // namespace equinorm
#endif
