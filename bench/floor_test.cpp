// The floor goes everywhere: without arithmetic an output is its input (or both its inputs, bit by bit).
#include "floor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "memory.hpp"

namespace equinorm::bench {
namespace {

TEST(Floor, VisitsEveryElement) {
  for (const auto& op : kOps) {
    for (const Layout layout : {Layout::channels_last, Layout::channels_first}) {
      for (const auto& pass : kPasses) {
        for (const std::size_t side : {1U, 5U, 32U, 90U}) {
          Problem p;
          p.op = op.value;
          p.n = 9, p.c = 32, p.h = p.w = side;
          if (p.by_rows()) p.c = 33 * side, p.h = p.w = 1;
          p.groups = 8;
          p.layout = layout;
          p.pass = pass.value;
          Memory memory;
          Tensors<float> t;
          t.x = memory.take<float>(p.elements());
          t.y = memory.take<float>(p.elements());
          t.dy = memory.take<float>(p.elements());  // zeros
          t.dx = memory.take<float>(p.elements());
          for (std::size_t i = 0; i < p.elements(); ++i) t.x[i] = static_cast<float>(i % 1000) + 1;
          float* out = p.pass == Pass::backward ? t.dx : t.y;
          const std::string what = std::string(op.name) + " " + std::string(pass.name) + " " + std::to_string(side);
          for (const Fetch fetch : kFetches) {
            std::fill_n(out, p.elements(), 0.0F);
            floor(p, t, fetch)();
            for (std::size_t i = 0; i < p.elements(); ++i) ASSERT_EQ(out[i], t.x[i]) << what << " element " << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace equinorm::bench
