// Batch norm from C++, on the caller's own threads: a step of training, its gradients, and an error.
//
//   c++ -std=c++20 main.cpp $(pkg-config --cflags --libs equinorm)
#include <cstddef>
#include <cstdio>
#include <equinorm/equinorm.hpp>
#include <exception>
#include <thread>
#include <vector>

namespace {

/// A stand-in for a thread pool: a thread a task.
class OwnThreads final : public equinorm::Executor {
 public:
  void run(std::size_t tasks, Task task, void* context) override {
    std::vector<std::jthread> team;
    for (std::size_t i = 0; i < tasks; ++i) team.emplace_back(task, context, i);
  }
};

/// Workspaces are aligned to 64 bytes.
struct alignas(64) CacheLine {
  std::byte bytes[64];
};

}  // namespace

int main() try {
  using equinorm::TensorView;
  const equinorm::Shape shape{64, 16, 28, 28};  // images, channels, height, width
  const auto layout = equinorm::Layout::channels_first;
  std::vector<float> x(shape.elements()), y(x.size()), dy(x.size()), dx(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i * 7919 % 1009);
    dy[i] = static_cast<float>(i * 7907 % 1013) / 1013;
  }
  const TensorView<const float> in{x.data(), shape, layout}, gradient{dy.data(), shape, layout};

  // One workspace serves every call of this shape and type, one call at a time.
  std::vector<CacheLine> workspace(equinorm::batch_norm_workspace_bytes<float>(shape, layout) / sizeof(CacheLine) + 1);

  OwnThreads threads;
  const equinorm::Execution execution{.threads = 4,
                                      .workspace = workspace.data(),
                                      .workspace_bytes = workspace.size() * sizeof(CacheLine),
                                      .executor = &threads};

  std::vector<float> running_mean(16, 0.0F), running_variance(16, 1.0F);
  equinorm::RunningStatistics<float> running{.mean = running_mean.data(), .variance = running_variance.data()};
  std::vector<double> mean(16), variance(16);
  const equinorm::BatchNormOptions options{.activation = equinorm::Activation::relu};

  // Statuses, or exceptions: throw_if_error turns one into the other.
  equinorm::throw_if_error(equinorm::batch_norm_forward<float>(options, in, {}, {}, {y.data(), shape, layout},
                                                               {mean.data(), variance.data()}, &running, execution));
  equinorm::throw_if_error(equinorm::batch_norm_backward<float>(options, in, {}, {}, gradient, {},
                                                                {mean.data(), variance.data()},
                                                                {dx.data(), shape, layout}, {}, {}, execution));
  std::printf("channel 0: mean %.4f, variance %.4f; y[0] = %.6f, dx[0] = %.6e; %zu batch so far\n", mean[0],
              variance[0], static_cast<double>(y[0]), static_cast<double>(dx[0]),
              static_cast<std::size_t>(running.batches));

  const equinorm::Status status = equinorm::batch_norm_forward<float>(
      options, in, {}, {}, {nullptr, shape, layout}, {mean.data(), variance.data()}, nullptr, execution);
  std::printf("a mistake: %s\n", status.message().c_str());
  return status.ok() ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
