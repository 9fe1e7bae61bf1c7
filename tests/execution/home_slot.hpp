#pragma once

// A slot's store and an adapter whose service's state is in it, driven call by call.

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "execution/service_home.hpp"
#include "tests/execution/driven_adapter.hpp"
#include "tests/execution/state/store_test_model.hpp"

namespace zz::execution::testing {

// A slot's store, and an adapter whose service lives in it. What is absent comes from `source`, after `delay`.
struct Slot {
  explicit Slot(HttpAdapterConfig config) {
    config.store = {store.get(), &head, {}, [this](const std::vector<state::Want>& wants) {
                      asked += wants.size();
                      wanted.insert(wanted.end(), wants.begin(), wants.end());
                      due = std::chrono::steady_clock::now() + delay;
                    }};
    driven.emplace(std::move(config));
  }
  std::string start() { return driven->start(); }
  std::string get(const std::string& target) { return call(operation(http::verb::get, target)); }
  std::string call(const SharedBytes& op) {
    std::optional<SharedBytes> reply;
    ++driven->calls;
    driven->adapter->execute(
        {Seq{driven->calls}, Micros{static_cast<std::int64_t>(driven->calls) * 1'000'000}, Digest{}, ClientId{0}, op},
        [&](SharedBytes body) { reply = std::move(body); });
    until([&] { return reply.has_value(); });
    return reply ? std::string(reply->text()) : std::string("no answer");
  }
  void until(const std::function<bool()>& done) {
    driven->until([&] {
      supply();
      return done();
    });
  }
  void supply() {
    if (wanted.empty() || std::chrono::steady_clock::now() < due || source == nullptr) return;
    for (const state::Want& want : std::exchange(wanted, {})) {
      const std::optional<state::Part> part = source->store->part(of, want);
      const std::lock_guard lock(head);
      if (part) static_cast<void>(store->supply(*part));
    }
    driven->adapter->supplied();
  }
  // The state of `from` as it is now, of which nothing is here.
  std::string adopt(Slot& from) {
    source = &from;
    of = from.take();
    {
      const std::lock_guard lock(head);
      store->adopt(*state::ObjectStore::root(of));
    }
    return replaced();
  }
  // A checkpoint is due.
  bool save() {
    bool is_saved = false;
    driven->adapter->save(Micros{static_cast<std::int64_t>(driven->calls) * 1'000'000}, [&] { is_saved = true; });
    until([&] { return is_saved || !driven->died.empty(); });
    return is_saved;
  }
  std::string replaced() {
    std::optional<std::string> outcome;
    driven->adapter->replaced([&](const Result<void>& result) { outcome = result.ok() ? "" : result.error(); });
    until([&] { return outcome.has_value(); });
    return outcome.value_or("no answer");
  }
  state::Snapshot take() {
    const std::lock_guard lock(head);
    state::Snapshot snapshot = state::testing::take(*store);
    static_cast<void>(state::testing::digest_of(*store, snapshot));
    return snapshot;
  }
  Digest root() {
    const state::Snapshot snapshot = take();
    return *state::ObjectStore::root(snapshot);
  }
  // What the state has under the name in the root directory.
  std::optional<statefs::Attributes> find(const std::string& name, statefs::Inode in = statefs::kRootInode) {
    const std::lock_guard lock(head);
    statefs::FileSystem files(*store);
    const auto found = files.lookup(in, name);
    return found.ok() ? std::optional(found.attributes) : std::nullopt;
  }

  std::unique_ptr<state::ObjectStore> store = state::testing::in_memory();
  std::mutex head;
  Slot* source = nullptr;
  state::Snapshot of;
  std::size_t asked = 0;
  std::vector<state::Want> wanted;
  std::chrono::milliseconds delay{0};
  std::chrono::steady_clock::time_point due{};
  std::optional<Driven> driven;
};

#define SKIP_WITHOUT_FUSE(slot) \
  if (!(slot).driven->warned.empty()) GTEST_SKIP() << (slot).driven->warned

inline const std::string kNoAnswer =
    std::string(as_text(http_error_reply(502, "the service did not answer this request")));
inline const std::string kNotInTime =
    std::string(as_text(http_error_reply(504, "the service did not answer this request in time")));

inline std::vector<SharedBytes> webdav_script() {
  std::vector<SharedBytes> script{operation(http::verb::mkcol, "/d/")};
  for (int i = 0; i < 30; ++i) {
    const std::string name = "/d/f" + std::to_string(i * 7 % 11);
    script.push_back(operation(http::verb::put, name, std::string(static_cast<std::size_t>(i * 1'500), 'v')));
    if (i % 4 == 0) script.push_back(operation(http::verb::delete_, name));
    if (i % 5 == 0)
      script.push_back(operation(http::verb::move, name, "", {{"Destination", "http://example.org/d/moved"}}));
    script.push_back(operation(http::verb::get, name));
  }
  return script;
}

}  // namespace zz::execution::testing
