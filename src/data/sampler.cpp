#include "data/sampler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "core/philox.hpp"
#include "equinorm/status.hpp"

namespace equinorm::data {
namespace {

// The streams of Philox that sampling uses: a name in the upper half, the epoch in the lower, so that neither meets the
// streams of weights or dropout under the same seed.
constexpr std::uint64_t kEpochStream = std::uint64_t{0x65706F63} << 32;   // "epoc"
constexpr std::uint64_t kSubsetStream = std::uint64_t{0x73756273} << 32;  // "subs"

// Uniform in 0 … n−1: the upper part of 64 random bits times n (Lemire 2019, arXiv:1805.10941, without the rejection:
// its bias is below n/2⁶⁴), in two steps of 32 bits.
std::uint32_t below(std::uint32_t n, const std::array<std::uint32_t, 4>& words) {
  const std::uint64_t low = std::uint64_t{words[1]} * n >> 32;
  return static_cast<std::uint32_t>((std::uint64_t{words[0]} * n + low) >> 32);
}

void permute(std::span<std::uint32_t> rows, const Philox& random) {
  for (std::size_t i = rows.size(); i > 1; --i) {
    std::swap(rows[i - 1], rows[below(static_cast<std::uint32_t>(i), random.block(i))]);
  }
}

}  // namespace

std::vector<std::uint32_t> all_rows(std::size_t count) {
  if (count > 0xFFFFFFFF) throw Error(fmt::format("{} rows; expected at most {}", count, 0xFFFFFFFF));
  std::vector<std::uint32_t> rows(count);
  std::iota(rows.begin(), rows.end(), 0U);
  return rows;
}

void shuffle(std::span<std::uint32_t> rows, std::uint64_t seed, std::uint64_t epoch) {
  permute(rows, Philox(seed, kEpochStream + epoch));
}

std::vector<std::uint32_t> subset(const Dataset& dataset, std::size_t size, std::uint64_t seed, Strata strata) {
  if (size > dataset.count) {
    throw Error(fmt::format("{}: a subset of {} rows was asked for; there are {}", dataset.name, size, dataset.count));
  }
  std::vector<std::uint32_t> rows = all_rows(dataset.count);
  permute(rows, Philox(seed, kSubsetStream));
  if (strata == Strata::classes) {
    // Row j (from 0) of n in its class stands at (j + ½)/n. Sorted by that, any front of the list holds
    // every class in its share, rounded.
    std::array<double, 256> sizes{}, seen{};
    for (const std::uint8_t label : dataset.labels) ++sizes[label];
    std::vector<double> place(dataset.count);
    for (const std::uint32_t row : rows) {
      const std::uint8_t label = dataset.labels[row];
      place[row] = (seen[label]++ + 0.5) / sizes[label];
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [&place](std::uint32_t a, std::uint32_t b) { return place[a] < place[b]; });
  }
  rows.resize(size);
  return rows;
}

Batches::Batches(std::vector<std::uint32_t> rows, std::size_t batch, LastBatch last)
    : rows_(std::move(rows)), order_(rows_), batch_(batch), last_(last) {
  if (batch == 0) throw Error("batch size 0; expected at least 1");
  if (size() == 0) throw Error(fmt::format("batch size {}; there are only {} rows", batch, rows_.size()));
}

void Batches::shuffle(std::uint64_t seed, std::uint64_t epoch) {
  std::copy(rows_.begin(), rows_.end(), order_.begin());
  data::shuffle(order_, seed, epoch);
}

std::size_t Batches::size() const {
  const std::size_t full = order_.size() / batch_;
  return last_ == LastBatch::keep && order_.size() % batch_ != 0 ? full + 1 : full;
}

std::span<const std::uint32_t> Batches::operator[](std::size_t index) const {
  const std::size_t first = index * batch_;
  return std::span(order_).subspan(first, std::min(batch_, order_.size() - first));
}

}  // namespace equinorm::data
