// Acceptance cases CT-03, CT-04, CT-07, CT-08 (of one fetcher), and CT-10 to CT-12: what a slot believes of
// certificates and of those that it has state from. Real cores (Executor, StateFetcher, StateRelay, StateSource,
// ObjectStore) in the small world of tests/execution/state_fetch_net.hpp, where transfers are long and everything about
// them can be seen.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <limits>
#include <set>

#include "agreement/certificates.hpp"
#include "tests/agreement/heap_meter.hpp"
#include "tests/execution/order.hpp"
#include "tests/execution/state_fetch_net.hpp"
#include "tests/sim/acceptance_parts.hpp"
#include "tests/support/test_cluster.hpp"

namespace zz::sim {

namespace {

using agreement::CertificatePtr;
using agreement::StableCertificate;
using agreement::StatePart;
using agreement::StateParts;
using execution::StateFetcher;
using execution::StateFetcherOutput;
using execution::StateSource;
using execution::state::ObjectId;
using execution::state::ObjectStore;
using execution::state::Status;
using execution::state::testing::in_memory;
using execution::testing::kVices;
using execution::testing::Net;
using execution::testing::Origin;
using execution::testing::Vice;

constexpr Micros kMinutes{600 * kSecond};
constexpr Seq kFirst{128};

// The store has this, and nothing else.
bool is_equal(ObjectStore& store, const execution::state::testing::Model& model) {
  if (store.totals().objects != model.size()) return false;
  return std::all_of(model.begin(), model.end(), [&](const auto& entry) {
    const auto read = store.read(ObjectId{entry.first});
    return read.status == Status::kDone && read.bytes == SharedBytes::copy(entry.second);
  });
}

// How long it takes when all are honest.
std::int64_t fault_free(const Net::Options& options, Origin& origin, const Digest& root) {
  const auto store = in_memory();
  Net net(options, origin, *store);
  const Micros begun = net.now;
  net.begin(kFirst, root);
  return net.run(kMinutes) ? net.now.value - begun.value : std::numeric_limits<std::int64_t>::max() / 8;
}

Bytes bytes_of(const StatePart& part) { return {part.bytes.view().begin(), part.bytes.view().end()}; }
void set(StatePart& part, Bytes bytes) { part.bytes = SharedBytes(std::move(bytes)); }

// Ways to give something else than was asked for. `other`: a valid part of the same state, of another place.
using Lie = void (*)(StateParts& parts, const StatePart& other);
constexpr Lie kLies[] = {
    // A valid chunk of another index, as if it were this one.
    [](StateParts& parts, const StatePart& other) { parts.parts.front().bytes = other.bytes; },
    // This chunk, as if it were of another index.
    [](StateParts& parts, const StatePart&) { parts.parts.front().prefix ^= std::uint64_t{1} << 60; },
    [](StateParts& parts, const StatePart&) {
      parts.parts.front().depth = static_cast<std::uint8_t>(parts.parts.front().depth ^ 1);
    },
    // Another index altogether, whole and valid.
    [](StateParts& parts, const StatePart& other) { parts.parts.front() = other; },
    // Swapped.
    [](StateParts& parts, const StatePart& other) {
      if (parts.parts.size() > 1) {
        std::swap(parts.parts.front().bytes, parts.parts.back().bytes);
      } else {
        parts.parts.front().bytes = other.bytes;
      }
    },
    // An inner node as an object, an object as an inner node.
    [](StateParts& parts, const StatePart&) { parts.parts.front().kind = parts.parts.front().kind == 1 ? 2 : 1; },
    [](StateParts& parts, const StatePart& other) {
      parts.parts.front().bytes = other.bytes;
      parts.parts.front().kind = other.kind;
    },
    [](StateParts& parts, const StatePart&) {
      Bytes bytes = bytes_of(parts.parts.front());
      bytes.resize(bytes.size() + 1);
      set(parts.parts.front(), std::move(bytes));
    },
    [](StateParts& parts, const StatePart&) {
      Bytes bytes = bytes_of(parts.parts.front());
      if (bytes.empty()) bytes.resize(1);
      bytes[bytes.size() / 2] ^= 1;
      set(parts.parts.front(), std::move(bytes));
    },
    [](StateParts& parts, const StatePart&) { set(parts.parts.front(), Bytes(agreement::kStatePartBytesMax, 7)); },
};

// One fetcher whose questions are answered at once. One answer is a lie: after `honest` others, or, without a number,
// the first that begins with an object.
struct OneLie {
  Outcome out;
  std::optional<std::pair<NodeId, SlotId>> liar;

  void run(std::uint64_t seed, std::optional<std::size_t> honest, Lie lie) {
    Origin origin(seed, 300, 600);
    const Digest root = origin.publish(kFirst);
    const auto store = in_memory();
    StateFetcher fetcher({.self = SlotId{0}, .bytes_per_second = 256u << 10}, *store);
    Micros now{kSecond};
    fetcher.tick(now);
    for (std::uint16_t node = 0; node < 4; ++node) fetcher.node_up(NodeId{node});
    store->adopt(root);
    fetcher.begin(kFirst);
    bool complete = false;
    std::optional<StatePart> other;
    for (int turn = 0; turn < 20'000 && !complete; ++turn) {
      now = Micros{now.value + 5 * kMs};
      fetcher.tick(now);
      StateFetcherOutput said = fetcher.take_output();
      complete = said.complete;
      const bool known = liar.has_value();
      for (const auto& [node, wish] : said.ask) {
        if (known && liar == std::pair(node, wish.source)) out.fail("the liar was asked again");
        StateSource source({wish.source}, *origin.store);
        StateParts parts = source.answer(node, wish, origin.snapshots[kFirst]).parts;
        const bool lies = !liar && !parts.parts.empty() && other && other->bytes != parts.parts.front().bytes;
        const bool due = lies && (honest ? (*honest)-- == 0 : parts.parts.front().kind == 2);
        if (!due) {
          if (!parts.parts.empty()) other = parts.parts.back();
          if (fetcher.step(node, parts) != Refusal::kNone) out.fail("the truth was refused");
          continue;
        }
        liar = std::pair(node, wish.source);
        const std::uint64_t before = store->counters().absent;
        lie(parts, *other);
        if (fetcher.step(node, parts) == Refusal::kNone) out.fail("a lie was taken");
        if (parts.parts.size() == 1 && store->counters().absent != before) out.fail("a lie changed the state");
        out.count("acceptance.lie");
      }
    }
    if (!complete) out.fail("not complete");
    if (fetcher.stats().lies != (liar ? 1u : 0u)) out.fail("counted as another number of lies");
    if (!is_equal(*store, origin.model)) out.fail("another state");
  }
};

}  // namespace

TEST(Acceptance, CT03_ChunksOfOtherPlaces) {
  constexpr std::uint64_t kAll = std::size(kLies) * 3;
  const Sweep sweep(kAll, kAll, [](std::uint64_t point) {
    static constexpr std::optional<std::size_t> kHonest[] = {0, 3, std::nullopt};
    OneLie one;
    one.run(point + 1, kHonest[point / std::size(kLies)], kLies[point % std::size(kLies)]);
    if (!one.liar) one.out.fail("nobody lied");
    return one.out;
  });
  sweep.happened({"acceptance.lie"});
}

// ---- certificates ----------------------------------------------------------------------------------------------

namespace {

struct Certificates {
  explicit Certificates(std::uint32_t f) : cluster(f, 1), other(f, 1) { other.file.id.bytes[0] ^= 1; }

  using Signer = std::function<crypto::Signature(std::uint16_t signer, const Bytes& fields)>;
  CertificatePtr make(const agreement::CheckpointState& state, std::size_t signers, const Signer& sign,
                      ServiceId service = execution::testing::kService,
                      std::optional<crypto::ClusterId> of = std::nullopt) const {
    auto out = std::make_shared<StableCertificate>();
    out->service = service;
    out->state = state;
    for (std::uint16_t i = 0; i < signers; ++i) {
      out->parts.push_back(
          {NodeId{i}, sign(i, checkpoint_fields(of.value_or(cluster.file.id), service, NodeId{i}, state))});
    }
    return out;
  }
  [[nodiscard]] Signer nodes() const {
    return [this](std::uint16_t i, const Bytes& fields) { return cluster.node_keys[i].sign(fields); };
  }
  [[nodiscard]] execution::ExecutorConfig config() const {
    execution::ExecutorConfig out = execution::testing::make_config();
    out.f = cluster.file.f;
    out.genuine = [this](const StableCertificate& c) { return agreement::genuine(cluster.file, c); };
    return out;
  }
  static agreement::CheckpointState state_at(std::uint64_t n) {
    agreement::CheckpointState out;
    out.n = Seq{n};
    out.history = Digest{{1}};
    out.root = Digest{{2}};
    return out;
  }

  test::TestCluster cluster;
  test::TestCluster other;  // of the same size, with other keys
};

}  // namespace

TEST(Acceptance, CT04_CertificatesOfTooFewOrOfOthers) {
  const Sweep sweep(2, [](std::uint64_t seed) {
    Outcome out;
    const std::uint32_t f = 1 + seed % 2;
    const Certificates all(f);
    const std::size_t quorum = 2 * f + 1;
    const auto state = Certificates::state_at(16);
    std::vector<std::pair<std::string, CertificatePtr>> bad;
    for (std::size_t signers = 0; signers < quorum; ++signers) {
      bad.emplace_back(std::to_string(signers) + " signatures", all.make(state, signers, all.nodes()));
      if (signers == 0) continue;
      auto twice = std::make_shared<StableCertificate>(*all.make(state, signers, all.nodes()));
      while (twice->parts.size() < quorum) twice->parts.push_back(twice->parts[twice->parts.size() % signers]);
      bad.emplace_back(std::to_string(signers) + " signatures and copies of them", twice);
      auto named = std::make_shared<StableCertificate>(*twice);
      for (std::uint16_t i = 0; i < quorum; ++i) named->parts[i].signer = NodeId{i};
      bad.emplace_back(std::to_string(signers) + " signatures under all names", named);
    }
    const auto keys = [](const std::vector<crypto::SecretKey>& of) {
      return [&of](std::uint16_t i, const Bytes& fields) { return of[i % of.size()].sign(fields); };
    };
    bad.emplace_back("hosts' keys", all.make(state, quorum, keys(all.cluster.host_keys)));
    bad.emplace_back("clients' keys", all.make(state, quorum, keys(all.cluster.client_keys)));
    bad.emplace_back("another cluster's keys", all.make(state, quorum, keys(all.other.node_keys)));
    bad.emplace_back("another service", all.make(state, quorum, all.nodes(), ServiceId{4}));
    bad.emplace_back("another cluster",
                     all.make(state, quorum, all.nodes(), execution::testing::kService, all.other.file.id));
    bad.emplace_back("another number", [&] {
      auto made = std::make_shared<StableCertificate>(*all.make(state, quorum, all.nodes()));
      made->state.n = Seq{48};
      return CertificatePtr(made);
    }());
    bad.emplace_back("another root", [&] {
      auto made = std::make_shared<StableCertificate>(*all.make(state, quorum, all.nodes()));
      made->state.root.bytes[0] ^= 1;
      return CertificatePtr(made);
    }());
    bad.emplace_back("signed for CHECKPOINTs' neighbours", all.make(state, quorum, [&](std::uint16_t i, const Bytes&) {
      agreement::ExecCheckpoint said;
      said.service = execution::testing::kService;
      said.n = state.n;
      said.root = state.root;
      return all.cluster.node_keys[i].sign(exec_checkpoint_fields(all.cluster.file.id, said));
    }));
    for (const auto& [what, certificate] : bad) {
      execution::testing::Slot slot(all.config());
      slot.all_up();
      for (std::uint16_t node = 0; node < all.cluster.file.n(); ++node) {
        if (slot.core.step(NodeId{node}, agreement::Stable{certificate}) == Refusal::kNone) out.fail("taken: " + what);
        slot.drain();
      }
      if (slot.adopted || slot.core.newest()) out.fail("adopted: " + what);
      out.count("acceptance.refused-certificate");
    }
    execution::testing::Slot slot(all.config());
    slot.all_up();
    static_cast<void>(slot.core.step(NodeId{0}, agreement::Stable{all.make(state, quorum, all.nodes())}));
    slot.drain();
    if (!slot.adopted) out.fail("a good one was refused");
    // An older one is nothing any more, whoever brings it.
    const auto old = all.make(Certificates::state_at(8), quorum, all.nodes());
    for (std::uint16_t node = 0; node < all.cluster.file.n(); ++node) {
      if (slot.core.step(NodeId{node}, agreement::Stable{old}) == Refusal::kNone) out.fail("an older one was taken");
      slot.drain();
    }
    if (slot.adopted->state.n != state.n) out.fail("went back");
    return out;
  });
  sweep.happened({"acceptance.refused-certificate"});
}

// ---- sources ---------------------------------------------------------------------------------------------------

// Silent, a byte a second, endless chunks, empty, half, late, wrong: f nodes and g slots, in all combinations.
TEST(Acceptance, CT07_BadSources) {
  const Sweep sweep(120, [](std::uint64_t seed) {
    Outcome out;
    Prng prng(seed);
    const Net::Options options{.f = 1 + static_cast<std::uint32_t>(seed % 2),
                               .g = 1 + static_cast<std::uint32_t>(seed / 2 % 2),
                               .seed = seed,
                               .bytes_per_second = 128u << 10};
    Origin origin(seed, 1'000, 1'000);
    const Digest root = origin.publish(kFirst);
    const std::int64_t honest = fault_free(options, origin, root);
    const auto resident = [] {
      rusage usage{};
      getrusage(RUSAGE_SELF, &usage);
      return usage.ru_maxrss;  // KiB
    };
    const auto store = in_memory();
    const long before = resident();
    Net net(options, origin, *store);
    net.corrupt(prng);
    for (Vice& vice : net.slot_vices) {
      if (seed % 3 == 0 && vice != Vice::kNone) vice = Vice::kBombs;
    }
    const Micros begun = net.now;
    net.begin(kFirst, root);
    if (!net.run(Micros{4 * honest})) out.fail("not complete");
    out.at_most("time_percent", (net.now.value - begun.value) * 100 / honest, 300);
    const auto cap = static_cast<std::int64_t>(2 * origin.store->totals().bytes >> 10);
    out.at_most("memory_kib", resident() - before, cap + 16 * 1'024);
    if (!is_equal(*store, origin.model)) out.fail("another state");
    out.count("acceptance.lies", net.fetcher->stats().lies);
    out.count("acceptance.silent", net.fetcher->stats().silent);
    out.count("acceptance.empty", net.fetcher->stats().empty);
    out.count("acceptance.partial", net.fetcher->stats().partial);
    return out;
  });
  sweep.happened({"acceptance.lies", "acceptance.silent", "acceptance.empty", "acceptance.partial"});
}

// The fetcher dies at twenty points of the transfer, and begins again with the store that it has; now and then a newer
// checkpoint is stable by then.
TEST(Acceptance, CT08_FetcherThatDiesTwentyTimes) {
  const Sweep sweep(200, [](std::uint64_t seed) {
    Outcome out;
    Prng prng(seed);
    Origin origin(seed, 500, 1'000);
    Digest root = origin.publish(kFirst);
    const auto store = in_memory();
    Net net({.seed = seed, .bytes_per_second = 256u << 10}, origin, *store);
    net.corrupt(prng);
    Seq n = kFirst;
    net.begin(n, root);
    for (int i = 0; i < 20; ++i) {
      for (std::uint64_t turns = 1 + prng.below(25); turns > 0; --turns) net.turn();
      if (!net.complete) out.count("acceptance.died-in-between");
      if (prng.below(5) == 0) {
        for (int j = 0; j < 10; ++j) execution::state::testing::change(*origin.store, origin.model, prng);
        n = Seq{n.value + 128};
        root = origin.publish(n);
        origin.drop(Seq{n.value - 256});  // the newest two are kept
        out.count("acceptance.newer-checkpoint");
      }
      net.restart();
      net.begin(n, root);
    }
    if (!net.run(kMinutes)) out.fail("not complete");
    if (!is_equal(*store, origin.model)) out.fail("another state");
    if (execution::state::testing::root_of(*store) != root) out.fail("another root");
    return out;
  });
  sweep.happened({"acceptance.died-in-between", "acceptance.newer-checkpoint"});
}

// Taint: a read that gives anything but what the certified state has there, or a write that builds on it.
TEST(Acceptance, CT10_NothingUnverifiedIsRead) {
  const Sweep sweep(100, [](std::uint64_t seed) {
    Outcome out;
    Prng prng(seed);
    const Net::Options options{.f = 1 + static_cast<std::uint32_t>(seed % 2),
                               .g = 1 + static_cast<std::uint32_t>(seed / 2 % 2),
                               .seed = seed,
                               .bytes_per_second = 64u << 10};
    Origin origin(seed, 800, 900);
    const Digest root = origin.publish(kFirst);
    const auto store = in_memory();
    Net net(options, origin, *store);
    // Liars above all.
    static constexpr Vice kLiars[] = {Vice::kCorrupts, Vice::kSwaps, Vice::kBombs, Vice::kMoody};
    for (std::uint32_t i = 0; i < options.f; ++i) net.node_vices[i] = kLiars[prng.below(std::size(kLiars))];
    for (std::uint32_t i = 1; i <= options.g; ++i) net.slot_vices[i] = kLiars[prng.below(std::size(kLiars))];
    net.begin(kFirst, root);
    std::int64_t tainted = 0;
    execution::state::testing::Model head = origin.model;
    for (int i = 0; i < 3'000 && !net.complete; ++i) {
      const auto it = std::next(origin.model.begin(), static_cast<std::ptrdiff_t>(prng.below(origin.model.size())));
      const ObjectId id{it->first};
      const auto read = net.touch(id);
      if (read.status == Status::kMissing) {
        out.count("acceptance.absent");
      } else if (read.status != Status::kDone || read.bytes != SharedBytes::copy(head[id.value])) {
        ++tainted;
      } else {
        out.count("acceptance.read");
        if (prng.below(8) == 0) {  // execution goes on from what it read
          Bytes changed(read.bytes.view().begin(), read.bytes.view().end());
          changed.resize(changed.size() + 1, 1);
          if (store->write(id, changed).status == Status::kDone) head[id.value] = changed;
        }
      }
      net.turn();
    }
    if (!net.run(kMinutes)) out.fail("not complete");
    if (!is_equal(*store, head)) ++tainted;
    out.at_most("tainted_reads", tainted, 0);
    out.count("acceptance.lies", net.fetcher->stats().lies);
    std::uint64_t refused = 0;
    for (const std::uint64_t count : store->counters().refused.counts) refused += count;
    out.count("acceptance.refused-parts", refused);
    return out;
  });
  sweep.happened({"acceptance.lies", "acceptance.read", "acceptance.absent"});
}

// Nothing is compressed, and how long a part is stands in its verified parent: an answer of thousands of full chunks
// costs what was asked for. A root record may say 2^39 bytes: nothing is allocated for it.
TEST(Acceptance, CT11_Bombs) {
  const Sweep sweep(40, [](std::uint64_t seed) {
    Outcome out;
    Origin origin(seed, 200, 900);
    const Digest root = origin.publish(kFirst);
    const auto store = in_memory();
    StateFetcher fetcher({.self = SlotId{0}, .bytes_per_second = 1u << 20}, *store);
    Micros now{kSecond};
    fetcher.tick(now);
    for (std::uint16_t node = 0; node < 4; ++node) fetcher.node_up(NodeId{node});
    store->adopt(root);
    fetcher.begin(kFirst);
    const SharedBytes chunk(Bytes(agreement::kStatePartBytesMax, 7));
    std::int64_t most = 0;
    Prng prng(seed);
    for (int turn = 0; turn < 60; ++turn) {
      now = Micros{now.value + 20 * kMs};
      fetcher.tick(now);
      const auto said = fetcher.take_output();
      for (const auto& [node, wish] : said.ask) {
        StateSource source({wish.source}, *origin.store);
        StateParts parts = source.answer(node, wish, origin.snapshots[kFirst]).parts;
        if (prng.below(2) == 0) {
          StateParts bomb{wish.ticket, {}};
          for (std::uint64_t i = 0; i < agreement::kStatePartsMax; ++i) {
            bomb.parts.push_back({static_cast<std::uint8_t>(i % 3), i << 4, 16, chunk});
          }
          const std::size_t before = zz::testing::heap_bytes();
          if (fetcher.step(node, bomb) == Refusal::kNone) out.fail("a bomb was taken");
          most = std::max(most, static_cast<std::int64_t>(zz::testing::heap_bytes() - before));
          out.count("acceptance.bomb");
        } else {
          static_cast<void>(fetcher.step(node, parts));
        }
      }
    }
    // 256 MiB were offered each time.
    out.at_most("heap_bytes_for_a_bomb", most, static_cast<std::int64_t>(agreement::kStatePartBytesMax));

    execution::state::Child top;
    top.objects = std::uint64_t{1} << 23;
    top.bytes = std::uint64_t{1} << 39;
    top.place = {0, 0};
    top.digest = Digest{{9}};
    const execution::state::RootImage huge{top};
    const auto claimed = in_memory();
    claimed->adopt(execution::state::root_digest(huge));
    const std::size_t before = zz::testing::heap_bytes();
    static_cast<void>(
        claimed->supply({execution::state::PartKind::kRoot, {}, SharedBytes(execution::state::encode(huge))}));
    out.at_most("heap_bytes_for_a_huge_root", static_cast<std::int64_t>(zz::testing::heap_bytes() - before), 64 << 10);
    return out;
  });
  sweep.happened({"acceptance.bomb"});
}

// The snapshot that a fetcher uses is collected wherever it is.
TEST(Acceptance, CT12_CollectedDuringATransfer) {
  const Sweep sweep(100, [](std::uint64_t seed) {
    Outcome out;
    Prng prng(seed);
    Origin origin(seed, 400, 1'000);
    const auto store = in_memory();
    Net net({.g = 2, .seed = seed, .bytes_per_second = 256u << 10}, origin, *store);
    net.corrupt(prng);
    Seq n = kFirst;
    Digest root = origin.publish(n);
    net.begin(n, root);
    for (std::uint64_t turns = 5 + prng.below(60); turns > 0; --turns) net.turn();
    if (!net.complete) out.count("acceptance.collected-in-between");
    for (int i = 0; i < 10; ++i) execution::state::testing::change(*origin.store, origin.model, prng);
    origin.drop(n);
    n = Seq{n.value + 128};
    root = origin.publish(n);
    std::int64_t restarts = 0;
    for (const std::int64_t end = net.now.value + kMinutes.value; !net.complete && net.now.value < end;) {
      net.turn();
      if (std::exchange(net.stale, 0) == 0) continue;
      ++restarts;
      net.begin(n, root);
    }
    if (!net.complete) out.fail("not complete");
    out.at_most("restarts", restarts, 2);
    if (!is_equal(*store, origin.model) && restarts > 0) out.fail("another state");
    return out;
  });
  sweep.happened({"acceptance.collected-in-between"});
}

}  // namespace zz::sim
