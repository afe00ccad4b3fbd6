#include "nn/net.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

#include "core/philox.hpp"
#include "core/workspace.hpp"
#include "equinorm/status.hpp"
#include "nn/optimizer.hpp"

// Every allocation of this program, but those of oneDNN (and of OpenMP beneath it), which go through here too.
namespace {
std::atomic<std::size_t> allocations = 0;

bool of_a_library(const void* caller) {
  Dl_info info{};
  if (dladdr(caller, &info) == 0 || info.dli_fname == nullptr) return false;
  return std::strstr(info.dli_fname, "libdnnl") != nullptr || std::strstr(info.dli_fname, "libgomp") != nullptr;
}

/// nullptr where there is no memory. Whoever calls an operator calls this with its own caller.
void* allocate(std::size_t bytes, const void* caller, std::size_t alignment = alignof(std::max_align_t)) {
  if (!of_a_library(caller)) ++allocations;
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* or_throw(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

/// Not inlined: GCC would take it for free() of what new gave.
[[gnu::noinline]] void release(void* memory) {
  std::free(memory);
}
}  // namespace

// All forms: what operations take for themselves (core/workspace.hpp) is aligned, std::stable_sort's buffer is nothrow.
#define EQUINORM_CALLER __builtin_return_address(0)
void* operator new(std::size_t bytes) {
  return or_throw(allocate(bytes, EQUINORM_CALLER));
}
void* operator new[](std::size_t bytes) {
  return or_throw(allocate(bytes, EQUINORM_CALLER));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return or_throw(allocate(bytes, EQUINORM_CALLER, static_cast<std::size_t>(alignment)));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return or_throw(allocate(bytes, EQUINORM_CALLER, static_cast<std::size_t>(alignment)));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, EQUINORM_CALLER);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, EQUINORM_CALLER);
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(bytes, EQUINORM_CALLER, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(bytes, EQUINORM_CALLER, static_cast<std::size_t>(alignment));
}
#undef EQUINORM_CALLER
// What the other forms of delete come to by themselves.
void operator delete(void* memory) noexcept {
  release(memory);
}
void operator delete[](void* memory) noexcept {
  release(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  release(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  release(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  release(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  release(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  release(memory);
}

namespace equinorm::nn {
namespace {

ModelSpec model(const std::string& name, const std::string& norm) {
  ModelSpec spec;
  spec.model = name;
  spec.norm = parse_norm(norm);
  spec.height = spec.width = 12;
  return spec;
}

void fill(Net& net, std::uint64_t seed) {
  const Philox random(seed, 1);
  for (std::size_t i = 0; i < net.images().size(); ++i) net.images()[i] = static_cast<float>(random.normal(i));
  for (std::size_t i = 0; i < net.labels().size(); ++i) {
    net.labels()[i] = static_cast<std::uint8_t>(random.word(100000 + i) % net.spec().classes);
  }
}

/// Parameters after a few steps.
std::vector<float> trained(const ModelSpec& spec, int threads, std::uint64_t seed = 1) {
  Net net(spec, {.batch = 16, .threads = threads, .seed = seed});
  fill(net, 5);
  OptimizerSpec optimizer_spec;
  optimizer_spec.lr = 0.01;
  Optimizer optimizer(optimizer_spec, net.parameters());
  for (std::uint64_t step = 0; step < 3; ++step) {
    net.forward(step);
    net.backward();
    optimizer.step(0.01);
  }
  std::vector<float> values;
  for (const Parameter& parameter : net.parameters()) {
    values.insert(values.end(), parameter.values.begin(), parameter.values.end());
  }
  return values;
}

class EveryNet : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  static ModelSpec spec() { return model(std::get<0>(GetParam()), std::get<1>(GetParam())); }
};
INSTANTIATE_TEST_SUITE_P(Nets, EveryNet, testing::ValuesIn([] {
                           std::vector<std::tuple<std::string, std::string>> nets;
                           for (const char* name : {"mlp", "cnn", "resnet8"}) {
                             for (const char* norm : {"none", "batch", "layer", "rms", "instance", "group:4"}) {
                               const bool single = name == std::string("mlp") && norm == std::string("instance");
                               if (!single) nets.emplace_back(name, norm);  // see InstanceNormNeedsImages
                             }
                           }
                           return nets;
                         }()),
                         [](const auto& net) {
                           std::string name = std::get<0>(net.param) + "_" + std::get<1>(net.param);
                           std::ranges::replace(name, ':', '_');
                           return name;
                         });

TEST_P(EveryNet, StepsAndInferenceAllocateNothing) {
  ModelSpec with_dropout = spec();
  with_dropout.dropout = 0.3;
  Net net(with_dropout, {.batch = 16, .threads = 1});
  fill(net, 1);
  Optimizer optimizer({}, net.parameters());
  const auto step = [&](std::uint64_t index) {
    net.forward(index);
    net.backward();
    optimizer.step(0.01);
    net.infer(7);
  };
  step(0);
  const std::size_t before = allocations;
  for (std::uint64_t i = 1; i < 4; ++i) step(i);
  EXPECT_EQ(allocations - before, 0U);
  const auto proof = std::make_unique<int>(1);  // the counter counts
  EXPECT_EQ(allocations - before, 1U);
  const equinorm::Memory scratch({}, 64);  // of an operation that is given none
  EXPECT_EQ(allocations - before, 2U);
}

TEST_P(EveryNet, RepeatsBitForBit) {
  for (const int threads : {1, 2})
    EXPECT_EQ(trained(spec(), threads), trained(spec(), threads)) << threads << " threads";
  EXPECT_NE(trained(spec(), 1, 1), trained(spec(), 1, 2));
}

TEST_P(EveryNet, RunsBesideOthersOfItsKind) {
  const std::vector<float> alone = trained(spec(), 1);
  std::vector<std::vector<float>> together(3);
  std::vector<std::thread> threads;
  threads.reserve(together.size());
  for (auto& result : together) threads.emplace_back([&] { result = trained(spec(), 1); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : together) EXPECT_EQ(result, alone);
}

TEST_P(EveryNet, TheLossFallsAlongTheGradientAsFastAsItSays) {
  // d/dh L(w − h·g) = −|g|² at h = 0. With a smooth activation, the central difference over h·|g| = 5e-3 errs by its
  // square times the third derivative (which is of the order of 1e2 here), and by the rounding of f32, 1e-6 of the loss
  // over 5e-3·|g|.
  ModelSpec smooth = spec();
  smooth.activation = "tanh";
  Net net(smooth, {.batch = 8});
  fill(net, 3);
  net.forward(0);
  net.backward();
  double square = 0;
  for (const Parameter& p : net.parameters()) {
    for (const float g : p.gradient) square += static_cast<double>(g) * static_cast<double>(g);
  }
  const double h = 5e-3 / std::sqrt(square);
  const auto move = [&](double by) {
    for (const Parameter& p : net.parameters()) {
      for (std::size_t i = 0; i < p.values.size(); ++i)
        p.values[i] += static_cast<float>(by * static_cast<double>(p.gradient[i]));
    }
  };
  move(h);
  const double up = net.forward(0).loss;
  move(-2 * h);
  const double down = net.forward(0).loss;
  EXPECT_NEAR((up - down) / (2 * h) / square, 1.0, 1e-2);
}

TEST_P(EveryNet, InferenceOfARowDoesNotSeeItsNeighbours) {
  Net net(spec(), {.batch = 8, .training = false});
  fill(net, 1);
  net.infer(8);
  const std::vector<float> first(net.logits().begin(), net.logits().begin() + 10);
  const std::size_t image = net.images().size() / 8;
  for (float& x : net.images().subspan(image)) x = std::nanf("");
  const Outcome outcome = net.infer(1);
  EXPECT_TRUE(std::isfinite(outcome.loss));
  EXPECT_EQ(std::vector<float>(net.logits().begin(), net.logits().begin() + 10), first);
}

TEST_P(EveryNet, AnInferencePlanTakesLessAndSaysTheSame) {
  Net net(spec(), {.batch = 8, .training = true, .seed = 4}), other(spec(), {.batch = 8, .training = false, .seed = 5});
  fill(net, 2);
  net.forward(0);
  for (const NormState& norm : net.norms()) EXPECT_EQ(norm.running->batches, 1U);
  other.copy_state(net);
  fill(other, 2);
  EXPECT_EQ(net.infer(8).loss, other.infer(8).loss);
  EXPECT_LT(other.memory().arena, net.memory().arena);
  EXPECT_EQ(other.memory().kept, 0U);
  EXPECT_GT(net.memory().kept, 0U);
  EXPECT_THROW(other.forward(0), Error);
}

TEST_P(EveryNet, ProbesSeeEveryLayerForwardAndBack) {
  Net net(spec(), {.batch = 4});
  fill(net, 1);
  std::vector<std::string> forward, backward;
  net.set_probe([&](const ProbedTensor& tensor) {
    (tensor.gradient ? backward : forward).emplace_back(tensor.layer);
    EXPECT_EQ(tensor.values.size(), tensor.shape.elements());
    EXPECT_EQ(tensor.shape[0], 4U);
    EXPECT_GT(moments(tensor.values).norm, 0.0) << tensor.layer << (tensor.gradient ? " gradient" : "");
  });
  net.forward(0);
  net.backward();
  std::ranges::reverse(backward);
  EXPECT_EQ(forward, backward);
  EXPECT_EQ(forward.back(), std::get<0>(GetParam()) == "mlp" ? "fc4" : "fc");
}

TEST(Net, ArmsWithAndWithoutNormBeginWithTheSameWeights) {
  const Net none(model("cnn", "none"), {.batch = 2, .seed = 3}), batch(model("cnn", "batch"), {.batch = 2, .seed = 3});
  for (const char* name : {"conv1.weight", "conv3.weight", "fc.weight"}) {
    EXPECT_TRUE(std::ranges::equal(none.parameter(name).values, batch.parameter(name).values)) << name;
  }
  EXPECT_THROW(batch.parameter("conv1.bias"), Error);  // the norm has β
}

TEST(Net, InitialWeightsHaveTheDeviationTheyAreToHave) {
  const struct {
    Init init;
    double variance;
  } cases[] = {{Init::he, 2.0 / 144}, {Init::xavier, 2.0 / (144 + 288)}, {Init::scaled, 1.0 / 144}};
  for (const auto& c : cases) {
    for (const double scale : {1.0, 100.0, 0.01}) {
      ModelSpec spec = model("cnn", "batch");
      spec.init = c.init;
      spec.init_scale = scale;
      const Net net(spec, {.batch = 2});
      const Moments found = moments(net.parameter("conv2.weight").values);  // 32×16×3×3 = 4608 of them
      // Six standard errors of a deviation, σ/√(2n).
      const double expected = scale * std::sqrt(c.variance);
      EXPECT_NEAR(found.deviation, expected, expected * 6 / std::sqrt(2 * 4608.0));
      EXPECT_NEAR(found.mean, 0, expected * 6 / std::sqrt(4608.0));
    }
  }
}

TEST(Net, OneValuePerChannelIsAnErrorThatNamesTheLayer) {
  ModelSpec spec = model("mlp", "batch");
  Net net(spec, {.batch = 1});
  try {
    net.forward(0);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("bn1"), std::string::npos) << error.what();
  }
  spec.norm.single_value = SingleValuePolicy::allow;
  Net allowed(spec, {.batch = 1});
  EXPECT_TRUE(std::isfinite(allowed.forward(0).loss));
  Net images(model("cnn", "batch"), {.batch = 1});  // height × width values
  EXPECT_TRUE(std::isfinite(images.forward(0).loss));
}

TEST(Net, InstanceNormNeedsImages) {
  const auto message = [](const ModelSpec& spec) -> std::string {
    try {
      const Net net(spec, {.batch = 2});
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const std::string text = " would normalize every value by itself, to 0; expected a norm over more than one value";
  EXPECT_NE(message(model("mlp", "instance")).find("layer bn1 of mlp: norm instance" + text), std::string::npos);
  EXPECT_NE(message(model("mlp", "group:100")).find("layer bn1 of mlp: norm group:100" + text), std::string::npos);
  ModelSpec small = model("resnet8", "instance");  // its last images are of one pixel
  small.height = small.width = 4;
  EXPECT_NE(message(small).find("layer layer3.0.downsample.1 of resnet8: norm instance" + text), std::string::npos)
      << message(small);
}

TEST(Net, OtherNormsTrainOnBatchesOfOne) {
  for (const char* norm : {"layer", "rms", "group:4"}) {
    Net net(model("mlp", norm), {.batch = 1});
    fill(net, 1);
    EXPECT_TRUE(std::isfinite(net.forward(0).loss)) << norm;
    net.backward();
    for (const Parameter& p : net.parameters()) EXPECT_GT(moments(p.gradient).norm, 0.0) << norm << " " << p.name;
  }
}

TEST(Net, ANonFiniteBatchShowsInTheLossAndNotInTheRunningStatistics) {
  Net net(model("cnn", "batch"), {.batch = 4});
  fill(net, 1);
  net.images()[5] = std::nanf("");
  EXPECT_FALSE(std::isfinite(net.forward(0).loss));
  for (const NormState& norm : net.norms()) {
    EXPECT_EQ(norm.running->skipped, 1U) << norm.name;
    for (const float v : norm.running_mean) EXPECT_EQ(v, 0.0F);
  }
}

TEST(Net, BackwardNeedsAForward) {
  Net net(model("mlp", "none"), {.batch = 4});
  EXPECT_THROW(net.backward(), Error);
  net.forward(0);
  net.infer(4);
  EXPECT_THROW(net.backward(), Error);
}

TEST(Net, SpecsThatMakeNoSenseAreRefusedByName) {
  const auto message = [](const ModelSpec& spec, const NetOptions& options) -> std::string {
    try {
      const Net net(spec, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const auto expect = [&](const char* part, auto change, NetOptions options = {.batch = 2}) {
    ModelSpec spec = model("cnn", "batch");
    change(spec);
    EXPECT_NE(message(spec, options).find(part), std::string::npos) << message(spec, options);
  };
  expect("vgg", [](ModelSpec& s) { s.model = "vgg"; });
  expect("gelu", [](ModelSpec& s) { s.activation = "gelu"; });
  expect("height", [](ModelSpec& s) { s.height = 0; });
  expect("width", [](ModelSpec& s) { s.width = 1000000; });
  expect("per image", [](ModelSpec& s) { s.width = s.height = 4000; });
  expect("classes", [](ModelSpec& s) { s.classes = 1; });
  expect("dropout", [](ModelSpec& s) { s.dropout = 1; });
  expect("dropout", [](ModelSpec& s) { s.dropout = std::nan(""); });
  expect("scale", [](ModelSpec& s) { s.init_scale = 0; });
  expect("epsilon", [](ModelSpec& s) { s.norm.epsilon = -1; });
  expect("layer bn1 of cnn: its 16 channels do not fall into 3 groups, as norm group:3 asks; expected a divisor of 16",
         [](ModelSpec& s) { s.norm = parse_norm("group:3"); });
  expect("layer bn1 of cnn: its 16 channels do not fall into 32",
         [](ModelSpec& s) { s.norm = parse_norm("group:32"); });
  expect("batch size", [](ModelSpec&) {}, {.batch = 0});
  expect("threads", [](ModelSpec&) {}, {.threads = 0});
  expect("MiB", [](ModelSpec& s) { s.height = s.width = 1024; }, {.batch = 65536});
  for (const char* norm : {"batchnorm", "", "group", "group:", "group:0", "group:-4", "group:4x", "group:4:4",
                           "layer:2", "group:99999999999999999999"}) {
    EXPECT_THROW(parse_norm(norm), Error) << norm;
  }
  for (const char* norm : {"none", "batch", "layer", "rms", "instance", "group:8"}) {
    EXPECT_EQ(name_of(parse_norm(norm)), norm);
  }
  EXPECT_THROW(parse_init("zero"), Error);
}

}  // namespace
}  // namespace equinorm::nn
