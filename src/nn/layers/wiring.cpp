#include "nn/layers/wiring.hpp"

#include <algorithm>

#include "nn/blocks.hpp"
#include "nn/vectorize.hpp"

namespace equinorm::nn {
namespace {

EQUINORM_VECTORIZE void add(const float* a, const float* b, float* sum, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) sum[i] = a[i] + b[i];
}

}  // namespace

Flatten::Flatten(std::string name) : Layer(std::move(name), "flatten") {
  plan_.placement = Placement::same;
  plan_.gradient_shares = 0;
}

Fork::Fork(std::string name) : Layer(std::move(name), "fork") {
  plan_.placement = Placement::same;
  plan_.gradient_shares = 0;
}

void Fork::backward(const Call& call) {
  for_each_block(in().elements(), call.threads, [&](std::size_t begin, std::size_t count) {
    add(out(0).gradient + begin, out(1).gradient + begin, in().gradient + begin, count);
  });
}

Add::Add(std::string name) : Layer(std::move(name), "add") {
  plan_.placement = Placement::may_share;
  plan_.gradient_shares = 0;
}

void Add::forward(const Call& call) {
  for_each_block(in().elements(), call.threads, [&](std::size_t begin, std::size_t count) {
    add(in(0).values + begin, in(1).values + begin, out().values + begin, count);
  });
}

void Add::backward(const Call& call) {
  // A copy, not the same memory: a branch may work on its gradient in place.
  for_each_block(in().elements(), call.threads, [&](std::size_t begin, std::size_t count) {
    std::copy_n(out().gradient + begin, count, in(1).gradient + begin);
  });
}

}  // namespace equinorm::nn
