#pragma once

// SimHost: one physical host: a real Pool core over a simulated hypervisor, and the guest it runs: a real Executor core
// with the sample service on an object store in memory. Host i has slot i. One thread, virtual time.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "execution/executor.hpp"
#include "execution/in_process_adapter.hpp"
#include "execution/kv_service.hpp"
#include "execution/state/object_store.hpp"
#include "execution/state_fetcher.hpp"
#include "execution/state_source.hpp"
#include "tests/sim/kernel.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/plan.hpp"
#include "vmpool/pool.hpp"

namespace zz::sim {

struct HypervisorSpeed {
  std::int64_t least = 5'000;
  std::int64_t most = 40'000;
  std::uint32_t failure_percent = 0;
};

class SimHost final : public Observer {
 public:
  SimHost(Kernel& kernel, Network& network, HostId id, SlotId slot, const crypto::SecretKey& key,
          std::optional<SlotVice> vice, std::uint64_t seed);
  ~SimHost() override;

  void start();
  // The daemon ends, and its guest with it.
  void crash();
  // The guest ends by itself.
  void kill_guest();

  [[nodiscard]] bool alive() const { return pool_ != nullptr; }
  [[nodiscard]] bool on_duty() const { return executor_ != nullptr; }
  [[nodiscard]] bool byzantine() const { return vice_.has_value(); }
  [[nodiscard]] std::optional<SlotVice> vice() const { return vice_; }
  [[nodiscard]] std::uint64_t life() const { return life_; }
  [[nodiscard]] Party party() const { return kernel_.parties.host(id_.value); }
  [[nodiscard]] Party slot_party() const { return kernel_.parties.slot(slot_.value); }
  [[nodiscard]] Incarnation incarnation() const { return guest_ ? guest_->incarnation : Incarnation{}; }
  [[nodiscard]] vmpool::PoolSlot pool_slot() const { return pool_->slots().front(); }
  // Requires on_duty(), as all_here().
  [[nodiscard]] const execution::Executor& executor() const { return *executor_; }
  // Nothing of its state is to be fetched.
  [[nodiscard]] bool all_here() const { return executor_->running() && !fetcher_->active(); }

  void deliver(Party node, const MessagePtr& message);  // to the host daemon
  void deliver_to_slot(Party node, const MessagePtr& message);
  void node_up(Party node);
  void slot_node_up(Party node);
  void slot_node_down(Party node);
  void tick();
  void slot_tick(const Happening& happening);
  void backend_done(const Happening& happening);
  void late_send(const Happening& happening);

  void on_event(const Event& event) override {
    // A liar learns that the others certify another state than its own.
    if (!vice_ || event.kind != EventKind::kConflict) kernel_.observed(party(), event);
  }

  // ---- for scenarios: a slot that the plan calls Byzantine ----

  // From now on until its next guest, which is well again.
  void fall_ill(SlotVice vice) { acts_ = vice; }
  // Sees what leaves the slot, and may change it; false: it does not leave. Of all its guests.
  using Tamper = std::function<bool(NodeId to, agreement::Body& body)>;
  void set_tamper(Tamper tamper) { tamper_ = std::move(tamper); }
  // As the guest signs it. Requires on_duty(), as the next two.
  void sign(agreement::ExecCheckpoint& said) const;
  [[nodiscard]] execution::state::ObjectStore& store() { return *store_; }
  [[nodiscard]] const execution::StateFetcher& fetcher() const { return *fetcher_; }

  HypervisorSpeed speed;

 private:
  void carry_out();
  void call(const vmpool::BackendCall& call);
  void begin_duty();
  void end_guest();
  void slot_turn();
  void run_service();
  void on_reply(const SharedBytes& op, SharedBytes reply);
  void after_executing(bool ran);
  void digest_until(Seq n);
  void carry_out(const execution::ExecutorOutput& out);
  Refusal give_state(NodeId from, const agreement::FetchState& wish);
  bool fetch_state();
  bool carry_out_all();
  void send_digests(const execution::ExecutorOutput::DigestsTo& to);
  void send_checkpoint(const execution::ExecutorOutput::CheckpointTo& checkpoint);
  void send_vote(const execution::ExecutorOutput::VotePtr& vote, std::optional<NodeId> to);
  void send_from_slot(Party node, agreement::Body body);
  void post(Party node, const MessagePtr& message);
  [[nodiscard]] agreement::Vote falsified(const agreement::Vote& vote) const;

  Kernel& kernel_;
  Network& network_;
  HostId id_;
  SlotId slot_;
  const crypto::SecretKey& key_;
  const std::optional<SlotVice> vice_;
  std::optional<SlotVice> acts_;  // what of it shows now
  Tamper tamper_;
  Prng prng_;
  std::unique_ptr<vmpool::Pool> pool_;
  Incarnation used_up_;
  std::uint64_t life_ = 0;
  std::map<std::uint64_t, vmpool::BackendCall> pending_;  // by call id
  std::optional<vmpool::GuestId> guest_;
  std::optional<crypto::SecretKey> guest_key_;  // of the guest that was booted last
  std::unique_ptr<execution::state::ObjectStore> store_;
  std::unique_ptr<execution::Executor> executor_;
  std::unique_ptr<execution::InProcessAdapter> service_;
  std::unique_ptr<execution::StateFetcher> fetcher_;
  std::unique_ptr<execution::StateSource> source_;
  std::uint64_t deceived_ = 0;  // bit per node that gets false votes

  // What the executor has done, for the witness: a digest that chains every operation run and its reply, and begins at
  // each checkpoint anew with the root of the state there, so that one that adopted a state says the same.
  std::uint64_t state_ = 0;
  Seq witnessed_;
  std::vector<std::uint64_t> states_;  // of the batches whose votes are not taken yet
  std::map<Seq, Digest> told_;         // roots at checkpoints that are not stable yet
};

}  // namespace zz::sim
