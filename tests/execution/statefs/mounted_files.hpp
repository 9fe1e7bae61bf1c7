#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "execution/statefs/fuse_mount.hpp"
#include "tests/execution/statefs/random_history.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution::statefs::testing {

// A state, mounted.
struct Mounted {
  explicit Mounted(std::unique_ptr<Files> of = std::make_unique<Files>()) : files(std::move(of)) {
    set_time(1'700'000'000'000'000);
    Result<std::unique_ptr<FuseMount>> out =
        FuseMount::mount(files->fs, head, {.path = dir.path.string()}, [this](const std::vector<Want>& wants) {
          const std::lock_guard lock(wanted_mutex);
          wanted.insert(wanted.end(), wants.begin(), wants.end());
          changed.notify_all();
        });
    if (out) {
      mount = std::move(*out);
      if (files->source != nullptr) supplier = std::thread([this] { supply(); });
    } else {
      error = out.error();
    }
  }
  ~Mounted() {
    mount.reset();
    if (!supplier.joinable()) return;
    {
      const std::lock_guard lock(wanted_mutex);
      is_ending = true;
    }
    changed.notify_all();
    supplier.join();
  }
  void set_time(std::int64_t micros) {
    const std::lock_guard lock(head);
    files->fs.set_time(Micros{micros});
  }
  Digest root() {
    const std::lock_guard lock(head);
    return root_of(*files->store);
  }
  // As from another replica, later, on a thread of its own.
  void supply() {
    std::unique_lock lock(wanted_mutex);
    for (;;) {
      changed.wait(lock, [&] { return is_ending || !wanted.empty(); });
      if (is_ending) return;
      const std::vector<Want> wants = std::exchange(wanted, {});
      lock.unlock();
      for (const Want& want : wants) {
        const std::optional<state::Part> part = files->source->store->part(files->of, want);
        const std::lock_guard guard(head);
        if (part) static_cast<void>(files->store->supply(*part));
      }
      mount->supplied();
      lock.lock();
    }
  }
  [[nodiscard]] std::string at(const std::string& name) const { return (dir.path / name).string(); }

  execution::testing::TempDir dir;
  std::unique_ptr<Files> files;
  std::mutex head;
  std::mutex wanted_mutex;
  std::condition_variable changed;
  std::vector<Want> wanted;
  bool is_ending = false;
  std::thread supplier;
  std::string error;
  std::unique_ptr<FuseMount> mount;
};

#define SKIP_WITHOUT_FUSE(mounted) \
  if (!(mounted).mount) GTEST_SKIP() << "no FUSE here: " << (mounted).error

}  // namespace zz::execution::statefs::testing
