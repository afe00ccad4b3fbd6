// Which rows a step sees: a pure function of (seed, epoch), whatever ran before and on however many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "data/dataset.hpp"

namespace equinorm::data {

/// The rows 0 … count−1 in order. Throws Error if they are more than 32 bits count.
std::vector<std::uint32_t> all_rows(std::size_t count);

/// Shuffles uniformly (Fisher–Yates); the permutation depends on (seed, epoch, rows.size()) alone.
void shuffle(std::span<std::uint32_t> rows, std::uint64_t seed, std::uint64_t epoch);

enum class Strata {
  none,     ///< every subset is equally likely
  classes,  ///< each class keeps its share, up to one row
};

/// `size` rows of the data set, drawn without replacement, in random order. A smaller subset of the same seed is the
/// front of a larger one. Throws Error if the data set has fewer rows.
std::vector<std::uint32_t> subset(const Dataset& dataset, std::size_t size, std::uint64_t seed, Strata strata);

/// What becomes of the rows at the end that do not fill a batch.
enum class LastBatch {
  drop,  ///< in training: a batch of another size would be another optimizer, and batch norm cannot take one row
  keep,  ///< in evaluation: every row counts
};

/// An epoch cut into batches.
///
///   Batches batches(all_rows(train.count), 128, LastBatch::drop);
///   batches.shuffle(seed, epoch);
///   for (std::size_t i = 0; i < batches.size(); ++i) gather(train, batches[i], net.images(), net.labels());
class Batches {
 public:
  /// Throws Error if batch is 0, or if there would be no batch at all.
  Batches(std::vector<std::uint32_t> rows, std::size_t batch, LastBatch last);

  /// The order of an epoch: a permutation of the rows in the order the constructor was given them, not of the epoch
  /// before. Allocates nothing.
  void shuffle(std::uint64_t seed, std::uint64_t epoch);

  std::size_t size() const;  ///< number of batches
  std::span<const std::uint32_t> operator[](std::size_t index) const;

 private:
  std::vector<std::uint32_t> rows_;
  std::vector<std::uint32_t> order_;
  std::size_t batch_;
  LastBatch last_;
};

}  // namespace equinorm::data
