#pragma once

// Helpers for tests of the executor: an order made by hand, and a driver that runs a service on an Executor.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agreement/messages.hpp"
#include "base/observer.hpp"
#include "execution/executor.hpp"
#include "execution/in_process_adapter.hpp"
#include "execution/kv_service.hpp"
#include "tests/support/memory_store.hpp"

namespace zz::execution::testing {

inline constexpr ServiceId kService{3};

struct Op {
  std::uint64_t session = 0;
  std::uint64_t number = 0;
  std::string text;
  std::uint32_t client = 7;
};

inline agreement::RequestPtr make_request(const Op& op) {
  auto request = std::make_shared<agreement::Request>();
  request->client = ClientId{op.client};
  request->session = SessionId{op.session};
  request->number = RequestNumber{op.number};
  request->op = SharedBytes::copy(op.text);
  request->digest =
      agreement::request_digest(kService, request->client, request->session, request->number, 0, request->op.view());
  return request;
}

inline agreement::Batch make_batch(std::uint64_t n, const std::vector<Op>& ops,
                                   std::vector<agreement::SystemOp> system = {}) {
  auto header = std::make_shared<agreement::BatchHeader>();
  header->service = kService;
  header->n = Seq{n};
  header->time = Micros{1'000'000 + static_cast<std::int64_t>(n)};
  header->system = std::move(system);
  agreement::Batch batch;
  for (const Op& op : ops) {
    batch.requests.push_back(make_request(op));
    header->references.push_back(agreement::reference_of(*batch.requests.back()));
  }
  batch.digest = agreement::batch_digest(*header);
  batch.header = std::move(header);
  return batch;
}

inline agreement::Join join(std::uint16_t slot, std::uint64_t incarnation) {
  agreement::Join out;
  out.service = kService;
  out.slot = SlotId{slot};
  out.incarnation = Incarnation{incarnation};
  out.key.bytes = {static_cast<std::uint8_t>(slot + 1), static_cast<std::uint8_t>(incarnation)};
  return out;
}

// EPOCH with two suspects per evicted slot, as f = 1 would carry, which say that the new active ones agree.
inline agreement::EpochChange epoch_change(std::uint64_t epoch, const std::vector<std::uint16_t>& active,
                                           const std::vector<std::pair<std::uint16_t, std::uint64_t>>& evicted) {
  agreement::EpochChange out;
  out.epoch = Epoch{epoch};
  for (const std::uint16_t slot : active) out.active.push_back(SlotId{slot});
  for (const auto& [slot, incarnation] : evicted) {
    out.evicted.push_back(SlotId{slot});
    for (std::uint16_t signer = 0; signer < 2; ++signer) {
      agreement::Suspect suspect;
      suspect.service = kService;
      suspect.signer = NodeId{signer};
      suspect.epoch = Epoch{epoch - 1};
      suspect.slot = SlotId{slot};
      suspect.incarnation = Incarnation{incarnation};
      suspect.agreeing = out.active;
      out.proof.push_back(suspect);
    }
  }
  return out;
}

inline ExecutorConfig make_config(std::uint16_t slot = 0) {
  ExecutorConfig config;
  config.service = kService;
  config.slot = SlotId{slot};
  config.incarnation = Incarnation{1};
  config.expired_reply = SharedBytes::copy("expired");
  config.checkpoints = {1u << 30, 1u << 30, std::uint64_t{1} << 60};  // none, but in tests of them
  return config;
}

// An executor with a key-value service; keeps everything that came out.
class Slot {
 public:
  // `its_store`: of an earlier life.
  explicit Slot(const ExecutorConfig& config = make_config(), std::unique_ptr<state::ObjectStore> its_store = nullptr)
      : store(its_store ? std::move(its_store) : test::memory_store()),
        core(config, *store, observer),
        service(std::make_unique<KvService>(), *store, {}, [this](const std::vector<state::Want>& wants) {
          missing.insert(missing.end(), wants.begin(), wants.end());
        }) {}

  void all_up() {
    for (std::uint16_t i = 0; i < 4; ++i) core.node_up(NodeId{i});
    drain();
  }
  Refusal order(std::uint16_t from, const agreement::Batch& batch) {
    return core.step(NodeId{from}, agreement::Orders{batch.header->n, {batch.digest}});
  }
  // f+1 words and the bodies from the bearer.
  void deliver(const agreement::Batch& batch) {
    order(0, batch);
    order(1, batch);
    core.step(*core.bearer(), batch);
  }
  // Runs what can be run; returns how many invocations that took. One that lacks state stays with the service.
  int run() {
    int count = 0;
    do {
      while (auto invocation = core.next_invocation()) {
        ran.push_back(invocation->op.copy(invocation->op.view()));
        last = *invocation;
        service.execute(*invocation, [this](SharedBytes reply) { core.complete(std::move(reply)); });
        ++count;
      }
      drain();
    } while (digest());
    return count;
  }
  // What a driver does beside. True: there was something to do.
  bool digest() {
    bool did = false;
    while (const auto due = core.to_digest()) {
      core.checkpointed(due->n, test::digest_of(*store, due->snapshot));
      did = true;
    }
    if (!did) return false;
    test::reclaim(*store);
    drain();
    return true;
  }
  void drain() {
    ExecutorOutput out = core.take_output();
    if (!out.ended.empty()) ended = out.ended;
    if (out.adopted) {
      adopted = out.adopted;
      service.replaced([](const Result<void>&) {});
      missing.clear();
    }
    missing.insert(missing.end(), out.wants.begin(), out.wants.end());
    for (auto& checkpoint : out.checkpoints) checkpoints.push_back(checkpoint);
    if (out.stable) stable = out.stable;
    for (auto& vote : out.votes) votes.push_back(*vote);
    for (auto& again : out.votes_again) votes_again.push_back(again);
    for (auto& to : out.replies) replies.push_back(to);
    for (auto& at : out.subscribe) subscribes.push_back(at);
  }
  [[nodiscard]] std::vector<std::string> ran_texts() const {
    std::vector<std::string> out;
    for (const SharedBytes& op : ran) out.emplace_back(op.text());
    return out;
  }

  NullObserver observer;
  std::unique_ptr<state::ObjectStore> store;
  std::vector<state::Want> missing;  // not fetched yet
  Executor core;
  InProcessAdapter service;
  std::vector<SharedBytes> ran;
  Invocation last;
  std::vector<agreement::Vote> votes;
  std::vector<ExecutorOutput::VoteAgain> votes_again;
  std::vector<ExecutorOutput::RepliesTo> replies;
  std::vector<ExecutorOutput::SubscribeAt> subscribes;
  std::vector<ExecutorOutput::CheckpointTo> checkpoints;
  std::optional<ExecutorOutput::Stable> stable;  // the last one
  agreement::CertificatePtr adopted;             // likewise
  std::string ended;
};

inline Digest digest_of(std::string_view reply) { return agreement::reply_digest(as_bytes(reply)); }

}  // namespace zz::execution::testing
