// A process that persists one state after another until it is killed, or until it may write no more.
//
//   state_writer DIR SEED            prints a line per persisted state: its number
//   state_writer DIR SEED limited    after the first state no file may grow above 1 MiB; prints "full" when the store
//                                    named the error and still holds everything
//
// State number r of a seed is what advance() makes of state r - 1; the label is r. The test does the same.

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/execution/state/state_writer.hpp"

namespace zz::execution::state::testing {
namespace {

int run(int argc, char** argv) {
  if (argc < 3) return 2;
  StoreOptions options;
  options.path = argv[1];
  options.memory_bytes = 100'000;
  const bool limited = argc > 3;
  auto opened = ObjectStore::open(options);
  if (!opened) return 3;
  ObjectStore& store = *opened->store;
  Model model;
  std::uint64_t round = 0;
  const std::uint64_t seed = std::strtoull(argv[2], nullptr, 10);
  if (!opened->label.empty()) {
    const std::uint64_t last = round_of(opened->label);
    while (round < last) advance(model, seed, ++round, nullptr);
  }
  opened->persisted.reset();
  for (;;) {
    advance(model, seed, ++round, &store);
    const Snapshot snapshot = take(store);
    static_cast<void>(digest_of(store, snapshot));
    if (!store.begin_persist(snapshot, label_of(round))) return 4;
    for (;;) {
      const Result<Progress> progress = store.persist_some(20'000);
      if (!progress) {
        if (!limited || store.disk_error().empty() || progress.error() != store.disk_error()) return 5;
        if (store.begin_persist(snapshot, {})) return 6;
        for (const auto& [id, bytes] : model) {
          const ReadOutcome read = store.read(ObjectId{id});
          if (read.status == Status::kDone && read.bytes != SharedBytes::copy(bytes)) return 7;
        }
        std::puts("full");
        return 0;
      }
      if (*progress == Progress::kDone) break;
      if (*progress == Progress::kMissing) return 8;
    }
    std::printf("%llu\n", static_cast<unsigned long long>(round));
    std::fflush(stdout);
    if (limited && round == 1) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{1 << 20, 1 << 20};
      if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
    }
  }
}

}  // namespace
}  // namespace zz::execution::state::testing

int main(int argc, char** argv) { return zz::execution::state::testing::run(argc, argv); }
