// Group norm over [samples, positions, channels]: a sample is a matrix for the column kernels, normalized, whole or
// part by part, while it is still in the caches.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include "ops/group_norm/groups.hpp"
#include "reduce/moments.hpp"

namespace equinorm::group_norm {

template <class T>
struct ColumnScratch : GradientSums {
  /// out: what is written with the coefficients, if anything.
  ColumnScratch(const Plan& p, Workspace& workspace, const T* out = nullptr) : GradientSums(p.g, workspace) {
    const std::size_t width = p.columns.width;
    first = workspace.take<double>(width);
    second = workspace.take<double>(width);
    sum = workspace.take<double>(width);
    dot = workspace.take<double>(width);
    mean = workspace.take<double>(p.g.groups);
    inverse = workspace.take<double>(p.g.groups);
    care = workspace.take<unsigned char>(p.g.groups);
    coefficients = kernels::CoefficientArrays<T>(workspace, width, out);
  }

  double *sum, *dot;       ///< [columns], of a sample so far: means and M2, then Σg and Σ g·(x − mean)
  double *first, *second;  ///< the same of a part but the first
  double *mean, *inverse;  ///< [groups], and 1/√(variance + ε)
  unsigned char* care;     ///< [groups]
  kernels::CoefficientArrays<T> coefficients;
};

template <class T>
class Columns : Groups<T, ColumnScratch<T>> {
  using Base = Groups<T, ColumnScratch<T>>;
  using typename Base::P;

 public:
  using Scratch = ColumnScratch<T>;

  using Base::Base;

  void forward(kernels::Forward<T> t, const Statistics& out) const {
    t.stream = this->streams(p_.columns.width, {t.y});
    t.claim = kernels::claims<T>(g_.samples * g_.sample_elements(), t.stream);
    this->begin_statistics(out);
    this->run(
        !t.stream && t.residual != nullptr, [](const Scratch&, const Part&) {},
        [&](const Scratch& s, const Part& p) { moments(t.x, s, p); },
        [&](const Scratch& of_sample, const Scratch& of_part, const Part& p) { take_moments(of_sample, of_part, p); },
        [&](const Scratch& s, const Part& p) {
          const double inverse_count = 1 / static_cast<double>(g_.group_channels * p.positions);
          const kernels::ColumnPlan columns = this->columns(p);
          for (std::size_t k = 0; k < g_.groups; ++k) {
            const Moments moments = group_moments(s, p, columns, k);
            const double variance = moments.m2 * inverse_count;
            set_statistics(s, k, moments.mean, variance);
            this->tell(out, first_group(p) + k, moments.mean, variance);
          }
          write_forward(s, p);
        },
        [&](const Scratch& s, const Part& p) { normalize(t, s, p); });
    this->clear(t.y);
  }

  void backward(kernels::Backward<T> t, const Statistics& statistics, const AffineGradients<T>& gradients) const {
    t.stream = this->streams(p_.columns.width, {t.dx, t.dresidual});
    t.claim = kernels::claims<T>(g_.samples * g_.sample_elements(), t.stream);
    t.gate_first(!t.stream);
    const kernels::Backward<T> rest = t.after_sums(true);
    // The sums leave a careful sample alone.
    const auto after_dots = [&](const Scratch& s) -> const kernels::Backward<T>& {
      return needs_care(s, kOfValues) ? t : rest;
    };
    this->begin_gradients();
    this->run(
        !t.stream,
        [&](const Scratch& s, const Part& p) {
          for (std::size_t k = 0, at = first_group(p); k < g_.groups; ++k, ++at) {
            set_statistics(s, k, statistics.mean[at], statistics.variance[at]);
          }
          write_forward(s, p);
          write_units(s, p);
        },
        [&](const Scratch& s, const Part& p) { dots(t, s, p); },
        [&](const Scratch& of_sample, const Scratch& of_part, const Part& p) { take_dots(of_sample, of_part, p); },
        [&](const Scratch& s, const Part& p) { finish_gradients(after_dots(s), s, p); },
        [&](const Scratch& s, const Part& p) { differentiate(after_dots(s), s, p); });
    this->clear(t.dx);
    this->clear(t.dresidual);
    this->end_gradients(gradients);
  }

 private:
  static constexpr std::size_t kSamplesOfThread = 4;  ///< so many are dealt fairly enough

  /// What a group may need care of: floats are too narrow for its values, or for the slope of its gradient.
  static constexpr unsigned char kOfValues = 1, kOfSlope = 2;

  /// Of a sample, some rows.
  struct Part {
    std::size_t task;  ///< whose sums its gradients are added to
    std::size_t sample, index;
    std::size_t positions;  ///< of the sample, that are not padding
  };
  Part part_of(std::size_t task, std::size_t sample, std::size_t index) const {
    return {task, sample, index, g_.lengths == nullptr ? g_.positions : g_.lengths[sample]};
  }

  /// For each sample: prepare(scratch, part) for each scratch, reduce(scratch, part) for its parts, take(scratch of the
  /// sample, of the part, part) in their order, finish(scratch of the sample, part) once, then apply(scratch of the
  /// sample, part) for the parts, the last first, which is in the caches; or in_order: where an output stays in the
  /// caches too, and two inputs are read, that is foreseen by the hardware, and worth more (measured: up to 12 % less).
  template <class Prepare, class Reduce, class Take, class Finish, class Apply>
  void run(bool in_order, const Prepare& prepare, const Reduce& reduce, const Take& take, const Finish& finish,
           const Apply& apply) const {
    const auto run_samples = [&](std::size_t task, std::size_t begin, std::size_t end, const Scratch& s) {
      for (std::size_t sample = begin; sample < end; ++sample) {
        Part p = part_of(task, sample, 0);
        if (p.positions == 0) continue;
        prepare(s, p);
        for (p.index = 0; p.index < p_.parts; ++p.index) {
          reduce(s, p);
          take(s, s, p);
        }
        finish(s, p);
        for (std::size_t i = 0; i < p_.parts; ++i) {
          p.index = in_order ? i : p_.parts - 1 - i;
          apply(s, p);
        }
      }
    };
    if (!p_.split) {
      parallel_ranges(p_.tasks, workers_, [&](std::size_t first, std::size_t last) {
        for (std::size_t task = first; task < last; ++task) {
          run_samples(task, task * p_.units / p_.tasks, (task + 1) * p_.units / p_.tasks, s_[first]);
        }
      });
      return;
    }
    // Parts are tasks where samples are too few to go round.
    const auto threads = static_cast<std::size_t>(std::max(workers_.threads, 1));
    if (p_.units % threads == 0 || p_.units >= kSamplesOfThread * threads) {
      parallel_ranges(p_.units, workers_, [&](std::size_t first, std::size_t last) {
        for (std::size_t i = first; i < last; ++i) run_samples(i * p_.parts, i, i + 1, s_[first * p_.parts]);
      });
      return;
    }
    const auto first_task = [&](std::size_t task) { return task / p_.parts * p_.parts; };  // of its sample
    const auto part = [&](std::size_t task) { return part_of(first_task(task), task / p_.parts, task % p_.parts); };
    parallel_for(p_.tasks, workers_, [&](std::size_t task) {
      prepare(s_[task], part(task));
      reduce(s_[task], part(task));
    });
    for (std::size_t task = 0; task < p_.tasks; ++task) {
      take(s_[first_task(task)], s_[task], part(task));
      if ((task + 1) % p_.parts == 0) finish(s_[first_task(task)], part(task));
    }
    parallel_for(p_.tasks, workers_, [&](std::size_t task) { apply(s_[first_task(task)], part(task)); });
  }

  // --- Where a sample lies. ---

  std::size_t origin(const Part& p) const { return p.sample * g_.sample_elements(); }

  /// Of one that is shorter than the longest, too.
  kernels::ColumnPlan columns(const Part& p) const {
    return g_.lengths == nullptr ? p_.columns : kernels::ColumnPlan::of<T>(p.positions, g_.channels);
  }

  /// Calls body(element, block) for the blocks of rows of a part, and for what is left over of the sample.
  template <class Body>
  void for_each_block(const Part& p, const Body& body) const {
    const kernels::ColumnPlan c = columns(p);
    const std::size_t begin = first_row(c, p.index), end = first_row(c, p.index + 1);
    if (begin < end) body(origin(p) + begin * c.width, Block{end - begin, c.width, c.width, much_});
    if (p.index + 1 == p_.parts && c.tail > 0) body(origin(p) + c.rows * c.width, Block{1, c.width, c.tail});
  }

  /// Where a part begins, as for_each_block cuts them.
  std::size_t first_row(const kernels::ColumnPlan& c, std::size_t part) const {
    return part == p_.parts ? c.rows : c.rows * part / p_.parts / Plan::kRowsOfPart * Plan::kRowsOfPart;
  }

  kernels::Run elements(const Part& p, std::size_t c) const { return {origin(p) + c, g_.channels, p.positions}; }

  /// Where what a part comes to is put: the first is the sample's so far.
  struct Sums {
    double *first, *second;
  };
  Sums sums_of_part(const Scratch& s, const Part& p) const {
    return p.index == 0 ? Sums{s.sum, s.dot} : Sums{s.first, s.second};
  }

  // --- Groups and their channels. ---

  /// Group 0 of the sample among all.
  std::size_t first_group(const Part& p) const { return p.sample * g_.groups; }

  void set_statistics(const Scratch& s, std::size_t k, double mean, double variance) const {
    s.mean[k] = mean;
    s.inverse[k] = this->inverse_deviation(variance);
    s.care[k] = kernels::needs_care<T>(mean, variance) ? kOfValues : 0;
  }

  bool needs_care(const Scratch& s, unsigned char what) const {
    unsigned char any = 0;
    for (std::size_t k = 0; k < g_.groups; ++k) any |= s.care[k];
    return (any & what) != 0;
  }

  kernels::Channel channel(const Scratch& s, std::size_t c) const {
    const std::size_t k = c / g_.group_channels;
    return {s.mean[k], this->gamma(c) * s.inverse[k], this->beta(c)};
  }

  /// Calls body(k, c) for every channel c, of group k.
  template <class Body>
  void for_each_channel(const Body& body) const {
    for (std::size_t k = 0, c = 0; k < g_.groups; ++k) {
      for (const std::size_t end = c + g_.group_channels; c < end; ++c) body(k, c);
    }
  }

  /// Copies what stands for the first row of a fold to the others.
  void repeat(const Part& p, P* array) const {
    const std::size_t width = columns(p).width;
    for (std::size_t at = g_.channels; at < width; at += g_.channels) std::copy_n(array, g_.channels, array + at);
  }

  void write_forward(const Scratch& s, const Part& p) const {
    const kernels::CoefficientArrays<T>& coefficients = s.coefficients;
    for (std::size_t k = 0; k < g_.groups; ++k) {
      const double inverse = s.inverse[k], rest = kernels::mean_rest<P>(s.mean[k]);
      const auto mean = static_cast<P>(s.mean[k]);
      for (std::size_t c = k * g_.group_channels; c < (k + 1) * g_.group_channels; ++c) {
        const double scale = this->gamma(c) * inverse;
        coefficients.mean[c] = mean;
        coefficients.scale[c] = static_cast<P>(scale);
        coefficients.shift[c] = static_cast<P>(this->beta(c) - rest * scale);
      }
    }
    for (P* array : {coefficients.mean, coefficients.scale, coefficients.shift}) repeat(p, array);
  }

  void write_units(const Scratch& s, const Part& p) const {
    P* const unit = s.coefficients.unit;
    for (std::size_t k = 0; k < g_.groups; ++k) {
      std::fill_n(unit + k * g_.group_channels, g_.group_channels,
                  static_cast<P>(kernels::unit_of(s.inverse[k], s.mean[k])));
    }
    repeat(p, unit);
  }

  // --- Forward. ---

  /// Whether a group lies in one piece, and its moments are taken so; else they are put together from its columns'.
  bool in_one_piece() const { return g_.positions == 1 && g_.lengths == nullptr; }

  /// The moments of every column of a part; or of the groups in one piece.
  void moments(const T* x, const Scratch& s, const Part& p) const {
    const Sums found = sums_of_part(s, p);
    if (in_one_piece()) {
      for (std::size_t k = 0; k < g_.groups; k += kMaxPlaneChannels) {
        const std::size_t count = std::min(kMaxPlaneChannels, g_.groups - k);
        for (std::size_t i = 0; i < g_.group_channels; i += Plan::kPieceElements) {
          const std::size_t of_piece = std::min(Plan::kPieceElements, g_.group_channels - i);
          kernel_.plane_moments(x + origin(p) + k * g_.group_channels + i,
                                {1, 0, count, g_.group_channels, of_piece, cached_}, i, found.first + k,
                                found.second + k);
        }
      }
      return;
    }
    std::size_t rows = 0;
    for_each_block(p, [&](std::size_t at, const Block& block) {
      kernel_.column_moments(x + at, block, rows, found.first, found.second);
      rows += block.rows;
    });
  }

  /// Merges what `moments` found of a part into the sample's.
  void take_moments(const Scratch& of_sample, const Scratch& of_part, const Part& p) const {
    if (p.index == 0) return;
    const kernels::ColumnPlan c = columns(p);
    const auto take = [&](std::size_t begin, std::size_t end, std::size_t before, std::size_t more) {
      merge_moments(end - begin, before, of_sample.sum + begin, of_sample.dot + begin, more, of_part.first + begin,
                    of_part.second + begin);
    };
    const std::size_t before = first_row(c, p.index), rows = first_row(c, p.index + 1) - before;
    const std::size_t tail = p.index + 1 == p_.parts ? c.tail : 0;
    take(0, tail, before, rows + 1);
    take(tail, c.width, before, rows);
  }

  /// The moments of group k, all parts taken. Columns before the tail's end are a row longer than the others.
  Moments group_moments(const Scratch& s, const Part& p, const kernels::ColumnPlan& columns, std::size_t k) const {
    if (in_one_piece()) return {static_cast<double>(g_.group_channels), s.sum[k], s.dot[k]};
    const auto rows = static_cast<double>(columns.rows);
    const auto for_each_fold = [&](const auto& body) {
      for (std::size_t begin = k * g_.group_channels; begin < columns.width; begin += g_.channels) {
        body(begin, begin + g_.group_channels, std::clamp(columns.tail, begin, begin + g_.group_channels));
      }
    };
    double of_all = 0, of_longer = 0;
    for_each_fold([&](std::size_t begin, std::size_t end, std::size_t longer) {
      for (std::size_t at = begin; at < end; ++at) of_all += s.sum[at];
      for (std::size_t at = begin; at < longer; ++at) of_longer += s.sum[at];
    });
    Moments m{static_cast<double>(g_.group_channels * p.positions), 0, 0};
    m.mean = (rows * of_all + of_longer) / m.count;
    of_all = of_longer = 0;
    for_each_fold([&](std::size_t begin, std::size_t end, std::size_t longer) {
      const auto square = [&](std::size_t at) { return (s.sum[at] - m.mean) * (s.sum[at] - m.mean); };
      for (std::size_t at = begin; at < end; ++at) {
        m.m2 += s.dot[at];
        of_all += square(at);
      }
      for (std::size_t at = begin; at < longer; ++at) of_longer += square(at);
    });
    m.m2 += rows * of_all + of_longer;
    return m;
  }

  void normalize(const kernels::Forward<T>& t, const Scratch& s, const Part& p) const {
    if (needs_care(s, kOfValues)) {
      if (p.index > 0) return;
      for (std::size_t c = 0; c < g_.channels; ++c) {
        kernels::careful_normalize(elements(p, c), t, channel(s, c));
      }
      return;
    }
    const kernels::Coefficients<T> k = s.coefficients;
    for_each_block(p, [&](std::size_t at, const Block& block) {
      kernels::Forward<T> moved = t.at(at);
      moved.stream = t.stream && block.columns == block.stride;
      kernel_.normalize_columns(moved, block, k);
    });
  }

  // --- Backward. ---

  /// Σg and Σ g·(x − mean) of every column of a part.
  void dots(const kernels::Backward<T>& t, const Scratch& s, const Part& p) const {
    if (needs_care(s, kOfValues)) return;  // finish_gradients takes all of it
    const kernels::Coefficients<T> k = s.coefficients;
    const Sums found = sums_of_part(s, p);
    const std::size_t width = columns(p).width;
    std::fill_n(found.first, width, 0.0);
    std::fill_n(found.second, width, 0.0);
    const bool from_far = dots_come_from_far(t.activation);
    for_each_block(p, [&](std::size_t at, Block block) {
      kernels::Backward<T> moved = t.at(at);
      moved.stream = false;  // g will be read soon
      block.much = block.much || from_far;
      kernel_.column_dots(moved, block, k, found.first, found.second);
    });
  }

  /// Whether what the dots read is fetched far ahead although the last cache may hold it: of narrow columns whose
  /// samples the second cannot hold (measured: up to 8 % less; of wider rows, smaller samples, elements of two bytes,
  /// and behind silu 2 to 3 % more).
  bool dots_come_from_far(Activation activation) const {
    return std::is_same_v<T, float> && (activation == Activation::none || has_slope_of_sign(activation)) &&
           p_.parts > 1 && p_.columns.width <= kernels::ColumnPlan::kStrip &&
           kernels::is_much<T>(4 * g_.samples * g_.sample_elements());
  }

  void take_dots(const Scratch& of_sample, const Scratch& of_part, const Part& p) const {
    if (p.index == 0 || needs_care(of_sample, kOfValues)) return;
    const std::size_t width = columns(p).width;
    for (std::size_t at = 0; at < width; ++at) {
      of_sample.sum[at] += of_part.first[at];
      of_sample.dot[at] += of_part.second[at];
    }
  }

  /// Adds the sample's dots up to [channels], as of the means in full; those of a careful one are taken here.
  void sum_up(const kernels::Backward<T>& t, const Scratch& s, const Part& p) const {
    const bool careful = needs_care(s, kOfValues);
    const std::size_t width = careful ? g_.channels : columns(p).width;
    for (std::size_t at = g_.channels; at < width; ++at) {
      s.sum[at % g_.channels] += s.sum[at];
      s.dot[at % g_.channels] += s.dot[at];
    }
    for_each_channel([&](std::size_t k, std::size_t c) {
      if (!careful) s.dot[c] -= s.sum[c] * kernels::mean_rest<P>(s.mean[k]);
      if (!careful && std::isfinite(s.sum[c]) && std::isfinite(s.dot[c])) return;  // else they overflowed as floats
      s.sum[c] = s.dot[c] = 0;
      kernels::careful_dots(elements(p, c), t, channel(s, c), s.sum + c, s.dot + c);
    });
  }

  void finish_gradients(const kernels::Backward<T>& t, const Scratch& s, const Part& p) const {
    sum_up(t, s, p);
    const kernels::CoefficientArrays<T>& coefficients = s.coefficients;
    const GradientSums& all = s_[p.task];
    const double inverse_count = 1 / static_cast<double>(g_.group_channels * p.positions);
    for (std::size_t k = 0; k < g_.groups; ++k) {
      const std::size_t begin = k * g_.group_channels, end = begin + g_.group_channels;
      const double inverse = s.inverse[k];
      double sum = 0, dot = 0;
      for (std::size_t c = begin; c < end; ++c) {
        sum += this->gamma(c) * s.sum[c];
        dot += this->gamma(c) * s.dot[c];
        all.dbeta[c] += s.sum[c];
        all.dgamma[c] += s.dot[c] * inverse;
      }
      const double offset64 = sum * inverse_count * inverse,
                   slope64 = dot * inverse_count * inverse * inverse * inverse;
      const auto offset = static_cast<P>(offset64 - kernels::mean_rest<P>(s.mean[k]) * slope64),
                 slope = static_cast<P>(slope64);
      // The group's, kept where the dots of its first channel were.
      s.sum[begin] = offset64;
      s.dot[begin] = slope64;
      if (kernels::needs_care<T>(slope64)) s.care[k] |= kOfSlope;
      std::fill(coefficients.offset + begin, coefficients.offset + end, offset);
      std::fill(coefficients.slope + begin, coefficients.slope + end, slope);
    }
    for (P* array : {coefficients.offset, coefficients.slope}) repeat(p, array);
  }

  void differentiate(const kernels::Backward<T>& t, const Scratch& s, const Part& p) const {
    if (needs_care(s, kOfValues | kOfSlope)) {
      if (p.index > 0) return;
      for_each_channel([&](std::size_t k, std::size_t c) {
        kernels::Channel wide = channel(s, c);
        wide.offset = s.sum[k * g_.group_channels];
        wide.slope = s.dot[k * g_.group_channels];
        kernels::careful_differentiate(elements(p, c), t, wide);
      });
      return;
    }
    const kernels::Coefficients<T> coefficients = s.coefficients;
    for_each_block(p, [&](std::size_t at, const Block& block) {
      kernels::Backward<T> moved = t.at(at);
      moved.stream = t.stream && block.columns == block.stride;
      kernel_.gradient_columns(moved, block, coefficients);
    });
  }

  using Base::cached_;
  using Base::g_;
  using Base::kernel_;
  using Base::p_;
  using Base::s_;
  using Base::workers_;
  const bool much_ = kernels::is_much<T>(g_.samples * g_.sample_elements());
};

}  // namespace equinorm::group_norm
