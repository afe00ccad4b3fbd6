#include "nn/train.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/philox.hpp"
#include "data/dataset.hpp"
#include "data/safetensors.hpp"
#include "equinorm/status.hpp"
#include "nn/checkpoint.hpp"

namespace equinorm::nn {
namespace {

/// Images of noise with a bright square whose place is the class.
data::Dataset squares(std::size_t count, std::uint64_t seed) {
  data::Dataset dataset;
  dataset.name = "squares";
  dataset.count = count;
  dataset.height = dataset.width = 12;
  dataset.channels = 1;
  dataset.classes = 4;
  const Philox random(seed, 1);
  for (std::size_t n = 0; n < count; ++n) {
    const auto label = static_cast<std::uint8_t>(random.word(n) % 4);
    dataset.labels.push_back(label);
    for (std::size_t i = 0; i < 144; ++i) {
      const std::size_t row = i / 12, column = i % 12;
      const bool inside = row / 6 == label / 2U && column / 6 == label % 2U;
      dataset.images.push_back(static_cast<std::uint8_t>(random.word(count + n * 144 + i) % 100 + (inside ? 100 : 0)));
    }
  }
  dataset.normalization = data::Normalization::of(dataset.images, 1);
  return dataset;
}

TrainSpec mlp_spec() {
  TrainSpec spec;
  spec.model.model = "mlp";
  spec.optimizer.lr = 0.1;
  spec.batch = 32;
  spec.epochs = 4;
  return spec;
}

TEST(Train, LearnsAndGeneralizes) {
  const data::Dataset train_set = squares(512, 1), test_set = squares(301, 2);  // 301: a last batch that is not full
  std::uint64_t steps = 0;
  const TrainResult result = train(mlp_spec(), train_set, [&](const StepReport& report, const Net&) {
    EXPECT_EQ(report.step, steps++);
    EXPECT_EQ(report.epoch, report.step / 16);
    return true;
  });
  EXPECT_FALSE(result.diverged);
  EXPECT_EQ(result.steps, 64U);
  const Evaluation evaluation = evaluate(result.net, test_set);
  EXPECT_EQ(evaluation.rows, 301U);
  EXPECT_GT(evaluation.accuracy, 0.95);  // a quarter by chance
}

TEST(Train, AnObserverMayEndIt) {
  const TrainResult result =
      train(mlp_spec(), squares(64, 1), [](const StepReport& report, const Net&) { return report.step < 2; });
  EXPECT_EQ(result.steps, 3U);
}

TEST(Train, DivergenceIsAResult) {
  TrainSpec spec = mlp_spec();
  spec.model.norm = parse_norm("none");
  spec.model.activation = "relu";
  spec.optimizer.lr = 1e6;
  const TrainResult result = train(spec, squares(128, 1));
  EXPECT_TRUE(result.diverged);
  EXPECT_FALSE(std::isfinite(result.last.outcome.loss));
  EXPECT_EQ(result.steps, result.last.step);
}

TEST(Train, RefusesABatchLargerThanTheData) {
  EXPECT_THROW(train(mlp_spec(), squares(31, 1)), Error);
}

TEST(Train, EvaluationRefusesOtherImages) {
  const Net net({}, {.batch = 1, .training = false});
  EXPECT_THROW(evaluate(net, squares(10, 1)), Error);
}

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(directory_); }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  static Net net() {
    ModelSpec spec;
    spec.model = "resnet8";
    spec.height = spec.width = 12;
    spec.norm.epsilon = 1e-3;
    Net net(spec, {.batch = 4, .seed = 9});
    for (std::size_t i = 0; i < net.images().size(); ++i) net.images()[i] = static_cast<float>(i % 7);
    net.forward(0);
    return net;
  }
  /// Saves, lets `change` at the tensors and metadata, and loads again.
  template <class Change>
  std::string message_after(Change change) {
    save_checkpoint(file_, net(), data::Normalization::with({0.5}, {0.25}));
    const data::SafeTensors saved = data::SafeTensors::read(file_);
    std::vector<data::NamedTensor> tensors(saved.tensors());
    auto metadata = saved.metadata();
    change(tensors, metadata);
    const auto changed = directory_ / "changed.safetensors";
    data::write_safetensors(changed, tensors, metadata);
    try {
      load_checkpoint(changed, 1);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("equinorm-checkpoint-" + std::to_string(::getpid()));
  std::filesystem::path file_ = directory_ / "net.safetensors";
};

TEST_F(CheckpointTest, ComesBackAsItWas) {
  const Net before = net();
  save_checkpoint(file_, before, data::Normalization::with({0.1307}, {0.3081}));
  const Checkpoint after = load_checkpoint(file_, 1);
  EXPECT_EQ(after.net.spec().model, "resnet8");
  EXPECT_EQ(after.net.spec().norm.epsilon, 1e-3);
  EXPECT_EQ(after.normalization.mean, std::vector{0.1307});
  for (const Parameter& p : before.parameters()) {
    EXPECT_TRUE(std::ranges::equal(p.values, after.net.parameter(p.name).values)) << p.name;
  }
  for (std::size_t i = 0; i < before.norms().size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(before.norms()[i].running_variance, after.net.norms()[i].running_variance));
    EXPECT_EQ(after.net.norms()[i].running->batches, 1U);
  }
}

TEST_F(CheckpointTest, EveryDeviationIsNamed) {
  using Tensors = std::vector<data::NamedTensor>;
  using Metadata = std::map<std::string, std::string>;
  EXPECT_EQ(message_after([](Tensors&, Metadata&) {}), "no error");
  const auto expect = [&](const char* part, auto change) {
    const std::string message = message_after(change);
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_NE(message.find("changed.safetensors"), std::string::npos) << message;
  };
  const auto find = [](Tensors& tensors, std::string_view name) {
    return std::ranges::find(tensors, name, &data::NamedTensor::name);
  };
  static const float numbers[16] = {std::nanf("")};
  static const float negative[16] = {-1};
  expect("fc.bias", [&](Tensors& t, Metadata&) { t.erase(find(t, "fc.bias")); });
  expect("extra", [&](Tensors& t, Metadata&) { t.push_back(data::NamedTensor::of<float>("extra", {16}, numbers)); });
  expect("[4, 4]", [&](Tensors& t, Metadata&) {
    *find(t, "bn1.weight") = data::NamedTensor::of<float>("bn1.weight", {4, 4}, numbers);
  });
  expect("nan", [&](Tensors& t, Metadata&) {
    *find(t, "bn1.weight") = data::NamedTensor::of<float>("bn1.weight", {16}, numbers);
  });
  expect("running_var", [&](Tensors& t, Metadata&) {
    *find(t, "bn1.running_var") = data::NamedTensor::of<float>("bn1.running_var", {16}, negative);
  });
  expect("num_batches", [&](Tensors& t, Metadata&) {
    *find(t, "bn1.num_batches_tracked") =
        data::NamedTensor::of<float>("bn1.num_batches_tracked", {}, std::span(numbers, 1));
  });
  expect("equinorm.model", [](Tensors&, Metadata& m) { m.erase("equinorm.model"); });
  expect("vgg", [](Tensors&, Metadata& m) { m["equinorm.model"] = "vgg"; });
  expect("12x", [](Tensors&, Metadata& m) { m["equinorm.height"] = "12x"; });
  expect("-5", [](Tensors&, Metadata& m) { m["equinorm.height"] = "-5"; });
  expect("classes", [](Tensors&, Metadata& m) { m["equinorm.classes"] = "99999999"; });
  expect("deviation", [](Tensors&, Metadata& m) { m["equinorm.deviation"] = "0.5,nan"; });
}

}  // namespace
}  // namespace equinorm::nn
