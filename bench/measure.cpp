#include "measure.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/elements.hpp"
#include "core/philox.hpp"
#include "floor.hpp"
#include "kernels/column_plan.hpp"
#include "memory.hpp"
#include "ours.hpp"
#include "parallel/parallel_for.hpp"
#include "peers/onednn.hpp"
#include "plain.hpp"

namespace equinorm::bench {
namespace {

/// Uniform in [−1, 1); after the first 64 Ki the same again, which no kernel can tell and is there sooner.
template <class T>
T* random_tensor(Memory& memory, std::size_t count, std::uint64_t stream) {
  constexpr std::size_t kPeriod = 1 << 16;
  T* data = memory.take<T>(count);
  const Philox random(1, stream);
  for (std::size_t i = 0; i < std::min(count, kPeriod); ++i) {
    data[i] = to_element<T>(static_cast<double>(random.uniform(i)) * 2 - 1);
  }
  for (std::size_t i = kPeriod; i < count; i += kPeriod) {
    std::memcpy(data + i, data, std::min(kPeriod, count - i) * sizeof(T));
  }
  return data;
}

template <class T>
std::function<void()> copy(const T* from, T* to, std::size_t count, int threads) {
  return [=] {
    constexpr std::size_t kPiece = 1 << 16;
    parallel_ranges((count + kPiece - 1) / kPiece, threads, [&](std::size_t begin, std::size_t end) {
      const std::size_t first = begin * kPiece, last = std::min(end * kPiece, count);
      std::memcpy(to + first, from + first, (last - first) * sizeof(T));
    });
  };
}

/// Of contenders of one name the fastest.
std::vector<Timing> fastest_of_each(const std::vector<Timing>& all) {
  std::vector<Timing> result;
  for (const Timing& timing : all) {
    const auto known = std::ranges::find(result, timing.name, &Timing::name);
    if (known == result.end()) {
      result.push_back(timing);
    } else if (timing.median_ms < known->median_ms) {
      *known = timing;
    }
  }
  return result;
}

template <class T>
std::vector<Timing> timings(const Problem& p, double seconds) {
  Memory memory;
  const bool backward = p.pass == Pass::backward;
  std::uint64_t streams = 0;
  const auto tensor = [&](bool wanted) { return wanted ? random_tensor<T>(memory, p.elements(), ++streams) : nullptr; };
  const auto vector = [&](std::size_t count) { return random_tensor<Parameter<T>>(memory, count, ++streams); };
  Tensors<T> t;
  t.x = tensor(true);
  t.y = tensor(true);
  t.residual = tensor(p.add);
  t.dy = tensor(backward);
  t.dx = tensor(backward);
  t.sum = tensor(p.add && p.by_rows());
  t.dresidual = tensor(backward && p.add && !p.by_rows());
  t.gamma = vector(p.c);
  t.beta = p.has_beta() ? vector(p.c) : nullptr;
  t.dgamma = vector(p.c);
  t.dbeta = p.has_beta() ? vector(p.c) : nullptr;
  t.mean = vector(p.statistics());
  t.variance = vector(p.statistics());
  std::fill_n(t.variance, p.statistics(), Parameter<T>{1});

  set_openmp_threads(p.threads);  // what oneDNN goes by
  int threads = p.threads;
  const Passes mine = ours(p, t, memory, &threads);
  const auto peer = onednn(p, t);
  if (peer && backward) peer->train();
  if (p.pass != Pass::infer) mine.train();
  const auto mine_on = [&](int count) {
    return [&, count] {
      threads = count;
      mine[p.pass]();
    };
  };
  std::vector<Contender> contenders{{"copy", copy(t.x, backward ? t.dx : t.y, p.elements(), p.threads)},
                                    {"equinorm", mine_on(p.threads)}};
  if (peer && (*peer)[p.pass]) contenders.push_back({"onednn", (*peer)[p.pass]});
  const bool claimed = kernels::claims<T>(p.elements(), p.elements() * sizeof(T) >= p.least_streamed());
  for (const Fetch fetch : kFetches) {
    if (p.threads > 1) break;
    if (claims(fetch) && !claimed) continue;
    contenders.push_back({"floor", floor(p, t, fetch)});
    if (auto run = plain(p, t, fetch)) contenders.push_back({"plain", std::move(run)});
  }
  // In the same memory: where a workspace lies is worth as much as is measured here. Twice: what the same code differs
  // by from itself says nothing of threads.
  if (p.threads > 1) {
    contenders.push_back({"one_thread", mine_on(1)});
    contenders.push_back({"one_thread_again", mine_on(1)});
  }
  return fastest_of_each(interleaved(contenders, seconds));
}

}  // namespace

const Timing* Measurement::find(std::string_view name) const {
  const auto found = std::ranges::find(timings, name, &Timing::name);
  return found == timings.end() ? nullptr : &*found;
}

void Measurement::add(const Measurement& visit) {
  for (Timing& timing : timings) {
    std::vector<double> rounds = timing.rounds;
    const Timing& more = *visit.find(timing.name);
    rounds.insert(rounds.end(), more.rounds.begin(), more.rounds.end());
    timing = {timing.name, std::move(rounds)};
  }
}

Measurement measure(const Problem& problem, double seconds) {
  return {problem, with_type(problem.type, [&]<class T>(T) { return timings<T>(problem, seconds); })};
}

}  // namespace equinorm::bench
