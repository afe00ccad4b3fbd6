#include "nn/layers/pooling.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "nn/vectorize.hpp"
#include "parallel/parallel_for.hpp"

namespace equinorm::nn {
namespace {

// The kernels below work on one row of windows: `count` floats in a pixel (channels), pixels `count` apart, rows of the
// image `row` floats apart.

EQUINORM_VECTORIZE void max_of_window(const float* x, std::size_t row, std::size_t window, std::size_t channels,
                                      float* y, std::uint8_t* position) {
  for (std::size_t c = 0; c < channels; ++c) {
    float best = x[c];
    std::int32_t at = 0;
    for (std::size_t i = 0; i < window; ++i) {
      for (std::size_t j = 0; j < window; ++j) {
        const float value = x[i * row + j * channels + c];
        const bool better = value > best || value != value;  // a NaN wins and stays
        best = better ? value : best;
        at = better ? static_cast<std::int32_t>(i * window + j) : at;
      }
    }
    y[c] = best;
    position[c] = static_cast<std::uint8_t>(at);
  }
}

// Windows of 2×2, for which only straight code is fast enough to hide behind memory: kLanes channels at a time, their
// number known to the compiler, then the rest one by one. The pointers of a call point to the same channel.
constexpr std::size_t kLanes = 16;

template <std::size_t lanes>
[[gnu::always_inline]] inline void maximum(const float* __restrict x, std::size_t row, std::size_t channels,
                                           float* __restrict y, std::uint8_t* __restrict position) {
  for (std::size_t i = 0; i < lanes; ++i) {
    float best = x[i];
    std::int32_t at = 0;
    const auto challenge = [&](float value, std::int32_t here) {
      const bool better = value > best || value != value;
      best = better ? value : best;
      at = better ? here : at;
    };
    challenge(x[channels + i], 1);
    challenge(x[row + i], 2);
    challenge(x[row + channels + i], 3);
    y[i] = best;
    position[i] = static_cast<std::uint8_t>(at);
  }
}

template <std::size_t lanes>
[[gnu::always_inline]] inline void spread(const float* __restrict dy, const std::uint8_t* __restrict position,
                                          std::size_t row, std::size_t channels, float* __restrict dx) {
  for (std::size_t i = 0; i < lanes; ++i) {
    // By masks: of `at == k ? g : 0` the compiler makes branches around the load of g.
    const auto g = std::bit_cast<std::uint32_t>(dy[i]);
    const std::uint32_t at = position[i];
    const auto only_if = [g](bool here) { return std::bit_cast<float>(g & (0U - static_cast<std::uint32_t>(here))); };
    dx[i] = only_if(at == 0);
    dx[channels + i] = only_if(at == 1);
    dx[row + i] = only_if(at == 2);
    dx[row + channels + i] = only_if(at == 3);
  }
}

EQUINORM_VECTORIZE void max_of_2x2(const float* x, std::size_t row, std::size_t windows, std::size_t channels, float* y,
                                   std::uint8_t* position) {
  for (std::size_t w = 0; w < windows; ++w, x += 2 * channels, y += channels, position += channels) {
    std::size_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) maximum<kLanes>(x + c, row, channels, y + c, position + c);
    for (; c < channels; ++c) maximum<1>(x + c, row, channels, y + c, position + c);
  }
}

EQUINORM_VECTORIZE void spread_2x2(const float* dy, const std::uint8_t* position, std::size_t row, std::size_t windows,
                                   std::size_t channels, float* dx) {
  for (std::size_t w = 0; w < windows; ++w, dy += channels, position += channels, dx += 2 * channels) {
    std::size_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) spread<kLanes>(dy + c, position + c, row, channels, dx + c);
    for (; c < channels; ++c) spread<1>(dy + c, position + c, row, channels, dx + c);
  }
}

EQUINORM_VECTORIZE void spread_maximum(const float* dy, const std::uint8_t* position, std::size_t row,
                                       std::size_t window, std::size_t windows, std::size_t channels, float* dx) {
  for (std::size_t w = 0; w < windows; ++w) {
    for (std::size_t i = 0; i < window; ++i) {
      for (std::size_t j = 0; j < window; ++j) {
        const auto here = static_cast<std::int32_t>(i * window + j);
        float* to = dx + i * row + (w * window + j) * channels;
        for (std::size_t c = 0; c < channels; ++c) {
          to[c] = std::int32_t{position[w * channels + c]} == here ? dy[w * channels + c] : 0.0F;
        }
      }
    }
  }
}

EQUINORM_VECTORIZE void mean_of_window(const float* x, std::size_t row, std::size_t height, std::size_t width,
                                       std::size_t channels, float* y) {
  const float share = 1.0F / static_cast<float>(height * width);
  for (std::size_t c = 0; c < channels; ++c) y[c] = 0;
  for (std::size_t i = 0; i < height; ++i) {
    for (std::size_t j = 0; j < width; ++j) {
      for (std::size_t c = 0; c < channels; ++c) y[c] += x[i * row + j * channels + c];
    }
  }
  for (std::size_t c = 0; c < channels; ++c) y[c] *= share;
}

EQUINORM_VECTORIZE void spread_mean(const float* dy, std::size_t row, std::size_t height, std::size_t width,
                                    std::size_t channels, float* dx) {
  const float share = 1.0F / static_cast<float>(height * width);
  for (std::size_t i = 0; i < height; ++i) {
    for (std::size_t j = 0; j < width; ++j) {
      for (std::size_t c = 0; c < channels; ++c) dx[i * row + j * channels + c] = dy[c] * share;
    }
  }
}

/// Where the windows of an image lie.
struct Grid {
  Grid(const Shape& in, const Shape& out, std::size_t window)
      : images(in[0]),
        row(in[2] * in[3]),
        image(in[1] * row),
        rows(out[1]),
        columns(out[2]),
        channels(in[3]),
        step(window * channels),
        exact(in[1] == rows * window && in[2] == columns * window) {}
  std::size_t images, row, image, rows, columns, channels, step;
  bool exact;  // no pixel is left out

  std::size_t in_at(std::size_t n, std::size_t i, std::size_t window) const { return n * image + i * window * row; }
  std::size_t out_at(std::size_t n, std::size_t i) const { return (n * rows + i) * columns * channels; }
};

/// Calls body(n, i) for row i of windows of image n; blocks are images. Pixels outside all windows get no gradient.
template <class Body>
void for_each_row(const Grid& grid, int threads, float* dx, const Body& body) {
  parallel_for(grid.images, threads, [&](std::size_t n) {
    if (dx != nullptr && !grid.exact) std::fill_n(dx + n * grid.image, grid.image, 0.0F);
    for (std::size_t i = 0; i < grid.rows; ++i) body(n, i);
  });
}

}  // namespace

MaxPool::MaxPool(std::string name, const Shape& out, std::size_t window, bool training)
    : Layer(std::move(name), "pool"), window_(window) {
  // Positions, a byte each (window² < 256); in inference they are written all the same, to scratch.
  (training ? plan_.saved : plan_.workspace) = out.elements();
}

void MaxPool::forward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  auto* const positions = reinterpret_cast<std::uint8_t*>(bound_.saved != nullptr ? bound_.saved : bound_.workspace);
  for_each_row(grid, call.threads, nullptr, [&](std::size_t n, std::size_t i) {
    const float* x = in().values + grid.in_at(n, i, window_);
    float* y = out().values + grid.out_at(n, i);
    std::uint8_t* position = positions + grid.out_at(n, i);
    if (window_ == 2) {
      max_of_2x2(x, grid.row, grid.columns, grid.channels, y, position);
      return;
    }
    for (std::size_t j = 0; j < grid.columns; ++j) {
      max_of_window(x + j * grid.step, grid.row, window_, grid.channels, y + j * grid.channels,
                    position + j * grid.channels);
    }
  });
}

void MaxPool::backward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  const auto* const positions = reinterpret_cast<const std::uint8_t*>(bound_.saved);
  for_each_row(grid, call.threads, in().gradient, [&](std::size_t n, std::size_t i) {
    const float* dy = out().gradient + grid.out_at(n, i);
    const std::uint8_t* position = positions + grid.out_at(n, i);
    float* dx = in().gradient + grid.in_at(n, i, window_);
    if (window_ == 2) {
      spread_2x2(dy, position, grid.row, grid.columns, grid.channels, dx);
    } else {
      spread_maximum(dy, position, grid.row, window_, grid.columns, grid.channels, dx);
    }
  });
}

AveragePool::AveragePool(std::string name, std::size_t window) : Layer(std::move(name), "pool"), window_(window) {}

void AveragePool::forward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  for_each_row(grid, call.threads, nullptr, [&](std::size_t n, std::size_t i) {
    for (std::size_t j = 0; j < grid.columns; ++j) {
      mean_of_window(in().values + grid.in_at(n, i, window_) + j * grid.step, grid.row, window_, window_, grid.channels,
                     out().values + grid.out_at(n, i) + j * grid.channels);
    }
  });
}

void AveragePool::backward(const Call& call) {
  const Grid grid(in().shape, out().shape, window_);
  for_each_row(grid, call.threads, in().gradient, [&](std::size_t n, std::size_t i) {
    for (std::size_t j = 0; j < grid.columns; ++j) {
      spread_mean(out().gradient + grid.out_at(n, i) + j * grid.channels, grid.row, window_, window_, grid.channels,
                  in().gradient + grid.in_at(n, i, window_) + j * grid.step);
    }
  });
}

GlobalAveragePool::GlobalAveragePool(std::string name) : Layer(std::move(name), "pool") {}

void GlobalAveragePool::forward(const Call& call) {
  const Shape& s = in().shape;
  parallel_for(s[0], call.threads, [&](std::size_t n) {
    mean_of_window(in().values + n * s[1] * s[2] * s[3], s[2] * s[3], s[1], s[2], s[3], out().values + n * s[3]);
  });
}

void GlobalAveragePool::backward(const Call& call) {
  const Shape& s = in().shape;
  parallel_for(s[0], call.threads, [&](std::size_t n) {
    spread_mean(out().gradient + n * s[3], s[2] * s[3], s[1], s[2], s[3], in().gradient + n * s[1] * s[2] * s[3]);
  });
}

}  // namespace equinorm::nn
