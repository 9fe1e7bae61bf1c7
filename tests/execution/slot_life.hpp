#pragma once

// What tests of a slot's store share.

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "execution/slot_store.hpp"
#include "tests/execution/state/store_test_model.hpp"

namespace zz::execution::testing {

// Nobody here looks at what it says but for n.
inline agreement::CertificatePtr certificate_of(Seq n) {
  agreement::StableCertificate out;
  out.state.n = n;
  return std::make_shared<const agreement::StableCertificate>(out);
}

// The store of one life, which begins with tick() as an agent does.
struct Life {
  explicit Life(const std::filesystem::path& path, std::uint64_t memory_bytes = state::StoreOptions{}.memory_bytes) {
    SlotStore::Options options;
    options.store.path = path.string();
    options.store.memory_bytes = memory_bytes;
    options.source.nodes = 4;
    SlotStore::Callbacks callbacks;
    callbacks.send = [this](NodeId, agreement::Body body) { sent.push_back(std::move(body)); };
    callbacks.digested = [](Seq, const Digest&) {};
    callbacks.supplied = [] {};
    callbacks.whole = [this] { ++whole; };
    callbacks.stale = [] {};
    callbacks.failed = [this](const std::string& why) { failed = why; };
    auto opened = SlotStore::open(loop, options, std::move(callbacks));
    if (!opened) {
      failed = opened.error();
      return;
    }
    store = std::move(*opened);
    store->tick(Micros{1});
  }
  bool until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done() && std::chrono::steady_clock::now() < deadline) loop.run_for(std::chrono::milliseconds(5));
    return done();
  }
  state::Snapshot digested() {
    state::Snapshot snapshot = *store->objects().snapshot();
    static_cast<void>(state::testing::digest_of(store->objects(), snapshot));
    return snapshot;
  }

  boost::asio::io_context loop;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard{loop.get_executor()};
  std::vector<agreement::Body> sent;
  int whole = 0;
  std::string failed;  // why it was not opened, or cannot go on
  std::unique_ptr<SlotStore> store;
};

}  // namespace zz::execution::testing
