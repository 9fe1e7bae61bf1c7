// Replicas that wake and sleep again and again, with real processes: nothing may pile up. ZZ_RUNS: how many cycles.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>

#include "apps/caller.hpp"
#include "apps/paced_load.hpp"
#include "apps/recovery_watch.hpp"
#include "tests/faults/fault_cluster.hpp"
#include "tests/faults/footprint.hpp"

namespace zz::test {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto kLimit = 60s;             // of whatever is waited for
constexpr std::uint32_t kKeys = 20'000;  // of 100 bytes: some 5 MB in all
constexpr std::uint32_t kRate = 20;      // requests a second: nodes keep whatever was ordered (docs/decisions/0003)
// Not the slot that is made faulty, nor one that sleeps: its replica lives from the first cycle to the last.
constexpr std::uint32_t kSteadySlot = 1;
constexpr const char* kSteady = "the replica that stays";

// What is there when g+1 slots serve and the others sleep.
struct Sample {
  std::map<std::string, Footprint> processes;  // that live from the first cycle to the last
  std::map<std::string, DiskUse> disk;         // of nodes, slots, logs and sockets
  std::uint64_t ordered = 0;
  std::uint64_t steady_incarnation = 0;
  std::size_t all_processes = 0;  // that name the cluster's directory
  std::size_t lives = 0;          // directories of guests
};

// A cluster under a light load on a state that keeps its size.
class Sleepers {
 public:
  explicit Sleepers(FaultCluster& cluster) : cluster_(cluster) {
    auto caller = apps::load_caller(cluster.dir(), std::nullopt, cluster.cluster().services.front().name);
    auto watch = apps::RecoveryWatch::open(loop_, cluster.run(), cluster.dir());
    if (!caller || !watch) {
      ADD_FAILURE() << (caller ? watch.error() : caller.error());
      return;
    }
    watch_ = std::move(*watch);
    caller_.emplace(std::move(*caller));
    auto client = client::Client::open(loop_.context(), caller_->cluster, caller_->key);
    if (!client) {
      ADD_FAILURE() << client.error();
      return;
    }
    client_ = std::move(*client);
    load_ = std::make_unique<apps::PacedLoad>(loop_.context(), *client_, caller_->service.id,
                                              apps::PacedLoad::Options{kKeys, kRate, 64});
  }

  void begin() {
    ASSERT_TRUE(load_);
    await([this] { return client_->connected_nodes() == caller_->cluster.n(); }, "a connected client");
    load_->fill();
    await([this] { return load_->idle(); }, "the end of filling");
    load_->start();
  }
  void end() {
    load_->stop();
    await([this] { return load_->idle(); }, "the last reply");
    EXPECT_EQ(load_->errors(), 0U) << load_->first_error();
  }

  // The fault wakes the sleeper, which takes the faulty slot's place; that one's next life sleeps then.
  void cycle(const std::string& fault) {
    await_health();
    if (HasFatalFailure()) return;
    apps::SlotStatus victim;
    apps::SlotStatus sleeper;
    const apps::ClusterStatus before = watch_->status();
    for (const apps::SlotStatus& slot : before.slots) {
      if (slot.active && slot.slot != kSteadySlot) victim = slot;
      if (!slot.active) sleeper = slot;
    }
    const auto injected = watch_->inject(victim.slot, fault);
    ASSERT_TRUE(injected) << injected.error();
    const auto turned = [&] {
      const apps::SlotStatus* woken = watch_->status().find(sleeper.slot);
      const apps::SlotStatus* again = watch_->status().find(victim.slot);
      return woken != nullptr && woken->active && again != nullptr && again->incarnation > victim.incarnation &&
             watch_->is_healthy();
    };
    await(turned, fault + " and its healing");
    if (HasFatalFailure()) return;
    EXPECT_EQ(watch_->status().find(sleeper.slot)->incarnation, sleeper.incarnation) << "it was made anew, not woken";
  }

  // Once health has lasted, so that what was to end has ended.
  Sample sample() {
    await_health();
    loop_.run_until(apps::BenchLoop::Clock::now() + 3s, [] { return false; });
    await_health();
    Sample out;
    for (const auto& process : cluster_.run().pids()) out.processes[process.name] = footprint_of(process.pid);
    const json steady = watch_->host_slot(kSteadySlot);
    if (steady.is_object() && !steady["pids"].empty()) {
      out.steady_incarnation = steady["incarnation"];
      out.processes[kSteady] = footprint_of(steady["pids"].front());
    }
    for (const char* part : {"data", "work"}) {
      for (const auto& entry : std::filesystem::directory_iterator(cluster_.dir() + "/" + part)) {
        const std::string name = entry.path().filename().string();
        // "s0-slot1" is the slot's; "s0-slot1-7" is of one life, and goes with it.
        const bool is_life = name.starts_with('s') && std::ranges::count(name, '-') > 1;
        out.lives += is_life ? 1 : 0;
        if (!is_life) out.disk[name] = disk_use_of(entry.path());
      }
    }
    for (const char* part : {"run", "log"}) out.disk[part] = disk_use_of(cluster_.dir() + "/" + part);
    out.ordered = watch_->status().ordered;
    out.all_processes = processes_naming(cluster_.dir()).size();
    return out;
  }

 private:
  static bool HasFatalFailure() { return testing::Test::HasFatalFailure(); }
  void await(const std::function<bool()>& done, const std::string& what) {
    const auto came = watch_->await(done, kLimit, what);
    ASSERT_TRUE(came) << came.error();
  }
  void await_health() {
    const auto healthy = watch_->await_health();
    ASSERT_TRUE(healthy) << healthy.error();
  }

  FaultCluster& cluster_;
  apps::BenchLoop loop_;
  std::unique_ptr<apps::RecoveryWatch> watch_;
  std::optional<apps::Caller> caller_;
  std::unique_ptr<client::Client> client_;
  std::unique_ptr<apps::PacedLoad> load_;
};

json in_words(const Footprint& it) {
  return {{"rss_kib", it.resident_kib},
          {"fds", it.descriptors},
          {"files", it.files},
          {"threads", it.threads},
          {"children", it.children}};
}
json in_words(const Sample& sample) {
  json out = {{"ordered", sample.ordered},
              {"all_processes", sample.all_processes},
              {"steady_incarnation", sample.steady_incarnation},
              {"lives", sample.lives}};
  for (const auto& [name, footprint] : sample.processes) out["processes"][name] = in_words(footprint);
  for (const auto& [name, use] : sample.disk) out["disk"][name] = {{"kib", use.kib}, {"files", use.files}};
  return out;
}

// What may be more, and why:
//  - memory: an allocator keeps some MB of what a burst took (a view change, a state that was given away);
//  - with the order: nodes keep all of it, in memory and on disk, 1.7 KiB and 1.0 KiB a batch of one request with its
//    votes and certificates, and an executor the bodies of replies and a write buffer of its disk (64 and 32 MiB at
//    most);
//  - files of RocksDB: it makes and joins them as it likes, some MB each, and lays a write-ahead log of 35 MiB out in
//    advance, before it is done with the last one;
//  - logs: what happened to each life is written down, by seven processes.
constexpr std::uint64_t kMemoryKib = 10'240;
constexpr std::uint64_t kBytesPerBatch = 2'560;
constexpr std::uint64_t kFilesOpen = 4;
constexpr std::uint64_t kSlotDiskKib = 65'536;
constexpr std::uint64_t kSlotFiles = 30;
constexpr std::uint64_t kNodeDiskKib = 8'192;
constexpr std::uint64_t kLogKibPerLife = 40;

void expect_no_more(const Sample& before, const Sample& after, std::size_t cycles) {
  EXPECT_EQ(after.all_processes, before.all_processes);
  EXPECT_EQ(after.lives, before.lives);
  const std::uint64_t order_kib = (after.ordered - before.ordered) * kBytesPerBatch / 1'024;
  for (const auto& [name, was] : before.processes) {
    const auto found = after.processes.find(name);
    ASSERT_NE(found, after.processes.end()) << name;
    const Footprint& is = found->second;
    EXPECT_GT(was.resident_kib, 0U) << name;
    // It may have been replaced like any other, where the machine is slow: then it has no past.
    if (name == kSteady && before.steady_incarnation != after.steady_incarnation) continue;
    const bool keeps_order = name.starts_with("node-") || name == kSteady;
    EXPECT_LE(is.resident_kib, was.resident_kib + kMemoryKib + (keeps_order ? order_kib : 0)) << name;
    EXPECT_EQ(is.threads, was.threads) << name;
    EXPECT_EQ(is.children, was.children) << name;
    EXPECT_LE(is.descriptors, was.descriptors + 2) << name;
    EXPECT_LE(is.files, was.files + kFilesOpen) << name;
  }
  for (const auto& [name, was] : before.disk) {
    const auto found = after.disk.find(name);
    ASSERT_NE(found, after.disk.end()) << name;
    const DiskUse& is = found->second;
    if (name == "log") {
      EXPECT_LE(is.kib, was.kib + cycles * kLogKibPerLife);
      EXPECT_EQ(is.files, was.files);
    } else if (name == "run") {
      EXPECT_EQ(is.kib, was.kib);
      EXPECT_EQ(is.files, was.files);
    } else if (name.starts_with("node-")) {
      EXPECT_LE(is.kib, was.kib + kNodeDiskKib + order_kib) << name;
    } else {
      EXPECT_LE(is.kib, was.kib + kSlotDiskKib) << name;
      EXPECT_LE(is.files, was.files + kSlotFiles) << name;
    }
  }
  EXPECT_EQ(after.disk.size(), before.disk.size());
}

TEST(SleepAndWake, LeavesMemoryDescriptorsAndDiskWhereTheyWere) {
  const std::size_t cycles = runs(20);
  const std::size_t settled = std::max<std::size_t>(cycles / 10, 5);  // what is there then is compared with the end
  ASSERT_LT(settled, cycles);
  FaultClusterOptions options;
  options.configure = [](crypto::ClusterFile& cluster) {
    cluster.allow_faults = true;
    cluster.timing.quarantine_ms = 0;
  };
  FaultCluster cluster(options);
  ASSERT_TRUE(cluster.serves());
  Sleepers sleepers(cluster);
  ASSERT_NO_FATAL_FAILURE(sleepers.begin());
  constexpr std::array kFaults = {"wrong-reply", "silent", "crash"};
  Sample before;
  for (std::size_t i = 1; i <= cycles; ++i) {
    ASSERT_NO_FATAL_FAILURE(sleepers.cycle(kFaults[i % kFaults.size()])) << "cycle " << i;
    if (i == settled) before = sleepers.sample();
    if (i % 20 == 0 && i < cycles) {
      report({{"test", "cycles"}, {"cycle", i}, {"sample", in_words(i == settled ? before : sleepers.sample())}});
    }
    ASSERT_FALSE(HasFatalFailure());
  }
  const Sample after = sleepers.sample();
  sleepers.end();
  expect_no_more(before, after, cycles - settled);
  report({{"test", "cycles"},
          {"cycle", cycles},
          {"passed", !HasFailure()},
          {"before", in_words(before)},
          {"sample", in_words(after)}});
}

}  // namespace
}  // namespace zz::test
