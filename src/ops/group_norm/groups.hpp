// Group norm over the units of a plan, each normalized while it is still in the caches.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <type_traits>

#include "core/padding.hpp"
#include "kernels/careful.hpp"
#include "ops/group_norm/plan.hpp"
#include "parallel/parallel_for.hpp"
#include "reduce/moments.hpp"

namespace equinorm::group_norm {

template <class T>
class Groups {
 public:
  using P = Parameter<T>;
  using Arrays = kernels::CoefficientArrays<T>;

  /// scratch: one a task.
  Groups(const Plan& plan, const Scratch<T>* scratch, double epsilon, const Affine<T>& affine, Workers workers)
      : p_(plan), g_(plan.g), s_(scratch), epsilon_(epsilon), affine_(affine), workers_(workers) {}

  void forward(kernels::Forward<T> t, const Statistics& out) const {
    t.stream = streams({t.y});
    t.claim = kernels::claims<T>(g_.samples * g_.sample_elements(), t.stream);
    for (double* array : {out.mean, out.variance}) {  // 0 they stay where a sample has no values
      if (array != nullptr && g_.lengths != nullptr) std::fill_n(array, g_.samples * g_.groups, 0.0);
    }
    run(
        !t.stream && t.residual != nullptr, [](const Scratch<T>&, const Unit&) {},
        [&](const Scratch<T>& s, const Unit& u) { moments(t.x, s, u); },
        [&](const Scratch<T>& of_unit, const Scratch<T>& part, const Unit& u) { take_moments(of_unit, part, u); },
        [&](const Scratch<T>& of_unit, const Unit& u) {
          const double inverse_count = 1 / static_cast<double>(g_.group_channels * u.positions);
          for (std::size_t k = u.begin; k < u.end; ++k) {
            const Moments moments = group_moments(of_unit, u, k);
            const double variance = moments.m2 * inverse_count;
            set_statistics(of_unit, k, moments.mean, variance);
            if (out.mean == nullptr) continue;
            out.mean[group_index(u, k)] = moments.mean;
            out.variance[group_index(u, k)] = variance;
          }
          write_forward(of_unit, u);
        },
        [&](const Scratch<T>& of_unit, const Unit& u) { normalize(t, of_unit, u); });
    clear(t.y);
  }

  void backward(kernels::Backward<T> t, const Statistics& statistics, const AffineGradients<T>& gradients) const {
    t.stream = streams({t.dx, t.dresidual}, g_.columns ? kernels::kStreamBytes : kernels::kStreamBytesOfPlaneGradients);
    t.claim = kernels::claims<T>(g_.samples * g_.sample_elements(), t.stream);
    t.gate_first(!t.stream);
    for (std::size_t task = 0; task < p_.tasks; ++task) {
      std::fill_n(s_[task].dgamma, g_.channels, 0.0);
      std::fill_n(s_[task].dbeta, g_.channels, 0.0);
    }
    run(
        !t.stream,
        [&](const Scratch<T>& s, const Unit& u) {
          for (std::size_t k = u.begin; k < u.end; ++k) {
            const std::size_t at = group_index(u, k);
            set_statistics(s, k, statistics.mean[at], statistics.variance[at]);
          }
          write_forward(s, u);
        },
        [&](const Scratch<T>& s, const Unit& u) { dots(t, s, u); },
        [&](const Scratch<T>& of_unit, const Scratch<T>& part, const Unit& u) { take_dots(of_unit, part, u); },
        [&](const Scratch<T>& of_unit, const Unit& u) { finish_gradients(after_dots(t, of_unit, u), of_unit, u); },
        [&](const Scratch<T>& of_unit, const Unit& u) { differentiate(after_dots(t, of_unit, u), of_unit, u); });
    clear(t.dx);
    clear(t.dresidual);
    for (std::size_t c = 0; c < g_.channels; ++c) {
      double gamma = 0, beta = 0;
      for (std::size_t task = 0; task < p_.tasks; ++task) {
        gamma += s_[task].dgamma[c];
        beta += s_[task].dbeta[c];
      }
      if (gradients.gamma != nullptr) gradients.gamma[c] = static_cast<P>(gamma);
      if (gradients.beta != nullptr) gradients.beta[c] = static_cast<P>(beta);
    }
  }

 private:
  static constexpr std::size_t kUnitsOfThread = 4;  ///< so many are dealt fairly enough

  /// Groups begin … end − 1 of those of a sample that are taken at once, and the part of them that is meant. Groups and
  /// channels are counted from the first of these, `base`, as they lie in a scratch.
  struct Unit {
    std::size_t task;  ///< whose sums its gradients are added to
    std::size_t sample, base, begin, end, part;
    std::size_t positions;        ///< that are not padding
    kernels::ColumnPlan columns;  ///< of them
  };

  Unit unit(std::size_t task, std::size_t index, std::size_t part) const {
    const std::size_t sample = index / p_.units_of_sample, of_sample = index % p_.units_of_sample;
    const std::size_t base = of_sample / p_.at_once * p_.at_once * p_.together, begin = of_sample * p_.together;
    const std::size_t end = std::min(begin + p_.together, g_.groups);
    Unit u{task, sample, base, begin - base, end - base, part, g_.positions, p_.columns};
    if (g_.lengths != nullptr) {
      u.positions = g_.lengths[sample];
      u.columns = kernels::ColumnPlan::of<T>(u.positions, g_.channels);
    }
    return u;
  }

  /// Writes 0 to the padding of an output.
  void clear(T* out) const {
    if (g_.lengths == nullptr) return;
    parallel_for(g_.samples, workers_,
                 [&](std::size_t n) { clear_padding(out, g_.layout, g_.channels, g_.positions, n, g_.lengths[n]); });
  }

  /// The units from `begin` on that are taken at once, up to end − 1, as one.
  Unit units_at_once(std::size_t task, std::size_t begin, std::size_t end) const {
    Unit u = unit(task, begin, 0);
    u.end = unit(task, end - 1, 0).end;
    return u;
  }

  /// For each unit: prepare(scratch, unit) for each scratch, reduce(scratch, unit) for its parts, take(scratch of the
  /// unit, of the part, unit) in their order, finish(scratch of the unit, unit) once, then apply(scratch of the unit,
  /// unit) for the parts, the last first, which is in the caches; or in_order: where an output stays in the caches too,
  /// and two inputs are read, that is foreseen by the hardware, and worth more (measured: up to 12 % less). Units that
  /// are taken at once are prepared so: the roots and quotients of one are waited for together with those of the
  /// others.
  template <class Prepare, class Reduce, class Take, class Finish, class Apply>
  void run(bool in_order, const Prepare& prepare, const Reduce& reduce, const Take& take, const Finish& finish,
           const Apply& apply) const {
    const auto run_units = [&](std::size_t task, std::size_t begin, std::size_t end, const Scratch<T>& s) {
      std::size_t prepared = begin;
      for (std::size_t i = begin; i < end; ++i) {
        Unit u = unit(task, i, 0);
        if (u.positions == 0) continue;
        if (i >= prepared) {
          const std::size_t of_sample = i % p_.units_of_sample;
          const std::size_t next = std::min((of_sample / p_.at_once + 1) * p_.at_once, p_.units_of_sample);
          prepared = std::min(end, i - of_sample + next);
          prepare(s, units_at_once(task, i, prepared));
        }
        for (u.part = 0; u.part < p_.parts; ++u.part) {
          reduce(s, u);
          take(s, s, u);
        }
        finish(s, u);
        for (std::size_t part = 0; part < p_.parts; ++part) {
          u.part = in_order ? part : p_.parts - 1 - part;
          apply(s, u);
        }
      }
    };
    // A worker keeps the scratch of the first of its tasks: it stays in the caches (measured: up to 5 % less).
    if (!p_.split) {
      parallel_ranges(p_.tasks, workers_, [&](std::size_t first, std::size_t last) {
        for (std::size_t task = first; task < last; ++task) {
          run_units(task, task * p_.units / p_.tasks, (task + 1) * p_.units / p_.tasks, s_[first]);
        }
      });
      return;
    }
    // Parts are tasks where units are too few to go round.
    const auto threads = static_cast<std::size_t>(std::max(workers_.threads, 1));
    if (p_.units % threads == 0 || p_.units >= kUnitsOfThread * threads) {
      parallel_ranges(p_.units, workers_, [&](std::size_t first, std::size_t last) {
        for (std::size_t i = first; i < last; ++i) run_units(i * p_.parts, i, i + 1, s_[first * p_.parts]);
      });
      return;
    }
    const auto first_task = [&](std::size_t task) { return task / p_.parts * p_.parts; };  // of its unit
    const auto unit_of = [&](std::size_t task) { return unit(first_task(task), task / p_.parts, task % p_.parts); };
    const auto scratch_of_unit = [&](std::size_t task) -> const Scratch<T>& { return s_[first_task(task)]; };
    parallel_for(p_.tasks, workers_, [&](std::size_t task) {
      prepare(s_[task], unit_of(task));
      reduce(s_[task], unit_of(task));
    });
    for (std::size_t task = 0; task < p_.tasks; ++task) {
      take(scratch_of_unit(task), s_[task], unit_of(task));
      if ((task + 1) % p_.parts == 0) finish(scratch_of_unit(task), unit_of(task));
    }
    parallel_for(p_.tasks, workers_, [&](std::size_t task) { apply(scratch_of_unit(task), unit_of(task)); });
  }

  // --- Where a unit lies. ---

  /// The element where channel 0 begins.
  std::size_t base_of(const Unit& u) const { return u.sample * g_.sample_elements() + u.base * g_.group_elements(); }
  /// Group k and channel c among all, of a sample's statistics and of the parameters.
  std::size_t group_index(const Unit& u, std::size_t k) const { return u.sample * g_.groups + u.base + k; }
  std::size_t channel_index(const Unit& u, std::size_t c) const { return u.base * g_.group_channels + c; }

  std::size_t first_channel(const Unit& u) const { return u.begin * g_.group_channels; }
  std::size_t end_channel(const Unit& u) const { return u.end * g_.group_channels; }

  /// Planes: the channels of a part, of every group alike (several groups are never cut).
  std::size_t part_channel(const Unit& u, std::size_t part) const {
    if (p_.parts == 1) return part == 0 ? first_channel(u) : end_channel(u);
    return first_channel(u) + (end_channel(u) - first_channel(u)) * part / p_.parts;
  }

  /// How many channels of a group that lies in one piece are in the unit's part.
  std::size_t group_channels_of_part(const Unit& u) const {
    if (p_.parts == 1) return g_.group_channels;
    return (part_channel(u, u.part + 1) - part_channel(u, u.part)) / (u.end - u.begin);
  }

  /// Columns: calls body(element, block) for the blocks of rows of a part, and for what is left over of the sample.
  template <class Body>
  void for_each_block(const Unit& u, const Body& body) const {
    const kernels::ColumnPlan& c = u.columns;
    const std::size_t begin = first_row(u, u.part), end = first_row(u, u.part + 1);
    if (begin < end) body(base_of(u) + begin * c.width, Block{end - begin, c.width, c.width, much_});
    if (u.part + 1 == p_.parts && c.tail > 0) body(base_of(u) + c.rows * c.width, Block{1, c.width, c.tail});
  }

  /// Columns: where a part begins, as for_each_block cuts them.
  std::size_t first_row(const Unit& u, std::size_t part) const {
    const std::size_t rows = u.columns.rows;
    return part == p_.parts ? rows : rows * part / p_.parts / Plan::kRowsOfPart * Plan::kRowsOfPart;
  }

  PlaneBlock planes(const Unit& u, std::size_t channels) const { return {1, 0, channels, g_.positions, u.positions}; }

  /// Calls body(begin, step, count) for the elements of channel c of the unit's sample.
  kernels::Run run_of_channel(const Unit& u, std::size_t c) const {
    if (g_.columns) return {base_of(u) + c, g_.channels, u.positions};
    return {base_of(u) + c * g_.positions, 1, u.positions};
  }

  bool streams(std::initializer_list<const T*> outs, std::size_t least = kernels::kStreamBytes) const {
    const std::size_t stride = g_.columns ? p_.columns.width : g_.positions;
    return g_.lengths == nullptr && kernels::streams(g_.samples * g_.sample_elements(), outs, stride, least) &&
           g_.sample_elements() * sizeof(T) % 64 == 0;
  }

  struct Range {
    std::size_t begin, end;
  };

  /// Where what a part comes to is put: the first is the unit's so far.
  struct Sums {
    double *first, *second;
  };
  Sums sums_of_part(const Scratch<T>& s, const Unit& u) const {
    return u.part == 0 ? Sums{s.sum, s.dot} : Sums{s.first, s.second};
  }

  // --- Forward. ---

  /// Whether a group lies in one piece, and its moments are taken so; else they are put together from its channels'.
  bool in_one_piece() const { return g_.lengths == nullptr && (!g_.columns || g_.positions == 1); }

  /// The moments of every segment: of groups in one piece, else of columns, or channels of planes.
  void moments(const T* x, const Scratch<T>& s, const Unit& u) const {
    const Sums found = sums_of_part(s, u);
    if (g_.columns && !in_one_piece()) {
      std::size_t rows = 0;
      for_each_block(u, [&](std::size_t at, const Block& block) {
        kernel_.column_moments(x + at, block, rows, found.first, found.second);
        rows += block.rows;
      });
      return;
    }
    const std::size_t first = in_one_piece() ? u.begin : first_channel(u),
                      last = in_one_piece() ? u.end : end_channel(u);
    const std::size_t begin = part_channel(u, u.part), channels = in_one_piece() ? group_channels_of_part(u) : 1;
    const std::size_t length = channels * u.positions, spacing = channels * g_.positions,
                      at = base_of(u) + begin * g_.positions;
    for (std::size_t k = first; k < last; k += kMaxPlaneChannels) {
      const std::size_t count = std::min(kMaxPlaneChannels, last - k);
      for (std::size_t i = 0; i < length; i += Plan::kPieceElements) {
        const std::size_t piece_length = std::min(Plan::kPieceElements, length - i);
        kernel_.plane_moments(x + at + (k - first) * spacing + i, {1, 0, count, spacing, piece_length, cached_}, i,
                              found.first + k, found.second + k);
      }
    }
  }

  /// Merges what `moments` found of a part into the unit's.
  void take_moments(const Scratch<T>& of_unit, const Scratch<T>& part, const Unit& u) const {
    if (u.part == 0) return;
    const auto take = [&](std::size_t begin, std::size_t end, std::size_t before, std::size_t more) {
      merge_moments(end - begin, before, of_unit.sum + begin, of_unit.dot + begin, more, part.first + begin,
                    part.second + begin);
    };
    if (g_.columns) {
      const std::size_t before = first_row(u, u.part), rows = first_row(u, u.part + 1) - before;
      const std::size_t tail = u.part + 1 == p_.parts ? u.columns.tail : 0;
      take(0, tail, before, rows + 1);
      take(tail, u.columns.width, before, rows);
    } else {  // of one group
      const std::size_t before = part_channel(u, u.part) - first_channel(u);
      take(u.begin, u.end, before * g_.positions, group_channels_of_part(u) * g_.positions);
    }
  }

  /// The moments of group k, all parts taken.
  Moments group_moments(const Scratch<T>& s, const Unit& u, std::size_t k) const {
    if (in_one_piece()) return {static_cast<double>(g_.group_channels * g_.positions), s.sum[k], s.dot[k]};
    const std::size_t width = g_.columns ? u.columns.width : g_.channels, tail = g_.columns ? u.columns.tail : 0;
    const auto rows = static_cast<double>(g_.columns ? u.columns.rows : u.positions);
    const auto for_each_segment = [&](const auto& body) {
      const auto run = [&](std::size_t begin, std::size_t end, double count) {
        for (std::size_t at = begin; at < end && count > 0; ++at) body(count, s.sum[at], s.dot[at]);
      };
      for (std::size_t fold = 0; fold < width; fold += g_.channels) {
        const std::size_t begin = fold + k * g_.group_channels, end = begin + g_.group_channels;
        const std::size_t longer = std::clamp(tail, begin, end);  // columns before this one are a row longer
        run(begin, longer, rows + 1);
        run(longer, end, rows);
      }
    };
    Moments m{static_cast<double>(g_.group_channels * u.positions), 0, 0};
    for_each_segment([&](double count, double mean, double) { m.mean += count * mean; });
    m.mean /= m.count;
    for_each_segment([&](double count, double mean, double m2) {
      const double difference = mean - m.mean;
      m.m2 += m2 + count * (difference * difference);
    });
    return m;
  }

  void set_statistics(const Scratch<T>& s, std::size_t k, double mean, double variance) const {
    s.mean[k] = mean;
    s.inverse[k] = 1 / std::sqrt(variance + epsilon_);
    s.care[k] = kernels::needs_care<T>(mean, variance) ? kOfValues : 0;
  }

  double gamma(const Unit& u, std::size_t c) const {
    return affine_.gamma == nullptr ? 1.0 : static_cast<double>(affine_.gamma[channel_index(u, c)]);
  }
  double beta(const Unit& u, std::size_t c) const {
    return affine_.beta == nullptr ? 0.0 : static_cast<double>(affine_.beta[channel_index(u, c)]);
  }

  kernels::Channel channel(const Scratch<T>& s, const Unit& u, std::size_t c) const {
    const std::size_t k = c / g_.group_channels;
    return {s.mean[k], gamma(u, c) * s.inverse[k], beta(u, c)};
  }

  /// What a group may need care of: floats are too narrow for its values, or for the slope of its gradient.
  static constexpr unsigned char kOfValues = 1, kOfSlope = 2;

  bool needs_care(const Scratch<T>& s, const Unit& u, unsigned char what = kOfValues) const {
    unsigned char any = 0;
    for (std::size_t k = u.begin; k < u.end; ++k) any |= s.care[k];
    return (any & what) != 0;
  }

  /// Columns: copies what stands for the first row of a fold to the others.
  void repeat(const Unit& u, P* array) const {
    for (std::size_t at = g_.channels; g_.columns && at < u.columns.width; at += g_.channels) {
      std::copy_n(array, g_.channels, array + at);
    }
  }

  void write_forward(const Scratch<T>& s, const Unit& u) const {
    for (std::size_t k = u.begin; k < u.end; ++k) {
      const double inverse = s.inverse[k], rest = kernels::mean_rest<P>(s.mean[k]);
      const auto mean = static_cast<P>(s.mean[k]), unit = static_cast<P>(kernels::unit_of(inverse, s.mean[k]));
      for (std::size_t c = k * g_.group_channels; c < (k + 1) * g_.group_channels; ++c) {
        const double scale = gamma(u, c) * inverse;
        s.coefficients.mean[c] = mean;
        s.coefficients.scale[c] = static_cast<P>(scale);
        s.coefficients.shift[c] = static_cast<P>(beta(u, c) - rest * scale);
        s.coefficients.unit[c] = unit;
      }
    }
    for (P* array : {s.coefficients.mean, s.coefficients.scale, s.coefficients.shift, s.coefficients.unit})
      repeat(u, array);
  }

  void normalize(const kernels::Forward<T>& t, const Scratch<T>& of_unit, const Unit& u) const {
    const kernels::Coefficients<T> k = of_unit.coefficients;
    if (needs_care(of_unit, u)) {
      if (u.part > 0) return;
      for (std::size_t c = first_channel(u); c < end_channel(u); ++c) {
        kernels::careful_normalize(run_of_channel(u, c), t, channel(of_unit, u, c));
      }
    } else if (g_.columns) {
      for_each_block(u, [&](std::size_t at, const Block& block) {
        kernels::Forward<T> moved = t.at(at);
        moved.stream = t.stream && block.columns == u.columns.width;
        kernel_.normalize_columns(moved, block, k);
      });
    } else {
      const std::size_t begin = part_channel(u, u.part), end = part_channel(u, u.part + 1);
      kernels::Forward<T> moved = t.at(base_of(u) + begin * g_.positions);
      moved.ahead = t.stream ? (end - begin) * g_.positions : 0;
      kernel_.normalize_planes(moved, planes(u, end - begin), k.at(begin));
    }
  }

  // --- Backward. ---

  /// Σg and Σ g·(x − mean) of every column or channel of a part.
  void dots(const kernels::Backward<T>& t, const Scratch<T>& s, const Unit& u) const {
    const kernels::Coefficients<T> k = s.coefficients;
    if (needs_care(s, u)) return;  // finish_gradients takes all of it
    const auto [begin, end] = segments_of_dots(u);
    const Sums found = sums_of_part(s, u);
    std::fill(found.first + begin, found.first + end, 0.0);
    std::fill(found.second + begin, found.second + end, 0.0);
    if (g_.columns) {
      const bool from_far = dots_come_from_far(t.activation);
      for_each_block(u, [&](std::size_t at, Block block) {
        kernels::Backward<T> moved = t.at(at);
        moved.stream = false;  // g will be read soon
        block.much = block.much || from_far;
        kernel_.column_dots(moved, block, k, found.first, found.second);
      });
      return;
    }
    for (std::size_t c = begin; c < end; c += kMaxPlaneChannels) {
      const std::size_t count = std::min(kMaxPlaneChannels, end - c);
      kernel_.plane_dots(t.at(base_of(u) + c * g_.positions), planes(u, count), k.at(c), found.first + c,
                         found.second + c);
    }
  }

  /// Whether what the dots of columns read is fetched far ahead although the last cache may hold it: of narrow columns
  /// whose samples the second cannot hold (measured: up to 8 % less; of wider rows, smaller samples, elements of two
  /// bytes, and behind silu 2 to 3 % more).
  bool dots_come_from_far(Activation activation) const {
    return std::is_same_v<T, float> && (activation == Activation::none || has_slope_of_sign(activation)) &&
           p_.parts > 1 && p_.columns.width <= kernels::ColumnPlan::kStrip &&
           kernels::is_much<T>(4 * g_.samples * g_.sample_elements());
  }

  /// What is left to do of a unit behind its dots, which leave a careful one alone.
  kernels::Backward<T> after_dots(const kernels::Backward<T>& t, const Scratch<T>& s, const Unit& u) const {
    return needs_care(s, u) ? t : t.after_sums(true);
  }

  void take_dots(const Scratch<T>& of_unit, const Scratch<T>& part, const Unit& u) const {
    if (u.part == 0 || needs_care(of_unit, u)) return;
    const auto [begin, end] = segments_of_dots(u);
    for (std::size_t at = begin; at < end; ++at) {  // parts of planes are of different channels
      of_unit.sum[at] = (g_.columns ? of_unit.sum[at] : 0) + part.first[at];
      of_unit.dot[at] = (g_.columns ? of_unit.dot[at] : 0) + part.second[at];
    }
  }

  /// All columns, or the channels of a part.
  Range segments_of_dots(const Unit& u) const {
    if (g_.columns) return {0, u.columns.width};
    return {part_channel(u, u.part), part_channel(u, u.part + 1)};
  }

  /// Adds the unit's dots up to [channels], as of the means in full; those of a careful unit are taken here.
  void sum_up(const kernels::Backward<T>& t, const Scratch<T>& s, const Unit& u) const {
    const auto sum_carefully = [&](std::size_t c) {
      s.sum[c] = s.dot[c] = 0;
      kernels::careful_dots(run_of_channel(u, c), t, channel(s, u, c), s.sum + c, s.dot + c);
    };
    if (needs_care(s, u)) {
      for (std::size_t c = first_channel(u); c < end_channel(u); ++c) sum_carefully(c);
      return;
    }
    for (std::size_t at = g_.channels; g_.columns && at < u.columns.width; ++at) {
      s.sum[at % g_.channels] += s.sum[at];
      s.dot[at % g_.channels] += s.dot[at];
    }
    for (std::size_t k = u.begin; k < u.end; ++k) {
      const double rest = kernels::mean_rest<P>(s.mean[k]);
      for (std::size_t c = k * g_.group_channels; c < (k + 1) * g_.group_channels; ++c) {
        s.dot[c] -= s.sum[c] * rest;
        if (!std::isfinite(s.sum[c]) || !std::isfinite(s.dot[c])) sum_carefully(c);  // overflowed as floats
      }
    }
  }

  void finish_gradients(const kernels::Backward<T>& t, const Scratch<T>& s, const Unit& u) const {
    sum_up(t, s, u);
    const Scratch<T>& sums = s_[u.task];
    const double inverse_count = 1 / static_cast<double>(g_.group_channels * u.positions);
    for (std::size_t k = u.begin; k < u.end; ++k) {
      const double inverse = s.inverse[k];
      double sum = 0, dot = 0;
      for (std::size_t c = k * g_.group_channels; c < (k + 1) * g_.group_channels; ++c) {
        sum += gamma(u, c) * s.sum[c];
        dot += gamma(u, c) * s.dot[c];
        sums.dbeta[channel_index(u, c)] += s.sum[c];
        sums.dgamma[channel_index(u, c)] += s.dot[c] * inverse;
      }
      const double offset64 = sum * inverse_count * inverse,
                   slope64 = dot * inverse_count * inverse * inverse * inverse;
      const auto offset = static_cast<P>(offset64 - kernels::mean_rest<P>(s.mean[k]) * slope64),
                 slope = static_cast<P>(slope64);
      // The group's, kept where the dots of its first channel were.
      s.sum[k * g_.group_channels] = offset64;
      s.dot[k * g_.group_channels] = slope64;
      if (kernels::needs_care<T>(slope64)) s.care[k] |= kOfSlope;
      for (std::size_t c = k * g_.group_channels; c < (k + 1) * g_.group_channels; ++c) {
        s.coefficients.offset[c] = offset;
        s.coefficients.slope[c] = slope;
      }
    }
    for (P* array : {s.coefficients.offset, s.coefficients.slope}) repeat(u, array);
  }
  double offset_of(const Scratch<T>& s, std::size_t k) const { return s.sum[k * g_.group_channels]; }
  double slope_of(const Scratch<T>& s, std::size_t k) const { return s.dot[k * g_.group_channels]; }

  void differentiate(const kernels::Backward<T>& t, const Scratch<T>& of_unit, const Unit& u) const {
    const kernels::Coefficients<T> coefficients = of_unit.coefficients;
    if (needs_care(of_unit, u, kOfValues | kOfSlope)) {
      if (u.part > 0) return;
      for (std::size_t c = first_channel(u); c < end_channel(u); ++c) {
        const std::size_t k = c / g_.group_channels;
        kernels::Channel wide = channel(of_unit, u, c);
        wide.offset = offset_of(of_unit, k);
        wide.slope = slope_of(of_unit, k);
        kernels::careful_differentiate(run_of_channel(u, c), t, wide);
      }
    } else if (g_.columns) {
      for_each_block(u, [&](std::size_t at, const Block& block) {
        kernels::Backward<T> moved = t.at(at);
        moved.stream = t.stream && block.columns == u.columns.width;
        kernel_.gradient_columns(moved, block, coefficients);
      });
    } else {
      const std::size_t begin = part_channel(u, u.part), end = part_channel(u, u.part + 1);
      kernels::Backward<T> moved = t.at(base_of(u) + begin * g_.positions);
      moved.ahead = (end - begin) * g_.positions;
      kernel_.gradient_planes(moved, planes(u, end - begin), coefficients.at(begin));
    }
  }

  const Plan& p_;
  const Geometry& g_;
  const Scratch<T>* s_;
  double epsilon_;
  const Affine<T>& affine_;
  Workers workers_;
  const bool much_ = kernels::is_much<T>(g_.samples * g_.sample_elements());
  const bool cached_ = kernels::is_cached<T>(g_.samples * g_.sample_elements());
  const kernels::Kernels<T>& kernel_ = kernels::get<T>();
};

}  // namespace equinorm::group_norm
