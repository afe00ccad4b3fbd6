// equinorm bench batch_norm: a copy of the tensor, ours and oneDNN's, interleaved in one run.
#include <fmt/core.h>

#include <charconv>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "commands.hpp"
#include "core/philox.hpp"
#include "equinorm/batch_norm.hpp"
#include "interleaved.hpp"
#include "parallel/parallel_for.hpp"
#include "peers/onednn_batch_norm.hpp"

namespace equinorm::app {
namespace {

struct Options {
  std::string shape = "32,64,56,56";
  std::string layout = "nhwc";
  std::string pass = "train";
  std::string simd;
  bool relu = false, add = false, json = false;
  int threads = 1;
  double seconds = 1;
};

/// 64-byte aligned floats, every page touched.
struct Buffer {
  explicit Buffer(std::size_t count) : memory(count + 16) {
    void* p = memory.data();
    std::size_t space = memory.size() * sizeof(float);
    data = static_cast<float*>(std::align(64, count * sizeof(float), p, space));
  }
  std::vector<float> memory;
  float* data;
};

std::array<std::size_t, 4> parse_shape(const std::string& text) {
  std::array<std::size_t, 4> extents{};
  std::istringstream stream(text);
  std::string part;
  std::size_t count = 0, elements = 1;
  while (std::getline(stream, part, ',')) {
    std::size_t extent = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), extent);
    if (error != std::errc() || end != part.data() + part.size() || extent == 0 || extent > (1U << 30) || count == 4) {
      throw Error("--shape is '" + text + "'; expected N,C,H,W or N,C, each at least 1");
    }
    extents[count++] = extent;
    elements *= extent;
    if (elements > (std::size_t{1} << 31))
      throw Error("--shape " + text + " is too large; expected at most 2^31 elements");
  }
  if (count == 2) extents[2] = extents[3] = 1;
  if (count != 2 && count != 4) throw Error("--shape is '" + text + "'; expected N,C,H,W or N,C");
  return extents;
}

void run(const Options& o) {
  throw_if_error(set_simd_target(o.simd));
  set_openmp_threads(o.threads);  // what oneDNN goes by
  const auto [n, c, h, w] = parse_shape(o.shape);
  const Layout layout = o.layout == "nhwc" ? Layout::channels_last : Layout::channels_first;
  const Shape shape = layout == Layout::channels_last ? Shape{n, h, w, c} : Shape{n, c, h, w};
  const std::size_t count = shape.elements();

  const Philox random(1, 1);
  std::vector<std::unique_ptr<Buffer>> buffers;
  const auto tensor = [&](std::size_t size) {
    buffers.push_back(std::make_unique<Buffer>(size));
    for (std::size_t i = 0; i < size; ++i) buffers.back()->data[i] = random.uniform(buffers.size() * 7919 + i) * 2 - 1;
    return buffers.back()->data;
  };
  const bool backward = o.pass == "backward";
  float* x = tensor(count);
  float* y = tensor(count);
  float* residual = o.add ? tensor(count) : nullptr;
  float* dy = backward ? tensor(count) : nullptr;
  float* dx = backward ? tensor(count) : nullptr;
  float* dresidual = backward && o.add ? tensor(count) : nullptr;
  float *gamma = tensor(c), *beta = tensor(c), *dgamma = tensor(c), *dbeta = tensor(c);
  float *mean = tensor(c), *variance = tensor(c);
  for (std::size_t i = 0; i < c; ++i) variance[i] = 1;
  std::vector<double> saved_mean(c), saved_variance(c);
  const std::size_t workspace_floats = batch_norm_workspace_bytes<float>(shape, layout) / sizeof(float);
  float* workspace = tensor(workspace_floats);

  const Execution execution{o.threads, workspace, workspace_floats * sizeof(float)};
  BatchNormOptions options;
  options.activation = o.relu ? Activation::relu : Activation::none;
  const auto view = [&](auto* p) { return TensorView<std::remove_pointer_t<decltype(p)>>{p, shape, layout}; };
  const auto in = [&](const float* p) { return view(p); };
  const Statistics statistics{saved_mean.data(), saved_variance.data()};
  const auto train = [&] {
    throw_if_error(
        batch_norm_forward(options, in(x), {gamma, beta}, in(residual), view(y), statistics, nullptr, execution));
  };
  const auto infer = [&] {
    throw_if_error(
        batch_norm_inference(options, in(x), {gamma, beta}, mean, variance, in(residual), view(y), execution));
  };
  const auto back = [&] {
    throw_if_error(batch_norm_backward(options, in(x), in(o.add ? y : nullptr), in(dy), {gamma, beta}, statistics,
                                       view(dx), view(dresidual), {dgamma, dbeta}, execution));
  };
  const auto copy = [&] {
    constexpr std::size_t kPiece = 1 << 16;
    const std::size_t pieces = (count + kPiece - 1) / kPiece;
    parallel_ranges(pieces, o.threads, [&](std::size_t begin, std::size_t end) {
      const std::size_t from = begin * kPiece, to = std::min(end * kPiece, count);
      std::memcpy(y + from, x + from, (to - from) * sizeof(float));
    });
  };
  const auto peer = bench::onednn_batch_norm(
      n, c, h, w, layout, {x, residual, y, dy, dx, gamma, beta, mean, variance, dgamma, dbeta, o.relu});

  train();
  if (backward) {
    peer.train();
    train();
  }
  const auto timings = bench::interleaved({{"copy", copy},
                                           {"equinorm", backward            ? std::function(back)
                                                        : o.pass == "infer" ? infer
                                                                            : std::function(train)},
                                           {"onednn", backward            ? peer.backward
                                                      : o.pass == "infer" ? peer.infer
                                                                          : peer.train}},
                                          o.seconds);
  const double copy_ms = timings[0].median_ms;
  if (o.json) {
    nlohmann::ordered_json json{{"op", "batch_norm"},   {"shape", {n, c, h, w}}, {"layout", o.layout},
                                {"pass", o.pass},       {"relu", o.relu},        {"add", o.add},
                                {"threads", o.threads}, {"simd", simd_target()}};
    for (const auto& t : timings) {
      json["results"].push_back({{"name", t.name},
                                 {"median_ms", t.median_ms},
                                 {"best_ms", t.best_ms},
                                 {"spread", t.spread},
                                 {"of_copy", t.median_ms / copy_ms}});
    }
    fmt::print("{}\n", json.dump());
    return;
  }
  fmt::print("batch_norm {} {} {}{}{}, {} thread{}, {}\n", o.pass, o.shape, o.layout, o.add ? " + add" : "",
             o.relu ? " + relu" : "", o.threads, o.threads == 1 ? "" : "s", simd_target());
  for (const auto& t : timings) {
    fmt::print("  {:<10} {:9.4f} ms  {:6.2f} × copy  (spread {:.0f} %)\n", t.name, t.median_ms, t.median_ms / copy_ms,
               t.spread * 100);
  }
}

}  // namespace

void add_bench_batch_norm(CLI::App& bench) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand(
      "batch_norm", "Batch norm beside a copy of its tensor and oneDNN, interleaved in one run; medians and ratios");
  command->add_option("--shape", options->shape, "N,C,H,W (or N,C for a matrix), whatever the layout")
      ->capture_default_str();
  command->add_option("--layout", options->layout)->check(CLI::IsMember({"nhwc", "nchw"}))->capture_default_str();
  command->add_option("--pass", options->pass)
      ->check(CLI::IsMember({"train", "backward", "infer"}))
      ->capture_default_str();
  command->add_flag("--relu", options->relu, "Fuse a ReLU");
  command->add_flag("--add", options->add, "Fuse a residual add before the ReLU");
  command->add_option("--threads", options->threads)->check(CLI::Range(1, 1024))->capture_default_str();
  command->add_option("--simd", options->simd, "Force an instruction set (an unknown name lists them)");
  command->add_option("--seconds", options->seconds, "How long to measure")
      ->check(CLI::Range(0.01, 600.0))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print one line of JSON");
  command->callback([options] { run(*options); });
}

}  // namespace equinorm::app
